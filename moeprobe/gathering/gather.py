"""Gathering: one pass over the ids of a trace, layer by layer, into what every later test needs.

All sums over tokens are sums of integers (weights in fixed point), and strata are numbered by their values, so the
result is the same to the last bit however the trace is cut into shards. What follows costs nothing per token.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeprobe.errors import StatsError
from moeprobe.gathering.counts import Counts
from moeprobe.gathering.expectation import beyond_nothing, beyond_strata, empty, fill, odds_ratio
from moeprobe.gathering.inputs import LayerLike, ShardLike, TraceLike
from moeprobe.gathering.responses import RESPONSES, Source, check_response, find_sources, words_of
from moeprobe.gathering.selection import Selection
from moeprobe.gathering.strata import Layout, Part, lay_out
from moeprobe.gathering.sums import LayerSums, choices, everywhere, sum_layer
from moeprobe.stats.beyond import Beyond
from moeprobe.stats.rates import GATE_SCALE

Ints = NDArray[np.int64]
Array = NDArray[np.float64]
Column = TypeVar("Column", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Gathered:
    """Sums of every sample; a cell is one (layer, expert), ordered as in `counts`.

    A layer in which the response was not recorded keeps its cells: counts as ever, NaN in `means`, all else 0.

    Attributes:
        counts: tokens, selections and gate sums; samples as `Selection` numbers them.
        response: a key of `moeprobe.gathering.responses.RESPONSES`.
        observed: (samples, cells) O, sum of the response over the tokens of each sample (over its choices of the
            expert, where the response is conditional on the choice).
        means: (samples, cells) mean response of a token (of a choice); NaN where there is none.
        beyond: what `observed` has beyond the strata of its tokens, (samples, cells); None without strata.
        plain: the same with all tokens as one stratum; None without strata.
        strata_words: what the strata are, in words; None without strata.
        response_words: what the response is, in words, and layers that lack it.
        common: share of the tokens in strata that occur in two samples or more; None without strata.
        odds_ratio: (cells,) Mantel-Haenszel common odds ratio of selection over the strata; NaN where no stratum says
            anything, infinity where only label 1 chose the expert. None without labels or strata, or for another
            response than "S".
    """

    counts: Counts
    response: str
    observed: Array
    means: Array
    beyond: Beyond | None
    plain: Beyond | None
    strata_words: str | None
    response_words: str
    common: float | None
    odds_ratio: Array | None = None

    @property
    def held(self) -> Beyond:
        """`beyond`, the strata held fixed.

        Raises:
            StatsError: it was gathered without strata.
        """
        return _expected(self.beyond)

    @property
    def unstratified(self) -> Beyond:
        """`plain`, all tokens as one stratum.

        Raises:
            StatsError: it was gathered without strata.
        """
        return _expected(self.plain)


def _expected(beyond: Beyond | None) -> Beyond:
    if beyond is None:
        raise StatsError("Nothing is expected of the samples: they were gathered without strata.")
    return beyond


def gather(
    trace: TraceLike,
    selection: Selection,
    *,
    strata: tuple[str, ...] | None = ("token",),
    response: str = "S",
    labels: ArrayLike | None = None,
) -> Gathered:
    """Gather counts and, with strata, what they let expect.

    Args:
        trace: the run.
        selection: which tokens, for which samples.
        strata: ("token",), ("token", "position"), ("previous",), ("token", "previous"), () for all tokens as one
            stratum, or None for counts alone.
        response: "S" or "W", for every token; "Q" or "norm", for every choice of the expert; "probability" or "logit",
            for every token and expert. The last three only where the trace recorded them.
        labels: (samples,) 0 or 1, for `Gathered.odds_ratio`; they change nothing else.

    Raises:
        StatsError: unknown strata, response or segment; a response that was not recorded, or not finite; weights that
            are not finite or, for "W" and "Q", above 1,000; labels that are not 0 or 1 for each sample.
        TraceError: routing arrays whose shape is not (rows, k), an expert beyond the layer's number, or a generation
            that lies in two shards.
    """
    check_response(response)
    marks = _check_labels(labels, selection.samples)
    layout, infos = lay_out(trace, selection, strata), list(trace.manifest.main_layers)
    if not infos:
        raise StatsError("The trace holds no layer of the main stack: there is nothing to count.")
    sources = find_sources(trace, layout.parts, infos, response)
    tables = _Tables(layout, infos, response, marks if strata is not None and response == "S" else None)
    for info in infos:
        there = info.layer in sources
        tables.put(
            info,
            # a layer without the response is counted all the same
            sum_layer(trace, layout, info, response if there else "S", sources.get(info.layer), tables.labels),
            there=there,
        )
    return tables.gathered(words_of(response, sources, infos))


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

    Where the response is conditional on the choice, a token that did not choose the expert is 0.

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
    check_response(response)
    infos = {info.layer: info for info in trace.manifest.main_layers}
    if layer not in infos:
        raise StatsError(f"The trace has no layer {layer} in the main stack. It has {sorted(infos)}.")
    layout = layout or lay_out(trace, selection, strata)
    info = infos[layer]
    source, mean = find_sources(trace, layout.parts, [info], response)[layer], None
    if layout.table is not None:
        mean = _stratum_means(sum_layer(trace, layout, info, response, source), layout)
    made: dict[int, Array] = {}
    for shard, part in zip(trace.shards(), layout.parts, strict=True):
        made |= _by_generation(part.generation, _token_values(shard, part, info, response, source, mean))
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


def _check_labels(labels: ArrayLike | None, samples: int) -> Ints | None:
    if labels is None:
        return None
    marks = np.asarray(labels)
    if marks.shape != (samples,) or not np.isin(marks, (0, 1)).all():
        raise StatsError(f"Labels are {marks.shape}; a 0 or 1 for each of the {samples} samples is needed.")
    return marks.astype(np.int64)


class _Tables:
    """What `gather` fills layer by layer."""

    def __init__(self, layout: Layout, infos: list[LayerLike], response: str, labels: Ints | None) -> None:
        self.layout, self.response, self.labels = layout, response, labels
        sizes = np.array([info.experts for info in infos])
        self.starts = dict(zip((info.layer for info in infos), (np.cumsum(sizes) - sizes).tolist(), strict=True))
        shape = (layout.tokens.size, int(sizes.sum()))
        layers = np.repeat([info.layer for info in infos], sizes).astype(np.int64)
        experts = np.concatenate([np.arange(size, dtype=np.int64) for size in sizes])
        selected, gate = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        self.counts = Counts(layout.tokens, selected, gate, layers, experts)
        self.observed, self.means = np.zeros(shape), np.full(shape, np.nan)
        strata = layout.table is not None
        self.beyond, self.plain = (empty(*shape) if strata else None for _ in range(2))
        self.odds_ratio = None if labels is None else np.full(shape[1], np.nan)

    def put(self, info: LayerLike, sums: LayerSums, *, there: bool) -> None:
        """One layer; `there` says whether it has the response, or counts alone."""
        start = self.starts[info.layer]
        cells = slice(start, start + info.experts)
        self.counts.selected[:, cells], self.counts.gate[:, cells] = sums.selected, sums.gate
        if not there:
            return
        self.observed[:, cells] = sums.observed / sums.scale
        given = sums.selected if RESPONSES[self.response].conditional else self.layout.tokens[:, None]
        np.divide(self.observed[:, cells], given, out=self.means[:, cells], where=given > 0)
        if self.beyond is not None and self.plain is not None:
            fill(self.plain, cells, beyond_nothing(sums, self.layout))
            fill(self.beyond, cells, beyond_strata(sums, self.layout))
        if self.odds_ratio is not None and sums.labelled is not None and self.labels is not None:
            self.odds_ratio[cells] = odds_ratio(sums.total, sums.labelled, self.layout.table, self.labels)

    def gathered(self, words: str) -> Gathered:
        return Gathered(
            self.counts, self.response, self.observed, self.means, self.beyond, self.plain, self.layout.words, words,
            self.layout.common, self.odds_ratio,
        )  # fmt: skip


def _stratum_means(sums: LayerSums, layout: Layout) -> Array:
    """Mean response in each stratum, (strata, experts); 0 where nothing is averaged."""
    number = layout.stratum_tokens[:, None] if sums.number is None else sums.number
    means: Array = sums.total / sums.scale / np.maximum(number, 1)
    return means


def _token_values(
    shard: ShardLike, part: Part, info: LayerLike, response: str, source: Source | None, mean: Array | None
) -> Array:
    """The response of a shard's counted tokens, (tokens, experts), less the mean of their strata."""
    values, what = np.zeros((part.rows.size, info.experts)), RESPONSES[response]
    if source is not None and what.everywhere:
        for rows, block in everywhere(shard, info, part.rows, source):
            values[rows] = block
    else:
        for found in choices(shard, info, part.rows, source):
            own = found.gate / GATE_SCALE if found.value is None else found.value
            if what.conditional and mean is not None:
                own = own - mean[part.stratum[found.row], found.expert]
            np.add.at(values, (found.row, found.expert), 1.0 if response == "S" else own)
    if mean is not None and not what.conditional:
        values -= mean[part.stratum]
    return values
