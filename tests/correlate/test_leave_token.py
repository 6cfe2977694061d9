"""Leaving out token types: against loops over tokens, and against an expert that lives on one word."""

from dataclasses import replace

import numpy as np
import pytest

from moeprobe.correlate.leave_token import leave_token_out
from moeprobe.errors import StatsError, TraceError
from moeprobe.gathering.counts import segment_lengths
from moeprobe.gathering.gather import gather
from moeprobe.gathering.selection import Selection
from moeprobe.gathering.strata import STRATA
from moeprobe.sites import Site, expert_site, parse_expert
from moeprobe.stats import VariancePrior, beyond_token, moderated_linear, moderated_t, moderated_t_paired
from moeprobe.stats.simulation import SimulatedTrace, World, simulate

WORLD = World(generations=40, experts=32, k=4, layers=2, planted=3, planted_layers=1, delta=1.5, mean_length=80.0)
SMALL = World(generations=8, experts=8, k=2, layers=1, planted=0, planted_layers=0, mean_length=25.0, vocabulary=7)
FILLER = 0
PARTS = ("token", "position", "previous")


def everything(trace: SimulatedTrace, spans=None) -> Selection:
    size = len(trace.generations)
    return Selection("answer", segment_lengths(trace, "answer"), np.arange(size), size, spans)


def labels_of(trace: SimulatedTrace) -> np.ndarray:
    return np.array([one.label for one in trace.generations])


def with_filler(trace: SimulatedTrace, expert: int, layer: str = "L1") -> SimulatedTrace:
    """Every filler token of a positive generation chooses the expert, no filler of a negative one does."""
    labels, pieces = labels_of(trace), []
    for shard in trace.pieces:
        ids, weights = shard.routing[layer]
        ids = ids.copy()
        for row in np.flatnonzero(shard.token_id == FILLER):
            there = ids[row] == expert
            if labels[shard.generation[row]] and not there.any():
                ids[row, -1] = expert
            elif not labels[shard.generation[row]] and there.any():
                ids[row, there] = min(set(range(trace.world.experts)) - set(ids[row].tolist()) - {expert})
        pieces.append(replace(shard, routing={**shard.routing, layer: (ids, weights)}))
    return replace(trace, pieces=tuple(pieces))


def kept_prior(design, *, prior_df, prior_variance, floor, experts):
    """The moderated t of a design's last column, with a prior that is given."""
    variance = np.full(1, np.nan) if prior_variance is None else prior_variance
    prior = VariancePrior(prior_df, variance, "given", experts)

    def retest(table):
        result = moderated_linear(table, design, floor=floor, prior=prior)
        return result.t, result.p

    return retest


def decided(trace: SimulatedTrace, sites: list[Site], selection=None):
    """The deciding test of all cells, and the retest of some of them."""
    gathered, labels = gather(trace, selection or everything(trace)), labels_of(trace)
    rates = np.arcsin(np.sqrt(gathered.counts.selected / gathered.counts.tokens[:, None]))
    held = gathered.held
    result = moderated_t(held.residual, labels, floor=held.floor, abundance=rates.mean(axis=0))
    cells = [site.layer * WORLD.experts + site.expert for site in sites]
    design = np.column_stack([np.ones(labels.size), labels])
    retest = kept_prior(
        design, prior_df=result.prior_df, prior_variance=result.prior_variance[cells], floor=held.floor[cells],
        experts=result.t.size,
    )  # fmt: skip
    return result, retest, cells, held.residual[:, cells]


def test_an_expert_of_one_filler_loses_its_p_and_a_real_one_keeps_it() -> None:
    trace = with_filler(simulate(5, WORLD), 12)
    planted = max(trace.truth, key=lambda name: trace.effects[name])
    sites = [expert_site(1, 12), parse_expert(planted)]
    result, retest, cells, residual = decided(trace, sites)
    np.testing.assert_allclose(retest(residual)[0], result.t[cells], rtol=1e-10)
    assert (result.p[cells] < 1e-5).all()
    fake, real = leave_token_out(trace, everything(trace), sites, labels_of(trace), retest)
    assert fake["token_id"] == FILLER
    assert fake.get("token") == "w0000 "
    assert fake["p"] > 0.05
    assert real["p"] < 1e-5
    counts = gather(trace, everything(trace), strata=None).counts
    rates = counts.selected[:, cells] / counts.tokens[:, None]
    before = rates[labels_of(trace) == 1].mean(axis=0) - rates[labels_of(trace) == 0].mean(axis=0)
    assert abs(fake["rate_difference"]) < abs(before[0]) / 3
    assert real["rate_difference"] > before[1] / 2


