"""Gathering: one pass over the ids of a trace, layer by layer, into what every later test needs.

All sums over tokens are sums of integers (weights in fixed point), and strata are numbered by their values, so the
result is the same to the last bit however the trace is cut into shards. What follows costs nothing per token.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.counts import Counts
from moeprobe.correlate.inputs import LayerLike, ShardLike, TraceLike
from moeprobe.correlate.selection import Selection
from moeprobe.correlate.strata import Layout, lay_out
from moeprobe.errors import StatsError, TraceError
from moeprobe.stats.beyond import Beyond, beyond_token
from moeprobe.stats.rates import GATE_SCALE, to_fixed

Ints = NDArray[np.int64]
Array = NDArray[np.float64]
Column = TypeVar("Column", bound=np.generic)

RESPONSES = ("S", "W")
# Rows worked on at a time: bounds the memory for a shard of any size.
_ROWS = 1 << 16


@dataclass(frozen=True, eq=False)
class Gathered:
    """Sums of every sample; a cell is one (layer, expert), ordered as in `counts`.

    Attributes:
        counts: tokens, selections and gate sums; samples as `Selection` numbers them.
        response: "S" (1 where a token chose the expert) or "W" (the weight it gave it, 0 where not chosen).
        beyond: what `observed` has beyond the strata of its tokens, (samples, cells); None without strata.
        strata_words: what the strata are, in words; None without strata.
        common: share of the tokens in strata that occur in two samples or more; None without strata.
    """

    counts: Counts
    response: str
    beyond: Beyond | None
    strata_words: str | None
    common: float | None

    @property
    def observed(self) -> Array:
        """(samples, cells) O: sum of the response over the tokens of each sample."""
        if self.response == "S":
            return self.counts.selected.astype(np.float64)
        return self.counts.gate / GATE_SCALE

    @property
    def held(self) -> Beyond:
        """`beyond`, the strata held fixed.

        Raises:
            StatsError: it was gathered without strata.
        """
        if self.beyond is None:
            raise StatsError("Nothing is expected of the samples: they were gathered without strata.")
        return self.beyond


@dataclass(frozen=True, eq=False)
class _Sums:
    """Integer sums of one layer: (samples, experts) and, for the response, (strata, experts)."""

    selected: Ints
    gate: Ints
    total: Ints
    squares: Ints | None

    def beyond(self, layout: Layout) -> Beyond:
        """What the samples have beyond their strata, in the response's own units."""
        table, tokens = layout.table, layout.stratum_tokens
        if self.squares is None:
            return beyond_token(self.selected, table, self.total, tokens)
        observed, total, squares = (sums / GATE_SCALE for sums in (self.gate, self.total, self.squares))
        return beyond_token(observed, table, total, tokens, squares=squares)


def gather(
    trace: TraceLike, selection: Selection, *, strata: tuple[str, ...] | None = ("token",), response: str = "S"
) -> Gathered:
    """Gather counts and, with strata, what they let expect.

    Args:
        trace: the run.
        selection: which tokens, for which samples.
        strata: ("token",), ("token", "position"), ("previous",), ("token", "previous"), () for all tokens as one
            stratum, or None for counts alone.
        response: "S" or "W".

    Raises:
        StatsError: unknown strata, response or segment; weights that are not finite or, for "W", above 1,000.
        TraceError: routing arrays whose shape is not (rows, k), an expert beyond the layer's number, or a generation
            that lies in two shards.
    """
    _check_response(response)
    layout, infos = lay_out(trace, selection, strata), list(trace.manifest.main_layers)
    if not infos:
        raise StatsError("The trace holds no layer of the main stack: there is nothing to count.")
    sizes = np.array([info.experts for info in infos])
    ends, shape = np.cumsum(sizes), (selection.samples, int(sizes.sum()))
    selected, gate = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    beyond = None if strata is None else _empty(*shape)
    for info, end in zip(infos, ends.tolist(), strict=True):
        cells = slice(end - info.experts, end)
        sums = _sum_layer(trace, layout, info, response)
        selected[:, cells], gate[:, cells] = sums.selected, sums.gate
        if beyond is not None:
            _fill(beyond, cells, sums.beyond(layout))
    layers = np.repeat([info.layer for info in infos], sizes).astype(np.int64)
    experts = np.concatenate([np.arange(size, dtype=np.int64) for size in sizes])
    counts = Counts(layout.tokens, selected, gate, layers, experts)
    return Gathered(counts, response, beyond, layout.words, layout.common)


def token_series(
    trace: TraceLike,
    selection: Selection,
    layer: int,
    *,
    strata: tuple[str, ...] | None = ("token",),
    response: str = "S",
    layout: Layout | None = None,
) -> list[Array]:
    """The response of one layer token by token, less the mean of its stratum; for circular shifts.

    Memory: 8 bytes for each counted token and expert of the layer.

    Args:
        trace, selection, strata, response: as in `gather`; without strata the response itself.
        layer: number of the layer.
        layout: `lay_out(trace, selection, strata)`, to make it once for all layers.

    Returns:
        For each generation with a counted token, in order, (tokens, experts), tokens in order of position.

    Raises:
        StatsError, TraceError: as `gather`, or no such layer.
    """
    _check_response(response)
    infos = {info.layer: info for info in trace.manifest.main_layers}
    if layer not in infos:
        raise StatsError(f"The trace has no layer {layer} in the main stack. It has {sorted(infos)}.")
    layout = layout or lay_out(trace, selection, strata)
    info, mean = infos[layer], None
    if layout.table is not None:
        scale = 1 if response == "S" else GATE_SCALE
        mean = _sum_layer(trace, layout, info, response).total / layout.stratum_tokens[:, None] / scale
    made: dict[int, Array] = {}
    for shard, part in zip(trace.shards(), layout.parts, strict=True):
        values = np.zeros((part.rows.size, info.experts))
        for row, expert, fixed in _choices(shard, info, part.rows):
            np.add.at(values, (row, expert), 1.0 if response == "S" else fixed / GATE_SCALE)
        if mean is not None:
            values -= mean[part.stratum]
        made |= _by_generation(part.generation, values)
    return [made[generation] for generation in sorted(made)]


