"""The test of every expert: filter without looking at the groups, moderated t, correction over all experts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.counts import Counts
from moeprobe.correlate.design import Design
from moeprobe.stats import ModeratedT, adjust, asin_sqrt, moderated_t, sampling_floor

Array = NDArray[np.float64]

# Below this many units (generations or prompts) in a group no p-value is given, below WARN_UNITS a note warns.
MIN_UNITS = 5
WARN_UNITS = 15
# The usual rule for counts: below five expected in a group, no approximation holds.
MIN_EXPECTED = 5


@dataclass(frozen=True)
class Tested:
    """What the test says of every cell; NaN marks a cell that was not tested.

    Attributes:
        t, df, p, q: (cells,) moderated t, its degrees of freedom, p, and Benjamini-Hochberg q over all tested cells.
        reasons: (cells,) why a cell was not tested, else None.
        result: the moderated t-test of the tested cells, or None when there are none.
    """

    t: Array
    df: Array
    p: Array
    q: Array
    reasons: list[str | None]
    result: ModeratedT | None


def compare_cells(counts: Counts, design: Design) -> Tested:
    """Test all cells of all layers together.

    Args:
        counts: counts of units, (units, cells).
        design: who is in which group.
    """
    cells = counts.selected.shape[1]
    values = asin_sqrt(counts.selected / counts.tokens[:, None])
    rate = counts.selected.sum(axis=0) / counts.tokens.sum()
    reasons = _untestable(values, rate, design)
    tested = np.array([reason is None for reason in reasons], dtype=bool)
    t, df, p = (np.full(cells, np.nan) for _ in range(3))
    result = None
    if tested.any():
        floor = sampling_floor(counts.tokens, rate[tested])
        result = moderated_t(values[:, tested], design.labels, trend=True, floor=floor)
        t[tested], df[tested], p[tested] = result.t, result.df, result.p
    return Tested(t, df, p, adjust(p), reasons, result)


def _untestable(values: Array, rate: Array, design: Design) -> list[str | None]:
    """Why each cell cannot be tested, or None. Uses how many are in each group, never which rates are whose."""
    unit = design.unit_name
    if design.smallest < MIN_UNITS:
        counted = f"{design.positive.units} positive, {design.negative.units} negative"
        return [f"fewer than {MIN_UNITS} {unit}s in a group ({counted})"] * rate.size
    expected = rate * min(design.positive.tokens_used, design.negative.tokens_used)
    reasons: list[str | None] = []
    for share, constant, number in zip(rate, np.ptp(values, axis=0) == 0, expected, strict=True):
        if share == 0:
            reasons.append("never selected in the compared tokens")
        elif constant:
            reasons.append(f"selected at the same rate in every {unit}")
        elif number < MIN_EXPECTED:
            # one digit below 5, so that 4.97 does not read as the 5.0 that would be enough
            shown = min(round(float(number), 1), MIN_EXPECTED - 0.1)
            reasons.append(f"too rare: {shown:.1f} selections expected in the smaller group, {MIN_EXPECTED} are needed")
        else:
            reasons.append(None)
    return reasons
