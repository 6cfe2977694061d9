"""Log odds against a loop, shrinkage against its optimality conditions, Mantel-Haenszel against statsmodels."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2 as chi2_distribution
from scipy.stats import norm
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import StratifiedTable

from moeprobe.errors import StatsError
from moeprobe.stats.odds import log_odds, mantel_haenszel, shrink

RNG = np.random.default_rng(11)
LABELS = np.array([1, 0, 1, 0, 0, 1, 1])
TOKENS = RNG.integers(40, 300, 7)
SELECTED = RNG.binomial(TOKENS[:, None], RNG.beta(1, 6, (7, 30)))


def plain(keep):
    n1, n0 = TOKENS[keep & (LABELS == 1)].sum(), TOKENS[keep & (LABELS == 0)].sum()
    a, c = SELECTED[keep & (LABELS == 1)].sum(axis=0), SELECTED[keep & (LABELS == 0)].sum(axis=0)
    b, d = n1 - a, n0 - c
    return np.log((a + 0.5) * (d + 0.5) / ((b + 0.5) * (c + 0.5))), np.sqrt(
        1 / (a + 0.5) + 1 / (b + 0.5) + 1 / (c + 0.5) + 1 / (d + 0.5)
    )


def test_log_odds_equal_the_delete_one_loop():
    result = log_odds(TOKENS, SELECTED, LABELS)
    estimate, woolf = plain(np.ones(7, bool))
    variance = np.zeros(30)
    for label in (0, 1):
        left = np.array([plain(np.arange(7) != i)[0] for i in np.flatnonzero(label == LABELS)])
        variance += (len(left) - 1) / len(left) * ((left - left.mean(axis=0)) ** 2).sum(axis=0)
    assert np.sum(np.sqrt(variance) > woolf) > 20  # the jackknife itself is what is tested
    np.testing.assert_allclose(result.estimate, estimate, rtol=1e-12)
    np.testing.assert_allclose(result.se, np.maximum(np.sqrt(variance), woolf), rtol=1e-10)
    assert ((result.df >= 2) & (result.df <= 5)).all()


def test_never_chosen_is_not_certain():
    result = log_odds([100, 100, 300, 300], np.zeros((4, 1), int), [1, 1, 0, 0])
    assert result.se[0] > 2  # sqrt(1/.5 + 1/.5) and a little; the jackknife alone says 0.7


def planted(experts=2000, seed=3):
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(experts) < 0.1, rng.normal(0, 1.0, experts), 0.0)
    se = rng.uniform(0.1, 0.8, experts)
    return truth, truth + se * rng.normal(size=experts), se


def test_em_reaches_the_optimum():
    """The mixture likelihood is concave in the weights: at its maximum no component's gradient exceeds 1."""
    _, estimate, se = planted()
    result = shrink(estimate, se)
    density = norm.pdf(estimate[:, None], scale=np.sqrt(se[:, None] ** 2 + result.sds**2))
    mixed = density @ result.weights
    gradient = (density / mixed[:, None]).mean(axis=0)
    assert gradient.max() < 1 + 1e-3
    np.testing.assert_allclose(gradient[result.weights > 0.05], 1, atol=1e-3)
    assert result.log_likelihood == pytest.approx(np.log(mixed).sum(), rel=1e-10)
    # nine of ten experts have no effect; a spread far below the errors cannot be told from none
    assert result.weights[result.sds < 0.1].sum() == pytest.approx(0.9, abs=0.05)


def moment(power, estimate, se, sd):
    """Integral of b**power * prior density * density of the estimate; a prior of width 0 is a point."""
    if sd == 0:
        return 0.0**power * norm.pdf(estimate, scale=se)
    edges = [-40.0, -8 * sd, -3 * sd, 0.0, 3 * sd, 8 * sd, estimate - 6 * se, estimate, estimate + 6 * se, 40.0]
    edges = np.unique(np.clip(edges, -40, 40))
    return sum(
        quad(lambda b: b**power * norm.pdf(b, scale=sd) * norm.pdf(estimate, b, se), low, high, epsabs=1e-14)[0]
        for low, high in pairwise(edges)
    )


def test_posterior_equals_numerical_integration():
    _, estimate, se = planted(60)
    result = shrink(estimate, se)
    for i in (0, 7, int(np.abs(estimate).argmax())):
        prior = [(w, s) for w, s in zip(result.weights, result.sds, strict=True) if w > 1e-9]
        zeroth, first, second = (sum(w * moment(n, estimate[i], se[i], s) for w, s in prior) for n in range(3))
        assert result.mean[i] == pytest.approx(first / zeroth, rel=1e-6)
        assert result.sd[i] == pytest.approx(np.sqrt(second / zeroth - (first / zeroth) ** 2), rel=1e-6)


