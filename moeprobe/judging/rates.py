"""How a share of texts changed between two arms of the same pairs: difference, interval, exact test."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from moeprobe.errors import InterchangeError
from moeprobe.judging.ratio import ratios, resamples

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """The change from one arm to another, over pairs in which both were judged.

    Attributes:
        pairs: such pairs; `left_out`: the others, where the judge abstained.
        before, after: in how many of them the behaviour appeared.
        points: change of the share in percentage points, with the sign that was asked for.
        points_ci: 95 %, Bonett & Price (2012), Journal of Educational and Behavioral Statistics 37, 479-488; unlike a
            bootstrap it has a width where all pairs moved alike.
        percent: points as a percentage of the gap, a ratio of sums over pairs; None: no gap was given, or it is not
            positive.
        percent_ci: 95 %, bootstrap over pairs as in `ratio.ratios`; None likewise, or where too many draws have no gap.
            It has no width where all pairs moved alike: see points_ci then.
        p: exact McNemar test, two-sided.
        per_pair: (all pairs,) signed change of each: -1, 0 or 1; NaN where it was left out.
    """

    pairs: int
    left_out: int
    before: int
    after: int
    points: float
    points_ci: tuple[float, float]
    percent: float | None
    percent_ci: tuple[float, float] | None
    p: float
    per_pair: Floats

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; null where a pair was left out."""
        per_pair = [None if np.isnan(one) else int(one) for one in self.per_pair]
        return {**vars(self), "per_pair": per_pair}


def change(before: Floats, after: Floats, *, sign: int, gap: Floats | None, draws: int, seed: int) -> Change:
    """Compare two arms.

    Args:
        before, after: (pairs,) 1, 0, or NaN.
        sign: 1: a rise is positive; -1: a fall is.
        gap: (pairs,) what there is to move, in the same unit (1, 0, -1, NaN), or None.
        draws, seed: of the bootstrap.

    Raises:
        InterchangeError: arrays of different lengths, or no pair judged in both.
    """
    if not before.shape == after.shape == (before if gap is None else gap).shape:
        raise InterchangeError(f"Arms of {len(before)} and {len(after)} pairs cannot be compared pair by pair.")
    moved = sign * (after - before)
    judged = ~np.isnan(moved)
    count = int(judged.sum())
    if not count:
        raise InterchangeError("No pair was judged in both arms; the probe abstained everywhere.")
    rose, fell = int((moved[judged] > 0).sum()), int((moved[judged] < 0).sum())
    percent, interval = (None, None) if gap is None else _of_gap(moved, gap, draws, seed)
    return Change(
        pairs=count,
        left_out=len(moved) - count,
        before=int(before[judged].sum()),
        after=int(after[judged].sum()),
        points=100 * (rose - fell) / count,
        points_ci=_paired_interval(rose, fell, count),
        percent=percent,
        percent_ci=interval,
        p=float(binomtest(rose, rose + fell).pvalue) if rose + fell else 1.0,
        per_pair=moved,
    )


def _paired_interval(rose: int, fell: int, pairs: int) -> tuple[float, float]:
    """Bonett & Price: one is added to either kind of change, two to the pairs."""
    up, down = (rose + 1) / (pairs + 2), (fell + 1) / (pairs + 2)
    half = float(norm.ppf(0.975)) * ((up + down - (up - down) ** 2) / (pairs + 2)) ** 0.5
    return max(-100.0, 100 * (up - down - half)), min(100.0, 100 * (up - down + half))


def _of_gap(moved: Floats, gap: Floats, draws: int, seed: int) -> tuple[float | None, tuple[float, float] | None]:
    """Ratio of sums in percent with its interval, over the pairs that have both."""
    both = ~np.isnan(moved) & ~np.isnan(gap)
    moved, gap = moved[both], gap[both]
    if len(gap) < 2 or gap.sum() <= 0:
        return None, None
    found = ratios(moved[:, None], gap, resamples(len(gap), draws, seed))
    interval = float(found.low[0]), float(found.high[0])
    return float(found.percent[0]), interval if np.isfinite(interval).all() else None
