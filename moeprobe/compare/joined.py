"""Some generations of a trace as a trace, and two traces as one: numbers are shifted, nothing is copied or changed."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.gathering.inputs import GenerationLike, ManifestLike, ShardLike, TraceLike

Ints = NDArray[np.int64]


class View:
    """A shard whose generations have other numbers; of its rows some, or all."""

    def __init__(self, shard: ShardLike, generation: Ints, rows: Ints | None = None) -> None:
        """Look at a shard.

        Args:
            shard: what is looked at.
            generation: (rows that are left,) their new numbers.
            rows: which rows are left, in their order; None for all of them.
        """
        self._shard: Any = shard
        self._generation, self._rows = generation, rows

    @property
    def generation(self) -> NDArray[Any]:
        return self._generation

    @property
    def token_id(self) -> NDArray[Any]:
        return self._take(self._shard.token_id)

    @property
    def position(self) -> NDArray[Any]:
        return self._take(self._shard.position)

    @property
    def segment(self) -> NDArray[Any]:
        return self._take(self._shard.segment)

    @property
    def char_start(self) -> NDArray[Any]:
        return self._take(self._shard.char_start)

    @property
    def char_end(self) -> NDArray[Any]:
        return self._take(self._shard.char_end)

    def experts(self, layer: int, /) -> NDArray[Any]:
        return self._take(self._shard.experts(layer))

    def weights(self, layer: int, /) -> NDArray[Any]:
        return self._take(self._shard.weights(layer))

    def mask(self, layer: int, /) -> NDArray[Any] | None:
        mask = self._shard.mask(layer)
        return None if mask is None else self._take(mask)

    def signal(self, name: str) -> NDArray[Any]:
        return self._take(self._shard.signal(name))

    def _take(self, values: Any) -> NDArray[Any]:
        array: NDArray[Any] = np.asarray(values)
        return array if self._rows is None else array[self._rows]


class Part:
    """Some generations of a trace, numbered anew.

    Attributes:
        manifest: that of the whole trace.
        generations: those that are in it.
        numbers: (generations of the whole,) their numbers here; -1 of those left out.
    """

    def __init__(self, trace: TraceLike, members: Sequence[int]) -> None:
        """Choose generations.

        Args:
            trace: the whole.
            members: numbers of its generations; the i-th becomes generation i.
        """
        self._trace = trace
        self.manifest: ManifestLike = trace.manifest
        self.generations: Sequence[GenerationLike] = [trace.generations[one] for one in members]
        self.numbers = np.full(len(trace.generations), -1, dtype=np.int64)
        self.numbers[np.asarray(members, dtype=np.int64)] = np.arange(len(members))

    def shards(self) -> Iterator[View]:
        """The shards, without the rows of other generations."""
        for shard in self._trace.shards():
            numbers = self.numbers[np.asarray(shard.generation)]
            rows = np.flatnonzero(numbers >= 0)
            whole = rows.size == numbers.size
            yield View(shard, numbers, None) if whole else View(shard, numbers[rows], rows)


class Joined:
    """Two traces as one: the generations of the second follow those of the first, and so do its shards.

    What is gathered over both shares the means of the strata, so that a token is compared with the same token in the
    other run.

    Attributes:
        manifest: that of the first; the second must have the same layers and segments (`matching.check_comparable`).
        generations: those of both.
        offset: number of the second's first generation.
    """

    def __init__(self, first: TraceLike, second: TraceLike) -> None:
        self._first, self._second = first, second
        self.manifest: ManifestLike = first.manifest
        self.generations: Sequence[GenerationLike] = [*first.generations, *second.generations]
        self.offset = len(first.generations)

    def shards(self) -> Iterator[ShardLike]:
        """All shards of the first trace, then those of the second."""
        yield from self._first.shards()
        for shard in self._second.shards():
            yield View(shard, np.asarray(shard.generation).astype(np.int64) + self.offset)
