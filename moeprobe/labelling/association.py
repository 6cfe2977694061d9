"""How labels given blind go with what the windows were drawn by."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from moeprobe.probes.auc import area
from moeprobe.probes.clusters import cluster_numbers
from moeprobe.probes.rates import Rate, share

Ints = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Association:
    """Labels against the value the windows were drawn by.

    Attributes:
        auc: chance that a window labelled 1 has the larger value than one labelled 0, with its 95 % interval.
        p: two-sided, by permutation; None where no order but the own one exists.
        windows, units: labelled windows, and the prompts they are of.
        draws: relabellings behind p.
    """

    auc: Rate
    p: float | None
    windows: int
    units: int
    draws: int


@dataclass(frozen=True)
class DecileShare:
    """Share of windows labelled 1 in one decile; decile 0 are the matched negatives."""

    decile: int
    windows: int
    positive: int
    share: Rate


def associate(values: Array, labels: Ints, units: list[str], draws: int = 10_000, seed: int = 0) -> Association:
    """AUC of the values for the labels, and its permutation p.

    Windows of one prompt are not independent, so prompts are dealt out as wholes: the labels of a prompt go to a prompt
    with as many labelled windows, window by window. That is exact where prompts of one size are exchangeable; where
    every prompt has a size of its own nothing can be dealt out, and p is None.

    Args:
        values: (windows,) what they were drawn by.
        labels: (windows,) 0 or 1; windows without a label are left out before.
        units: (windows,) their prompts.
        draws: relabellings.
        seed: of the relabellings.
    """
    clusters = cluster_numbers(units)
    auc = area(values.tolist(), labels.tolist(), clusters)
    groups = _exchangeable(clusters)
    p = None
    if auc.value is not None and any(len(group) > 1 for group in groups) and draws:
        p = _permuted(values, labels, groups, draws, seed)
    return Association(auc, p, labels.size, len(set(clusters)), draws if p is not None else 0)


def decile_shares(deciles: Ints, labels: Ints, units: list[str]) -> tuple[DecileShare, ...]:
    """The share labelled 1 in each decile that has a labelled window, the matched negatives (0) first."""
    made = []
    for decile in np.unique(deciles).tolist():
        own = np.flatnonzero(deciles == decile)
        clusters = cluster_numbers([units[index] for index in own.tolist()])
        hits = labels[own].tolist()
        made.append(DecileShare(decile, own.size, sum(hits), share(hits, clusters)))
    return tuple(made)


def _exchangeable(clusters: list[int]) -> list[Ints]:
    """Windows of units of one size, as arrays (units, size)."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, cluster in enumerate(clusters):
        members[cluster].append(index)
    sizes: dict[int, list[list[int]]] = defaultdict(list)
    for own in members.values():
        sizes[len(own)].append(own)
    return [np.array(found, dtype=np.int64) for _, found in sorted(sizes.items())]


def _permuted(values: Array, labels: Ints, groups: list[Ints], draws: int, seed: int) -> float:
    """(1 + relabellings whose rank sum is as far from its mean) / (1 + draws); Phipson and Smyth (2010)."""
    ranks = rankdata(values)
    ranks -= ranks.mean()
    rng = np.random.default_rng(seed)
    sums = np.zeros(draws)
    for group in groups:
        given = labels[group].astype(np.float64)  # (units, size)
        shift = given @ ranks[group].T  # (units, units): labels of one unit on the windows of another
        order = np.argsort(rng.random((draws, len(group))), axis=1)
        sums += shift[order, np.arange(len(group))].sum(axis=1)
    own = float(ranks @ labels)
    # dealt out within sizes, the mean of the sums need not be 0
    centre = sum(float((labels[group].sum(axis=0) * ranks[group].sum(axis=0)).sum()) / len(group) for group in groups)
    as_far = np.abs(sums - centre) >= abs(own - centre) * (1 - 1e-9)
    return float((1 + as_far.sum()) / (1 + draws))
