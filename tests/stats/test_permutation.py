"""max-T against arrangements written out by hand, and against what goes wrong without it."""

import itertools
import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import ttest_1samp, ttest_ind

import moeprobe.stats.permutation as module
from moeprobe.errors import StatsError
from moeprobe.stats.moderated import moderated_linear, moderated_one, moderated_t
from moeprobe.stats.permutation import permutation_max_t
from moeprobe.stats.prior import fit_prior


def share(every, observed):
    """Share of arrangements (rows of |t|) whose largest reaches each observed |t|."""
    largest = np.max(every, axis=1)
    return np.array([np.mean(largest >= t - 1e-9) for t in np.abs(observed)])


def splits(ones, size):
    for chosen in itertools.combinations(range(size), ones):
        yield np.isin(np.arange(size), chosen).astype(int)


def test_two_groups_by_hand():
    """Two experts have no prior, so t is scipy's; all 35 splits of 3 + 4."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 2))
    values[:3, 0] += 2.5
    labels = np.array([1, 1, 1, 0, 0, 0, 0])
    every = [np.abs(ttest_ind(values[split == 1], values[split == 0]).statistic) for split in splits(3, 7)]
    observed = ttest_ind(values[:3], values[3:]).statistic
    result = permutation_max_t(values, labels)
    np.testing.assert_allclose(result.t, observed, rtol=1e-10)
    np.testing.assert_array_equal(result.p, share(every, observed))
    assert (result.draws, result.distinct, result.exhaustive) == (35, 35, True)
    assert result.smallest_p == 1 / 35  # no split of 3 + 4 is the mirror image of another


@pytest.mark.parametrize("floor", [None, 0.6])
@pytest.mark.parametrize("trend", [True, False])
def test_moderated_statistic_by_hand(trend, floor):
    """The formula of the module, written with labels, for each of the 70 splits of 4 + 4."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(8, 40)) * np.sqrt(rng.chisquare(4, 40) / 4) + rng.uniform(0, 5, 40)
    values[:4, 3] += 3
    prior = fit_prior(values.var(axis=0, ddof=1), 7, values.mean(axis=0) if trend else None)
    assert 0 < prior.df < math.inf

    def moderated(split):
        one, zero = values[split == 1], values[split == 0]
        squares = one.var(axis=0) * 4 + zero.var(axis=0) * 4
        variance = np.maximum((squares + prior.df * prior.variance) / (6 + prior.df), floor or 0)
        return (one.mean(axis=0) - zero.mean(axis=0)) / np.sqrt(variance / 2)

    every = [np.abs(moderated(split)) for split in splits(4, 8)]
    labels = np.repeat([1, 0], 4)
    result = permutation_max_t(values, labels, trend=trend, floor=floor)
    np.testing.assert_allclose(result.t, moderated(labels), rtol=1e-9)
    np.testing.assert_array_equal(result.p, share(every, moderated(labels)))
    assert result.smallest_p == 2 / 70
    assert result.p.min() < 0.2


def test_sign_flips_by_hand():
    values = np.random.default_rng(2).normal(size=(7, 2)) + np.array([1.2, 0])
    every = [
        np.abs(ttest_1samp(values * np.array(signs)[:, None], 0).statistic)
        for signs in itertools.product([1, -1], repeat=7)
    ]
    observed = ttest_1samp(values, 0).statistic
    result = permutation_max_t(values, scheme="flip")
    np.testing.assert_allclose(result.t, observed, rtol=1e-10)
    np.testing.assert_array_equal(result.p, share(every, observed))
    assert result.distinct == 128
    assert result.smallest_p == 2 / 128


def test_blocks_by_hand():
    """Labels move within blocks only (3 x 6 = 18 arrangements), t is that of OLS with dummies of the blocks."""
    values = np.random.default_rng(3).normal(size=(7, 2)) + np.array([0, 0, 0, 5, 5, 5, 5])[:, None]
    blocks = np.array(["a", "a", "a", "b", "b", "b", "b"])
    labels = np.array([1, 0, 0, 1, 1, 0, 0])
    dummies = np.column_stack([blocks == "a", blocks == "b"]).astype(float)

    def t(label):
        return np.array([sm.OLS(y, np.column_stack([dummies, label])).fit().tvalues[2] for y in values.T])

    every = [np.abs(t(np.concatenate([a, b]))) for a in splits(1, 3) for b in splits(2, 4)]
    shuffled = np.array([3, 0, 5, 1, 6, 2, 4])  # the order of samples means nothing
    result = permutation_max_t(values[shuffled], labels[shuffled], blocks=blocks[shuffled])
    np.testing.assert_allclose(result.t, t(labels), rtol=1e-9)
    np.testing.assert_array_equal(result.p, share(every, t(labels)))
    assert result.distinct == 18


