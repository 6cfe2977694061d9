"""What is counted: the rows of a segment, and the sums of the units.

Counts are integers (gate weights in fixed point), so they are the same however the trace is cut into shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import StatsError, TraceError
from moeprobe.gathering.inputs import LayerLike, ShardLike, TraceLike

Ints = NDArray[np.int64]
# Segments the model generated; all others are parts of the prompt.
GENERATED = ("answer", "thinking")


@dataclass(frozen=True)
class Counts:
    """Counts of some samples (generations, or generations of one prompt together); a cell is one (layer, expert).

    Attributes:
        tokens: (samples,) tokens counted.
        selected: (samples, cells) tokens that chose the expert.
        gate: (samples, cells) sum of its gate weights, int64 fixed point (`moeprobe.stats.to_fixed`).
        layers, experts: (cells,) which expert each cell is, ordered by layer as in the manifest, then by expert.
    """

    tokens: Ints
    selected: Ints
    gate: Ints
    layers: Ints
    experts: Ints


def segment_codes(trace: TraceLike, segment: str) -> Ints:
    """The numbers of a segment in the shards. "prompt" is the whole prompt: what the chat template wrote ("prompt" in
    the shards), and the system, user and earlier turns inside it.

    Raises:
        StatsError: the trace knows no such segment.
    """
    names = list(trace.manifest.segments)
    if segment not in names:
        raise StatsError(f"The trace has no segment {segment!r}. Choose one of {', '.join(names)}.")
    wanted = [name for name in names if name not in GENERATED] if segment == "prompt" else [segment]
    return np.array([names.index(name) for name in wanted], dtype=np.int64)


def segment_lengths(trace: TraceLike, segment: str) -> Ints:
    """Routed tokens of each generation in a segment, (generations,)."""
    codes, size = segment_codes(trace, segment), len(trace.generations)
    lengths = np.zeros(size, dtype=np.int64)
    for shard in trace.shards():
        inside = _numbers(shard, size)[routed_rows(shard, shared_layers(trace), codes)]
        lengths += np.bincount(inside, minlength=size)
    return lengths


def other_stacks(trace: TraceLike) -> list[str]:
    """Names of the trace's stacks beside the main one."""
    layers = getattr(trace.manifest, "layers", ())
    return sorted({info.stack for info in layers if getattr(info, "stack", "")})


def shared_layers(trace: TraceLike) -> Sequence[LayerLike]:
    """The main layers, where rows may belong to another stack; none where all rows are theirs."""
    return trace.manifest.main_layers if other_stacks(trace) else ()


def routed_rows(shard: ShardLike, infos: Sequence[LayerLike], codes: Ints) -> NDArray[np.bool_]:
    """(rows,) rows of the segment that some layer of `infos` routed; all rows of the segment where there are none.

    The prompt of an encoder-decoder model runs through the encoder: its rows are no tokens that the decoder's experts
    could have been chosen for, and would make every share depend on the length of the prompt.
    """
    inside: NDArray[np.bool_] = np.isin(np.asarray(shard.segment), codes)
    masks = []
    for info in infos:
        mask = shard.mask(info.layer)
        if mask is None:
            return inside  # every row was routed there
        masks.append(np.asarray(mask, dtype=np.bool_).any(axis=1))
    return inside & np.logical_or.reduce(masks) if masks else inside


def kept_rows(shard: ShardLike, infos: Sequence[LayerLike], codes: Ints, keep: Ints) -> tuple[Ints, Ints, Ints]:
    """Rows to count, their generations, and their places in the segment, from 0.

    They are the first keep[g] routed rows of the segment, by position. Places are counted in the whole shard.
    """
    rows, generation, rank = _ranked(shard, infos, codes, keep.size)
    whole, place = whole_of(shard), rank
    if whole is not shard:
        every, _, ranks = _ranked(whole, infos, codes, keep.size)
        places = np.zeros(np.asarray(whole.segment).size, dtype=np.int64)
        places[every] = ranks
        place = places[rows]
    inside = rank < keep[generation]
    return rows[inside], generation[inside], place[inside]


def whole_of(shard: ShardLike) -> ShardLike:
    """The shard with all segments as they were recorded, where some tokens are set apart (`judged.JudgedTrace`)."""
    whole: ShardLike = getattr(shard, "whole", shard)
    return whole


def _ranked(shard: ShardLike, infos: Sequence[LayerLike], codes: Ints, size: int) -> tuple[Ints, Ints, Ints]:
    """Routed rows of the segment by generation and position, their generations and their ranks therein."""
    generation = _numbers(shard, size)
    rows = np.flatnonzero(routed_rows(shard, infos, codes))
    rows = rows[np.lexsort((np.asarray(shard.position)[rows], generation[rows]))]
    ordered = generation[rows]
    return rows, ordered, np.arange(rows.size) - np.searchsorted(ordered, ordered, side="left")


def _numbers(shard: ShardLike, generations: int) -> Ints:
    numbers: NDArray[Any] = np.asarray(shard.generation)
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < generations):
        raise TraceError(f"A shard names generation {int(numbers.max())}, but the trace lists {generations}.")
    return numbers.astype(np.int64)
