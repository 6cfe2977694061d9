"""Does a finding hang on one type of token? The worst p of the analyses that leave one type out (METHODS 3, trap 2).

An apparent leader can be one repeated filler token. Holding token identity fixed does not see that: it compares the
filler with itself, and finds that it is routed otherwise in one group. So the types that contribute most are taken out
one by one, of samples and expectation alike, and the deciding test is made again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeprobe.errors import StatsError
from moeprobe.gathering.chosen import chosen_gates
from moeprobe.gathering.counts import GENERATED
from moeprobe.gathering.inputs import TraceLike
from moeprobe.gathering.selection import Selection
from moeprobe.gathering.strata import Layout, lay_out
from moeprobe.sites import Site
from moeprobe.stats import GATE_SCALE
from moeprobe.stats.beyond import pearson_residual
from moeprobe.visible import shortened, visible

Ints = NDArray[np.int64]
Array = NDArray[np.float64]
# A table (rows, sites) to t and p, each (sites,).
Retest = Callable[[Array], tuple[Array, Array]]
# O - E and V, each (samples, sites), to such a table.
Respond = Callable[[Array, Array], Array]

# Token types left out of each site: so many by what they add beyond token identity, so many by the plain rate.
KINDS = 10
_SHOWN = 40


@dataclass(frozen=True, eq=False)
class _Tokens:
    """Counted tokens of each sample, stratum and type that occur together; arrays are (entries,) but for the last two.

    `entry` holds, for each shard, the entry of each counted token; `token_id` is (types,).
    """

    sample: Ints
    stratum: Ints
    kind: Ints
    count: Ints
    entry: tuple[Ints, ...]
    token_id: Ints


@dataclass(frozen=True, eq=False)
class _Response:
    """Sums of one expert's response, and of its square, over the tokens of each entry; (entries,)."""

    total: Array
    squares: Array


@dataclass(frozen=True, eq=False)
class _Left:
    """A site without one type of token: number of the type, O - E and V (samples,), and difference of the rates."""

    kind: int
    excess: Array
    variance: Array
    difference: float


def _residuals(excess: Array, variance: Array) -> Array:
    return pearson_residual(excess, np.zeros(excess.shape), variance)


def leave_token_out(
    trace: TraceLike,
    selection: Selection,
    sites: Sequence[Site],
    labels: ArrayLike,
    retest: Retest,
    *,
    strata: tuple[str, ...] = ("token",),
    response: str = "S",
    kinds: int = KINDS,
    respond: Respond = _residuals,
) -> list[dict[str, Any] | None]:
    """Leave out the token types that contribute most to each site, and report the one without which p is worst.

    For each site two lists of `kinds` types: those with the largest share |sum over tokens of the type of (y - m) /
    sqrt(V)| in the difference that the deciding test sees, and those whose absence changes the rate difference most.
    Without a type, O, E, V of every sample are summed anew over the other tokens. p is that of the worst type, so it
    is never a p to decide by. A type that is missing from one group is left out like any other.

    Args:
        trace: the run.
        selection: which tokens, for which samples.
        sites: the experts to look at; the cost grows with their number (some 50 ms each at 100,000 tokens).
        labels: (samples,) 1 or 0; or scores, whose rate difference is then a slope. Samples without tokens are ignored.
        retest: makes the deciding test of a table (rows, sites), sites in the order given, with prior and floor as
            they were for all tokens.
        strata, response: as in `gather`, which made the decision; "S" or "W".
        kinds: length of each list, at least 1.
        respond: makes the table from O - E and V of the samples; else it is (O - E) / sqrt(V).

    Returns:
        For each site {"token_id", "token": its text, printable, "" where no character is its own; "rate_difference":
        without it, None where a group has no other token; "p": 1 where the direction turns}. None without any token.

    Raises:
        StatsError: unknown layer, expert or response, or labels that do not fit or do not vary.
        TraceError: as `gather`.
    """
    if response not in ("S", "W") or kinds < 1:
        raise StatsError(f"Token types can be left out of S and W, one at least; found {response!r} and {kinds}.")
    layout, numbers = lay_out(trace, selection, strata), np.asarray(labels, dtype=np.float64)
    if numbers.shape != (selection.samples,) or not np.isfinite(numbers).all():
        raise StatsError(f"Labels must be {selection.samples} finite numbers; found shape {numbers.shape}.")
    tokens = _tabulate(trace, layout)
    if not sites or not tokens.count.size:
        return [None for _ in sites]
    every, left = np.ones(tokens.count.size, dtype=np.bool_), [list[_Left]() for _ in sites]
    full: list[tuple[Array, Array]] = [(np.zeros(0), np.zeros(0))] * len(sites)
    for place, sums in _responses(trace, layout, tokens, sites, response):
        full[place] = _beyond(tokens, sums, every, selection.samples)
        left[place] = _without(tokens, sums, numbers, kinds)
    worst, p = _worst(full, left, lambda columns: retest(respond(*_stacked(columns))))
    words = token_words(trace, selection, layout, {int(tokens.token_id[one.kind]) for one in worst})
    found: list[dict[str, Any] | None] = []
    for one, value in zip(worst, p, strict=True):
        token = int(tokens.token_id[one.kind])
        difference = one.difference if np.isfinite(one.difference) else None
        found.append({"token_id": token, "token": words.get(token, ""), "rate_difference": difference, "p": value})
    return found