def token_labels(trace: TraceLike, selection: Selection, *, layout: Layout | None = None) -> list[Ints]:
    """1 where a token overlaps a span, else 0; for each generation (tokens,), in the order of `token_series`.

    Raises:
        StatsError: a selection without spans, or as `gather`.
    """
    if selection.spans is None:
        raise StatsError("Tokens have labels only where spans mark a part of each generation.")
    made: dict[int, Ints] = {}
    for part in (layout or lay_out(trace, selection, None)).parts:
        made |= _by_generation(part.generation, part.sample // selection.units)
    return [made[generation] for generation in sorted(made)]


def _by_generation(generation: Ints, values: NDArray[Column]) -> dict[int, NDArray[Column]]:
    present, first = np.unique(generation, return_index=True)
    pieces = np.split(values, first[1:]) if present.size else []
    return dict(zip(present.tolist(), pieces, strict=True))


def _empty(samples: int, cells: int) -> Beyond:
    residual, expected, variance = (np.zeros((samples, cells)) for _ in range(3))
    return Beyond(residual, expected, variance, np.zeros(cells))


def _fill(whole: Beyond, cells: slice, layer: Beyond) -> None:
    whole.residual[:, cells], whole.expected[:, cells] = layer.residual, layer.expected
    whole.variance[:, cells], whole.floor[cells] = layer.variance, layer.floor


def _check_response(response: str) -> None:
    if response not in RESPONSES:
        raise StatsError(f"Unknown response {response!r}. Choose one of {', '.join(RESPONSES)}.")


def _sum_layer(trace: TraceLike, layout: Layout, info: LayerLike, response: str) -> _Sums:
    """Integer sums of one layer over all shards."""
    strata = 0 if layout.table is None else layout.table.shape[1]
    weighted = response == "W"
    by_sample, by_stratum = layout.tokens.size * info.experts, strata * info.experts
    selected, gate = np.zeros(by_sample, dtype=np.int64), np.zeros(by_sample, dtype=np.int64)
    total = np.zeros(by_stratum, dtype=np.int64)
    squares = np.zeros(by_stratum, dtype=np.int64) if weighted else None
    for shard, part in zip(trace.shards(), layout.parts, strict=True):
        for row, expert, fixed in _choices(shard, info, part.rows):
            ones = np.ones(row.size, dtype=np.int64)
            cell = part.sample[row] * info.experts + expert
            np.add.at(selected, cell, ones)
            np.add.at(gate, cell, fixed)
            if strata:
                cell = part.stratum[row] * info.experts + expert
                np.add.at(total, cell, fixed if weighted else ones)
                if squares is not None:
                    np.add.at(squares, cell, _squared(fixed))
    samples, groups = (layout.tokens.size, info.experts), (strata, info.experts)
    return _Sums(
        selected.reshape(samples),
        gate.reshape(samples),
        total.reshape(groups),
        None if squares is None else squares.reshape(groups),
    )


def _choices(shard: ShardLike, info: LayerLike, rows: Ints) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Choices of some rows, block by block: which of `rows`, the expert, and its weight in fixed point."""
    ids, weights, mask = shard.experts(info.layer), shard.weights(info.layer), shard.mask(info.layer)
    expected = (len(shard.generation), info.k)
    if ids.shape != expected or weights.shape != expected or (mask is not None and mask.shape != expected):
        raise TraceError(f"L{info.layer}: experts are {ids.shape} and weights {weights.shape}, expected {expected}.")
    for start in range(0, rows.size, _ROWS):
        block = rows[start : start + _ROWS]
        row = np.repeat(np.arange(start, start + block.size, dtype=np.int64), info.k)
        expert, weight = ids[block].astype(np.int64).ravel(), weights[block].ravel()
        if mask is not None:
            present = np.asarray(mask[block], dtype=np.bool_).ravel()
            row, expert, weight = row[present], expert[present], weight[present]
        if expert.size and not (int(expert.min()) >= 0 and int(expert.max()) < info.experts):
            wrong = int(expert.min()) if int(expert.min()) < 0 else int(expert.max())
            raise TraceError(f"L{info.layer} names expert {wrong}, but the layer has {info.experts}.")
        yield row, expert, to_fixed(weight)


def _squared(fixed: Ints) -> Ints:
    """Squares of weights, in fixed point of the same scale (error at most 1.2e-10 each)."""
    weight = fixed / GATE_SCALE
    if weight.size and np.abs(weight).max() > 1000:
        raise StatsError("A gate weight lies beyond 1,000. The variance of such weights cannot be summed exactly.")
    return to_fixed(weight * weight)
