"""Load of experts, and the standing committee: experts that are busy whatever the text is about."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeprobe.errors import StatsError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Committee:
    """Load of the experts of one layer.

    Attributes:
        load: (experts,) selections of the expert over the mean of all experts of the layer: 1 is an equal share. The
            mean over units, so that long units do not count more.
        presence: (experts,) share of units in which the load is at least the threshold; with labels, that of the
            group where it is smaller.
        members: (experts,) True for the standing committee.
        largest: the largest load.
        members_share: share of all selections that go to the members, mean over units.
    """

    load: Array
    presence: Array
    members: NDArray[np.bool_]
    largest: float
    members_share: float


def standing_committee(
    selected: ArrayLike, labels: ArrayLike | None = None, *, threshold: float = 2.0, presence: float = 0.9
) -> Committee:
    """Experts that carry at least `threshold` equal shares in nearly every unit of every group.

    Such experts lead every list of frequencies without having to do with any label. Where k / experts > 1 / threshold
    nobody can reach the threshold, and there is no committee. Our definition; the term is that of arXiv 2601.03425,
    which forms its groups in another way.

    Args:
        selected: (units, experts of the layer) selections of each unit; every unit has some.
        labels: (units,) groups, any values: the presence must hold in each of them.
        threshold: load from which an expert is busy in a unit, above 1.
        presence: share of units, in (0, 1].

    Raises:
        StatsError: wrong shapes, negative counts, a unit without selections, or thresholds out of range.
    """
    counts = np.asarray(selected, dtype=np.float64)
    if counts.ndim != 2 or not counts.size:
        raise StatsError(f"Selections must be a table (units, experts of the layer); found shape {counts.shape}.")
    if not np.isfinite(counts).all() or (counts < 0).any() or (counts.sum(axis=1) <= 0).any():
        raise StatsError("Selections must not be negative, and every unit needs some.")
    if not threshold > 1 or not 0 < presence <= 1:
        raise StatsError(f"Threshold {threshold} must be above 1 and presence {presence} in (0, 1].")
    groups = np.zeros(len(counts)) if labels is None else np.asarray(labels)
    if groups.shape != counts.shape[:1]:
        raise StatsError(f"Labels {groups.shape} must have one entry for each of {len(counts)} units.")
    share = counts / counts.sum(axis=1, keepdims=True)
    busy = share * counts.shape[1] >= threshold
    present = np.min([busy[groups == group].mean(axis=0) for group in np.unique(groups)], axis=0)
    members = present >= presence
    load = share.mean(axis=0) * counts.shape[1]
    return Committee(load, present, members, float(load.max()), float(share[:, members].sum(axis=1).mean()))