def _tabulate(trace: TraceLike, layout: Layout) -> _Tokens:
    """Count the tokens by sample, stratum and type; entries are sorted, so that shards do not matter."""
    ids = [np.asarray(_token_ids(shard))[part.rows] for shard, part in zip(trace.shards(), layout.parts, strict=True)]
    sizes = np.cumsum([one.size for one in ids])
    token_id, kind = np.unique(np.concatenate(ids), return_inverse=True)
    sample = np.concatenate([part.sample for part in layout.parts])
    stratum = np.concatenate([part.stratum for part in layout.parts])
    strata = int(stratum.max(initial=0)) + 1
    code = (sample * strata + stratum) * max(token_id.size, 1) + kind
    cell, entry, count = np.unique(code, return_inverse=True, return_counts=True)
    rest, kinds = np.divmod(cell, max(token_id.size, 1))
    samples, numbers = np.divmod(rest, strata)
    pieces = tuple(np.split(entry, sizes[:-1]))
    return _Tokens(samples, numbers, kinds, count.astype(np.int64), pieces, token_id.astype(np.int64))


def _token_ids(shard: Any) -> NDArray[Any]:
    ids: NDArray[Any] | None = getattr(shard, "token_id", None)
    if ids is None:
        raise StatsError("The shards do not say which token each row is (token_id), so no type can be left out.")
    return ids


def _responses(
    trace: TraceLike, layout: Layout, tokens: _Tokens, sites: Sequence[Site], response: str
) -> list[tuple[int, _Response]]:
    """Place in `sites` and sums of each site; one pass over the ids of each layer."""
    infos = {info.layer: info for info in trace.manifest.main_layers}
    for site in sites:
        if site.layer not in infos or not 0 <= site.expert < infos[site.layer].experts:
            raise StatsError(f"The trace has no expert {site} in the main stack.")
    made, size = [], tokens.count.size
    for layer in sorted({site.layer for site in sites}):
        places = [place for place, site in enumerate(sites) if site.layer == layer]
        experts = np.array([sites[place].expert for place in places], dtype=np.int64)
        total, squares = np.zeros((len(places), size)), np.zeros((len(places), size))
        gates = chosen_gates(trace, layout, infos[layer], experts)
        for entry, (_, found) in zip(tokens.entry, gates, strict=True):
            for column, (row, fixed) in enumerate(found):
                # whole numbers in float64: exact, whatever the order of the shards
                weight = fixed.astype(np.float64) if response == "W" else np.ones(row.size)
                total[column] += np.bincount(entry[row], weight, size)
                squares[column] += np.bincount(entry[row], _squared(weight, response), size)
        scale = GATE_SCALE if response == "W" else 1
        made += [(place, _Response(total[c] / scale, squares[c] / scale)) for c, place in enumerate(places)]
    return made


def _squared(weight: Array, response: str) -> Array:
    # in fixed point of the same scale
    return np.rint(weight * (weight / GATE_SCALE)) if response == "W" else weight


