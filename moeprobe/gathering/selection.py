"""Which tokens of a trace are counted, and for which sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import StatsError
from moeprobe.gathering.counts import GENERATED
from moeprobe.gathering.inputs import ShardLike

Ints = NDArray[np.int64]

# Room for the character offsets of one generation in a sort key.
_ROOM = 1 << 32


@dataclass(frozen=True, eq=False)
class Selection:
    """Tokens and the samples they belong to.

    A sample is a unit of replication (a generation, or all generations of a prompt). With `spans` every unit gives two
    samples: `unit` holds its tokens outside the spans, `units + unit` those that overlap one.

    Attributes:
        segment: "answer" or another segment of the trace.
        keep: (generations,) how many tokens of the segment to count, from its first one; 0 leaves a generation out.
        unit: (generations,) number of each generation's unit, -1 where it is left out.
        units: how many units there are.
        spans: for each generation ranges of characters of its answer, (n, 2) as [start, end); None for no spans.

    Raises:
        StatsError: lengths that differ, a unit that does not exist, spans of a prompt, or a span that ends before it
            starts.
    """

    segment: str
    keep: Ints
    unit: Ints
    units: int
    spans: Sequence[NDArray[np.int64]] | None = None

    def __post_init__(self) -> None:
        if self.keep.ndim != 1 or self.unit.shape != self.keep.shape:
            raise StatsError(f"keep is {self.keep.shape} and unit {self.unit.shape}; both must be (generations,).")
        if self.unit.size and not (self.unit.min() >= -1 and self.unit.max() < self.units):
            raise StatsError(f"Units run from 0 to {self.units - 1} (-1 is left out); found {np.unique(self.unit)}.")
        if self.spans is None:
            return
        if self.segment not in GENERATED:
            raise StatsError(
                f"Spans mark characters of an answer, but the segment is {self.segment!r}. "
                f"Choose {' or '.join(repr(name) for name in GENERATED)}."
            )
        if len(self.spans) != self.keep.size:
            raise StatsError(f"There are spans for {len(self.spans)} generations, not for {self.keep.size}.")
        for generation, span in enumerate(self.spans):
            ranges = np.asarray(span)
            if ranges.size and not (
                ranges.ndim == 2 and ranges.shape[1] == 2 and (ranges[:, 0] >= 0).all()
                and (ranges[:, 0] <= ranges[:, 1]).all() and (ranges < _ROOM // 2).all()
            ):  # fmt: skip
                raise StatsError(f"Spans of generation {generation} are not ranges of characters (n, 2): {ranges}.")

    @property
    def samples(self) -> int:
        """Units, or twice as many where spans divide them."""
        return self.units if self.spans is None else 2 * self.units

    @property
    def limits(self) -> Ints:
        """(generations,) tokens to count, 0 where the generation is left out."""
        return np.where(self.unit >= 0, self.keep, 0).astype(np.int64)

    def sample_of(self, shard: ShardLike, rows: Ints, generation: Ints) -> Ints:
        """The sample of each row, (rows,).

        Args:
            shard: where the rows stand.
            rows: (rows,) their indices; rows of the segment only.
            generation: (rows,) their generations, none of them left out.
        """
        unit = self.unit[generation].astype(np.int64)
        if self.spans is None:
            return unit
        first = np.asarray(shard.char_start)[rows].astype(np.int64)
        last = np.asarray(shard.char_end)[rows].astype(np.int64)
        return np.where(overlapping(self.spans, generation, first, last), unit + self.units, unit).astype(np.int64)


def overlapping(spans: Sequence[NDArray[np.int64]], generation: Ints, first: Ints, last: Ints) -> NDArray[np.bool_]:
    """(rows,) whether the characters [first, last) of each row overlap a span of its generation.

    Args:
        spans: for each generation ranges of characters, (n, 2).
        generation, first, last: (rows,).
    """
    starts, ends = _edges(spans)
    offset = generation * _ROOM
    return _meeting(starts, ends, offset + first, offset + last)


def bare_spans(spans: Sequence[NDArray[np.int64]], generation: Ints, first: Ints, last: Ints) -> Ints:
    """The spans that no row overlaps: what they mark cannot be seen in the routing.

    The last token that a model chose is not routed; others lie in another segment, or beyond what was kept.

    Args:
        spans: for each generation ranges of characters, (n, 2).
        generation, first, last: (rows,) the rows, with characters [first, last).

    Returns:
        (bare, 3) generation, start and end of each, in order.
    """
    filled, offset = first < last, generation * _ROOM
    starts, ends = np.sort((offset + first)[filled]), np.sort((offset + last)[filled])
    number = np.repeat(np.arange(len(spans), dtype=np.int64), [len(one) for one in spans])
    marks = np.concatenate([np.zeros((0, 2), dtype=np.int64), *(np.reshape(one, (-1, 2)) for one in spans)])
    met = _meeting(starts, ends, number * _ROOM + marks[:, 0], number * _ROOM + marks[:, 1])
    found: Ints = np.column_stack([number, marks])[~met]
    return found


def _meeting(starts: Ints, ends: Ints, first: Ints, last: Ints) -> NDArray[np.bool_]:
    """(n,) whether [first, last) overlaps a stretch; of the stretches, none empty, starts and ends are sorted."""
    # stretches begun before its end, less those over by its start
    begun = np.searchsorted(starts, last, side="left")
    over = np.searchsorted(ends, first, side="right")
    found: NDArray[np.bool_] = (begun > over) & (first < last)  # what has no characters overlaps nothing
    return found


def _edges(spans: Sequence[NDArray[np.int64]]) -> tuple[Ints, Ints]:
    """Starts and ends of all spans that are not empty, each sorted, with room for every generation's characters."""
    made = [np.zeros((0, 2), dtype=np.int64)]
    for generation, span in enumerate(spans):
        ranges = np.asarray(span, dtype=np.int64).reshape(-1, 2)
        made.append(ranges[ranges[:, 0] < ranges[:, 1]] + generation * _ROOM)
    edges = np.concatenate(made)
    return np.sort(edges[:, 0]), np.sort(edges[:, 1])
