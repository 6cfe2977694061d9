"""Shares and what is made of them, with 95 % intervals that hold at a perfect record.

All intervals are closed formulas, so a perfect record still gets an honest lower end (a bootstrap would say [1, 1]).
Where several texts share a prompt, the counts shrink first (`clusters.shrinkage`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprobe.probes.clusters import Z, shrinkage


@dataclass(frozen=True)
class Rate:
    """A figure in [0, 1] with its 95 % interval; all three None where nothing could be counted.

    `texts` is the number of independent texts that a share rests on, fewer than were counted where texts share prompts.
    """

    value: float | None
    low: float | None
    high: float | None
    texts: float | None = None


NOTHING = Rate(None, None, None)


def wilson(hits: float, trials: float) -> Rate:
    """A share with its 95 % score interval (Wilson 1927, no continuity correction).

    Args:
        hits, trials: counts; effective ones need not be whole.
    """
    if trials <= 0:
        return NOTHING
    share = hits / trials
    scale = 1 + Z**2 / trials
    centre = (share + Z**2 / (2 * trials)) / scale
    half = Z * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2)) / scale
    return Rate(
        share, 0.0 if hits == 0 else max(0.0, centre - half), 1.0 if hits == trials else min(1.0, centre + half)
    )


def share(hits: Sequence[bool], clusters: Sequence[int]) -> Rate:
    """The share of texts that are hits: Wilson on counts that are shrunk for repeated prompts.

    Args:
        hits: (texts,) those that count in this share.
        clusters: (texts,) number of each text's prompt.
    """
    found, trials = sum(hits), len(hits)
    if not trials:
        return NOTHING
    factor = shrinkage([float(one) for one in hits], clusters)
    rate = wilson(found * factor, trials * factor)
    return Rate(found / trials, rate.low, rate.high, trials * factor)


def balanced(
    recall: Rate, specificity: Rate, right: Sequence[bool], labels: Sequence[int], clusters: Sequence[int]
) -> Rate:
    """Balanced accuracy, the mean of recall and specificity, with limits by MOVER (Zou & Donner 2008).

    The distances to the limits of the two shares add as squares. Where one prompt has texts of both labels the shares
    are not independent; then the distances grow by the root of var(recall + specificity) over the sum of their
    variances, all between prompts, where that is above 1.

    Args:
        recall, specificity: their rates.
        right, labels, clusters: (texts,) whether the answer was right, the label, the number of the prompt.
    """
    if recall.value is None or recall.low is None or recall.high is None:
        return NOTHING
    if specificity.value is None or specificity.low is None or specificity.high is None:
        return NOTHING
    value = (recall.value + specificity.value) / 2
    wider = math.sqrt(_joint(np.array(right, dtype=np.float64), np.array(labels), np.array(clusters)))
    below = wider * math.hypot(recall.value - recall.low, specificity.value - specificity.low) / 2
    above = wider * math.hypot(recall.high - recall.value, specificity.high - specificity.value) / 2
    return Rate(value, max(0.0, value - below), min(1.0, value + above))


def f1_of(overlap: Rate) -> Rate:
    """F1 = 2J / (1 + J) with J = TP / (TP + FP + FN), a binomial share given how many are not true negatives."""
    values = [None if one is None else 2 * one / (1 + one) for one in (overlap.value, overlap.low, overlap.high)]
    return Rate(*values)


def _joint(right: NDArray[np.float64], labels: NDArray[np.int64], clusters: NDArray[np.int64]) -> float:
    """Variance of recall + specificity between prompts over the sum of their variances; at least 1."""
    sums = []
    for label in (0, 1):
        chosen = labels == label
        moved = (right[chosen] - right[chosen].mean()) / chosen.sum()
        sums.append(np.bincount(clusters[chosen], weights=moved, minlength=int(clusters.max()) + 1))
    apart = float((sums[0] ** 2).sum() + (sums[1] ** 2).sum())
    return 1.0 if apart < 1e-15 else max(1.0, float(((sums[0] + sums[1]) ** 2).sum()) / apart)