def test_shrinkage_halves_the_error():
    truth, estimate, se = planted()
    error = np.sqrt(np.mean((estimate - truth) ** 2))
    assert np.sqrt(np.mean((shrink(estimate, se).mean - truth) ** 2)) < 0.6 * error
    assert (np.abs(shrink(estimate, se).mean) <= np.abs(estimate) + 1e-12).all()


def test_noise_is_shrunk_to_nothing():
    rng = np.random.default_rng(4)
    se = rng.uniform(0.2, 2, 3000)
    assert np.abs(shrink(se * rng.normal(size=3000), se).mean).max() < 0.15


def test_few_degrees_of_freedom_count():
    """Noise with errors estimated from 4 degrees of freedom has far tails; taken as known, they look like effects."""
    rng = np.random.default_rng(9)
    noise, se = rng.normal(size=3000), np.sqrt(rng.chisquare(4, 3000) / 4)
    naive, told = np.abs(shrink(noise, se).mean).max(), np.abs(shrink(noise, se, df=4).mean).max()
    assert told < naive / 3
    # by hand: t = 3 with 4 df has the tail of z = 2.0529
    z = norm.isf(student.sf(3.0, 4))
    one = shrink([3.0, 0.1, -0.2], [1.0, 1.0, 1.0], df=4)
    two = shrink([3.0, 0.1, -0.2], [3 / z, *([0.1, 0.2] / norm.isf(student.sf([0.1, 0.2], 4)))])
    np.testing.assert_allclose(one.mean, two.mean, rtol=1e-9)


# R's datasets::UCBAdmissions, departments A to F: admitted and rejected men, admitted and rejected women.
BERKELEY = np.array(
    [
        [512, 313, 89, 19],
        [353, 207, 17, 8],
        [120, 205, 202, 391],
        [138, 279, 131, 244],
        [53, 138, 94, 299],
        [22, 351, 24, 317],
    ]
)


def test_berkeley():
    """R: mantelhaen.test(UCBAdmissions, correct = FALSE), STATISTICS 11."""
    a, b, c, d = BERKELEY.T
    result = mantel_haenszel(a[:, None], a + b, c[:, None], c + d)
    assert result.odds_ratio[0] == pytest.approx(0.904696828258623, rel=1e-13)
    assert result.chi2[0] == pytest.approx(1.52460666044344, rel=1e-12)
    assert chi2_distribution.sf(result.chi2[0], 1) == pytest.approx(0.216923697055518, rel=1e-12)


def test_mantel_haenszel_equals_statsmodels():
    tokens1, tokens0 = RNG.integers(1, 60, 25), RNG.integers(1, 60, 25)
    one = RNG.binomial(tokens1[:, None], RNG.beta(2, 5, (25, 8)))
    zero = RNG.binomial(tokens0[:, None], RNG.beta(2, 5, (25, 8)))
    # a stratum seen in one group only must change nothing
    result = mantel_haenszel(
        np.vstack([one, np.full((1, 8), 3)]), [*tokens1, 9], np.vstack([zero, np.zeros((1, 8))]), [*tokens0, 0]
    )
    for expert in range(8):
        tables = [
            np.array([[one[v, expert], tokens1[v] - one[v, expert]], [zero[v, expert], tokens0[v] - zero[v, expert]]])
            for v in range(25)
        ]
        oracle = StratifiedTable([table.astype(float) for table in tables])
        assert result.odds_ratio[expert] == pytest.approx(oracle.oddsratio_pooled, rel=1e-12)
        assert result.chi2[expert] == pytest.approx(oracle.test_null_odds(correction=False).statistic, rel=1e-10)


def test_nothing_to_say():
    empty = mantel_haenszel([[0, 5, 2]], [5], [[0, 5, 0]], [5])
    assert np.isnan(empty.odds_ratio[0])
    assert np.isnan(empty.odds_ratio[1])
    assert np.isinf(empty.odds_ratio[2])
    np.testing.assert_array_equal(empty.chi2[:2], 0)


def test_refusals():
    with pytest.raises(StatsError, match="more selections"):
        mantel_haenszel([[6]], [5], [[0]], [5])
    with pytest.raises(StatsError, match="do not fit"):
        mantel_haenszel([[1]], [5, 5], [[0]], [5])
    with pytest.raises(StatsError, match="above 0"):
        shrink([1.0], [0.0])
    with pytest.raises(StatsError, match="same experts"):
        shrink([1.0, 2.0], [1.0])
    with pytest.raises(StatsError, match="two units"):
        log_odds([5, 5], [[1], [1]], [1, 0])
