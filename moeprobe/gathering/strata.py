"""The strata of tokens, and where the counted tokens stand in the shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from moeprobe.errors import StatsError, TraceError
from moeprobe.gathering.counts import kept_rows, routed_rows, segment_codes, shared_layers
from moeprobe.gathering.inputs import LayerLike, ShardLike, TraceLike
from moeprobe.gathering.selection import Selection

Ints = NDArray[np.int64]

STRATA = {
    (): "all tokens as one",
    ("token",): "token id",
    ("token", "position"): "token id and position in the segment (1, 2-3, 4-7, 8-15, ...)",
    ("previous",): "previous token id",
    ("token", "previous"): "token id and previous token id",
}


@dataclass(frozen=True, eq=False)
class Part:
    """Counted tokens of one shard, in order of generation and position; arrays are (tokens,).

    Attributes:
        rows: where they stand in the shard.
        generation: their generations.
        sample: their samples, as `Selection` numbers them.
        place: their places among all routed tokens of the segment of their generation, from 0.
        stratum: their strata; empty without strata.
    """

    rows: Ints
    generation: Ints
    sample: Ints
    place: Ints
    stratum: Ints


@dataclass(frozen=True, eq=False)
class Layout:
    """All counted tokens of a trace.

    Strata are numbered by their value (token id, ...), so the numbers do not depend on how the trace is cut.

    Attributes:
        parts: one for each shard, in order.
        tokens: (samples,) tokens of each sample.
        table: (samples, strata) tokens of each sample in each stratum, sparse; None without strata.
        words: what the strata are, in words; None without strata.
    """

    parts: tuple[Part, ...]
    tokens: Ints
    table: Any
    words: str | None

    @property
    def common(self) -> float | None:
        """Share of the tokens whose stratum occurs in two samples or more: the others say nothing beyond it."""
        if self.table is None:
            return None
        held = np.bincount(self.table.indices, minlength=self.table.shape[1])
        total = int(self.tokens.sum())
        return float(self.stratum_tokens[held >= 2].sum()) / total if total else 0.0

    @property
    def stratum_tokens(self) -> Ints:
        """(strata,) tokens of each stratum over all samples."""
        tokens: Ints = np.asarray(self.table.sum(axis=0), dtype=np.int64).reshape(-1)
        return tokens


def lay_out(trace: TraceLike, selection: Selection, strata: tuple[str, ...] | None) -> Layout:
    """Find the tokens to count; one pass over the columns of the shards, none over the layers.

    Args:
        trace: the run.
        selection: which tokens, for which samples.
        strata: a key of `STRATA`, or None for no strata.

    Raises:
        StatsError: unknown strata or segment, or a selection made for another number of generations.
        TraceError: a generation lies in two shards, or is not listed.
    """
    if strata is not None and strata not in STRATA:
        known = "; ".join(", ".join(key) or "() for one stratum" for key in STRATA)
        raise StatsError(f"Unknown strata {strata!r}. Choose one of: {known}.")
    if selection.keep.size != len(trace.generations):
        raise StatsError(
            f"The selection is for {selection.keep.size} generations, the trace has {len(trace.generations)}."
        )
    codes, infos, seen = segment_codes(trace, selection.segment), shared_layers(trace), set[int]()
    found: list[tuple[Ints, Ints, Ints, Ints]] = []
    columns: list[list[Ints]] = []
    for shard in trace.shards():
        rows, generation, place = kept_rows(shard, infos, codes, selection.limits)
        members = set(np.unique(generation).tolist())
        if members & seen:
            raise TraceError(f"Generation {min(members & seen)} lies in two shards; a trace keeps each in one.")
        seen |= members
        found.append((rows, generation, selection.sample_of(shard, rows, generation), place))
        columns.append([_column(name, trace, shard, rows, place) for name in strata or ()])
    sample = np.concatenate([np.zeros(0, dtype=np.int64), *(one[2] for one in found)])
    tokens = np.bincount(sample, minlength=selection.samples)
    if strata is None:
        empty = np.zeros(0, dtype=np.int64)
        return Layout(tuple(Part(*one, empty) for one in found), tokens, None, None)
    stratum, number = _numbered(sample.size, columns, len(strata))
    pieces = np.split(stratum, np.cumsum([one[0].size for one in found]))
    parts = tuple(Part(*one, piece) for one, piece in zip(found, pieces, strict=False))
    return Layout(parts, tokens, _cross(sample, selection.samples, stratum, number), STRATA[strata])


def _column(name: str, trace: TraceLike, shard: ShardLike, rows: Ints, place: Ints) -> Ints:
    """What one part of a stratum is at each counted row, (rows,)."""
    if name == "token":
        return _token_ids(shard)[rows]
    if name == "previous":
        return _previous(shard, shared_layers(trace), len(trace.manifest.segments))[rows]
    # doubling bins: the first tokens of a segment are special, and each bin must still hold many tokens
    bins: Ints = np.floor(np.log2(place + 1)).astype(np.int64)
    return bins


def _token_ids(shard: ShardLike) -> Ints:
    """(rows,) what each token is. Only strata need it, so `inputs.ShardLike` does not ask for it."""
    ids: NDArray[Any] | None = getattr(shard, "token_id", None)
    if ids is None:
        raise StatsError("The shards do not say which token each row is (token_id). Compare without strata.")
    return np.asarray(ids).astype(np.int64)


def _previous(shard: ShardLike, infos: Sequence[LayerLike], segments: int) -> Ints:
    """Token id one position before each row in its generation, whatever its segment; -1 where there is none."""
    generation, position = np.asarray(shard.generation), np.asarray(shard.position).astype(np.int64)
    rows = np.flatnonzero(routed_rows(shard, infos, np.arange(segments, dtype=np.int64)))
    rows = rows[np.lexsort((position[rows], generation[rows]))]
    before, after = rows[:-1], rows[1:]
    follows = (generation[before] == generation[after]) & (position[before] + 1 == position[after])
    previous = np.full(generation.size, -1, dtype=np.int64)
    previous[after[follows]] = _token_ids(shard)[before[follows]]
    return previous


def _numbered(size: int, columns: list[list[Ints]], width: int) -> tuple[Ints, int]:
    """Number the distinct combinations in order of their values: (tokens,) numbers, and how many."""
    stratum = np.zeros(size, dtype=np.int64)
    for column in range(width):
        values = np.unique(np.concatenate([one[column] for one in columns]), return_inverse=True)[1]
        pair = stratum * (int(values.max(initial=0)) + 1) + values
        stratum = np.unique(pair, return_inverse=True)[1].astype(np.int64)
    return stratum, int(stratum.max(initial=-1)) + 1


def _cross(sample: Ints, samples: int, stratum: Ints, strata: int) -> Any:
    """(samples, strata) sparse table of counts."""
    cell, counts = np.unique(sample * max(strata, 1) + stratum, return_counts=True)
    row, column = np.divmod(cell, max(strata, 1))
    table = csr_array((counts.astype(np.int64), (row, column)), shape=(samples, strata))
    table.sort_indices()
    return table
