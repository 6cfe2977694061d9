"""Experts that work together: chosen for the same tokens, or varying together over units (coalitions)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_array

from moeprobe.errors import StatsError

Array = NDArray[np.float64]
Sites = NDArray[np.int64]
# average linkage holds every pair at once: 8 million distances, 67 MB
MOST_EXPERTS = 4096


def coactivation(ids: ArrayLike, experts: int) -> NDArray[np.int64]:
    """For how many tokens two experts of one layer were chosen together. Counts of parts of a trace add up.

    Args:
        ids: (tokens, k) chosen experts, each at most once for a token; -1 is an absent choice.
        experts: number of experts of the layer.

    Returns:
        (experts, experts), symmetric; the diagonal counts the tokens that chose the expert.

    Raises:
        StatsError: wrong shape, or a number outside -1 ... experts - 1.
    """
    chosen = np.asarray(ids)
    if chosen.ndim != 2 or chosen.dtype.kind not in "iu":
        raise StatsError(f"Chosen experts must be whole numbers (tokens, k); found {chosen.dtype} {chosen.shape}.")
    chosen = chosen.astype(np.int64)
    if chosen.size and (chosen.min() < -1 or chosen.max() >= experts):
        raise StatsError(f"A chosen expert lies outside -1 ... {experts - 1}.")
    there = chosen >= 0
    rows = np.broadcast_to(np.arange(len(chosen))[:, None], chosen.shape)[there]
    table = csr_array((np.ones(rows.size, dtype=np.int64), (rows, chosen[there])), shape=(len(chosen), experts))
    counts: NDArray[np.int64] = (table.T @ table).toarray()
    return counts


def coactivation_rate(together: ArrayLike) -> Array:
    """Of the tokens that chose expert i, the share that chose j too: N_ij / N_i (OLMoE, arXiv 2409.02060, section 5.2).

    With k of E experts chosen evenly and independently it is (k - 1) / (E - 1), and a busy j is high for every i.

    Args:
        together: (experts, experts) from `coactivation`.

    Returns:
        (experts, experts), row i given expert i; NaN in the row of an expert that nobody chose, and on the diagonal.

    Raises:
        StatsError: not a square table.
    """
    counts = _square(together)
    alone = np.diag(counts)[:, None]
    rate: Array = np.divide(counts, alone, out=np.full(counts.shape, np.nan), where=alone > 0)
    np.fill_diagonal(rate, np.nan)
    return rate


def coactivation_overlap(together: ArrayLike) -> Array:
    """Jaccard index of the two experts' tokens: N_ij / (N_i + N_j - N_ij); (experts, experts), NaN as in the rate.

    Raises:
        StatsError: not a square table.
    """
    counts = _square(together)
    alone = np.diag(counts)
    either = alone[:, None] + alone[None] - counts
    overlap: Array = np.divide(counts, either, out=np.full(counts.shape, np.nan), where=either > 0)
    overlap[alone == 0] = np.nan
    overlap[:, alone == 0] = np.nan
    np.fill_diagonal(overlap, np.nan)
    return overlap


def find_coalitions(values: ArrayLike, *, correlation: float = 0.7, smallest: int = 2) -> list[Sites]:
    """Groups of experts that rise and fall together over the units, of any layers; found without any label.

    Average linkage on 1 - correlation over units: within a coalition the mean correlation of the parts joined is at
    least `correlation`. As no label is used, testing the coalitions afterwards (`coalition_values`) is honest. Choosing
    the columns by their p first would not be.

    Args:
        values: (units, experts) response of each unit, for example asin(sqrt(selection rate)) or the residual beyond
            token identity; at least three units. Experts that do not vary are left out.
        correlation: in (0, 1).
        smallest: least number of experts of a coalition, at least 2.

    Returns:
        Column numbers of each coalition, ascending; largest coalition first.

    Raises:
        StatsError: wrong shape, values that are not finite, more than 4096 experts that vary, or settings out of range.
    """
    table = _table(values)
    if len(table) < 3 or not 0 < correlation < 1 or smallest < 2:
        raise StatsError(
            f"Coalitions need three units ({len(table)}), a correlation in (0, 1) ({correlation}) and two experts "
            f"({smallest}) at least."
        )
    scaled, varies = _standardise(table)
    columns = np.flatnonzero(varies)
    if len(columns) > MOST_EXPERTS:
        raise StatsError(
            f"{len(columns)} experts are too many for coalitions. Give at most {MOST_EXPERTS}, chosen without labels."
        )
    if len(columns) < smallest:
        return []
    distance = 1 - scaled[:, columns].T @ scaled[:, columns] / (len(table) - 1)
    condensed = np.maximum(distance[np.triu_indices(len(columns), 1)], 0.0)
    cluster = fcluster(linkage(condensed, "average"), t=1 - correlation, criterion="distance")
    sizes = np.bincount(cluster)
    found = [columns[cluster == number] for number in np.flatnonzero(sizes >= smallest)]
    return sorted(found, key=lambda members: (-len(members), int(members[0])))


def coalition_values(values: ArrayLike, coalitions: Sequence[ArrayLike]) -> Array:
    """One column per coalition, to be tested as if it were an expert: the mean of its experts' standardised values.

    Standardised over all units, without labels, so that busy experts do not rule the sum; the mean is then scaled to
    variance 1 again. Test each column by itself, with an ordinary t: a moderated t over such columns (with single
    experts or with each other) learns only that all total variances are 1, which includes what the labels explain,
    and so takes power away (.78 instead of .93 in the simulation of our test). Its p are conservative, not wrong.

    Args:
        values: (units, experts).
        coalitions: column numbers of each coalition; at least one expert that varies in each.

    Returns:
        (units, coalitions).

    Raises:
        StatsError: wrong shapes, an unknown or repeated column, or a coalition in which nothing varies.
    """
    table = _table(values)
    scaled, varies = _standardise(table)
    columns = []
    for number, coalition in enumerate(coalitions):
        members = np.asarray(coalition)
        if members.ndim != 1 or not members.size or members.dtype.kind not in "iu":
            raise StatsError(f"Coalition {number + 1} is not a list of column numbers.")
        if members.min() < 0 or members.max() >= table.shape[1] or len(np.unique(members)) < members.size:
            raise StatsError(f"Coalition {number + 1} names an unknown expert, or one twice.")
        if not varies[members].any():
            raise StatsError(f"No expert of coalition {number + 1} varies over the units.")
        columns.append(scaled[:, members[varies[members]]].mean(axis=1))
    return _standardise(np.column_stack(columns))[0] if columns else np.empty((len(table), 0))


def _standardise(table: Array) -> tuple[Array, NDArray[np.bool_]]:
    centred = table - table.mean(axis=0)
    sd = centred.std(axis=0, ddof=1)
    varies = (np.ptp(table, axis=0) > 0) & (sd > 64 * np.finfo(np.float64).eps * np.abs(table).max(axis=0))
    return np.divide(centred, sd, out=np.zeros(table.shape), where=varies), varies


def _table(values: ArrayLike) -> Array:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or len(table) < 2 or not table.shape[1] or not np.isfinite(table).all():
        raise StatsError(f"Values must be a finite table (units, experts), two units at least; found {table.shape}.")
    return table


def _square(together: ArrayLike) -> Array:
    counts = np.asarray(together, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise StatsError(f"Co-activation counts must be (experts, experts); found shape {counts.shape}.")
    return counts
