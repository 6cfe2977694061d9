"""Effects over pairs as signed ratios of sums, with intervals; and the gap they are divided by.

The pair is the unit. An effect of a site is 100 * sum(D) / sum(gap): what the site moves, in percent of what there is
to move. Means of ratios and of absolute values are something else (heavy tails, no sign) and are not computed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from moeprobe.errors import InterchangeError
from moeprobe.findings.causes import ALPHA, MIN_PAIRS
from moeprobe.judging.signflip import flip_signs, step_down_p

Floats = NDArray[np.float64]
# A mean gap below this is rounding, in the unit of the metric.
_NO_GAP = 1e-6


@dataclass(frozen=True)
class Ratios:
    """Ratios of several effects to one gap.

    Attributes:
        percent: (columns,) 100 * sum of effects / sum of gaps.
        low, high: (columns,) ends of the 95 % interval.
    """

    percent: Floats
    low: Floats
    high: Floats


def resamples(pairs: int, draws: int, seed: int) -> Floats:
    """Bootstrap weights (draws, pairs): how often each pair is drawn, divided by the number of pairs."""
    generator = np.random.default_rng(seed)
    weights: Floats = generator.multinomial(pairs, np.full(pairs, 1 / pairs), size=draws) / pairs
    return weights


def tail(pairs: int) -> float:
    """Share of resamples cut off at either end of a 95 % interval.

    The plain percentile interval (2.5 %) is too narrow for few pairs. Hesterberg (2015, The American Statistician 69,
    371-386) widens it by sqrt(n / (n - 1)) and by t instead of normal quantiles: 0.57 % at 8 pairs, 2.1 % at 60. It
    was chosen by simulated coverage over the percentile, BCa and studentised intervals (docs/causes.md).
    """
    return float(norm.cdf(t.ppf(0.025, pairs - 1) * np.sqrt(pairs / (pairs - 1))))


def ratios(values: Floats, gap: Floats, weights: Floats) -> Ratios:
    """Signed ratios of sums in percent, with bootstrap intervals over pairs.

    A resample without a positive gap has no ratio; it counts against both ends (`check_gap` bounds how many there are,
    so that the ends are finite).

    Args:
        values: (pairs, columns) effects, in the unit of the gap.
        gap: (pairs,) with a positive mean; see `oriented`.
        weights: (draws, pairs) from `resamples`, shared by all columns so that their intervals are comparable.
    """
    bottom = weights @ gap
    usable = (bottom > 0)[:, None]
    ratio = 100 * (weights @ values) / np.where(usable, bottom[:, None], 1.0)
    cut = tail(len(gap))
    low = np.quantile(np.where(usable, ratio, -np.inf), cut, axis=0, method="lower")
    high = np.quantile(np.where(usable, ratio, np.inf), 1 - cut, axis=0, method="higher")
    return Ratios(100 * values.sum(axis=0) / gap.sum(), low, high)


def ratio(values: Floats, gap: Floats, weights: Floats) -> dict[str, Any]:
    """One of `ratios` as an object of docs/findings.md: percent, ci, mean (in the unit of the metric).

    Args:
        values, gap: (pairs,).
        weights: (draws, pairs).
    """
    found = ratios(values[:, None], gap, weights)
    return {
        "percent": float(found.percent[0]),
        "ci": [float(found.low[0]), float(found.high[0])],
        "mean": float(values.mean()),
    }


def check_gap(gap: Floats, weights: Floats, *, signed: bool = False) -> dict[str, Any]:
    """The mean gap with its 95 % interval, in the unit of the metric.

    Args:
        gap: (pairs,) m(sensitive) - m(control).
        weights: (draws, pairs) from `resamples`.
        signed: whether the metric may also be lower on the sensitive side (a logit difference, a probe's score).

    Returns:
        mean, ci, p (sign-flip p of the gap itself, two-sided where `signed`), direction (1 or -1; see `oriented`).

    Raises:
        InterchangeError: the gap is zero in every pair, or its sign is not clear. Percentages of such a gap are noise,
            and can be huge. With the labels of the pairs shuffled at most 5 % of the runs come past this check: with
            enough pairs for a verdict it holds the sign-flip p below 5 %, which is exact there.
    """
    pairs = len(gap)
    if pairs < 2:
        raise InterchangeError(f"Interchange needs at least 2 pairs for an interval; there are {pairs}.")
    if not np.isfinite(gap).all():
        raise InterchangeError("The gap between the sides is NaN or infinite in some pair.")
    if not gap.any():
        raise InterchangeError(
            "The metric is exactly the same on both sides of every pair, so there is nothing to move and no ratio. "
            "Check that the sides differ, and that the metric sees it."
        )
    direction = -1.0 if signed and gap.mean() < 0 else 1.0
    means = weights @ gap
    cut = tail(pairs)
    ci = [float(np.quantile(means, cut)), float(np.quantile(means, 1 - cut))]
    p = float(step_down_p(gap[:, None], flip_signs(pairs, 0), two_sided=signed)[0])
    # No later than the ends of the ratios' intervals, or these could be infinite.
    lowest = float(np.quantile(direction * means, min(cut, 0.01), method="lower"))
    if lowest <= _NO_GAP or (pairs >= MIN_PAIRS and p >= ALPHA):
        asked = "differ" if signed else "have a higher value on the sensitive side"
        raise InterchangeError(
            f"The metric does not clearly {asked} (mean gap {gap.mean():.3g} [{ci[0]:.3g}, {ci[1]:.3g}], sign-flip "
            f"p {p:.2g}, {pairs} pairs), so there is nothing to move. Check which side is sensitive, or add pairs."
        )
    return {"mean": float(gap.mean()), "ci": ci, "p": p, "direction": int(direction)}


def oriented(values: Floats, gap: Floats) -> Floats:
    """Effects (pairs,) or (pairs, columns) turned so that positive is in the direction of the mean gap."""
    return values if gap.mean() >= 0 else -values
