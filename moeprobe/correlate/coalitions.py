"""Coalitions: experts of one layer that are chosen for the same tokens, found without labels and tested as one.

As no label takes part in finding them, a test of their residuals afterwards is as honest as that of an expert.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from moeprobe.errors import StatsError
from moeprobe.gathering.chosen import Ids, chosen_experts
from moeprobe.gathering.inputs import LayerLike, TraceLike
from moeprobe.gathering.selection import Selection
from moeprobe.gathering.strata import Layout, lay_out
from moeprobe.sites import Site, expert_site
from moeprobe.stats.beyond import Beyond, beyond_token

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

# Correlation over tokens from which experts count as chosen together. Chance gives about 0 (a little less).
TOGETHER = 0.4
# Tokens that must have chosen an expert: below, a few tokens make any correlation.
LEAST_TOKENS = 20
MOST = 8
# Experts of a layer that are clustered at once: all pairs are held.
_MOST_EXPERTS = 4096
# Tokens at a time: small enough for the cache.
_ROWS = 1 << 13


@dataclass(frozen=True, eq=False)
class Coalitions:
    """Coalitions of all layers and what the samples did with them. A column is a coalition; a token counts for it if
    it chose more than half of its members, two at least (never more than k).

    Attributes:
        members: of each coalition, experts of one layer in ascending order.
        needed: (coalitions,) how many members a token must choose to count.
        strength: (coalitions,) mean correlation between its members, over the selected tokens.
        tokens: (samples,) tokens of each sample.
        observed: (samples, coalitions) O: tokens that count.
        beyond: O beyond the strata of the tokens, to be tested; None without strata.
        plain: the same with all tokens as one stratum.
        dropped: coalitions that the cap left out.
        words: how they were found, in words.
    """

    members: tuple[tuple[Site, ...], ...]
    needed: Ints
    strength: Array
    tokens: Ints
    observed: Ints
    beyond: Beyond | None
    plain: Beyond
    dropped: int
    words: str

    def shares(self, labels: ArrayLike) -> list[dict[str, Any]]:
        """For each coalition {"sites", "tokens_share1", "tokens_share0"}: share of the group's tokens that count.

        Args:
            labels: (samples,) 1 or 0.

        Raises:
            StatsError: other labels, or a group without tokens.
        """
        groups = np.asarray(labels)
        if groups.shape != self.tokens.shape or not np.isin(groups, (0, 1)).all():
            raise StatsError(
                f"Labels must be 0 or 1, one for each of {self.tokens.size} samples; found {groups.shape}."
            )
        one, zero = (self._share(groups == label) for label in (1, 0))
        return [
            {"sites": [str(site) for site in sites], "tokens_share1": high, "tokens_share0": low}
            for sites, high, low in zip(self.members, one, zero, strict=True)
        ]

    def _share(self, group: NDArray[np.bool_]) -> list[float]:
        tokens = int(self.tokens[group].sum())
        if not tokens:
            raise StatsError("A group has no tokens: there is nothing to compare.")
        shares: list[float] = (self.observed[group].sum(axis=0) / tokens).tolist()
        return shares


@dataclass(frozen=True, eq=False)
class _Found:
    """Coalitions of one layer: numbers of the experts of each, their strength, and how many the cap left out."""

    members: list[Ints]
    strength: list[float]
    dropped: int


@dataclass(frozen=True, eq=False)
class _Sums:
    """Tokens that count for the coalitions of one layer: (samples, coalitions) and (strata, coalitions)."""

    observed: Ints
    total: Ints


def find_and_test(
    trace: TraceLike,
    selection: Selection,
    *,
    strata: tuple[str, ...] | None = ("token",),
    together: float = TOGETHER,
    least_tokens: int = LEAST_TOKENS,
    most: int = MOST,
) -> Coalitions:
    """Find the coalitions of every layer and sum up what the tests of them need.

    Experts are alike by the correlation over tokens of being chosen (phi): with N tokens, N_i of them to expert i and
    N_ij to both, (N N_ij - N_i N_j) / sqrt(N_i (N - N_i) N_j (N - N_j)). Average linkage joins them as long as the mean
    correlation between the parts is at least `together`. Every expert is in one coalition at most. Only counts over all
    selected tokens take part, never whose they are.

    Memory: the choices of one layer, 4 k bytes a token, and one table (strata, coalitions) of the whole trace.

    Args:
        trace: the run.
        selection: which tokens, for which samples.
        strata: as in `gather`; None: no `beyond`.
        together: in (0, 1).
        least_tokens: experts chosen by fewer tokens are left out.
        most: coalitions of one layer, the strongest first; how many this leaves out is said in `words`.

    Raises:
        StatsError: settings out of range, a layer of more than 4,096 experts chosen often enough, or as `lay_out`.
        TraceError: as `gather`.
    """
    if not 0 < together < 1 or least_tokens < 1 or most < 1:
        raise StatsError(
            f"Coalitions need a correlation in (0, 1) ({together}), and one token ({least_tokens}) and one coalition "
            f"({most}) of a layer at least."
        )
    layout = lay_out(trace, selection, strata)
    found, sums, sites, needed = [], [], [], list[int]()
    for info in trace.manifest.main_layers:
        ids = [(part.sample, part.stratum, ids) for part, ids in chosen_experts(trace, layout, info)]
        layer = _find(_together(ids, info.experts), int(layout.tokens.sum()), together, least_tokens, most)
        found.append(layer)
        least = [min(max(2, members.size // 2 + 1), info.k) for members in layer.members]
        sums.append(_sum(ids, layout, info, layer.members, least))
        needed += least
        sites += [tuple(expert_site(info.layer, int(one)) for one in members) for members in layer.members]
    observed, total = (_joined([getattr(one, name) for one in sums]) for name in ("observed", "total"))
    dropped = sum(one.dropped for one in found)
    return Coalitions(
        members=tuple(sites),
        needed=np.array(needed, dtype=np.int64),
        strength=np.array([value for one in found for value in one.strength], dtype=np.float64),
        tokens=layout.tokens,
        observed=observed,
        beyond=None if strata is None else beyond_token(observed, layout.table, total, layout.stratum_tokens),
        plain=_plain(observed, layout.tokens),
        dropped=dropped,
        words=_words(len(sites), dropped, together, least_tokens, most),
    )


def _together(ids: list[tuple[Ints, Ints, Ids]], experts: int) -> Ints:
    """(experts, experts) tokens that chose both; the diagonal counts those that chose the one."""
    counts = np.zeros(experts * experts, dtype=np.int64)
    for _, _, chosen in ids:
        for start in range(0, len(chosen), _ROWS):
            block = chosen[start : start + _ROWS].astype(np.int64)
            first, second = np.triu_indices(block.shape[1])
            one, two = block[:, first].ravel(), block[:, second].ravel()
            there = (one >= 0) & (two >= 0)
            counts += np.bincount(one[there] * experts + two[there], minlength=counts.size)
    half = counts.reshape(experts, experts)
    return half + half.T - np.diag(np.diag(half))


def _find(counts: Ints, tokens: int, together: float, least: int, most: int) -> _Found:
    alone = np.diag(counts)
    columns = np.flatnonzero((alone >= least) & (alone < tokens))
    if columns.size < 2:
        return _Found([], [], 0)
    if columns.size > _MOST_EXPERTS:
        raise StatsError(f"{columns.size} experts of one layer are too many for coalitions: at most {_MOST_EXPERTS}.")
    count = alone[columns].astype(np.float64)
    both = counts[np.ix_(columns, columns)].astype(np.float64)
    spread = np.sqrt(count * (tokens - count))
    phi = (tokens * both - np.outer(count, count)) / np.outer(spread, spread)
    condensed = np.maximum(1 - phi[np.triu_indices(columns.size, 1)], 0.0)
    cluster = fcluster(linkage(condensed, "average"), t=1 - together, criterion="distance")
    groups = [np.flatnonzero(cluster == number) for number in np.flatnonzero(np.bincount(cluster) >= 2)]
    rated = [(_mean_pair(phi, group), columns[group]) for group in groups]
    rated.sort(key=lambda one: (-one[0], int(one[1][0])))
    kept = rated[:most]
    return _Found([members for _, members in kept], [value for value, _ in kept], len(rated) - len(kept))


def _mean_pair(phi: Array, group: Ints) -> float:
    return float(phi[np.ix_(group, group)][np.triu_indices(group.size, 1)].mean())


def _sum(
    ids: list[tuple[Ints, Ints, Ids]], layout: Layout, info: LayerLike, members: list[Ints], needed: list[int]
) -> _Sums:
    """Tokens that count, by sample and by stratum."""
    width, strata = len(members), 0 if layout.table is None else layout.table.shape[1]
    observed = np.zeros(layout.tokens.size * width, dtype=np.int64)
    total = np.zeros(strata * width, dtype=np.int64)
    if width:
        # experts in no coalition, and absent choices (-1, the last entry), go to a column of their own
        column = np.full(info.experts + 1, width, dtype=np.int64)
        for number, group in enumerate(members):
            column[group] = number
        for sample, stratum, counted in _counted(ids, column, np.array(needed, dtype=np.int64)):
            row, coalition = np.nonzero(counted)
            observed += np.bincount(sample[row] * width + coalition, minlength=observed.size)
            if strata:
                total += np.bincount(stratum[row] * width + coalition, minlength=total.size)
    return _Sums(observed.reshape(layout.tokens.size, width), total.reshape(strata, width))


def _counted(
    ids: list[tuple[Ints, Ints, Ids]], column: Ints, needed: Ints
) -> Iterator[tuple[Ints, Ints, NDArray[np.bool_]]]:
    """Sample and stratum of some tokens, and whether they count for each coalition, (tokens, coalitions)."""
    size = needed.size + 1
    for sample, stratum, chosen in ids:
        for start in range(0, len(chosen), _ROWS):
            block = slice(start, start + _ROWS)
            numbers = column[chosen[block]]
            cell = np.arange(len(numbers))[:, None] * size + numbers
            times = np.bincount(cell.ravel(), minlength=len(numbers) * size).reshape(-1, size)[:, :-1]
            yield sample[block], stratum[block], times >= needed


def _plain(observed: Ints, tokens: Ints) -> Beyond:
    """All tokens as one stratum."""
    return beyond_token(observed, tokens[:, None], observed.sum(axis=0)[None], tokens.sum()[None])


def _joined(tables: list[Ints]) -> Ints:
    if not tables:
        raise StatsError("The trace holds no layer of the main stack: there is nothing to count.")
    return np.concatenate(tables, axis=1)


def _words(number: int, dropped: int, together: float, least: int, most: int) -> str:
    found = (
        f"{number} coalition{'' if number == 1 else 's'}: experts of one layer whose choice correlates over tokens by "
        f"{together:g} or more on average, each chosen by at least {least} tokens; found without labels, tested as one."
    )
    if dropped:
        found += f" {dropped} weaker {'one was' if dropped == 1 else 'ones were'} left out (at most {most} of a layer)."
    return found