def _stacked(columns: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    excess, variance = (np.column_stack(part) for part in zip(*columns, strict=True))
    return excess, variance


def _beyond(tokens: _Tokens, sums: _Response, used: NDArray[np.bool_], samples: int) -> tuple[Array, Array]:
    """O - E and V of each sample over some of the entries, (samples,) each; as `beyond_token`."""
    sample, stratum, count, total = tokens.sample[used], tokens.stratum[used], tokens.count[used], sums.total[used]
    excess, spread = _excess(stratum, count, total, sums.squares[used])
    above, variance = np.bincount(sample, excess, samples), np.bincount(sample, spread, samples)
    return above.astype(np.float64), variance.astype(np.float64)


def _excess(stratum: Ints, count: Ints, total: Array, squares: Array) -> tuple[Array, Array]:
    """O - E and V of each entry."""
    pooled = np.maximum(np.bincount(stratum, count), 1.0)
    mean, square = np.bincount(stratum, total) / pooled, np.bincount(stratum, squares) / pooled
    spread = square - mean**2
    spread[spread <= 64 * np.finfo(np.float64).eps * square] = 0  # nothing but rounding
    return total - count * mean[stratum], count * spread[stratum]


def _without(tokens: _Tokens, sums: _Response, labels: Array, kinds: int) -> list[_Left]:
    """One site without each of the types that contribute most."""
    made = []
    for kind in _candidates(tokens, sums, labels, kinds).tolist():
        other = tokens.kind != kind
        excess, variance = _beyond(tokens, sums, other, labels.size)
        made.append(_Left(kind, excess, variance, _difference(tokens, sums, other, labels)))
    return made


def _candidates(tokens: _Tokens, sums: _Response, labels: Array, kinds: int) -> Ints:
    """Numbers of the types to leave out: largest first, those of the residual before those of the rate."""
    samples, size = labels.size, tokens.token_id.size
    excess, spread = _excess(tokens.stratum, tokens.count, sums.total, sums.squares)
    variance = np.bincount(tokens.sample, spread, samples)
    root = np.sqrt(np.where(variance > 0, variance, np.inf))[tokens.sample]
    number = np.bincount(tokens.sample, tokens.count, samples)
    weight = _contrast(labels, number > 0)
    beyond = np.bincount(tokens.kind, weight[tokens.sample] * excess / root, size)
    # what the rate of each sample becomes without each of its types
    cell, place = np.unique(tokens.sample * size + tokens.kind, return_inverse=True)
    sample, kind = np.divmod(cell, size)
    total = np.bincount(tokens.sample, sums.total, samples)
    rest = number[sample] - np.bincount(place, tokens.count)
    rate = (total / np.maximum(number, 1))[sample]
    without = np.where(rest > 0, (total[sample] - np.bincount(place, sums.total)) / np.maximum(rest, 1), rate)
    plain = np.bincount(kind, weight[sample] * (without - rate), size)
    order = [np.argsort(-np.abs(one), kind="stable")[:kinds] for one in (beyond, plain)]
    return np.array(list(dict.fromkeys(np.concatenate(order).tolist())), dtype=np.int64)


def _difference(tokens: _Tokens, sums: _Response, used: NDArray[np.bool_], labels: Array) -> float:
    """Rate difference (for scores: slope) over some of the entries; NaN where the labels left do not vary."""
    sample = tokens.sample[used]
    number = np.bincount(sample, tokens.count[used], labels.size)
    there = number > 0
    if not there.any() or np.ptp(labels[there]) == 0:
        return float("nan")
    rate = np.bincount(sample, sums.total[used], labels.size) / np.maximum(number, 1)
    return float(_contrast(labels, there) @ rate)


def _contrast(labels: Array, there: NDArray[np.bool_]) -> Array:
    """Weights whose product with a response is its slope on the labels: for 1 and 0, the difference of the means."""
    centred = np.where(there, labels - labels[there].mean(), 0.0)
    length = float(centred @ centred)
    if length == 0:
        raise StatsError("The labels of the samples with tokens do not vary: there is nothing to compare.")
    return centred / length


def _worst(
    full: list[tuple[Array, Array]],
    left: list[list[_Left]],
    test: Callable[[list[tuple[Array, Array]]], tuple[Array, Array]],
) -> tuple[list[_Left], list[float]]:
    """The type of each site without which p is largest, and that p; the first of equals."""
    sign = np.sign(test(full)[0])
    worst, highest = [sorts[0] for sorts in left], np.full(len(left), -1.0)
    for turn in range(max(len(sorts) for sorts in left)):
        columns = [
            (sorts[turn].excess, sorts[turn].variance) if turn < len(sorts) else whole
            for sorts, whole in zip(left, full, strict=True)
        ]
        t, p = test(columns)
        # against the direction of the full analysis, a small p is no evidence for it
        p = np.where(t * sign > 0, p, 1.0)
        for at, sorts in enumerate(left):
            if turn < len(sorts) and p[at] > highest[at]:
                worst[at], highest[at] = sorts[turn], p[at]
    return worst, highest.tolist()


def token_words(trace: TraceLike, selection: Selection, layout: Layout, wanted: set[int]) -> dict[int, str]:
    """The text of some token ids where the first generation uses them with a character of their own."""
    found: dict[int, tuple[int, str]] = {}
    generated = selection.segment in GENERATED
    for shard, part in zip(trace.shards(), layout.parts, strict=True):
        first, last = (np.asarray(column)[part.rows] for column in (shard.char_start, shard.char_end))
        ids = np.where(last > first, _token_ids(shard)[part.rows], -1)
        for token, row in zip(*np.unique(ids, return_index=True), strict=True):
            generation = int(part.generation[row])
            if int(token) in wanted and generation < found.get(int(token), (len(trace.generations), ""))[0]:
                one = trace.generations[generation]
                text = (one.text if generated else one.prompt_text)[int(first[row]) : int(last[row])]
                found[int(token)] = generation, text
    return {token: _printable(text) for token, (_, text) in found.items()}


def _printable(text: str) -> str:
    return visible(shortened(text, _SHOWN)).replace("\n", "\\n").replace("\t", "\\t")