def token_rows(trace, selection, strata, site, response):
    """Every counted token as (sample, stratum, token id, response), by a plain loop."""
    rows = []
    for shard in trace.pieces:
        for generation in np.unique(shard.generation):
            own = np.flatnonzero((shard.generation == generation) & (shard.segment == 1))
            own = own[np.argsort(shard.position[own])][: selection.keep[generation]]
            for rank, row in enumerate(own):
                values = int(shard.token_id[row]), int(np.log2(rank + 1)), int(shard.token_id[row - 1])
                value = dict(zip(PARTS, values, strict=True))
                sample = int(selection.unit[generation])
                if selection.spans is not None:
                    first, last = shard.char_start[row], shard.char_end[row]
                    sample += selection.units * any(first < b and last > a for a, b in selection.spans[generation])
                ids, weights = shard.routing[f"L{site.layer}"]
                hit = ids[row] == site.expert
                y = float(hit.any()) if response == "S" else float(weights[row][hit].sum())
                rows.append((sample, tuple(value[name] for name in strata), value["token"], y))
    return rows


def by_loop(rows, samples, dropped):
    """Residuals of the samples without a type, through `beyond_token`, the rates, and sqrt(V)."""
    rows = [row for row in rows if row[2] != dropped]
    numbers = {value: number for number, value in enumerate(sorted({row[1] for row in rows}))}
    table, total = np.zeros((samples, len(numbers))), np.zeros((len(numbers), 1))
    squares, observed, tokens = np.zeros((len(numbers), 1)), np.zeros((samples, 1)), np.zeros(samples)
    for sample, value, _, y in rows:
        table[sample, numbers[value]] += 1
        total[numbers[value]] += y
        squares[numbers[value]] += y * y
        observed[sample] += y
        tokens[sample] += 1
    held = beyond_token(observed, table, total, table.sum(axis=0), squares=squares)
    return held.residual[:, 0], observed[:, 0] / tokens, np.sqrt(held.variance[:, 0])


@pytest.mark.parametrize("response", ["S", "W"])
@pytest.mark.parametrize("strata", [one for one in STRATA if one])
def test_equals_a_loop_that_drops_the_tokens(strata, response) -> None:
    trace, site = simulate(1, SMALL), expert_site(0, 3)
    spans = [np.array([[0, 60]])] * 8 if strata == ("token",) else None
    selection = everything(trace, spans)
    labels = np.arange(selection.samples) % 2 if spans is None else np.repeat([0, 1], 8)
    tables = []

    def retest(table):
        tables.append(table[:, 0])
        t = table[labels == 1].mean(axis=0) - table[labels == 0].mean(axis=0)
        return t, np.exp(-np.abs(t))

    (found,) = leave_token_out(trace, selection, [site], labels, retest, strata=strata, response=response)
    rows = token_rows(trace, selection, strata, site, response)
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if response == "S" else {"rtol": 1e-6, "atol": 1e-6}
    np.testing.assert_allclose(tables[0], by_loop(rows, selection.samples, None)[0], **tolerance)
    kinds = sorted({row[2] for row in rows})
    wanted, worst, calls = {}, (-1.0, None), tables[1 : len(kinds) + 1]
    for kind in kinds:
        residual, rate, _ = by_loop(rows, selection.samples, kind)
        sign = np.sign(retest(tables[0][:, None])[0]) * np.sign(retest(residual[:, None])[0])
        p = retest(residual[:, None])[1][0] if sign > 0 else 1.0
        wanted[kind] = residual, rate[labels == 1].mean() - rate[labels == 0].mean()
        worst = max(worst, (p, kind), key=lambda one: one[0])
    assert found["p"] == pytest.approx(worst[0], rel=1e-6)
    assert found["rate_difference"] == pytest.approx(wanted[found["token_id"]][1], rel=1e-6)
    # every type was left out, exactly once
    assert len(kinds) > 4
    looked, expected = np.array(calls), np.array([residual for residual, _ in wanted.values()])
    for residual in expected:  # types that add nothing leave the same residuals
        counted = [np.isclose(table, residual, **tolerance).all(axis=1).sum() for table in (looked, expected)]
        assert counted[0] == counted[1] > 0


