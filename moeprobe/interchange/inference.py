"""From per-pair effects to percentages with intervals, and to a verdict by a stated rule."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import InterchangeError
from moeprobe.findings import CAUSAL_EFFECTS, EFFECTS, MIN_PAIRS, passes
from moeprobe.interchange.experiment import Effects, SiteEffects
from moeprobe.sites import Site

Floats = NDArray[np.float64]
# Of 2^n sign patterns, all are tried up to this n; beyond it as many are drawn at random.
_EXACT_PAIRS = 13
_FLIPS = 10_000


def check_gap(effects: Effects, weights: Floats) -> dict[str, Any]:
    """The mean gap with its 95 % interval, in nats.

    Raises:
        InterchangeError: sensitive and control runs do not clearly differ (the 1st percentile of the bootstrapped mean
            gap is not above 0). Percentages of such a gap are noise, and can be huge.
    """
    means = weights @ effects.gap
    low, high = np.percentile(means, [2.5, 97.5])
    if float(np.percentile(means, 1)) <= 1e-6:
        raise InterchangeError(
            f"The control continuation is not clearly less likely after the sensitive prompts than after the control "
            f"prompts (mean gap {effects.gap.mean():.3g} nats [{low:.3g}, {high:.3g}]), so there is nothing to move. "
            "Check which side is sensitive, or add pairs."
        )
    return {"mean": float(effects.gap.mean()), "ci": [float(low), float(high)]}


def resamples(pairs: int, draws: int, seed: int) -> Floats:
    """Bootstrap weights (draws, pairs): how often each pair is drawn, divided by the number of pairs."""
    generator = np.random.default_rng(seed)
    weights: Floats = generator.multinomial(pairs, np.full(pairs, 1 / pairs), size=draws) / pairs
    return weights


def ratio_of_means(values: Floats, gap: Floats, weights: Floats) -> dict[str, Any]:
    """Signed ratio of means in percent, with a percentile bootstrap interval over pairs.

    A resample without a positive gap has no ratio; it counts against both ends (at most 1 % of them, see `check_gap`).

    Args:
        values, gap: (pairs,) in nats.
        weights: from `resamples`, shared by all sites so that their intervals are comparable.
    """
    top, bottom = weights @ values, weights @ gap
    usable = bottom > 0
    ratio = 100 * top / np.where(usable, bottom, 1.0)
    low = np.quantile(np.where(usable, ratio, -np.inf), 0.025, method="lower")
    high = np.quantile(np.where(usable, ratio, np.inf), 0.975, method="higher")
    return {
        "percent": percent(values, gap),
        "ci": [float(low), float(high)],
        "mean": float(values.mean()),
        "per_pair": [float(value) for value in values],
    }


def sign_flip_p(values: Floats, seed: int) -> Floats:
    """One-sided family-wise p of each column's mean being above 0, by flipping signs of whole pairs.

    Under the null each pair's values are symmetric about 0 (or below), so flipping a pair's sign changes nothing. The
    statistic is sum(d) / sqrt(n sum(d^2)), an increasing function of the t statistic; its maximum over the columns
    gives the family-wise p (Westfall & Young 1993). All 2^n patterns up to 13 pairs, 10,000 random ones beyond.

    Args:
        values: (pairs, columns).
        seed: of the random patterns.

    Returns:
        (columns,) p values, never below 1 / number of patterns.
    """
    pairs = len(values)
    if pairs <= _EXACT_PAIRS:
        signs = 1.0 - 2.0 * ((np.arange(2**pairs)[:, None] >> np.arange(pairs)) & 1)
    else:
        generator = np.random.default_rng(seed)
        drawn = generator.choice([-1.0, 1.0], size=(_FLIPS, pairs))
        signs = np.vstack([np.ones(pairs), drawn])
    scale = np.sqrt(pairs * (values**2).sum(axis=0))
    standard = values / np.where(scale > 0, scale, 1.0)
    observed = standard.sum(axis=0)
    largest = (signs @ standard).max(axis=1)
    # A hair of slack: the identity pattern must count itself whatever the order of summation.
    result: Floats = (largest[:, None] >= observed[None, :] - 1e-12).mean(axis=0)
    return result


def summarise(
    effects: Effects,
    nulls: Mapping[Site, list[Site]],
    weights: Floats,
    *,
    seed: int,
    minimum_effect: float,
) -> dict[Site, dict[str, Any]]:
    """`rows[].interchange` of docs/findings.md for every tested site.

    Args:
        effects: from `measure`; must hold every tested site and every null site.
        nulls: for each tested site, the randomly chosen other experts of its layer.
        weights: bootstrap weights from `resamples`.
        seed: of the sign flips.
        minimum_effect: percent of the gap that an effect must exceed to count.
    """
    sites = list(nulls)
    gap = effects.gap
    columns = [(site, name) for site in sites for name in CAUSAL_EFFECTS]
    # What exceeds the minimum effect, pair by pair: D - tau * gap.
    beyond = np.column_stack(
        [getattr(effects.sites[site], name) - minimum_effect / 100 * gap for site, name in columns]
    )
    p = dict(zip(columns, sign_flip_p(beyond, seed), strict=True))
    result = {}
    for site in sites:
        own, others = effects.sites[site], nulls[site]
        summary: dict[str, Any] = {"pairs": len(gap), "enough_pairs": len(gap) >= MIN_PAIRS}
        summary.update({name: ratio_of_means(getattr(own, name), gap, weights) for name in EFFECTS})
        for name in CAUSAL_EFFECTS:
            summary[name]["p"] = float(p[site, name])
        null: dict[str, Any] = {"sites": [str(other) for other in others]}
        for name in EFFECTS:
            null[name] = [percent(getattr(effects.sites[other], name), gap) for other in others]
        null["active"] = sum(not exactly_zero(effects.sites[other]) for other in others)
        summary["null"] = null
        summary["exactly_zero"] = exactly_zero(own)
        summary["necessary"] = passes(summary, "necessity", minimum_effect)
        summary["sufficient"] = passes(summary, "sufficiency", minimum_effect)
        result[site] = summary
    return result


def percent(values: Floats, gap: Floats) -> float:
    """Signed ratio of means times 100."""
    return float(100 * values.mean() / gap.mean())


def exactly_zero(effects: SiteEffects) -> bool:
    """Whether no swap and no knock-out changed the metric of any pair by a single bit."""
    return not any(getattr(effects, name).any() for name in EFFECTS)
