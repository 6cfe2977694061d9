"""Power against Monte Carlo, statsmodels where it is right, and the figures of STATISTICS 4 and 9."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp, ttest_ind
from scipy.stats import t as student
from statsmodels.stats.power import TTestIndPower, TTestPower

from moeprobe.errors import StatsError
from moeprobe.stats.power import (
    bh_threshold,
    detectable_d,
    least_rejections,
    smallest_permutation_p,
    t_power,
    units_needed,
)

BONFERRONI = 0.05 / 10_240


def test_the_case_statsmodels_gets_wrong():
    """STATISTICS 9: 127.4 pairs, not 71.66. One-sided at alpha / 2 statsmodels is right, and agrees."""
    needed = units_needed(0.5, alpha=BONFERRONI, power=0.8, paired=True)
    assert needed == pytest.approx(127.44, abs=0.01)
    oracle = TTestPower().solve_power(0.5, alpha=BONFERRONI / 2, power=0.8, alternative="larger")
    assert needed == pytest.approx(oracle, rel=1e-6)
    # two-sided, statsmodels answers 71.66; by Monte Carlo the power there is .26
    assert t_power(0.5, 71.66, alpha=BONFERRONI) == pytest.approx(0.26, abs=0.01)
    groups = units_needed(0.5, alpha=BONFERRONI, power=0.8)
    oracle = TTestIndPower().solve_power(0.5, alpha=BONFERRONI / 2, power=0.8, alternative="larger")
    assert groups == pytest.approx(oracle, rel=1e-6)
    assert groups == pytest.approx(239.48, abs=0.01)


def test_the_same_case_by_monte_carlo():
    """Of 128 pairs at d = 0.5, four in five have a p below Bonferroni's; of 72, a quarter."""
    rng = np.random.default_rng(7)
    for pairs, power in ((128, 0.80), (72, 0.26)):
        share = np.mean(ttest_1samp(rng.normal(0.5, 1, (pairs, 20_000)), 0).pvalue < BONFERRONI)
        assert share == pytest.approx(power, abs=0.015)
        assert t_power(0.5, pairs, alpha=BONFERRONI) == pytest.approx(share, abs=0.012)


def test_monte_carlo():
    rng = np.random.default_rng(1)
    groups = ttest_ind(rng.normal(1.1, 1, (9, 40_000)), rng.normal(0, 1, (14, 40_000))).pvalue
    assert t_power(1.1, 9, 14, alpha=0.001) == pytest.approx(np.mean(groups < 0.001), abs=0.008)
    pairs = ttest_1samp(rng.normal(0.9, 1, (12, 40_000)), 0).pvalue
    assert t_power(-0.9, 12, alpha=0.01) == pytest.approx(np.mean(pairs < 0.01), abs=0.008)


@pytest.mark.parametrize("units", [2, 5, 30, 1000])
@pytest.mark.parametrize("d", [0.05, 0.5, 3.0])
def test_statsmodels_one_sided(units, d):
    for alpha in (0.05, 1e-4, BONFERRONI):
        # our two-sided power adds the other tail, which is below alpha / 2
        upper = TTestIndPower().power(d, units, alpha / 2, alternative="larger")
        assert 0 <= t_power(d, units, units, alpha=alpha) - upper + 1e-9 < alpha / 2 + 2e-9
        upper = TTestPower().power(d, units, alpha / 2, alternative="larger")
        assert 0 <= t_power(d, units, alpha=alpha) - upper + 1e-9 < alpha / 2 + 2e-9


def test_no_effect_has_power_alpha():
    for alpha in (0.05, 1e-4, 1e-9):
        for units in (2, 6, 100, 1e6):
            assert t_power(0.0, units, alpha=alpha) == pytest.approx(alpha, rel=1e-6)


def test_infinite_prior_is_normal():
    by_hand = norm.sf(norm.isf(0.005) - 0.8 * np.sqrt(5)) + norm.sf(norm.isf(0.005) + 0.8 * np.sqrt(5))
    assert t_power(0.8, 10, 10, alpha=0.01, prior_df=np.inf) == pytest.approx(by_hand, rel=1e-6)
    assert t_power(0.8, 10, 10, alpha=0.01) < t_power(0.8, 10, 10, alpha=0.01, prior_df=6) < by_hand


