"""Moderated tests of a coefficient and of a mean: limma's answers, statsmodels, and a shortcut it rejects."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import ttest_1samp

from moeprobe.errors import StatsError
from moeprobe.stats import adjust, fit_prior, moderated_t, moderated_t_paired
from moeprobe.stats.moderated import moderated_linear, moderated_one

CASE = json.loads((Path(__file__).parent / "data" / "limma_case.json").read_text())
Y, LABEL = np.array(CASE["Y"]), np.array(CASE["label"])
TWO_GROUPS = np.column_stack([np.ones(12), LABEL])


@pytest.mark.parametrize(("kind", "trend"), [("global", False), ("trend", True)])
def test_equals_limma(kind, trend):
    """limma 3.54.1, lmFit(y, ~label) and eBayes: the linear model itself, whatever the order of its columns."""
    for design, column in ((TWO_GROUPS, -1), (TWO_GROUPS[:, ::-1], 0)):
        result = moderated_linear(Y, design, column, trend=trend)
        np.testing.assert_allclose(result.t, CASE["limma"][f"{kind}_t"], rtol=1e-9)
        np.testing.assert_allclose(result.p, CASE["limma"][f"{kind}_p"], rtol=1e-8)
        np.testing.assert_allclose(result.df, CASE["limma"][f"{kind}_dft"], rtol=1e-9)


@pytest.mark.parametrize("floor", [None, 0.5])
def test_two_groups_are_the_two_sample_test(floor):
    one, other = moderated_linear(Y, TWO_GROUPS, floor=floor), moderated_t(Y, LABEL, floor=floor)
    for name in ("t", "p", "df", "effect", "variance"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-13)


def test_without_a_prior_it_is_ordinary_least_squares():
    rng = np.random.default_rng(0)
    design = np.column_stack([np.ones(15), rng.normal(size=15), 1e5 * rng.normal(size=15), np.arange(15) % 3 == 0])
    values = rng.normal(size=(15, 2))
    for column in range(4):
        result = moderated_linear(values, design, column)
        for e in range(2):
            fit = sm.OLS(values[:, e], design).fit()
            np.testing.assert_allclose(result.effect[e], fit.params[column], rtol=1e-9)
            np.testing.assert_allclose(result.t[e], fit.tvalues[column], rtol=1e-9)
            np.testing.assert_allclose(result.p[e], fit.pvalues[column], rtol=1e-8)
        np.testing.assert_array_equal(result.df, 11)


def test_moderation_equals_its_formula():
    """Smyth 2004 with statsmodels' residual variance and standard error for each of 30 experts."""
    rng = np.random.default_rng(1)
    design = np.column_stack([np.ones(14), rng.normal(size=(14, 2))])
    values = rng.normal(size=(14, 30)) * np.sqrt(rng.chisquare(5, 30) / 5)
    fits = [sm.OLS(y, design).fit() for y in values.T]
    variance = np.array([fit.mse_resid for fit in fits])
    prior = fit_prior(variance, 11, values.mean(axis=0))
    posterior = (11 * variance + prior.df * prior.variance) / (11 + prior.df)
    plain = np.array([fit.tvalues[1] for fit in fits])
    assert 0 < prior.df < math.inf
    np.testing.assert_allclose(moderated_linear(values, design, 1).t, plain * np.sqrt(variance / posterior), rtol=1e-9)


def test_one_sample_is_the_paired_test_of_the_differences():
    covariate = (Y[:6] + Y[6:]).mean(axis=0) / 2
    for trend in (True, False):
        one = moderated_one(Y[:6] - Y[6:], covariate=covariate, trend=trend)
        pairs = moderated_t_paired(Y[:6], Y[6:], trend=trend)
        np.testing.assert_array_equal(one.p, pairs.p)
        assert one.prior_kind == ("trended" if trend else "global")
    plain = moderated_one(Y[:, :2])
    np.testing.assert_allclose(plain.p, ttest_1samp(Y[:, :2], 0).pvalue, rtol=1e-9)
    assert moderated_one(Y).prior_kind == "global"  # the mean of the values is what is tested, never the trend


def test_holding_the_other_register_fixed_rejects_what_it_explains():
    """Scores with r = .7, only the first acts. Alone the second is "found"; beside the first it is not."""
    alone, partial, acting = [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        first = rng.normal(size=60)
        second = 0.7 * first + math.sqrt(1 - 0.49) * rng.normal(size=60)
        values = rng.normal(size=(60, 100))
        values[:, :10] += first[:, None]
        ones = np.ones(60)
        alone.append((adjust(moderated_linear(values, np.column_stack([ones, second])).p) < 0.05)[:10].mean())
        both = np.column_stack([ones, first, second])
        partial.append((adjust(moderated_linear(values, both).p) < 0.05).any())
        acting.append((adjust(moderated_linear(values, both, 1).p) < 0.05)[:10].mean())
    assert np.mean(alone) > 0.9
    assert np.mean(partial) <= 0.1
    assert np.mean(acting) > 0.9


def test_constant_experts_are_not_found():
    values = np.full((12, 8), 0.3)
    values[:, 0] = LABEL
    design = np.column_stack([np.ones(12), np.arange(12.0), LABEL])
    for result in (moderated_linear(values, design), moderated_one(values * 0)):
        assert np.isfinite(result.t).all()
        np.testing.assert_array_equal(result.p[1:], 1.0)
    assert moderated_linear(values, design, floor=0.01).p[0] < 1e-4


@pytest.mark.parametrize(
    ("design", "column", "message"),
    [
        (LABEL, -1, "12 samples"),
        (TWO_GROUPS[:5], -1, "12 samples"),
        (TWO_GROUPS * np.nan, -1, "finite"),
        (TWO_GROUPS, 2, "no column 2"),
        (TWO_GROUPS, -3, "no column -3"),
        (np.column_stack([TWO_GROUPS, 1 - LABEL]), -1, "depend on each other"),
        (np.column_stack([TWO_GROUPS, np.zeros(12)]), 1, "depend on each other"),
        (np.eye(12), 0, "cannot carry"),
    ],
)
def test_refuses_designs_that_cannot_be_fitted(design, column, message):
    with pytest.raises(StatsError, match=message):
        moderated_linear(Y, design, column)


@pytest.mark.parametrize(("values", "options"), [(Y[:1], {}), (Y[0], {}), (Y, {"covariate": [1.0]}), (Y * np.inf, {})])
def test_one_sample_refuses_what_it_cannot_test(values, options):
    with pytest.raises(StatsError):
        moderated_one(values, **options)
