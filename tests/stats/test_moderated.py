"""The moderated t-test against limma's own answers, and where there is next to nothing to test."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_ind, ttest_rel

from moeprobe.errors import StatsError
from moeprobe.stats import asin_sqrt, fit_prior, moderated_t, moderated_t_paired, sampling_floor

# R 4.2.2, limma 3.54.1; the file says how. Y is (12 samples, 200 experts).
CASE = json.loads((Path(__file__).parent / "data" / "limma_case.json").read_text())
Y, LABEL = np.array(CASE["Y"]), np.array(CASE["label"])


@pytest.mark.parametrize(("kind", "trend"), [("global", False), ("trend", True)])
def test_equals_limma(kind, trend):
    expected = {name: np.array(CASE["limma"][f"{kind}_{name}"]) for name in ("t", "p", "dft", "d0", "s20")}
    result = moderated_t(Y, LABEL, trend=trend)
    np.testing.assert_allclose(result.t, expected["t"], rtol=1e-10)
    np.testing.assert_allclose(result.p, expected["p"], rtol=1e-9)
    np.testing.assert_allclose(result.df, expected["dft"], rtol=1e-10)
    np.testing.assert_allclose(result.prior_df, expected["d0"][0], rtol=1e-10)
    np.testing.assert_allclose(result.prior_variance, np.broadcast_to(expected["s20"], 200), rtol=1e-10)
    assert result.prior_kind == ("trended" if trend else "global")


def test_a_floor_below_every_variance_changes_nothing():
    np.testing.assert_array_equal(moderated_t(Y, LABEL, floor=1e-12).p, moderated_t(Y, LABEL).p)


def test_swapping_the_groups_turns_the_sign():
    there, back = moderated_t(Y, LABEL), moderated_t(Y, 1 - LABEL)
    np.testing.assert_allclose(there.t, -back.t, rtol=1e-12)
    np.testing.assert_allclose(there.p, back.p, rtol=1e-12)


@pytest.mark.parametrize("experts", [1, 2])
def test_without_other_experts_it_is_the_ordinary_t_test(experts):
    result = moderated_t(Y[:, :experts], LABEL)
    expected = ttest_ind(Y[LABEL == 1, :experts], Y[LABEL == 0, :experts])
    np.testing.assert_allclose(result.p, expected.pvalue, rtol=1e-10)
    assert result.prior_kind == "none"
    assert result.prior_df == 0
    paired = moderated_t_paired(Y[:6, :experts], Y[6:, :experts])
    np.testing.assert_allclose(paired.p, ttest_rel(Y[:6, :experts], Y[6:, :experts]).pvalue, rtol=1e-10)


def test_paired_moderation_equals_its_formula():
    """Smyth 2004: t = mean / sqrt(posterior / n) with the posterior of fit_prior, df = n - 1 + d0."""
    difference = Y[:6] - Y[6:]
    result = moderated_t_paired(Y[:6], Y[6:], trend=False)
    variance = difference.var(axis=0, ddof=1)
    prior = fit_prior(variance, 5)
    posterior = (5 * variance + prior.df * prior.variance) / (5 + prior.df)
    np.testing.assert_allclose(result.t, difference.mean(axis=0) / np.sqrt(posterior / 6), rtol=1e-12)
    np.testing.assert_allclose(result.df, 5 + prior.df)


def test_prior_of_simulated_variances_is_recovered():
    """Variances drawn from the model itself: s^2 = s0^2 * chi2_df/df / (chi2_d0/d0), d0 = 8, s0^2 following x."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 20_000)
    truth = np.exp(-2 + 1.5 * x)
    draws = truth * rng.chisquare(10, x.size) / 10 / (rng.chisquare(8, x.size) / 8)
    prior = fit_prior(draws, 10, x)
    assert prior.df == pytest.approx(8, rel=0.1)
    np.testing.assert_allclose(prior.variance, truth, rtol=0.1)


def test_trend_spans_the_natural_spline():
    """A natural spline with knots at the quantiles, built from truncated powers, is fitted without error."""
    x = np.sort(np.random.default_rng(1).gamma(2, size=50))
    knots = np.quantile(x, [0, 1 / 3, 2 / 3, 1])

    def power(k):
        return (np.maximum(x - knots[k], 0) ** 3 - np.maximum(x - knots[3], 0) ** 3) / (knots[3] - knots[k])

    shape = 0.3 - 0.2 * x + 0.05 * (power(0) - power(2)) - 0.04 * (power(1) - power(2))
    prior = fit_prior(np.exp(shape), 1e6, x)  # so many degrees of freedom that nothing but the trend is left
    np.testing.assert_allclose(np.log(prior.variance), shape, atol=1e-5)
    assert not np.allclose(np.polynomial.Polynomial.fit(x, shape, 3)(x), shape, atol=1e-3)


