"""Does a set of sites do what its members do one by one? Reported, never tested with."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import InterchangeError
from moeprobe.judging.ratio import oriented, ratios, tail

Floats = NDArray[np.float64]


def additivity(together: Floats, singles: Floats, gap: Floats, weights: Floats) -> dict[str, Any]:
    """The effect of a set of sites against the sum of the effects of its members.

    Args:
        together: (pairs,) effect of all sites swapped at once.
        singles: (pairs, sites) effects of each alone.
        gap: (pairs,) with a clear sign (`check_gap`).
        weights: (draws, pairs) from `resamples`.

    Returns:
        set, sum, missing (sum minus set), each `{percent, ci}` in percent of the gap; redundancy (1 - set / sum) as
        `{value, ci}`, or null where the sum is not clearly above 0 and the ratio would be noise; and in words:
        "redundant" (the interval of `missing` lies above 0: members do the same work twice), "more than its members"
        (below 0: each alone is made up for by the others), or "not told apart from additive".

    Raises:
        InterchangeError: fewer than 2 sites, or shapes that do not fit.
    """
    if together.shape != gap.shape or singles.ndim != 2 or len(singles) != len(gap) or singles.shape[1] < 2:
        raise InterchangeError(
            f"A set {together.shape} and its members {singles.shape} do not fit {len(gap)} pairs; a set has 2 or more."
        )
    total = singles.sum(axis=1)
    columns = oriented(np.column_stack([together, total, total - together]), gap)
    found = ratios(columns, oriented(gap, gap), weights)
    ends = [[float(low), float(high)] for low, high in zip(found.low, found.high, strict=True)]
    names = ("set", "sum", "missing")
    parts = {name: {"percent": float(found.percent[i]), "ci": ends[i]} for i, name in enumerate(names)}
    low, high = ends[2]
    words = "redundant" if low > 0 else "more than its members" if high < 0 else "not told apart from additive"
    return {**parts, "redundancy": _redundancy(columns, weights), "words": words}


def _redundancy(columns: Floats, weights: Floats) -> dict[str, Any] | None:
    drawn, cut = weights @ columns, tail(len(columns))
    if np.quantile(drawn[:, 1], min(cut, 0.01), method="lower") <= 0:
        return None
    # The few resamples without a positive sum have no ratio; they lie beyond both ends.
    usable = drawn[:, 1] > 0
    share = drawn[:, 2] / np.where(usable, drawn[:, 1], 1.0)
    low = np.quantile(np.where(usable, share, -np.inf), cut, method="lower")
    high = np.quantile(np.where(usable, share, np.inf), 1 - cut, method="higher")
    own = columns.sum(axis=0)
    return {"value": float(own[2] / own[1]), "ci": [float(low), float(high)]}
