"""The area under the ROC curve: the chance that a positive text scores above a negative one, ties counted half."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moeprobe.probes.clusters import Z, shrinkage
from moeprobe.probes.rates import NOTHING, Rate

Floats = NDArray[np.float64]
_NONE = 1e-12  # variances below this are rounding


def area(scores: Sequence[float], labels: Sequence[int], clusters: Sequence[int]) -> Rate:
    """The area with its 95 % interval.

    The variance is that of DeLong, DeLong & Clarke-Pearson (1988, Biometrics 44, 837-845); where texts share prompts,
    of Obuchowski (1997, Biometrics 53, 567-578), never less than DeLong's, with the t quantile of the number of
    prompts. The interval is made on the logit of the area, since the plain one has no width at 1. Where all pairs are
    in order (area 0 or 1), where all pairs are ties, or with a single text of a kind, there is no variance to estimate;
    then it is the score-like interval of Newcombe (2006, Statistics in Medicine 25, 559-573, method 5), which takes its
    variance from Hanley & McNeil (1982).

    Args:
        scores: (texts,) in any unit.
        labels: (texts,) 0 or 1.
        clusters: (texts,) number of each text's prompt.
    """
    score, label, cluster = np.asarray(scores, dtype=np.float64), np.asarray(labels), np.asarray(clusters)
    one, zero = score[label == 1], score[label == 0]
    if not (one.size and zero.size):
        return NOTHING
    place1, place0 = _placements(one, zero), 1 - _placements(zero, one)
    value = float(place1.mean())
    if one.size > 1 and zero.size > 1 and _NONE < value < 1 - _NONE:
        variance = float(place1.var(ddof=1) / one.size + place0.var(ddof=1) / zero.size)
        moved = np.empty(score.size)
        moved[label == 1] = (place1 - value) / one.size
        moved[label == 0] = (place0 - value) / zero.size
        error = _error(variance, moved, cluster)
        if error > _NONE:
            return _logit(value, error)
    left = [shrinkage([1.0] * kind.size, cluster[label == side].tolist()) for side, kind in ((1, one), (0, zero))]
    return Rate(value, *newcombe(value, one.size * left[0], zero.size * left[1]))


def _placements(own: Floats, others: Floats) -> Floats:
    """(own,) the share of `others` below each, ties counted half."""
    ordered = np.sort(others)
    below, upto = np.searchsorted(ordered, own, "left"), np.searchsorted(ordered, own, "right")
    return np.asarray((below + upto) / (2 * others.size), dtype=np.float64)


def _error(variance: float, moved: Floats, clusters: NDArray[np.int64]) -> float:
    """Half the width of the plain interval. `moved`: how far each text moves the area."""
    number = np.unique(clusters, return_inverse=True)[1]
    prompts = int(number.max()) + 1
    if prompts == number.size:
        return Z * math.sqrt(variance)
    if prompts < 2:
        return math.inf
    from scipy.stats import t

    sums = np.bincount(number, weights=moved)
    between = prompts / (prompts - 1) * float(((sums - sums.mean()) ** 2).sum())
    return float(t.ppf(0.975, prompts - 1)) * math.sqrt(max(variance, between))


def _logit(value: float, half: float) -> Rate:
    odds, wide = math.log(value / (1 - value)), half / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-max(-700.0, min(700.0, end)))) for end in (odds - wide, odds + wide))
    return Rate(value, low, high)


def newcombe(value: float, positives: float, negatives: float) -> tuple[float, float]:
    """95 % interval of an AUC: the thetas with (value - theta)^2 <= 1.96^2 V(theta) (method 5; see `area`).

    Args:
        value: the AUC.
        positives, negatives: units on either side, above 0; they may be effective numbers.
    """
    from scipy.optimize import brentq

    size = (positives + negatives) / 2 - 1

    def beyond(theta: float) -> float:
        shape = 1 + size * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (value - theta) ** 2 - Z**2 * theta * (1 - theta) * shape / (positives * negatives)

    low = 0.0 if value < _NONE else float(brentq(beyond, 0.0, value if value < 1 - _NONE else 1 - 1e-9))
    high = 1.0 if value > 1 - _NONE else float(brentq(beyond, max(value, 1e-9), 1.0))
    return low, high
