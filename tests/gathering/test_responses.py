"""Responses: each against a plain loop over tokens, the same whatever the shards, refused where it is not recorded."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit
from statsmodels.stats.contingency_tables import StratifiedTable

from moeprobe.errors import StatsError, TraceError
from moeprobe.gathering.gather import gather, token_series
from moeprobe.gathering.responses import RESPONSES, nearest_link
from moeprobe.gathering.selection import Selection
from moeprobe.gathering.strata import STRATA
from moeprobe.stats import World, mantel_haenszel, simulate
from tests.correlate.simulated import FakeTrace
from tests.correlate.simulated import simulate as fake
from tests.gathering.signalled import SMALL, beyond_by_loop, resharded, signalled, values_by_loop, without
from tests.gathering.test_gather import few_words, select, spans_of, tokens_by_loop

NUMBERS = ("residual", "expected", "variance", "floor")
SIGMOID = {"link": expit}


def compare(trace, selection, response, strata, link="softmax"):
    """Everything gathered of layer 1 against the loop."""
    gathered = gather(trace, selection, strata=strata, response=response)
    found = tokens_by_loop(trace, selection, strata)
    y, there = values_by_loop(trace, found, 1, response, link)
    sample, cells = np.array([one[1] for one in found]), gathered.counts.layers == 1
    close = {"rtol": 1e-9, "atol": 1e-9} if response in ("S", "logit", "norm") else {"rtol": 1e-6, "atol": 2e-7}
    for held, stratum in ((gathered.held, [one[2] for one in found]), (gathered.plain, [0] * len(found))):
        wanted = beyond_by_loop(y, there, sample, stratum, selection)
        np.testing.assert_allclose(gathered.observed[:, cells], wanted["observed"], **close)
        np.testing.assert_allclose(gathered.means[:, cells], wanted["means"], **close)
        for name in ("expected", "variance"):
            np.testing.assert_allclose(getattr(held, name)[:, cells], wanted[name], **close)
        np.testing.assert_allclose(held.residual[:, cells], wanted["residual"], rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(held.floor[cells], wanted["floor"], rtol=2e-4, atol=2e-4)
        assert wanted["variance"].max() > 0
    return gathered


@pytest.mark.parametrize("response", list(RESPONSES))
@pytest.mark.parametrize("strata", list(STRATA))
def test_equals_a_loop_over_tokens(strata, response):
    trace = signalled(0)
    gathered = compare(trace, select(trace), response, strata)
    assert gathered.response == response
    assert gathered.strata_words == STRATA[strata]


@pytest.mark.parametrize("response", list(RESPONSES))
def test_without_absent_choices_and_with_spans(response):
    trace = signalled(1, masked=0.0)
    selection = replace(select(trace), spans=spans_of(trace))
    gathered = compare(trace, selection, response, ("token",))
    assert gathered.observed.shape[0] == 2 * selection.units
    assert gathered.observed.any()


@pytest.mark.parametrize("response", list(RESPONSES))
def test_shards_and_their_order_do_not_matter(response, monkeypatch):
    trace = signalled(2)
    selection = replace(select(trace), spans=spans_of(trace))
    for strata in (("token",), ("token", "position")):
        whole = gather(trace, selection, strata=strata, response=response)
        series = token_series(trace, selection, 1, strata=strata, response=response)
        for order in ([range(12)], [[g] for g in range(11, -1, -1)], [[3, 1], [0, 2, 11], [10, 9, 8], [7, 6, 5, 4]]):
            again = gather(resharded(trace, order), selection, strata=strata, response=response)
            for name in NUMBERS:
                np.testing.assert_array_equal(getattr(again.held, name), getattr(whole.held, name))
                np.testing.assert_array_equal(getattr(again.plain, name), getattr(whole.plain, name))
            np.testing.assert_array_equal(again.means, whole.means)
            np.testing.assert_array_equal(again.observed, whole.observed)
            assert again.response_words == whole.response_words
            other = token_series(resharded(trace, order), selection, 1, strata=strata, response=response)
            assert all(np.array_equal(a, b) for a, b in zip(series, other, strict=True))
    whole = gather(trace, selection, response=response)
    monkeypatch.setattr("moeprobe.gathering.sums._ROWS", 7)
    monkeypatch.setattr("moeprobe.gathering.sums._VALUES", 50)
    again = gather(trace, selection, response=response)
    for name in NUMBERS:
        np.testing.assert_array_equal(getattr(again.held, name), getattr(whole.held, name))


@pytest.mark.parametrize("response", list(RESPONSES))
def test_series_are_the_residuals_of_single_tokens(response):
    trace = signalled(3)
    selection = select(trace)
    found = tokens_by_loop(trace, selection, ("token",))
    y, there = values_by_loop(trace, found, 1, response, "softmax")
    wanted = np.zeros_like(y)
    for stratum in {one[2] for one in found}:
        rows = np.array([one[2] == stratum for one in found])
        mean = np.divide((y * there)[rows].sum(0), there[rows].sum(0), out=np.zeros(16), where=there[rows].any(0))
        wanted[rows] = np.where(there[rows], y[rows] - mean, 0)
    series = token_series(trace, selection, 1, response=response)
    generations = sorted({one[0] for one in found})
    for generation, values in zip(generations, series, strict=True):
        rows = [index for index, one in enumerate(found) if one[0] == generation]
        np.testing.assert_allclose(values, wanted[rows], atol=2e-7)
    gathered = gather(trace, selection, response=response)
    total = np.zeros((5, 16))
    np.add.at(total, selection.unit[generations], np.array([one.sum(axis=0) for one in series]))
    np.testing.assert_allclose(total, (gathered.observed - gathered.held.expected)[:, 16:], atol=1e-8)


def test_plain_is_beyond_with_one_stratum():
    trace = few_words(fake(0, SMALL))
    selection = select(trace)
    for response in ("S", "W", "Q"):
        one, many = (gather(trace, selection, strata=strata, response=response) for strata in ((), ("token",)))
        for name in NUMBERS:
            np.testing.assert_array_equal(getattr(many.plain, name), getattr(one.beyond, name))
            np.testing.assert_array_equal(getattr(many.plain, name), getattr(one.plain, name))
        assert not np.array_equal(many.plain.expected, many.held.expected)
    gathered = gather(trace, selection)
    tokens, rate = gathered.counts.tokens[:, None], gathered.observed.sum(axis=0) / gathered.counts.tokens.sum()
    np.testing.assert_allclose(gathered.plain.expected, tokens * rate)
    np.testing.assert_allclose(gathered.plain.variance, tokens * rate * (1 - rate))
    assert gather(trace, selection, strata=None).plain is None
    np.testing.assert_array_equal(gather(trace, selection, strata=None).means, gathered.means)


def test_a_sample_that_never_chose_the_expert_says_nothing_of_its_weight():
    trace = signalled(4)
    selection = replace(select(trace), keep=np.full(12, 3))
    for response in ("Q", "norm"):
        gathered = gather(trace, selection, response=response)
        never = gathered.counts.selected == 0
        assert 0 < never.sum() < never.size
        assert np.isnan(gathered.means[never]).all()
        assert np.isfinite(gathered.means[~never]).all()
        for held in (gathered.held, gathered.plain):
            assert (held.residual[never] == 0).all()
            assert (held.variance[never] == 0).all()


def test_sigmoid_routers_are_told_from_softmax_by_their_weights():
    trace = signalled(5, **SIGMOID)
    gathered = compare(trace, select(trace), "probability", ("token",), "sigmoid")
    assert "sigmoid of the recorded logits" in gathered.response_words
    other = gather(signalled(5), select(trace), response="probability")
    assert "softmax of the recorded logits over all experts" in other.response_words
    assert np.abs(other.means - gathered.means).max() > 0.2
    # what the router returned already: nothing is done to it
    pieces = tuple(
        replace(one, signals={name.replace("logits", "probabilities"): v for name, v in one.signals.items()})
        for one in trace.pieces
    )
    recorded = gather(replace(trace, pieces=pieces), select(trace), response="probability")
    np.testing.assert_allclose(recorded.means, gather(trace, select(trace), response="logit").means, rtol=1e-9)
    assert "as the router returned it" in recorded.response_words


def test_links_of_weights():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (200, 12))
    ids = np.argsort(-scores, axis=1)[:, :3]
    soft, sigmoid = (np.take_along_axis(one, ids, 1) for one in (np.exp(scores), expit(scores)))
    noise = 1 + rng.uniform(-0.004, 0.004, ids.shape)  # bfloat16
    assert nearest_link(scores, ids, soft / soft.sum(1, keepdims=True) * noise) == "softmax"
    assert nearest_link(scores, ids, 2.5 * sigmoid / sigmoid.sum(1, keepdims=True) * noise) == "sigmoid"
    assert nearest_link(expit(scores), ids, sigmoid * noise) == ""
    # one choice: the weight itself
    share = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    assert nearest_link(scores, ids[:, :1], np.take_along_axis(share, ids[:, :1], 1)) == "softmax"
    assert nearest_link(scores, ids[:, :1], sigmoid[:, :1]) == "sigmoid"
    # weights that follow neither, or say nothing
    assert nearest_link(scores, ids, rng.random(ids.shape)) == "other"
    assert nearest_link(scores, ids, np.sqrt(np.log1p(soft))) == "other"  # DeepSeek-V4
    assert nearest_link(scores, ids, np.full(ids.shape, np.nan)) == "softmax"
    assert nearest_link(scores, ids[:, :1], np.ones((200, 1))) == "softmax"


def test_columns_beyond_the_experts_take_part_in_the_softmax_only():
    trace = signalled(6, spare=3)
    gathered = compare(trace, select(trace), "probability", ("token",))
    assert gathered.means[:, :16].sum(axis=1).max() < 0.95
    compare(trace, select(trace), "logit", ("token",))


def test_columns_of_something_else_are_refused():
    """Doge: as many logits as keys, two of which make an expert."""
    trace = signalled(6, spare=3)
    pieces = tuple(
        replace(one, signals={name: values[:, ::-1] for name, values in one.signals.items()}) for one in trace.pieces
    )
    for response in ("probability", "logit"):
        with pytest.raises(StatsError, match="L0.logits has 19 columns for 16 experts, and the gate weights do not"):
            gather(replace(trace, pieces=pieces), select(trace), response=response)
    # as many columns as experts: taken as they are, and it is said
    trace = signalled(6, link=lambda scores: np.sqrt(np.log1p(np.exp(scores))))
    gathered = gather(trace, select(trace), response="probability")
    assert "which the gate weights do not follow" in gathered.response_words
    np.testing.assert_allclose(gathered.means[:, :16].sum(axis=1), 1)


def test_what_is_not_recorded_is_refused_with_the_remedy():
    trace = fake(0, SMALL)
    for response, option in (("probability", "logits"), ("logit", "logits"), ("norm", "norms")):
        with pytest.raises(StatsError, match=rf"{response}.*moeprobe trace \.\.\. --what {option}"):
            gather(trace, select(trace), response=response)
    pieces = tuple(replace(one, signals={"L0.probabilities": np.zeros(1)}) for one in signalled(0).pieces)
    with pytest.raises(StatsError, match="choose the response 'probability'"):
        gather(FakeTrace(trace.manifest, trace.generations, pieces), select(trace), response="logit")
    listed = SimpleNamespace(main_layers=trace.manifest.layers, segments=trace.manifest.segments, signals=())
    with pytest.raises(StatsError, match="--what logits"):
        gather(SimpleNamespace(manifest=listed, generations=trace.generations, shards=trace.shards), select(trace),
               response="logit")  # fmt: skip


def test_a_layer_without_the_signal_keeps_its_counts_and_says_nothing():
    trace = signalled(7)
    whole, part = (gather(one, select(trace), response="logit") for one in (trace, without(trace, "L0.logits")))
    np.testing.assert_array_equal(part.counts.selected, whole.counts.selected)
    assert np.isnan(part.means[:, :16]).all()
    assert (part.held.variance[:, :16] == 0).all()
    np.testing.assert_array_equal(part.held.residual[:, 16:], whole.held.residual[:, 16:])
    assert part.response_words.endswith("not recorded in L0")
    assert "not recorded" not in whole.response_words


def broken(trace, name, change):
    pieces = list(trace.pieces)
    pieces[0] = replace(pieces[0], signals={**pieces[0].signals, name: change(pieces[0].signals[name].copy())})
    return replace(trace, pieces=tuple(pieces))


def poisoned(values):
    values[5] = np.nan
    return values


@pytest.mark.parametrize(
    ("response", "name", "change", "error", "match"),
    [
        ("logit", "L1.logits", poisoned, StatsError, "L1.logits is NaN or infinite"),
        ("probability", "L0.logits", poisoned, StatsError, "L0.logits is NaN or infinite"),
        ("norm", "L1.norms", poisoned, StatsError, "L1.norms is NaN or infinite"),
        ("logit", "L1.logits", lambda v: v[:, :9], TraceError, r"L1.logits is \(\d+, 9\)"),
        ("norm", "L1.norms", lambda v: v[:, 0], TraceError, r"L1.norms is \(\d+,\)"),
        ("norm", "L1.norms", lambda v: v[1:], TraceError, r"L1.norms is"),
    ],
)
def test_broken_signals_are_refused(response, name, change, error, match):
    trace = signalled(8)
    with pytest.raises(error, match=match):
        gather(broken(trace, name, change), select(trace), response=response)


def test_sizes_of_any_order_lose_no_digits():
    """The steps of the fixed point follow the values: lengths of a tiny model, and of one with huge activations."""
    trace = signalled(9)
    plain = gather(trace, select(trace), response="norm")
    for factor in (2.0**-30, 2.0**30):
        pieces = tuple(
            replace(one, signals={name: v * np.float32(factor) for name, v in one.signals.items()})
            for one in trace.pieces
        )
        scaled = gather(replace(trace, pieces=pieces), select(trace), response="norm")
        np.testing.assert_allclose(scaled.held.residual, plain.held.residual, rtol=1e-12)
        np.testing.assert_allclose(scaled.held.variance, plain.held.variance * factor**2, rtol=1e-12)


@pytest.mark.parametrize("response", ["W", "Q", "logit", "norm"])
def test_a_constant_response_leaves_nothing_to_compare(response):
    trace = signalled(10)
    pieces = tuple(
        replace(
            one,
            routing={layer: (i, np.full_like(w, 0.3), m) for layer, (i, w, m) in one.routing.items()},
            signals={name: np.full_like(v, 0.3) for name, v in one.signals.items()},
        )
        for one in trace.pieces
    )
    gathered = gather(replace(trace, pieces=pieces), select(trace), response=response, strata=())
    if response == "W":  # still 0 where not chosen
        assert (gathered.held.variance > 0).any()
        return
    assert (gathered.held.variance == 0).all()
    assert (gathered.held.residual == 0).all()


def labels_by_loop(trace, selection, labels, strata, layer=0):
    """One 2 x 2 table for each stratum and expert: rows label 1 and 0, columns chosen and not."""
    found, experts = tokens_by_loop(trace, selection, strata), trace.manifest.layers[layer].experts
    tables = {one[2]: np.zeros((experts, 2, 2)) for one in found}
    for _, sample, stratum, shard, row in found:
        ids, _, mask = trace.pieces[shard].routing[layer]
        chosen = {int(ids[row, choice]) for choice in range(ids.shape[1]) if mask is None or mask[row, choice]}
        for expert in range(experts):
            tables[stratum][expert, 1 - labels[sample], int(expert not in chosen)] += 1
    return list(tables.values())


@pytest.mark.parametrize("strata", [("token",), ("token", "position"), ()])
def test_odds_ratios_are_those_of_mantel_and_haenszel(strata, monkeypatch):
    trace, labels = signalled(11), np.array([1, 0, 1, 1, 0])
    selection = select(trace)
    gathered = gather(trace, selection, strata=strata, labels=labels)
    tables = labels_by_loop(trace, selection, labels, strata)
    ours = mantel_haenszel(
        np.array([t[:, 0, 0] for t in tables]), np.array([t[0, 0].sum() for t in tables]),
        np.array([t[:, 1, 0] for t in tables]), np.array([t[0, 1].sum() for t in tables]),
    ).odds_ratio  # fmt: skip
    np.testing.assert_allclose(gathered.odds_ratio[:16], ours, rtol=1e-12)
    both = [t for t in tables if t[0, 0].sum() and t[0, 1].sum()]
    for expert in range(16):
        theirs = StratifiedTable([t[expert] for t in both]).oddsratio_pooled
        np.testing.assert_allclose(gathered.odds_ratio[expert], theirs, rtol=1e-9)
    assert np.ptp(gathered.odds_ratio) > 0.1
    monkeypatch.setattr("moeprobe.gathering.expectation._ENTRIES", 8)
    again = gather(resharded(trace, [[3, 1], [0, 2, 11], [10, 9, 8], [7, 6, 5, 4]]), selection, strata=strata,
                   labels=labels)  # fmt: skip
    np.testing.assert_allclose(again.odds_ratio, gathered.odds_ratio, rtol=1e-13)
    np.testing.assert_array_equal(gather(trace, selection, strata=strata).held.residual, gathered.held.residual)


def test_odds_ratios_where_they_are_not_defined():
    trace = fake(0, SMALL)
    selection = select(trace)
    assert np.isnan(gather(trace, selection, labels=np.ones(5)).odds_ratio).all()
    assert gather(trace, selection).odds_ratio is None
    assert gather(trace, selection, labels=np.ones(5), strata=None).odds_ratio is None
    assert gather(trace, selection, labels=np.ones(5), response="W").odds_ratio is None
    for labels in (np.ones(4), np.full(5, 2), np.full(5, np.nan)):
        with pytest.raises(StatsError, match="0 or 1 for each of the 5 samples"):
            gather(trace, selection, labels=labels)


def test_planted_experts_stand_out_in_what_the_simulation_planted():
    """Logits are shifted by delta in the positive generations; every response but the others' weights must see it."""
    world = World(generations=60, layers=4, experts=32, k=4, mean_length=80, delta=1.5, logits=True)
    trace = simulate(0, world)
    label = np.array([one.label for one in trace.generations])
    lengths = np.array([one.answer_rows for one in trace.generations])
    selection = Selection("answer", lengths, np.arange(60), 60)
    planted = np.array([f"L{layer}.E{expert}" in trace.truth for layer in range(4) for expert in range(32)])
    silent = np.repeat(np.isin(range(4), trace.silent_layers), 32)
    assert planted.any()
    assert silent.any()
    for response in ("S", "W", "logit", "probability"):
        held = gather(trace, selection, response=response).held
        one, zero = held.residual[label == 1], held.residual[label == 0]
        with np.errstate(invalid="ignore"):  # experts that are never chosen
            t = (one.mean(0) - zero.mean(0)) / np.sqrt(one.var(0, ddof=1) / len(one) + zero.var(0, ddof=1) / len(zero))
        assert np.median(np.abs(t[planted])) > 4, response
        assert np.median(np.abs(t[silent])) < 1.5, response
    signs = np.array([trace.effects[f"L{layer}.E{expert}"] if f"L{layer}.E{expert}" in trace.truth else 0
                      for layer in range(4) for expert in range(32)])  # fmt: skip
    gathered = gather(trace, selection, response="logit")
    shift = gathered.means[label == 1].mean(0) - gathered.means[label == 0].mean(0)
    assert np.abs(shift - signs)[planted].mean() < 0.5