@pytest.mark.parametrize("blocked", [False, True])
def test_freedman_lane_by_hand(blocked):
    """y* = fitted by the null model + permuted residuals, and t of the tested column in y* (Winkler et al. 2014)."""
    rng = np.random.default_rng(4)
    blocks = np.array([0, 0, 0, 1, 1, 1]) if blocked else np.zeros(6, dtype=int)
    covariate, score = rng.normal(size=6), rng.normal(size=6)
    values = rng.normal(size=(6, 2)) + covariate[:, None] + np.outer(score, [1.5, 0])
    null = np.column_stack([np.eye(blocks.max() + 1)[blocks], covariate])
    fitted = null @ np.linalg.lstsq(null, values, rcond=None)[0]

    def t(table):
        return np.array([sm.OLS(y, np.column_stack([null, score])).fit().tvalues[-1] for y in table.T])

    orders = [order for order in itertools.permutations(range(6)) if (blocks[list(order)] == blocks).all()]
    every = [np.abs(t(fitted + (values - fitted)[list(order)])) for order in orders]
    result = permutation_max_t(values, score, covariates=covariate, blocks=blocks if blocked else None)
    np.testing.assert_allclose(result.t, t(values), rtol=1e-8)
    np.testing.assert_array_equal(result.p, share(every, t(values)))
    assert result.distinct == len(orders) == (36 if blocked else 720)


def test_separated_groups_of_ten_reach_the_exact_bound():
    """METHODS 3, E114: 10 fire and 10 nofire generations without overlap, exact two-sided p 2/184756."""
    values = np.r_[np.linspace(2, 3, 10), np.linspace(0, 1, 10)][:, None]
    result = permutation_max_t(values, np.repeat([1, 0], 10), draws=200_000)
    assert result.distinct == 184_756
    assert result.p[0] == result.smallest_p == 2 / 184_756
    sampled = permutation_max_t(values, np.repeat([1, 0], 10), draws=999)
    assert sampled.smallest_p == 1 / 1000
    assert not sampled.exhaustive


def test_t_is_that_of_the_moderated_test_without_a_prior():
    rng = np.random.default_rng(5)
    values, labels, extra = rng.normal(size=(12, 2)), np.tile([0, 1], 6), rng.normal(size=12)
    np.testing.assert_allclose(permutation_max_t(values, labels).t, moderated_t(values, labels).t, rtol=1e-10)
    linear = moderated_linear(values, np.column_stack([np.ones(12), extra, labels]))
    held = permutation_max_t(values, labels, covariates=extra, draws=99)
    np.testing.assert_allclose(held.t, linear.t, rtol=1e-9)
    np.testing.assert_allclose(permutation_max_t(values, scheme="flip").t, moderated_one(values).t, rtol=1e-10)


@pytest.mark.parametrize("scheme", ["permute", "flip", "covariates"])
def test_random_arrangements_agree_with_all_of_them(scheme):
    rng = np.random.default_rng(6)
    values = (
        rng.normal(size=(10, 30)) + np.linspace(0, 1.5, 30) * np.repeat([1, 0 if scheme != "flip" else 1], 5)[:, None]
    )
    given = {
        "permute": {"labels": np.repeat([1, 0], 5)},
        "flip": {"scheme": "flip", "abundance": np.arange(30.0)},
        # two values of the covariate: 120 * 2 distinct rows, few enough to see them all
        "covariates": {"labels": np.tile([1, 0], 5), "covariates": np.repeat([1.0, 0], 5)},
    }[scheme]
    exact = permutation_max_t(values, draws=30_000, **given)
    sampled = permutation_max_t(values, draws=200 if scheme == "permute" else 1000, **given)
    assert exact.exhaustive
    np.testing.assert_allclose(sampled.p, exact.p, atol=0.12)
    if scheme == "flip":
        monte_carlo = permutation_max_t(values, draws=1000, seed=1, **given)
        assert not monte_carlo.exhaustive
        np.testing.assert_allclose(monte_carlo.p, exact.p, atol=4 * 0.5 / math.sqrt(1000))


def test_blocks_of_work_do_not_matter(monkeypatch):
    rng = np.random.default_rng(7)
    values, labels, extra = rng.normal(size=(20, 50)), np.tile([0, 1], 10), rng.normal(size=20)
    whole = [permutation_max_t(values, labels, covariates=extra, floor=f, draws=500) for f in (None, 0.9)]
    monkeypatch.setattr(module, "EXPERTS", 7)
    pieces = [permutation_max_t(values, labels, covariates=extra, floor=f, draws=500) for f in (None, 0.9)]
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(one.p, other.p)
    assert not np.array_equal(whole[0].p, whole[1].p)


def family_errors(make, test, runs=80):
    return np.mean([test(*make(np.random.default_rng(seed))).p.min() <= 0.05 for seed in range(runs)])


