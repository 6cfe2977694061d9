"""Simulated traces are like real routing, and each confound fools a naive test, but only when it is switched on."""

from dataclasses import replace

import numpy as np
import pytest
from simulation_measures import all_tokens, answers, in_register, labels, properties, selected, token_chi2

from moeprobe.stats import asin_sqrt
from moeprobe.stats.simulation import World, simulate

NULL = World(generations=80, layers=2, experts=128, mean_length=150, delta=0.0)
# Tokens are independent of each other: nothing but their identity decides.
INDEPENDENT = replace(NULL, topic_sd=0.0, generation_sd=0.0, context_sd=0.0)


def mean_calls(test, world, runs=4):
    return float(np.mean([len(test(simulate(seed, world))) for seed in range(runs)]))


# Properties of real routing, as far as STATISTICS.md 2 knows them


def test_measured_properties():
    made = [properties(simulate(seed, World(delta=0.0))) for seed in range(3)]
    mean = {name: float(np.mean([one[name] for one in made])) for name in made[0]}
    assert mean["design effect, median"] == pytest.approx(4.9, rel=0.15)
    assert mean["design effect, 95 %"] == pytest.approx(16, rel=0.35)
    assert mean["ICC, median"] == pytest.approx(0.017, rel=0.2)
    # STATISTICS.md does not say whether its 0.23 is adjusted for the number of token types.
    assert mean["R2 of token identity, adjusted"] < 0.23 < mean["R2 of token identity"]
    assert mean["S, 5 %"] == pytest.approx(1e-4, abs=9e-5)
    assert mean["S, 50 %"] == pytest.approx(0.010, rel=0.15)
    assert mean["S, 90 %"] == pytest.approx(0.093, rel=0.15)


def test_lengths_words_and_context():
    trace = simulate(0, World(generations=400, layers=1, planted_layers=0, experts=16, k=4))
    lengths = np.array([one.answer_rows for one in trace.generations])
    assert lengths.mean() == pytest.approx(200, rel=0.08)
    assert np.log(lengths).std() == pytest.approx(0.5, rel=0.1)
    times = np.sort(np.bincount(answers(trace).word, minlength=1500))[::-1]
    slope = np.polyfit(np.log(np.arange(1, 301)), np.log(times[:300]), 1)[0]
    assert -1.25 < slope < -0.85  # Zipf
    assert len({one.metadata["topic"] for one in trace.generations}) == 30


def test_context_remembers():
    """Selections of neighbouring tokens agree more than those of tokens 30 apart; without context they do not."""
    for context, low, high in ((1.5, 0.2, 1.0), (0.0, -0.02, 0.02)):
        world = World(generations=1, layers=1, planted_layers=0, mean_length=20_000, length_sd=0, token_sd=0.5,
                      generation_sd=0, context_sd=context)  # fmt: skip
        chosen = np.zeros((20_000, 256))
        np.put_along_axis(chosen, answers(simulate(0, world)).ids[0].astype(int), 1, axis=1)
        chosen -= chosen.mean(axis=0)
        near, far = ((chosen[:-lag] * chosen[lag:]).sum() / (chosen**2).sum() for lag in (1, 30))
        assert low < near - far < high


# Confounds


def test_samples_of_one_prompt_are_no_independent_units():
    assert mean_calls(all_tokens, replace(NULL, samples=10)) > 10
    assert mean_calls(all_tokens, NULL) < 1


def test_pairs_share_an_effect():
    def ratio(world):
        """Variance of the differences of neighbours against that of any two; 1 where they are independent."""
        counts, tokens = selected(simulate(0, world))
        values = asin_sqrt(counts / tokens[:, None])
        values = values[:, counts.sum(axis=0) >= 200]
        return np.median((values[::2] - values[1::2]).var(axis=0) / (2 * values.var(axis=0)))

    assert ratio(replace(NULL, pairs=True)) < 0.7
    assert 0.9 < ratio(NULL) < 1.1


@pytest.mark.parametrize("dependence", [{"generation_sd": 0.6}, {"topic_sd": 1.0}, {"context_sd": 1.0}])
def test_each_dependence_fools_the_token_chi_square(dependence):
    assert mean_calls(token_chi2, INDEPENDENT) < 1
    assert mean_calls(token_chi2, replace(INDEPENDENT, **dependence)) > 10


def test_length_fools_the_test_of_all_tokens():
    assert mean_calls(all_tokens, NULL) < 1
    shorter = replace(NULL, shorter_positives=6.0)
    assert mean_calls(all_tokens, shorter) > 10
    lengths = np.array([one.answer_rows for one in simulate(0, replace(shorter, generations=400)).generations])
    assert lengths[1::2].mean() / lengths[::2].mean() == pytest.approx(6, rel=0.15)


def test_position_fools_it_where_lengths_differ():
    """The raw rates have no bias from lengths alone; with special first tokens they have, and only then."""

    def raw(trace):
        return all_tokens(trace, raw=True)

    shorter = replace(NULL, shorter_positives=6.0)
    assert mean_calls(raw, shorter) < 3
    assert mean_calls(raw, replace(NULL, position_sd=1.0)) < 1
    assert mean_calls(raw, replace(shorter, position_sd=1.0)) > 20


def test_register_tokens_fool_the_marginal_test():
    assert mean_calls(all_tokens, replace(NULL, register_tokens=0.3)) > 10
    trace = simulate(0, replace(NULL, register_tokens=0.15))
    found, positive = answers(trace), labels(trace) == 1
    special = np.isin(found.word, trace.world.register_words)
    share = [special[positive[found.generation] == group].mean() for group in (True, False)]
    plain = answers(simulate(0, NULL))
    before = np.isin(plain.word, trace.world.register_words)[positive[plain.generation]].mean()
    assert share[0] == pytest.approx(0.15 + 0.85 * before, abs=0.02)
    assert share[1] < 0.05


def test_within_the_token_chi_square_is_fooled_by_stretches():
    def naive(trace):
        return token_chi2(trace, in_register(trace))

    world = replace(NULL, generations=8, mean_length=400, within=True)
    assert mean_calls(naive, replace(world, context_sd=1.2)) > 5
    assert mean_calls(naive, replace(INDEPENDENT, generations=8, mean_length=400, within=True)) < 1


def test_the_null_is_calibrated_where_tokens_are_independent():
    """p < .05 in 5 % of the experts: the simulator itself adds no difference between the labels."""
    shares = np.array([share_below_5_percent(simulate(seed, INDEPENDENT)) for seed in range(30)])
    # Experts of one trace depend on each other (the same words), so only the runs are independent.
    assert abs(shares.mean() - 0.05) < 3 * shares.std(ddof=1) / np.sqrt(shares.size)
    assert share_below_5_percent(simulate(0, replace(INDEPENDENT, context_sd=1.0))) > 0.15


def share_below_5_percent(trace):
    """Share of the experts with 20 selections or more whose uncorrected token chi-square has p < .05."""
    counts, tokens = selected(trace, labels(trace)[answers(trace).generation], 2)
    counts = counts[:, counts.sum(axis=0) >= 20]
    rate = counts.sum(axis=0) / tokens.sum()
    z = (counts[1] / tokens[1] - counts[0] / tokens[0]) / np.sqrt(rate * (1 - rate) * (1 / tokens).sum())
    return float((np.abs(z) > 1.959964).mean())
