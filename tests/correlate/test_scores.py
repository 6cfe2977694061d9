"""The design "scores": against statsmodels, on simulated truth, and with scores that carry nothing."""

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import t as student

from moeprobe.designs.regrouping import regroup
from moeprobe.designs.scoring import WINDOW
from moeprobe.errors import ProbeError, StatsError
from moeprobe.stats import adjust
from moeprobe.stats.simulation import World, simulate
from tests.correlate.asking import (
    Scorer,
    answers_of,
    ask,
    called,
    shuffled_shards,
    standardised,
    with_metadata,
    written,
)

# Two experts leave nothing to learn a prior from: t is the ordinary one, which statsmodels knows.
TWO = World(generations=24, experts=2, k=1, layers=1, planted=1, planted_layers=1, mean_length=60.0, scores=True)
SIZE = {"experts": 64, "layers": 2, "k": 4, "planted": 6, "planted_layers": 1, "mean_length": 120.0}
SCORED = World(**SIZE, generations=60, scores=True, delta=2.0)
NULL = replace(SCORED, delta=0.0)
PLAIN = simulate(1, World(**(SIZE | {"experts": 16, "mean_length": 60.0}), generations=30))
LONG = 3  # a generation of PLAIN that is long enough for the window
BY = {"by": "metadata.score"}


def windows(trace):
    """The first tokens of every generation that is long enough, and which those are."""
    answers = answers_of(trace)
    lengths = np.array([len(words) for words, _ in answers])
    window = int(np.quantile(lengths, WINDOW))
    kept = [index for index in range(len(answers)) if lengths[index] >= window]
    return kept, [tuple(part[:window] for part in answers[index]) for index in kept], window


def scored(scores, **arguments):
    return ask(with_metadata(PLAIN, score=scores), **(BY | arguments))


def test_numbers_are_those_of_statsmodels():
    trace = simulate(3, TWO)
    question, rows, _ = ask(trace, **BY)
    kept, units, window = windows(trace)
    score = np.array([trace.generations[index].metadata["score"] for index in kept])
    rate = np.array([(experts == 0).any(axis=1).mean() for _, experts in units])
    beyond, excess = standardised(units)
    for test, values in ((rows[0], beyond), (rows[0]["marginal"], np.arcsin(np.sqrt(rate)))):
        fit = sm.OLS(values, sm.add_constant(score)).fit()
        assert test["t"] == pytest.approx(fit.tvalues[1], rel=1e-9)
        assert test["p"] == pytest.approx(fit.pvalues[1], rel=1e-9)
        assert test["df"] == len(kept) - 2
    robust = sm.OLS(rate, sm.add_constant(score)).fit(cov_type="HC3", use_t=True)
    assert rows[0]["rate_difference"] == pytest.approx(robust.params[1], rel=1e-9)
    assert rows[0]["rate_difference_ci"] == pytest.approx(robust.conf_int()[1].tolist(), rel=1e-9)
    assert rows[0]["beyond_difference"] == pytest.approx(
        sm.OLS(excess / window, sm.add_constant(score)).fit().params[1], rel=1e-9
    )
    design = question["design"]
    assert (design["kind"], design["units"], design["left_out"]["too_short"]) == ("scores", len(kept), 24 - len(kept))
    assert f"one window of {window} tokens" in design["length_matching"]
    assert design["positive"]["tokens_used"] + design["negative"]["tokens_used"] == window * len(kept)


def test_family_wise_p_is_that_of_dealing_out_the_scores_anew():
    trace = simulate(3, TWO)
    row = ask(trace, **BY, draws=4000)[1][0]
    kept, units, _ = windows(trace)
    score = np.array([trace.generations[index].metadata["score"] for index in kept])
    beyond = standardised(units)[0]
    rng = np.random.default_rng(5)
    correlation = abs(np.corrcoef(score, beyond)[0, 1])  # |t| rises with it; the second expert mirrors the first
    dealt = np.mean([abs(np.corrcoef(rng.permutation(score), beyond)[0, 1]) >= correlation for _ in range(4000)])
    assert row["fwer"] == pytest.approx(dealt, abs=0.03)


