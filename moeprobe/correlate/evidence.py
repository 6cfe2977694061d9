"""What a reader can see of the leading findings: rates by unit and by position, and the strongest windows."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from moeprobe.correlate.counted import CountedTokens
from moeprobe.correlate.evidence_windows import Places, choose_windows, fill_windows
from moeprobe.designs.design import Design
from moeprobe.designs.groups import Groups
from moeprobe.gathering.chosen import chosen_gates
from moeprobe.gathering.counts import Counts
from moeprobe.gathering.inputs import TraceLike
from moeprobe.gathering.strata import Layout
from moeprobe.sites import Site
from moeprobe.stats import GATE_SCALE

Ints = NDArray[np.int64]
Array = NDArray[np.float64]
Json = dict[str, Any]

BINS = 12
SIDES = (("positive", 1), ("negative", 0))
# Rates are shown to three digits; six keep the file small and the mean difference exact enough to be checked.
DIGITS = 6


def evidence_of(
    trace: TraceLike,
    layout: Layout,
    tokens: CountedTokens,
    groups: Groups,
    design: Design,
    counts: Counts,
    sites: Sequence[Site],
    *,
    text: bool = True,
) -> tuple[Json, Json | None, dict[str, Json]]:
    """The evidence of some experts; one pass over the choices of their layers.

    Args:
        trace: the run.
        layout, tokens: the counted tokens, from `lay_out` of the design's selection and `counted_tokens`.
        groups: what the probe marked.
        design: who is compared.
        counts: the sums of the samples.
        sites: the experts.
        text: also the strongest windows, which hold text.

    Returns:
        `units` and `positions` of the question, and `evidence` by name of the site, as in docs/findings.md.

    Raises:
        TraceError: as `chosen_gates`.
    """
    units = _units(design, counts)
    if not tokens.rank.size or not sites:
        return units, None, {}
    edges = position_edges(tokens.rank)
    table = _Bins(tokens, edges, design.labels)
    found: dict[str, Json] = {}
    windows: list[tuple[str, Places]] = []
    for site, place, weight in _choices(trace, layout, tokens, sites):
        found[str(site)] = {
            "rates": _rates(design, counts, site),
            "timeline": table.timeline(place),
            "windows": [],
        }
        if text:
            chosen = choose_windows(tokens, design.labels, place, weight)
            windows += [(str(site), one) for one in chosen]
    if text:
        fill_windows(trace, tokens, groups, design, windows, found)
    return units, table.positions(), found


def position_edges(rank: Ints, bins: int = BINS) -> Ints:
    """Edges of at most `bins` bins of positions with about equally many tokens each; (bins + 1,).

    They begin at the first position that is counted: 0, but where only windows of answers were judged.
    """
    inner = np.quantile(rank, np.linspace(0, 1, bins + 1)[1:-1], method="higher")
    return np.unique(np.concatenate([[int(rank.min())], inner, [int(rank.max()) + 1]])).astype(np.int64)


def _choices(
    trace: TraceLike, layout: Layout, tokens: CountedTokens, sites: Sequence[Site]
) -> Iterator[tuple[Site, Ints, Array]]:
    """Each site with the counted tokens that chose it and their gate weights, one layer in memory at a time."""
    infos = {info.layer: info for info in trace.manifest.main_layers}
    for layer in sorted({site.layer for site in sites}):
        own = [site for site in sites if site.layer == layer]
        places: list[list[Ints]] = [[] for _ in own]
        weights: list[list[Ints]] = [[] for _ in own]
        gates = chosen_gates(trace, layout, infos[layer], np.array([site.expert for site in own], dtype=np.int64))
        for offset, (_, found) in zip(tokens.offsets, gates, strict=False):
            for number, (place, fixed) in enumerate(found):
                places[number].append(tokens.number[place + offset])
                weights[number].append(fixed)
        for site, place_, fixed_ in zip(own, places, weights, strict=True):
            place, weight = _once(np.concatenate(place_), np.concatenate(fixed_) / GATE_SCALE)
            yield site, place, weight


def _once(place: Ints, weight: Array) -> tuple[Ints, Array]:
    """Each token once, should it name an expert twice: its weights added up."""
    distinct, number = np.unique(place, return_inverse=True)
    return distinct, np.bincount(number, weight, distinct.size).astype(np.float64)


class _Bins:
    """Counted tokens by sample and bin of position."""

    def __init__(self, tokens: CountedTokens, edges: Ints, labels: Ints) -> None:
        self.edges, self.labels, self.bins = edges, labels, edges.size - 1
        self.cell = tokens.sample * self.bins + np.searchsorted(edges, tokens.rank, side="right") - 1
        self.tokens = self._table(self.cell)

    def _table(self, cell: Ints) -> Ints:
        return np.bincount(cell, minlength=self.labels.size * self.bins).reshape(self.labels.size, self.bins)

    def positions(self) -> Json:
        """Edges, and tokens and units of either side in each bin."""
        made: Json = {"edges": self.edges.tolist()}
        for side, code in SIDES:
            own = self.tokens[self.labels == code]
            made[side] = {"tokens": own.sum(axis=0).tolist(), "units": (own > 0).sum(axis=0).tolist()}
        return made

    def timeline(self, place: Ints) -> Json:
        """Rate of an expert in each bin with its interval; `place` are the tokens that chose it."""
        chosen = self._table(self.cell[place])
        return {
            side: _ratio(chosen[self.labels == code], self.tokens[self.labels == code]) for side, code in SIDES
        }  # fmt: skip


def _ratio(chosen: Ints, tokens: Ints) -> Json:
    """Ratio estimate of a share and its 95 % interval by columns, the rows being independent units.

    The linearised variance (Cochran 1977, section 2.11) with t over the units that have tokens there; never below
    that of independent tokens after Agresti and Coull, so that a share of exactly 0 or 1 is not taken as known.
    """
    units, size, total = (tokens > 0).sum(axis=0), tokens.sum(axis=0), chosen.sum(axis=0)
    rate = np.divide(total, size, out=np.full(size.shape, np.nan), where=size > 0)
    residual = chosen - np.nan_to_num(rate) * tokens
    spread = np.maximum(units - 1, 1)
    variance = units / spread * (residual**2).sum(axis=0) / np.maximum(size, 1) ** 2
    pulled = (total + 2) / (size + 4)
    variance = np.maximum(variance, pulled * (1 - pulled) / (size + 4))
    half = student.ppf(0.975, spread) * np.sqrt(variance)
    few = units < 2
    low, high = (np.where(few, np.nan, np.clip(end, 0, 1)) for end in (rate - half, rate + half))
    return {"rate": rounded(rate), "low": rounded(low), "high": rounded(high)}


def rounded(values: Array) -> list[float | None]:
    """Numbers for JSON to six digits, null where there is none."""
    return [None if np.isnan(value) else round(value, DIGITS) for value in values.tolist()]


def _units(design: Design, counts: Counts) -> Json:
    """Names, tokens and scores of the units of either side."""
    scores = design.frame.tested if design.kind == "scores" else None
    made: Json = {}
    for side, code in SIDES:
        members = np.flatnonzero(design.labels == code)
        made[side] = {
            "names": [design.names[member % design.units] for member in members.tolist()],
            "tokens": counts.tokens[members].tolist(),
            "scores": None if scores is None else rounded(scores[members]),
        }
    return made


def _rates(design: Design, counts: Counts, site: Site) -> Json:
    """Selection rates of the units of either side."""
    (cell,) = np.flatnonzero((counts.layers == site.layer) & (counts.experts == site.expert))
    rate = counts.selected[:, cell] / counts.tokens
    return {side: rounded(rate[design.labels == code]) for side, code in SIDES}
