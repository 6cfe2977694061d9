"""Integer sums of one layer: of its choices, and of what is compared, by sample and by stratum.

Integers in fixed point, so that the sums are the same to the last bit in whatever order shards and rows come.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from moeprobe.errors import StatsError, TraceError
from moeprobe.gathering.inputs import LayerLike, ShardLike, TraceLike
from moeprobe.gathering.responses import RESPONSES, Source
from moeprobe.gathering.strata import Layout, Part
from moeprobe.stats.rates import GATE_SCALE, to_fixed

Ints = NDArray[np.int64]
Array = NDArray[np.float64]

# Rows worked on at a time: bounds the memory for a shard of any size. With values for all experts it is fewer.
_ROWS = 1 << 16
_VALUES = 1 << 18


@dataclass(frozen=True, eq=False)
class Choices:
    """Some choices of a shard; arrays are (choices,).

    Attributes:
        row: which of the counted tokens of the shard.
        expert: whom it chose.
        gate: its gate weight, fixed point.
        value: what is compared, where that is a number of its own (norms); else None.
    """

    row: Ints
    expert: Ints
    gate: Ints
    value: Array | None


@dataclass(frozen=True, eq=False)
class LayerSums:
    """Sums of one layer. What is compared adds up in steps of 1 / scale, its squares in steps of 1 / square_scale.

    Attributes:
        selected, gate: (samples, experts) choices, and their gate weights in steps of 1 / GATE_SCALE.
        observed: (samples, experts) sum of what is compared.
        total, squares: (strata, experts) the same by stratum, and of its square; squares is None where that is itself.
        number: (strata, experts) choices; only where the response is conditional on them.
        labelled: (strata, experts) choices in samples with label 1; only where labels were given.
        triples: choices by sample, stratum and expert, (distinct,) twice: the number
            (sample * strata + stratum) * experts + expert, ascending, and how many; only where conditional.
    """

    selected: Ints
    gate: Ints
    observed: Ints
    total: Ints
    squares: Ints | None
    number: Ints | None
    labelled: Ints | None
    triples: tuple[Ints, Ints] | None
    scale: float
    square_scale: float


def sum_layer(
    trace: TraceLike,
    layout: Layout,
    info: LayerLike,
    response: str,
    source: Source | None,
    labels: Ints | None = None,
) -> LayerSums:
    """Sums of one layer over all shards.

    Args:
        trace, layout: the run, and which of its tokens count.
        info: the layer.
        response: a key of `RESPONSES`.
        source: where it stands; None where the choice itself says it.
        labels: (samples,) 0 or 1, to add up the choices of the samples with 1 as well.

    Raises:
        StatsError, TraceError: as `gather`.
    """
    sums = _Adder(layout, info, response, labels)
    if source is not None:
        sums.set_scale(largest(trace, layout, info, source, response))
    for shard, part in zip(trace.shards(), layout.parts, strict=True):
        for found in choices(shard, info, part.rows, source if RESPONSES[response].conditional else None):
            sums.add(part, found)
        if source is not None and RESPONSES[response].everywhere:
            for rows, values in everywhere(shard, info, part.rows, source):
                sums.add_everywhere(part.sample[rows], part.stratum[rows], values)
    return sums.result()


def choices(shard: ShardLike, info: LayerLike, rows: Ints, source: Source | None = None) -> Iterator[Choices]:
    """Choices of some rows that are there, block by block.

    Args:
        shard: where the rows stand.
        info: the layer.
        rows: (tokens,) rows of the shard.
        source: a column (rows, k) with a value for each choice.

    Raises:
        TraceError: arrays that are not (rows, k), or an expert beyond the layer's number.
        StatsError: weights or values that are not finite.
    """
    ids, weights, mask = shard.experts(info.layer), shard.weights(info.layer), shard.mask(info.layer)
    expected = (len(shard.generation), info.k)
    if ids.shape != expected or weights.shape != expected or (mask is not None and mask.shape != expected):
        raise TraceError(f"L{info.layer}: experts are {ids.shape} and weights {weights.shape}, expected {expected}.")
    column = None if source is None else source.column(shard, info.k)
    for start in range(0, rows.size, _ROWS):
        block = rows[start : start + _ROWS]
        row = np.repeat(np.arange(start, start + block.size, dtype=np.int64), info.k)
        expert, weight = ids[block].astype(np.int64).ravel(), weights[block].ravel()
        value = None if column is None else column[block, : info.k].astype(np.float64).ravel()
        if mask is not None:
            present = np.asarray(mask[block], dtype=np.bool_).ravel()
            row, expert, weight = row[present], expert[present], weight[present]
            value = None if value is None else value[present]
        if expert.size and not (int(expert.min()) >= 0 and int(expert.max()) < info.experts):
            wrong = int(expert.min()) if int(expert.min()) < 0 else int(expert.max())
            raise TraceError(f"L{info.layer} names expert {wrong}, but the layer has {info.experts}.")
        if source is not None and value is not None:
            _check_finite(value, source)
        yield Choices(row, expert, to_fixed(weight), value)


def everywhere(shard: ShardLike, info: LayerLike, rows: Ints, source: Source) -> Iterator[tuple[slice, Array]]:
    """Values of all experts of some rows, block by block: which of `rows`, and (tokens of the block, experts).

    Raises:
        StatsError: a value is not finite.
    """
    column, step = source.column(shard, info.experts), max(1, _VALUES // info.experts)
    for start in range(0, rows.size, step):
        block = slice(start, start + step)
        values = source.values(column[rows[block]], info.experts)
        _check_finite(values, source)
        yield block, values


def largest(trace: TraceLike, layout: Layout, info: LayerLike, source: Source, response: str) -> float:
    """Largest size of a counted value (a bound where it is known); it decides the fixed point."""
    if source.link or source.name.endswith(".probabilities"):
        return 1.0
    top = 0.0
    for shard, part in zip(trace.shards(), layout.parts, strict=True):
        for values in _values(shard, info, part.rows, source, response):
            top = max(top, float(np.abs(values).max(initial=0.0)))
    return top


def _values(shard: ShardLike, info: LayerLike, rows: Ints, source: Source, response: str) -> Iterator[Array]:
    if RESPONSES[response].conditional:
        yield from (one.value for one in choices(shard, info, rows, source) if one.value is not None)
    else:
        yield from (values for _, values in everywhere(shard, info, rows, source))


class _Adder:
    """The running sums."""

    def __init__(self, layout: Layout, info: LayerLike, response: str, labels: Ints | None) -> None:
        self.response, self.what, self.labels, self.experts = response, RESPONSES[response], labels, info.experts
        self.tokens = int(layout.tokens.sum())
        self.strata = 0 if layout.table is None else layout.table.shape[1]
        samples = (layout.tokens.size, info.experts)
        self.selected, self.gate = np.zeros(samples, np.int64), np.zeros(samples, np.int64)
        self.own = np.zeros(samples, np.int64) if self.what.signals else None
        self.total = self._by_stratum()
        self.squares = None if response == "S" else self._by_stratum()
        self.number = self._by_stratum() if self.what.conditional else None
        self.labelled = None if labels is None else self._by_stratum()
        self.keys: list[Ints] = []
        self.scale = self.square_scale = 1.0 if response == "S" else float(GATE_SCALE)

    def _by_stratum(self) -> Ints:
        return np.zeros((self.strata, self.experts), np.int64)

    def set_scale(self, peak: float) -> None:
        """Steps so fine that no sum over all tokens can overflow."""
        self.scale, self.square_scale = _scale(peak, self.tokens), _scale(peak * peak, self.tokens)

    def add(self, part: Part, found: Choices) -> None:
        """Add choices, and what is compared where that goes by choice."""
        cell = part.sample[found.row] * self.experts + found.expert
        _add(self.selected, cell, 1)
        _add(self.gate, cell, found.gate)
        if self.what.everywhere:
            return
        value, square = self._fixed(found)
        if self.own is not None:
            _add(self.own, cell, value)
        if not self.strata:
            return
        stratum = part.stratum[found.row]
        by_stratum = stratum * self.experts + found.expert
        _add(self.total, by_stratum, value)
        if self.squares is not None:
            _add(self.squares, by_stratum, square)
        if self.number is not None:
            _add(self.number, by_stratum, 1)
            self.keys.append(part.sample[found.row] * (self.strata * self.experts) + by_stratum)
        if self.labels is not None and self.labelled is not None:
            _add(self.labelled, by_stratum[self.labels[part.sample[found.row]] == 1], 1)

    def _fixed(self, found: Choices) -> tuple[Ints | int, Ints | int]:
        if self.response == "S":
            return 1, 1
        if found.value is None:
            return found.gate, (_squared(found.gate) if self.strata else 0)
        return _steps(found.value, self.scale), _steps(found.value**2, self.square_scale)

    def add_everywhere(self, sample: Ints, stratum: Ints, values: Array) -> None:
        """Add values (tokens, experts) of tokens of these samples and strata."""
        steps = _steps(values, self.scale)
        if self.own is not None:
            _add_rows(self.own, sample, steps)
        if self.strata and self.squares is not None:
            _add_rows(self.total, stratum, steps)
            _add_rows(self.squares, stratum, _steps(values * values, self.square_scale))

    def result(self) -> LayerSums:
        """The sums of all blocks added."""
        own = self.own if self.own is not None else (self.selected if self.response == "S" else self.gate)
        triples = _runs(self.keys) if self.number is not None else None
        return LayerSums(
            self.selected, self.gate, own, self.total, self.squares, self.number, self.labelled, triples,
            self.scale, self.square_scale,
        )  # fmt: skip


def _add(table: Ints, cell: Ints, steps: Ints | int) -> None:
    np.add.at(table.reshape(-1), cell, steps)


def _add_rows(table: Ints, group: Ints, steps: Ints) -> None:
    """Add rows to the table's rows: with a matrix of ones, which beats adding one by one six times."""
    held, number = np.unique(group, return_inverse=True)
    order = np.argsort(number, kind="stable")
    edges = np.searchsorted(number[order], np.arange(held.size + 1))
    ones: Any = csr_array((np.ones(order.size, np.int64), order, edges), shape=(held.size, order.size))
    table[held] += ones @ steps