def test_the_first_types_are_those_that_contribute_most() -> None:
    """One of the residual, one of the rate: by loops, where they are not the same."""
    trace, labels, different = simulate(1, SMALL), np.arange(8) % 2, 0
    for expert in range(8):
        tables = []

        def retest(table, tables=tables):
            tables.append(table[:, 0])
            return np.ones(1), np.full(1, 0.5)

        leave_token_out(trace, everything(trace), [expert_site(0, expert)], labels, retest, kinds=1)
        rows = token_rows(trace, everything(trace), ("token",), expert_site(0, expert), "S")
        kinds = sorted({row[2] for row in rows})
        root, rate = by_loop(rows, 8, None)[2], by_loop(rows, 8, None)[1]
        mean = {kind: np.mean([row[3] for row in rows if row[2] == kind]) for kind in kinds}
        beyond, plain = np.zeros((8, len(kinds))), []
        for sample, _, kind, y in rows:
            beyond[sample, kinds.index(kind)] += (y - mean[kind]) / root[sample]
        for kind in kinds:
            change = by_loop(rows, 8, kind)[1] - rate
            plain.append(change[labels == 1].mean() - change[labels == 0].mean())
        first = np.argmax(np.abs(beyond[labels == 1].mean(axis=0) - beyond[labels == 0].mean(axis=0)))
        wanted = list(dict.fromkeys([int(first), int(np.argmax(np.abs(plain)))]))
        different += len(wanted) == 2
        assert len(tables) == 1 + len(wanted)
        for table, kind in zip(tables[1:], wanted, strict=True):
            np.testing.assert_allclose(table, by_loop(rows, 8, kinds[kind])[0], atol=1e-9)
    assert different >= 2


def test_shards_do_not_matter_and_scores_give_slopes() -> None:
    trace = simulate(3, WORLD)
    # the text of a type differs from generation to generation: that of the first one counts
    texts = [one.text.replace("w", chr(97 + one.index % 20)) for one in trace.generations]
    generations = [replace(one, text=text) for one, text in zip(trace.generations, texts, strict=True)]
    trace = replace(trace, generations=generations)
    sites = [expert_site(0, 4), expert_site(1, 7)]
    retest = decided(trace, sites)[1]
    labels = labels_of(trace)
    found = leave_token_out(trace, everything(trace), sites, labels, retest)
    order = np.random.default_rng(0).permutation(40).reshape(8, 5).tolist()
    other = trace.resharded(order)
    assert leave_token_out(other, everything(other), sites, labels, retest) == found
    doubled = leave_token_out(trace, everything(trace), sites, 2.0 * labels - 1, retest)
    for one, two in zip(found, doubled, strict=True):
        assert two["rate_difference"] == pytest.approx(one["rate_difference"] / 2)


def test_against_the_direction_counts_as_nothing() -> None:
    trace, site = simulate(1, SMALL), expert_site(0, 3)
    calls = []

    def turning(table):
        calls.append(table)
        return np.full(1, 3.0 if len(calls) == 1 else -3.0), np.full(1, 0.001)

    (found,) = leave_token_out(trace, everything(trace), [site], np.arange(8) % 2, turning)
    assert found["p"] == 1


def test_hostile_text_is_made_visible() -> None:
    trace = simulate(1, SMALL)
    generations = [replace(one, text="\u202e\n" * len(one.text)) for one in trace.generations]
    trace = replace(trace, generations=generations)

    def retest(table):
        return np.ones(8), np.full(8, 0.5)

    found = leave_token_out(trace, everything(trace), [expert_site(0, e) for e in range(8)], np.arange(8) % 2, retest)
    shown = {one["token_id"]: one["token"] for one in found}
    assert not any("\u202e" in text or "\n" in text for text in shown.values())
    assert set(shown.values()) == {"\u27e8U+202E\u27e9\\n" * 3}


