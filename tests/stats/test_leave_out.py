"""Leaving out one unit in closed form against refits: statsmodels without a prior, least squares with one."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import t as student

from moeprobe.errors import StatsError
from moeprobe.stats import moderated_t
from moeprobe.stats.leave_out import leave_one_out

RNG = np.random.default_rng(31)
LABELS = np.array([1, 0, 1, 1, 0, 0, 1, 0, 0, 1, 1, 0])
DESIGN = np.column_stack([np.ones(12), LABELS])
VALUES = RNG.normal(size=(12, 25)) + 1.5 * LABELS[:, None] * (np.arange(25) < 12)


def refits(values, design, column, prior_df=0.0, prior=None, floor=0.0):
    """t and p of every refit, (units, experts), by least squares."""
    ts, ps = [], []
    for i in range(len(values)):
        keep = np.arange(len(values)) != i
        x, y = design[keep], values[keep]
        beta, _, rank, _ = np.linalg.lstsq(x, y)
        df = len(x) - rank
        s2 = ((y - x @ beta) ** 2).sum(axis=0) / df
        if prior is not None:
            s2 = (df * s2 + prior_df * prior) / (df + prior_df) if np.isfinite(prior_df) else prior
        se = np.sqrt(np.maximum(s2, floor) * np.linalg.pinv(x.T @ x)[column, column])
        ts.append(beta[column] / se)
        ps.append(2 * student.sf(np.abs(ts[-1]), min(df + prior_df, df * values.shape[1])))
    return np.array(ts), np.array(ps)


def check(result, ts, ps, full):
    ps = np.where(np.sign(ts) == np.sign(full), ps, 1.0)
    np.testing.assert_allclose(result.p, ps.max(axis=0), rtol=1e-8)
    sure = ps.max(axis=0) < 1
    np.testing.assert_array_equal(result.unit[sure], ps.argmax(axis=0)[sure])
    np.testing.assert_allclose(result.t[sure], np.take_along_axis(ts, result.unit[None], axis=0)[0][sure], rtol=1e-9)
    assert sure.sum() >= 10


def test_two_groups_without_prior_equal_statsmodels():
    ts, ps = np.empty((12, 25)), np.empty((12, 25))
    for i in range(12):
        keep = np.arange(12) != i
        for e in range(25):
            fit = sm.OLS(VALUES[keep, e], DESIGN[keep]).fit()
            ts[i, e], ps[i, e] = fit.tvalues[1], fit.pvalues[1]
    full = VALUES[LABELS == 1].mean(axis=0) - VALUES[LABELS == 0].mean(axis=0)
    check(leave_one_out(VALUES, DESIGN), ts, ps, full)


@pytest.mark.parametrize("prior_df", [3.7, np.inf])
def test_with_prior_floor_and_covariates(prior_df):
    design = np.column_stack([np.ones(12), LABELS, RNG.normal(size=12), RNG.normal(size=12)])
    prior, floor = RNG.uniform(0.5, 2, 25), np.full(25, 0.9)
    full = np.linalg.lstsq(design, VALUES)[0][1]
    result = leave_one_out(VALUES, design, 1, prior_df=prior_df, prior_variance=prior, floor=floor)
    check(result, *refits(VALUES, design, 1, prior_df, prior, floor), full)


def test_pairs():
    difference = RNG.normal(0.8, 1, (9, 40))
    check(leave_one_out(difference, np.ones((9, 1))), *refits(difference, np.ones((9, 1)), 0), difference.mean(axis=0))


def test_a_block_of_one_unit_changes_nothing():
    """Unit 0 alone has a column of its own; leaving it out takes the column away too."""
    design = np.column_stack([np.ones(12), np.arange(12) == 0, LABELS]).astype(float)
    full = np.linalg.lstsq(design, VALUES)[0][2]
    check(leave_one_out(VALUES, design), *refits(VALUES, design, 2), full)


def test_close_to_the_full_refit():
    """Everything done anew without the unit, prior included: nearly the same worst p."""
    values = RNG.normal(size=(20, 400)) * np.sqrt(8 / RNG.chisquare(8, 400))
    labels = np.tile([1, 0], 10)
    values[:, :20] += 2.5 * labels[:, None]
    full = moderated_t(values, labels)
    result = leave_one_out(
        values, np.column_stack([np.ones(20), labels]), prior_df=full.prior_df, prior_variance=full.prior_variance
    )
    anew = np.array([moderated_t(np.delete(values, i, axis=0), np.delete(labels, i)).p for i in range(20)]).max(axis=0)
    assert np.abs(np.log(result.p[:20] / anew[:20])).max() < 0.7
    assert (result.p >= full.p * 0.999).mean() > 0.99


def test_one_prompts_fluke_is_exposed():
    """Expert 0 differs by one unit alone, expert 1 by all of them."""
    values = np.random.default_rng(2).normal(0, 0.05, (12, 50))
    values[:, 1] += 0.5 * LABELS
    values[3, 0] += 5
    result = leave_one_out(values, DESIGN)
    assert result.unit[0] == 3
    assert result.p[0] > 0.02
    assert result.p[1] < 1e-4


def test_sign_and_only_unit():
    values = np.array([[0.0, 0], [0.1, 0], [-0.1, 0], [5, 1], [-1, 1], [-1.1, 1]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    result = leave_one_out(values, np.column_stack([np.ones(6), labels]))
    assert (result.unit[0], result.p[0]) == (3, 1)  # without unit 3 the effect turns round
    assert result.t[0] < 0
    assert result.p[1] < 1e-6
    alone = (np.arange(6) == 2).astype(float)
    single = leave_one_out(RNG.normal(size=(6, 3)) + 50 * alone[:, None], np.column_stack([np.ones(6), alone]))
    np.testing.assert_array_equal(single.unit, 2)
    np.testing.assert_array_equal(single.p, 1)
    np.testing.assert_array_equal(single.t, 0)


def test_values_that_do_not_vary():
    result = leave_one_out(np.full((12, 3), 0.3), DESIGN)
    np.testing.assert_array_equal(result.p, 1)
    assert np.isfinite(result.t).all()


def test_many_experts_equal_few():
    """Chunks of experts: the answer for an expert does not depend on the others (without a prior)."""
    many = np.tile(VALUES, (1, 200))
    np.testing.assert_array_equal(leave_one_out(many, DESIGN).p, np.tile(leave_one_out(VALUES, DESIGN).p, 200))


def test_refusals():
    with pytest.raises(StatsError, match="do not fit"):
        leave_one_out(VALUES, DESIGN[:5])
    with pytest.raises(StatsError, match="column 4"):
        leave_one_out(VALUES, DESIGN, 4)
    with pytest.raises(StatsError, match="full column rank"):
        leave_one_out(VALUES, np.column_stack([DESIGN, LABELS]))
    with pytest.raises(StatsError, match="finite"):
        leave_one_out(np.full((12, 2), np.nan), DESIGN)
    with pytest.raises(StatsError, match="prior of 2"):
        leave_one_out(VALUES, DESIGN, prior_df=2)
    with pytest.raises(StatsError, match="nothing to test"):
        leave_one_out(VALUES[:3], np.column_stack([np.ones(3), [0, 1, 1]]))
