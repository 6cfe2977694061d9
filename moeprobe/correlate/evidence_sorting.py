"""How well one number tells two sides apart: AUC with an interval that holds at 0 and 1, too."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from scipy.stats import t as student

from moeprobe.probes.auc import newcombe
from moeprobe.stats import auc
from moeprobe.stats.effects import wilson_interval

Json = dict[str, Any]
Array = NDArray[np.float64]


def sort_by_length(one: Array, zero: Array, *, paired: bool) -> Json:
    """How well the length before matching tells the sides apart: an entry of `confounds.sorting`.

    Args:
        one, zero: (units,) mean tokens of each unit of either side; of pairs in the same order.
        paired: each value of `one` is compared with its partner only.
    """
    entry: Json = {"sorter": "length", "auc": None, "ci": None, "how": "tokens before matching", "reason": None}
    if not (one.size and zero.size):
        return entry | {"reason": "a side is empty"}
    if paired:
        wins = float((np.sign(one - zero) / 2 + 0.5).sum())
        interval = wilson_interval(wins, one.size)
        value, low, high = wins / one.size, float(interval.low), float(interval.high)
        entry["how"] += ", each unit against its partner"
    else:
        value = float(auc(one[:, None], zero[:, None])[0])
        low, high = newcombe(value, one.size, zero.size)
    return entry | {"auc": round(value, 4), "ci": [round(low, 4), round(high, 4)]}


def sort_by_position(unit: NDArray[np.int64], inside: NDArray[np.bool_], rank: NDArray[np.int64], units: int) -> Json:
    """How well the position alone tells marked from other tokens: an entry of `confounds.sorting`.

    The AUC of each unit (marked tokens stand later), averaged, with a t interval over units.

    Args:
        unit, inside, rank: (tokens,) unit of each token, whether it is marked, its position.
        units: how many units there are; each has tokens of both kinds.
    """
    entry: Json = {"sorter": "position", "auc": None, "ci": None, "reason": None}
    entry["how"] = "a marked token stands later than another one of the same unit; mean over units"
    values = []
    for number in range(units):
        own = unit == number
        marked = inside[own]
        ones, zeros = int(marked.sum()), int((~marked).sum())
        if ones and zeros:
            ranks = rankdata(rank[own])
            values.append((float(ranks[marked].sum()) - ones * (ones + 1) / 2) / (ones * zeros))
    if len(values) < 2:
        return entry | {"reason": "fewer than two units"}
    mean = float(np.mean(values))
    half = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return entry | {
        "auc": round(mean, 4), "ci": [round(max(mean - half, 0.0), 4), round(min(mean + half, 1.0), 4)],
    }  # fmt: skip