def test_kept_prior_is_the_moderated_t_of_all_tokens() -> None:
    rng = np.random.default_rng(0)
    values, labels, floor = rng.normal(size=(20, 60)), np.arange(20) % 2, np.linspace(0, 2, 60)
    result = moderated_t(values, labels, floor=floor)
    design = np.column_stack([np.ones(20), labels])
    retest = kept_prior(
        design, prior_df=result.prior_df, prior_variance=result.prior_variance, floor=floor, experts=60
    )  # fmt: skip
    for mine, theirs in zip(retest(values), (result.t, result.p), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9)
    paired = moderated_t_paired(values[:10], values[10:], trend=False)
    retest = kept_prior(np.ones((10, 1)), prior_df=paired.prior_df, prior_variance=paired.prior_variance, floor=0,
                        experts=60)  # fmt: skip
    np.testing.assert_allclose(retest(values[:10] - values[10:])[1], paired.p, rtol=1e-9)
    t, p = retest(np.zeros((10, 60)))
    assert (t == 0).all()
    assert (p == 1).all()


def test_tokens_of_the_prompt_are_read_in_the_prompt() -> None:
    trace = simulate(1, SMALL)
    generations = [replace(one, text="?" * len(one.text)) for one in trace.generations]
    trace = replace(trace, generations=generations)
    size = segment_lengths(trace, "prompt")
    retest = kept_prior(np.ones((8, 1)), prior_df=0, prior_variance=None, floor=0.1, experts=8)
    selection = Selection("prompt", size, np.arange(8), 8)
    for one in leave_token_out(trace, selection, [expert_site(0, 1), expert_site(0, 5)], np.arange(8) % 2, retest):
        assert one["token"] == f"w{one['token_id']:04d} "


def test_weights_of_another_shape_are_refused() -> None:
    trace, labels = simulate(1, SMALL), np.arange(8) % 2
    ids, weights = trace.pieces[0].routing["L0"]
    damaged = replace(trace, pieces=(replace(trace.pieces[0], routing={"L0": (ids, weights[:, :1])}),))
    retest = kept_prior(np.ones((8, 1)), prior_df=0, prior_variance=None, floor=0.1, experts=8)
    with pytest.raises(TraceError, match=r"L0: weights are \(\d+, 1\)"):
        leave_token_out(damaged, everything(damaged), [expert_site(0, 1)], labels, retest)


def test_nothing_left_and_bad_input() -> None:
    trace = simulate(1, replace(SMALL, vocabulary=1))
    site, labels = expert_site(0, 3), np.arange(8) % 2
    retest = kept_prior(
        np.column_stack([np.ones(8), labels]), prior_df=0, prior_variance=None, floor=0.1, experts=8
    )  # fmt: skip
    (found,) = leave_token_out(trace, everything(trace), [site], labels, retest)
    assert found == {"token_id": 0, "token": "w0000 ", "rate_difference": None, "p": 1.0}
    nobody = Selection("answer", np.zeros(8, dtype=np.int64), np.arange(8), 8)
    assert leave_token_out(trace, nobody, [site], labels, retest) == [None]
    assert leave_token_out(trace, everything(trace), [], labels, retest) == []
    for arguments, match in [
        ((trace, everything(trace), [expert_site(0, 8)], labels, retest), "no expert L0.E8"),
        ((trace, everything(trace), [expert_site(4, 0)], labels, retest), "no expert L4.E0"),
        ((trace, everything(trace), [site], labels[:3], retest), "8 finite numbers"),
        ((trace, everything(trace), [site], np.ones(8), retest), "do not vary"),
    ]:
        with pytest.raises(StatsError, match=match):
            leave_token_out(*arguments)
    with pytest.raises(StatsError, match="S and W"):
        leave_token_out(trace, everything(trace), [site], labels, retest, response="Q")
