"""Intervals and AUC against scipy, statsmodels and hand computation."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, ttest_ind

from moeprobe.errors import StatsError
from moeprobe.stats import auc, welch_interval, wilson_interval

RNG = np.random.default_rng(0)
ONE, ZERO = RNG.beta(2, 8, (12, 40)), RNG.beta(2, 12, (19, 40))


def test_welch_equals_scipy():
    result = welch_interval(ONE, ZERO)
    expected = ttest_ind(ONE, ZERO, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose(result.low, expected.low, rtol=1e-10)
    np.testing.assert_allclose(result.high, expected.high, rtol=1e-10)
    np.testing.assert_allclose(result.estimate, ONE.mean(axis=0) - ZERO.mean(axis=0))


def test_welch_covers():
    """Two beta groups of unequal size and spread: 95 % of the intervals hold the truth."""
    rng = np.random.default_rng(3)
    one, zero = rng.beta(5, 20, (15, 20_000)), rng.beta(5, 40, (30, 20_000))
    result = welch_interval(one, zero)
    truth = 5 / 25 - 5 / 45
    assert np.mean((result.low <= truth) & (truth <= result.high)) == pytest.approx(0.95, abs=0.01)


def test_welch_without_variance_needs_the_floor():
    still = np.ones((5, 1)), np.zeros((5, 1))
    assert welch_interval(*still).low[0] == 1.0
    floored = welch_interval(*still, floor1=1e-4, floor0=1e-4)
    # by hand: t(0.975, 8) = 2.306004, times sqrt(2e-4)
    assert floored.low[0] == pytest.approx(1 - 2.306004 * np.sqrt(2e-4), rel=1e-6)


def test_auc_equals_mann_whitney_with_ties():
    one, zero = np.round(ONE, 1), np.round(ZERO, 1)
    expected = mannwhitneyu(one, zero).statistic / (12 * 19)
    np.testing.assert_allclose(auc(one, zero), expected, rtol=1e-12)


def test_auc_by_hand():
    np.testing.assert_allclose(auc([[1], [2]], [[0], [1]]), [3.5 / 4])
    assert auc(np.arange(10, 20)[:, None], np.arange(10)[:, None])[0] == 1.0
    assert auc([[1], [1]], [[1]])[0] == 0.5


def test_wilson_by_hand():
    """Wilson 1927 for 8 of 10, z = 1.959964: centre 0.71673, half-width 0.22657."""
    result = wilson_interval(8, 10)
    np.testing.assert_allclose([result.low, result.high], [0.490162, 0.943318], atol=2e-6)
    edge = wilson_interval([0, 10], 10)
    assert edge.low[0] == pytest.approx(0, abs=1e-12)
    assert edge.high[1] == pytest.approx(1)


def test_refusals():
    with pytest.raises(StatsError):
        welch_interval(ONE[:1], ZERO)
    with pytest.raises(StatsError):
        auc(ONE, ZERO[:, :3])
    with pytest.raises(StatsError):
        wilson_interval(3, 2)
