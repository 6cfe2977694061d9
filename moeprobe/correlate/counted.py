"""The counted tokens of a trace in one row, with what a reader asks of each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprobe.gathering.inputs import TraceLike
from moeprobe.gathering.strata import Layout

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CountedTokens:
    """All counted tokens of a layout in order of generation and position, however the trace is cut; (tokens,) each.

    Attributes:
        generation, sample: as in `Part`.
        rank: place of the token in the segment of its generation, from 0, as in `Part`.
        token_id: what it is; None where the trace does not say.
        shard, row: where it stands.
        number: (tokens,) the number here of each token of the layout's parts, one part after the other.
        offsets: (parts + 1,) where each part begins in `number`.
    """

    generation: Ints
    sample: Ints
    rank: Ints
    token_id: Ints | None
    shard: Ints
    row: Ints
    number: Ints
    offsets: Ints


def counted_tokens(trace: TraceLike, layout: Layout) -> CountedTokens:
    """Put the counted tokens of all shards in order; one pass over their columns."""
    ids: list[Ints] | None = []
    for shard, part in zip(trace.shards(), layout.parts, strict=True):
        column = getattr(shard, "token_id", None)
        ids = None if column is None or ids is None else [*ids, np.asarray(column)[part.rows].astype(np.int64)]
    generation, sample, row, place = (
        _joined([getattr(part, name) for part in layout.parts]) for name in ("generation", "sample", "rows", "place")
    )
    sizes = [part.rows.size for part in layout.parts]
    # a generation lies in one shard, and each part is in order of generation and position
    order = np.argsort(generation, kind="stable")
    number = np.empty(order.size, dtype=np.int64)
    number[order] = np.arange(order.size)
    return CountedTokens(
        generation=generation[order],
        sample=sample[order],
        rank=place[order],
        token_id=None if ids is None else _joined(ids)[order],
        shard=np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)[order],
        row=row[order],
        number=number,
        offsets=np.cumsum([0, *sizes]).astype(np.int64),
    )


def _joined(pieces: list[Ints]) -> Ints:
    return np.concatenate([np.zeros(0, dtype=np.int64), *pieces])