@pytest.mark.parametrize(
    ("units", "d"),
    [((120, None), 0.45), ((30, None), 1.0), ((10, None), 2.5), ((60, 60), 0.89), ((15, 15), 2.0), ((5, 5), 5.4)],
)
def test_detectable_of_the_specification(units, d):
    """STATISTICS 4, power .8, BH with 20 true among 10,240 (alpha about 1e-4); printed there with two digits."""
    alpha = bh_threshold(10_240, 20)
    found = detectable_d(*units, alpha=alpha)
    assert found == pytest.approx(d, rel=0.04)
    assert t_power(found, *units, alpha=alpha) == pytest.approx(0.8, abs=1e-8)


def test_expert_114():
    """STATISTICS 4: a lone expert at d = 3.88 needs 9 to 10 pairs or 9 + 9 generations."""
    assert 9 <= units_needed(3.88, alpha=BONFERRONI, paired=True) <= 10
    assert 8 < units_needed(3.88, alpha=BONFERRONI) <= 9
    assert bh_threshold(10_240, 1) == BONFERRONI


def arrangements_of(blocks):
    """Every labelling of the units, block by block."""
    choices = []
    for one, zero in blocks:
        places = range(one + zero)
        choices.append([np.isin(places, chosen).astype(int) for chosen in combinations(places, one)])
    return [np.concatenate(parts) for parts in product(*choices)]


def brute_smallest(blocks):
    """The smallest p that data made for each labelling in turn can have, by full enumeration."""
    rng = np.random.default_rng(0)
    every = arrangements_of(blocks)
    best = 1.0
    for at, labels in enumerate(every):
        values = labels * 100 + rng.normal(size=len(labels))
        size = np.abs([values[a == 1].mean() - values[a == 0].mean() for a in every])
        best = min(best, np.mean(size >= size[at] - 1e-9))
    return best


@pytest.mark.parametrize(
    "blocks", [[(2, 2)], [(3, 3)], [(2, 3)], [(1, 4)], [(2, 2), (1, 1)], [(2, 2), (1, 2)], [(1, 1), (1, 1), (1, 1)]]
)
def test_smallest_p_by_enumeration(blocks):
    assert smallest_permutation_p(blocks) == pytest.approx(brute_smallest(blocks))


def test_smallest_p():
    assert smallest_permutation_p([(10, 10)]) == pytest.approx(2 / 184_756)  # METHODS 3: 1.08e-5
    assert smallest_permutation_p([(5, 5)]) == pytest.approx(2 / 252)  # STATISTICS 2a: .008
    assert smallest_permutation_p(pairs=10) == pytest.approx(2 / 1024)
    assert smallest_permutation_p(pairs=1) == 1
    assert smallest_permutation_p([(10, 10)], draws=10_000) == pytest.approx(1 / 10_001)
    assert smallest_permutation_p([(5, 5)], draws=10_000) == pytest.approx(2 / 252)
    assert smallest_permutation_p([(2000, 2000)]) == 0  # beyond double: nothing to hold against it


def test_resolution_law():
    """STATISTICS 2a: 10,000 permutations and 10,240 experts need 21 rejections; 5 + 5 can never reject."""
    assert least_rejections(1 / 10_001, 10_240) == 21
    assert least_rejections(0.05 / 100, 100) == 1
    assert least_rejections(smallest_permutation_p([(5, 5)]), 10_240) > 1000


def test_refusals():
    with pytest.raises(StatsError, match="degrees of freedom"):
        t_power(1, 1)
    with pytest.raises(StatsError, match="Alpha"):
        t_power(1, 5, 5, alpha=0)
    with pytest.raises(StatsError, match="Power"):
        detectable_d(5, 5, alpha=0.05, power=0.01)
    with pytest.raises(StatsError, match="effect of 0"):
        units_needed(0)
    with pytest.raises(StatsError, match="cannot pass"):
        bh_threshold(5, 6)
    with pytest.raises(StatsError, match="either"):
        smallest_permutation_p([(1, 1)], pairs=2)
    with pytest.raises(StatsError, match="smallest p"):
        least_rejections(0, 10)


def test_hand_computed_df_one():
    """One degree of freedom: T = (Z + d) / |Z2|, a ratio of normals; P(|T| > c) = P(|Z + d| > c |Z2|)."""
    rng = np.random.default_rng(2)
    z, other = rng.normal(size=(2, 2_000_000))
    critical = student.isf(0.025, 1)
    share = np.mean(np.abs(z + 5 * np.sqrt(2)) > critical * np.abs(other))
    assert t_power(5, 2) == pytest.approx(share, abs=0.0015)