def test_holds_its_level_where_single_p_values_do_not():
    def null(rng):
        return rng.normal(size=(12, 60)) * rng.uniform(0.5, 2, 60), np.repeat([1, 0], 6)

    assert family_errors(null, lambda v, y: permutation_max_t(v, y, draws=199)) <= 0.1
    assert family_errors(null, moderated_t) > 0.5


def test_blocks_guard_against_topics_that_go_with_the_label():
    """A topic moves the experts and is more common under one label; permuting across topics calls that a finding."""

    def null(rng):
        topic = np.repeat([0, 1], 12)
        labels = np.r_[rng.permutation(np.repeat([1, 0], [10, 2])), rng.permutation(np.repeat([1, 0], [2, 10]))]
        return rng.normal(size=(24, 40)) + 2 * topic[:, None] * rng.normal(size=40), labels, topic

    assert family_errors(null, lambda v, y, b: permutation_max_t(v, y, blocks=b, draws=199)) <= 0.1
    assert family_errors(null, lambda v, y, b: permutation_max_t(v, y, draws=199)) > 0.5


def test_covariates_guard_against_a_correlated_register():
    """STATISTICS 5: two scores with r = .7, only the other one acts."""

    def null(rng):
        acting = rng.normal(size=30)
        score = 0.7 * acting + math.sqrt(1 - 0.49) * rng.normal(size=30)
        return rng.normal(size=(30, 40)) + np.outer(acting, rng.normal(size=40)), score, acting

    assert family_errors(null, lambda v, x, z: permutation_max_t(v, x, covariates=z, draws=199)) <= 0.1
    assert family_errors(null, lambda v, x, z: permutation_max_t(v, x, draws=199)) > 0.5


def test_finds_what_is_planted():
    rng = np.random.default_rng(8)
    values = rng.normal(size=(60, 300))
    values[:30, :5] += 2
    labels = np.repeat([1, 0], 30)
    result = permutation_max_t(values, labels, draws=999, trend=False)
    assert (result.p[:5] == 0.001).all()
    assert (result.t[:5] > 0).all()
    assert (result.p[5:] > 0.05).mean() > 0.99
    # The planted experts alone have this mean, and the prior of the null model takes their effect for variance.
    trended = permutation_max_t(values, labels, draws=999)
    assert (trended.p[:5] <= 0.01).all()
    assert (trended.t[:5] < moderated_t(values, labels).t[:5]).all()


@pytest.mark.parametrize("floor", [None, 0.01])
@pytest.mark.parametrize("experts", [1, 2, 16])
def test_deterministic_and_constant_experts_stay_finite(experts, floor):
    labels = np.repeat([1.0, 0.0], 6)
    values = np.full((12, 17), 0.25)
    values[:, 0] = labels
    for result in (
        permutation_max_t(values[:, :experts], labels, floor=floor),
        permutation_max_t(values[:, :experts], labels, floor=floor, draws=50),
        permutation_max_t(np.abs(values[:, :experts]), scheme="flip", floor=floor),
        permutation_max_t(values[:, 1 : experts + 1], labels, floor=floor),
    ):
        assert np.isfinite(result.t).all()
        assert ((result.p > 0) & (result.p <= 1)).all()
    assert permutation_max_t(values[:, :experts], labels, floor=floor).p[0] == 2 / 924
    np.testing.assert_array_equal(permutation_max_t(values[:, 1:], labels, floor=floor).p, 1.0)


VALUES = np.random.default_rng(9).normal(size=(8, 5))
LABELS = np.tile([0, 1], 4)


@pytest.mark.parametrize(
    ("values", "labels", "options", "message"),
    [
        (VALUES[:, 0], LABELS, {}, "finite table"),
        (VALUES * np.nan, LABELS, {}, "finite table"),
        (VALUES, LABELS[:5], {}, "8 finite numbers"),
        (VALUES, None, {}, "needs labels"),
        (VALUES, np.ones(8), {}, "Nothing is left"),
        (VALUES, LABELS, {"blocks": LABELS}, "Nothing is left"),
        (VALUES, LABELS, {"covariates": LABELS * 2.0}, "Nothing is left"),
        (VALUES, LABELS, {"covariates": np.ones((5, 1))}, "8 samples"),
        (VALUES, LABELS, {"blocks": [1, 2]}, "8 samples"),
        (VALUES, LABELS, {"scheme": "shuffle"}, "no scheme"),
        (VALUES, LABELS, {"scheme": "flip"}, "differences alone"),
        (VALUES[:1], None, {"scheme": "flip"}, "two or more"),
        (VALUES[:2], [0, 1], {}, "too few"),
        (VALUES, LABELS, {"draws": 0}, "at least one"),
        (VALUES, LABELS, {"floor": -1.0}, "not negative"),
        (VALUES, LABELS, {"abundance": [1.0]}, "5 finite numbers"),
    ],
)
def test_refuses_what_it_cannot_test(values, labels, options, message):
    with pytest.raises(StatsError, match=message):
        permutation_max_t(values, labels, **options)