def toy(experts=16, group=10, tokens=50):
    """A deterministic model: expert 0 always in group 1 and never in group 0, expert 1 the other way, others even."""
    labels = np.repeat([1, 0], group)
    rates = np.full((2 * group, experts), 0.25)
    rates[:, 0], rates[:, 1] = labels, 1 - labels
    return asin_sqrt(rates), labels, sampling_floor(np.full(2 * group, tokens), rates.mean(axis=0))


@pytest.mark.parametrize("experts", [1, 2, 3, 16])
@pytest.mark.parametrize("with_floor", [True, False])
def test_deterministic_model_gives_a_tiny_finite_p(experts, with_floor):
    values, labels, floor = toy()
    result = moderated_t(values[:, :experts], labels, floor=floor[:experts] if with_floor else None)
    for array in (result.t, result.p, result.df, result.effect, result.variance):
        assert np.isfinite(array).all()
    assert 0 < result.p[0] < 1e-15
    assert result.effect[0] == pytest.approx(np.pi / 2)
    np.testing.assert_array_equal(result.p[2:], 1.0)
    np.testing.assert_array_equal(result.t[2:], 0.0)


def test_p_is_never_zero_however_many_agree():
    values, labels, floor = toy(group=200, tokens=10_000)
    assert moderated_t(values, labels, floor=floor).p[0] == np.finfo(float).tiny


def test_floor_is_the_sampling_variance_and_bounds_the_t():
    values, labels, floor = toy(tokens=50)
    assert floor[0] == pytest.approx(1 / (4 * 50))
    result = moderated_t(values, labels, floor=floor)
    # by hand: pi/2 / sqrt(1/200 * (1/10 + 1/10))
    assert result.t[0] == pytest.approx(49.6729, rel=1e-5)
    fewer = moderated_t(values, labels, floor=toy(tokens=2)[2])
    assert fewer.p[0] > result.p[0]


def test_floor_for_rare_experts_is_the_rate():
    assert sampling_floor([100, 100], [1e-4])[0] == pytest.approx(1e-4, rel=1e-3)


def test_zero_variances_do_not_spoil_the_prior_of_the_others():
    """Half of the experts without any variance: the prior stays what the varying ones say."""
    still = np.tile([[0.5]], (12, 200))
    mixed = moderated_t(np.hstack([Y, still]), LABEL, trend=False)
    assert mixed.prior_df == pytest.approx(CASE["limma"]["global_d0"][0], rel=1e-10)
    np.testing.assert_allclose(mixed.p[:200], CASE["limma"]["global_p"], rtol=1e-8)
    np.testing.assert_array_equal(mixed.p[200:], 1.0)


def test_equal_covariates_fall_back_to_a_global_prior():
    centred = Y - Y.mean(axis=0)
    prior = fit_prior(centred.var(axis=0), 10, np.zeros(200))
    assert prior.kind == "global"


def test_many_ties_in_the_covariate_are_survived():
    variance = np.random.default_rng(2).chisquare(5, 100)
    covariate = np.r_[np.zeros(90), np.linspace(0.1, 1, 10)]
    prior = fit_prior(variance, 5, covariate)
    assert np.isfinite(prior.variance).all()
    assert (prior.variance > 0).all()


def test_single_layer_of_sixteen_experts():
    result = moderated_t(Y[:, :16], LABEL)
    assert result.prior_kind == "trended"
    assert ((result.p > 0) & (result.p <= 1)).all()


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (Y[:, 0], LABEL),
        (Y, LABEL[:5]),
        (Y, LABEL * 2),
        (Y, np.zeros(12)),
        (np.where(Y > 1, np.nan, Y), LABEL),
        (Y[:2], [0, 1]),
    ],
)
def test_refuses_what_it_cannot_test(values, labels):
    with pytest.raises(StatsError):
        moderated_t(values, labels)


def test_paired_refuses_unequal_tables():
    with pytest.raises(StatsError, match="one shape"):
        moderated_t_paired(Y[:6], Y[6:11])