def _check_finite(values: Array, source: Source) -> None:
    if not np.isfinite(values).all():
        raise StatsError(
            f"{source.name} is NaN or infinite for a token that counts, so it cannot be averaged. Choose another "
            "response, or other tokens."
        )


def _runs(keys: list[Ints]) -> tuple[Ints, Ints]:
    """Distinct keys in order, and how many of each."""
    ordered = np.concatenate([np.zeros(0, np.int64), *keys])
    keys.clear()  # they are half of the memory here
    ordered.sort()
    new = np.ones(ordered.size, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    first = np.flatnonzero(new)
    return ordered[first], np.diff(first, append=ordered.size)


def _scale(peak: float, tokens: int) -> float:
    """A power of two such that `tokens` values up to `peak`, in steps of 1 / it, add up to less than 2**62."""
    return math.ldexp(1.0, 61 - tokens.bit_length() - math.frexp(peak)[1]) if peak > 0 else 1.0


def _steps(values: Array, scale: float) -> Ints:
    return np.rint(values * scale).astype(np.int64)


def _squared(fixed: Ints) -> Ints:
    """Squares of weights, in fixed point of the same scale (error at most 1.2e-10 each)."""
    weight = fixed / GATE_SCALE
    if weight.size and np.abs(weight).max() > 1000:
        raise StatsError("A gate weight lies beyond 1,000. The variance of such weights cannot be summed exactly.")
    return to_fixed(weight * weight)
