"""Counting: how often, and with how much weight, each generation chose each expert.

Counts are integers (gate weights in fixed point), so they are the same however the trace is cut into shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.inputs import LayerLike, ShardLike, TraceLike
from moeprobe.errors import StatsError, TraceError
from moeprobe.stats import to_fixed

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

    def grouped(self, unit: Ints, units: int) -> "Counts":
        """Sums over samples of the same unit.

        Args:
            unit: (samples,) number of each sample's unit, 0 to units - 1.
            units: how many units there are.
        """

        def total(array: Ints) -> Ints:
            sums = np.zeros((units, *array.shape[1:]), dtype=np.int64)
            np.add.at(sums, unit, array)
            return sums

        return Counts(total(self.tokens), total(self.selected), total(self.gate), self.layers, self.experts)


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
        inside = _numbers(shard, size)[_routed(shard, shared_layers(trace), codes)]
        lengths += np.bincount(inside, minlength=size)
    return lengths


def count(trace: TraceLike, segment: str, keep: Ints) -> Counts:
    """Count the first `keep[g]` tokens of the segment of every generation g, in one pass over the shards.

    Args:
        trace: the run.
        segment: for example "answer".
        keep: (generations,) tokens to count; generations with 0 are left out of the result.

    Returns:
        Counts whose samples are the generations with keep > 0, in order. `tokens` is what was found, at most `keep`.

    Raises:
        TraceError: routing arrays whose shape is not (rows, k), or an expert beyond the layer's number.
        StatsError: no such segment, or gate weights that are not finite.
    """
    infos, codes = list(trace.manifest.main_layers), segment_codes(trace, segment)
    offsets = np.concatenate([[0], np.cumsum([info.experts for info in infos])]).astype(np.int64)
    members = np.flatnonzero(keep > 0)
    sample = np.full(keep.size, -1, dtype=np.int64)
    sample[members] = np.arange(members.size)
    tokens = np.zeros(members.size, dtype=np.int64)
    selected = np.zeros((members.size, int(offsets[-1])), dtype=np.int64)
    gate = np.zeros_like(selected)
    for shard in trace.shards():
        rows, generation = _kept(shard, shared_layers(trace), codes, keep)
        if not rows.size:
            continue
        present, local = np.unique(sample[generation], return_inverse=True)
        tokens[present] += np.bincount(local, minlength=present.size)
        for info, start in zip(infos, offsets[:-1], strict=True):
            chosen, weight = _count_layer(shard, info, rows, local, present.size)
            selected[present, start : start + info.experts] += chosen
            gate[present, start : start + info.experts] += weight
    layers = np.repeat([info.layer for info in infos], [info.experts for info in infos]).astype(np.int64)
    experts = np.concatenate([np.arange(info.experts, dtype=np.int64) for info in infos])
    return Counts(tokens, selected, gate, layers, experts)


def other_stacks(trace: TraceLike) -> list[str]:
    """Names of the trace's stacks beside the main one."""
    layers = getattr(trace.manifest, "layers", ())
    return sorted({info.stack for info in layers if getattr(info, "stack", "")})


def shared_layers(trace: TraceLike) -> Sequence[LayerLike]:
    """The main layers, where rows may belong to another stack; none where all rows are theirs."""
    return trace.manifest.main_layers if other_stacks(trace) else ()


def _routed(shard: ShardLike, infos: Sequence[LayerLike], codes: Ints) -> NDArray[np.bool_]:
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


def _kept(shard: ShardLike, infos: Sequence[LayerLike], codes: Ints, keep: Ints) -> tuple[Ints, Ints]:
    """Rows to count and their generations: the first keep[g] routed rows of the segment, by position."""
    generation = _numbers(shard, keep.size)
    rows = np.flatnonzero(_routed(shard, infos, codes))
    rows = rows[np.lexsort((np.asarray(shard.position)[rows], generation[rows]))]
    ordered = generation[rows]
    rank = np.arange(rows.size) - np.searchsorted(ordered, ordered, side="left")
    inside = rank < keep[ordered]
    return rows[inside], ordered[inside]


def _count_layer(shard: ShardLike, info: LayerLike, rows: Ints, local: Ints, samples: int) -> tuple[Ints, Ints]:
    """Selected counts and fixed-point gate sums of one layer in one shard, each (samples, experts)."""
    ids, weights, mask = shard.experts(info.layer), shard.weights(info.layer), shard.mask(info.layer)
    expected = (len(shard.generation), info.k)
    if ids.shape != expected or weights.shape != expected or (mask is not None and mask.shape != expected):
        raise TraceError(f"L{info.layer}: experts are {ids.shape} and weights {weights.shape}, expected {expected}.")
    ids, weights = ids[rows].astype(np.int64), weights[rows]
    cell = local[:, None] * info.experts + ids
    if mask is not None:
        present = np.asarray(mask[rows], dtype=bool)
        ids, weights, cell = ids[present], weights[present], cell[present]
    if ids.size and int(ids.max()) >= info.experts:
        raise TraceError(f"L{info.layer} names expert {int(ids.max())}, but the layer has {info.experts}.")
    flat, size = cell.ravel(), samples * info.experts
    fixed = to_fixed(weights).ravel()
    # bincount adds in float64, exact below 2**53: high and low half apart never come near that
    high = np.bincount(flat, weights=fixed >> 24, minlength=size).astype(np.int64)
    low = np.bincount(flat, weights=fixed & 0xFFFFFF, minlength=size).astype(np.int64)
    shape = (samples, info.experts)
    return np.bincount(flat, minlength=size).reshape(shape), ((high << 24) + low).reshape(shape)


def _numbers(shard: ShardLike, generations: int) -> Ints:
    numbers: NDArray[Any] = np.asarray(shard.generation)
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < generations):
        raise TraceError(f"A shard names generation {int(numbers.max())}, but the trace lists {generations}.")
    return numbers.astype(np.int64)