def test_samples_of_a_prompt_are_one_unit_with_their_mean_score():
    prompts = tuple(f"q{index // 2}" for index in range(48))
    trace = simulate(4, replace(TWO, generations=48, prompts=prompts, length_sd=0.0))
    question, rows, notes = ask(trace, **BY)
    answers = answers_of(trace)
    units = [tuple(np.concatenate(pair) for pair in zip(*answers[i : i + 2], strict=True)) for i in range(0, 48, 2)]
    score = np.array([one.metadata["score"] for one in trace.generations]).reshape(24, 2).mean(axis=1)
    fit = sm.OLS(standardised(units)[0], sm.add_constant(score)).fit()
    assert rows[0]["t"] == pytest.approx(fit.tvalues[1], rel=1e-9)
    assert (question["design"]["unit"], question["design"]["units"]) == ("prompt", 24)
    rate = [(experts == 0).any(axis=1).mean() for _, experts in units]
    slope = sm.OLS(rate, sm.add_constant(score)).fit().params[1]
    assert rows[0]["rate_difference"] == pytest.approx(slope, rel=1e-9)
    assert any("48 generations count as 24 prompts" in note for note in notes)


def test_scale_and_origin_of_the_score_do_not_matter():
    trace = simulate(3, TWO)
    score = np.array([one.metadata["score"] for one in trace.generations])
    row = ask(trace, **BY)[1][0]
    for factor, origin in ((-3.0, 7.0), (1e15, 0.0), (3600.0, 1.7e9), (1e-12, 0.0)):
        other = ask(with_metadata(trace, score=(factor * score + origin).tolist()), **BY)[1][0]
        assert other["t"] == pytest.approx(np.sign(factor) * row["t"], rel=1e-5)
        assert other["leave_one_out"]["p"] == pytest.approx(row["leave_one_out"]["p"], rel=1e-5)
        assert other["rate_difference"] == pytest.approx(row["rate_difference"] / factor, rel=1e-5)


def test_a_probe_can_be_asked_for_its_score():
    trace = simulate(3, TWO)
    judge = Scorer(trace, [one.metadata["score"] for one in trace.generations])
    rows = ask(trace, probe=judge, design="scores")[1]
    wanted = ask(trace, **BY)[1]
    assert [row["t"] for row in rows] == [row["t"] for row in wanted]
    assert ask(trace, probe=judge)[0]["design"]["kind"] == "two groups"  # a score in [0, 1] alone is no wish for scores


def token_level_calls(trace):
    """The mistake: every token as a replicate of its generation's score."""
    score = np.array([one.metadata["score"] for one in trace.generations])
    found = 0
    for layer in range(len(trace.manifest.layers)):
        answers = answers_of(trace, layer)
        x = np.repeat(score, [len(words) for words, _ in answers])
        experts = np.concatenate([experts for _, experts in answers])
        y = (experts[:, :, None] == np.arange(SIZE["experts"])).any(axis=1)
        r = ((x - x.mean()) @ y) / np.sqrt(((x - x.mean()) ** 2).sum() * np.maximum(y.var(axis=0), 1e-12) * len(y))
        p = 2 * student.sf(np.abs(r) * np.sqrt((len(y) - 2) / (1 - r**2)), len(y) - 2)
        found += int((adjust(p) < 0.05).sum())
    return found


def test_planted_experts_are_found_and_others_are_not():
    power, false = [], []
    for seed in range(6):
        trace = simulate(seed, SCORED)
        sites = called(ask(trace, **BY)[1])
        power.append(len(sites & trace.truth) / len(trace.truth))
        false.append(len([site for site in sites if site.startswith("L1.")]) / max(len(sites), 1))
    assert np.mean(power) >= 0.6
    assert np.mean(false) <= 0.1


def test_null_gate_that_tokens_as_replicates_fail():
    traces = [simulate(100 + seed, NULL) for seed in range(20)]
    assert np.mean([bool(called(ask(trace, **BY)[1])) for trace in traces]) <= 0.1
    assert np.mean([token_level_calls(trace) > 0 for trace in traces[:5]]) == 1.0


def test_a_score_that_rests_on_a_few_generations_is_not_tested(tmp_path):
    """One generation far from all others: its score alone would decide; so would one that differs from equal ones."""
    near = np.linspace(0, 1, 30)
    answers = []
    for scores in (near + 1000 * (near == near[LONG]), np.exp(40 * np.abs(near - near[LONG]))):
        question, rows, notes = scored(scores.tolist(), text=True)
        assert {row["association"] for row in rows} == {"untestable"}
        assert all("rests on fewer than 5 generations" in row["reason"] for row in rows)
        assert "so nothing was tested" in notes[-1]
        answers.append((question, rows, notes))
    written(answers[:1], tmp_path)
    assert scored(near.tolist())[0]["design"]["tested"]
    few = [1.0 if index in (3, 9, 12, 20) else 0.0 for index in range(30)]
    assert {row["reason"] for row in scored(few, design="scores")[1]} <= {
        f"fewer than 5 generations differ in score from the rest ({number})" for number in range(1, 5)
    }


