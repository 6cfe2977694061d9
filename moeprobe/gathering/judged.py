"""A trace of which only some stretches of the answers were judged: tokens outside them are counted for neither side."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import StatsError
from moeprobe.gathering.counts import GENERATED
from moeprobe.gathering.inputs import GenerationLike, ShardLike, TraceLike
from moeprobe.gathering.selection import overlapping

UNJUDGED = "unjudged"
"""The segment of generated tokens outside all stretches."""


class JudgedTrace:
    """The same rows; generated tokens that overlap no stretch belong to the segment `UNJUDGED`.

    Args:
        trace: the run.
        stretches: for each generation ranges of characters of its answer, (n, 2).
        segment: which segment is compared.

    Raises:
        StatsError: the segment is part of the prompt, which nobody judged.
    """

    def __init__(self, trace: TraceLike, stretches: Sequence[NDArray[np.int64]], segment: str) -> None:
        if segment not in GENERATED:
            raise StatsError(
                f"The labels are of stretches of answers, but the segment is {segment!r}. "
                f"Choose {' or '.join(repr(name) for name in GENERATED)}."
            )
        self._trace, self._stretches = trace, stretches
        self.manifest = _Manifest(trace.manifest)

    @property
    def generations(self) -> Sequence[GenerationLike]:
        return self._trace.generations

    def shards(self) -> Iterable[ShardLike]:
        """The shards, one at a time."""
        for shard in self._trace.shards():
            yield _Shard(shard, self._stretches, list(self.manifest.segments))


class _Manifest:
    """The manifest with one segment more."""

    def __init__(self, manifest: Any) -> None:
        self._manifest, self.segments = manifest, (*manifest.segments, UNJUDGED)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manifest, name)


class _Shard:
    """A shard whose tokens outside the stretches have the last segment; `whole` is the shard as it was."""

    def __init__(self, shard: Any, stretches: Sequence[NDArray[np.int64]], segments: list[str]) -> None:
        self.whole = shard
        segment = np.asarray(shard.segment).astype(np.int64)
        codes = [code for code, name in enumerate(segments) if name in GENERATED]
        columns = (
            np.asarray(getattr(shard, name)).astype(np.int64) for name in ("generation", "char_start", "char_end")
        )
        outside = np.isin(segment, codes) & ~overlapping(stretches, *columns)
        self.segment = np.where(outside, len(segments) - 1, segment)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)