def test_fewer_than_ten_scores_give_no_p_value(tmp_path):
    few = [None] * 21 + np.linspace(0, 1, 9).tolist()
    question, rows, notes = scored(few, text=True, draws=100)
    assert question["design"]["left_out"]["unlabelled"] == 21
    assert all(row["reason"].startswith("fewer than 10 generations with a score (") for row in rows)
    for row in rows:
        assert [row[key] for key in ("t", "p", "q", "fwer", "rate_difference", "rate_difference_ci")] == [None] * 6
        assert row["marginal"]["p"] is None
    assert "(fewer than 10 generations with a score" in notes[-1]
    written([(question, rows, notes)], tmp_path)


def test_scores_that_say_nothing_are_refused():
    lengths = [len(words) for words, _ in answers_of(PLAIN)]
    shortest = int(np.argmin(lengths))
    for scores, words in (
        ([0.3] * 30, "All 30 generations have the score 0.3"),
        ([None] * 30, "No generation has a value"),
        ([2.0 if index == shortest else 1.0 for index in range(30)], "with at least .* tokens have the score 1"),
    ):
        with pytest.raises(StatsError, match=words):
            scored(scores, design="scores", text=True)


@pytest.mark.parametrize("values", [[0.0, 1.0] * 15, [1.0] * 18 + [0.0] * 12, [0.0, 1.0, 2.0] * 10])
def test_the_groups_can_be_made_again_from_the_question(values):
    """Interchange does so: generations above the median, or with the largest number where most have it."""
    trace = with_metadata(PLAIN, score=values)
    question = ask(trace, **BY, design="scores")[0]
    groups = regroup(trace.generations, question)
    assert (groups.name, groups.positive, groups.numeric) == (question["name"], question["positive"], True)
    largest = max(value for value in values if (np.array(values) >= value).sum() >= 10)
    assert groups.member.tolist() == [int(value >= largest) for value in values]


def test_arguments_that_do_not_fit_scores():
    with pytest.raises(StatsError, match="scores are compared as numbers"):
        scored(np.linspace(0, 1, 30).tolist(), design="scores", positive="1")
    with pytest.raises(StatsError, match="not a finite number"):
        ask(PLAIN, by="metadata.topic", design="scores")
    with pytest.raises(StatsError, match="abstained on all 30"):
        ask(PLAIN, probe=Scorer(PLAIN, [None] * 30), design="scores")
    for score in (float("nan"), 1.5):
        with pytest.raises(ProbeError, match="not in"):
            ask(PLAIN, probe=Scorer(PLAIN, [score] * 30), design="scores")


def test_a_score_that_blocks_or_covariates_determine():
    score = np.linspace(0, 1, 30).tolist()
    trace = with_metadata(
        PLAIN, score=score, double=[2 * one for one in score], third=[f"b{i // 10}" for i in range(30)]
    )
    by_block = with_metadata(trace, score=[float(index // 10) for index in range(30)])
    for asked, options in ((trace, {"covariates": ["metadata.double"]}), (by_block, {"blocks": ["metadata.third"]})):
        with pytest.raises(StatsError, match="determines what is compared"):
            ask(asked, **BY, **options)
    own = with_metadata(trace, own=[f"b{index}" for index in range(30)])
    assert all("too few generations" in row["reason"] for row in ask(own, **BY, blocks=["metadata.own"])[1])


def test_every_expert_always_chosen():
    trace = simulate(0, World(generations=20, experts=4, k=4, layers=1, planted=1, mean_length=20.0, scores=True))
    rows = ask(trace, **BY, text=True)[1]
    assert {row["reason"] for row in rows} == {"selected at the same rate in every generation"}


def test_shards_do_not_matter_and_findings_are_read_again(tmp_path):
    trace = simulate(7, replace(SCORED, generations=30, mean_length=60.0))
    answer = ask(trace, **BY, text=True, draws=200)
    assert ask(shuffled_shards(trace), **BY, text=True, draws=200) == answer
    written([answer], tmp_path)
