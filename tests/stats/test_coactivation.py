"""Co-activation against a plain loop; coalitions on planted factors and under the null."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import ttest_ind

from moeprobe.errors import StatsError
from moeprobe.stats import adjust, moderated_t
from moeprobe.stats.coactivation import (
    coactivation,
    coactivation_overlap,
    coactivation_rate,
    coalition_values,
    find_coalitions,
)

RNG = np.random.default_rng(17)
IDS = np.argsort(RNG.random((300, 10)), axis=1)[:, :3]
IDS[5, 1] = IDS[9, 0] = -1
IDS[11] = -1


def plain():
    counts = np.zeros((12, 12), int)
    for row in IDS:
        chosen = [e for e in row if e >= 0]
        for e in chosen:
            counts[e, e] += 1
        for a, b in combinations(chosen, 2):
            counts[a, b] += 1
            counts[b, a] += 1
    return counts


def test_counts_equal_the_loop_and_add_up():
    np.testing.assert_array_equal(coactivation(IDS, 12), plain())
    np.testing.assert_array_equal(coactivation(IDS[:70], 12) + coactivation(IDS[70:].astype(np.int16), 12), plain())


def test_rates_by_hand():
    together = np.array([[4, 1, 0], [1, 2, 0], [0, 0, 0]])
    rate, overlap = coactivation_rate(together), coactivation_overlap(together)
    np.testing.assert_allclose(rate, [[np.nan, 0.25, 0], [0.5, np.nan, 0], [np.nan] * 3])
    np.testing.assert_allclose(overlap, [[np.nan, 0.2, np.nan], [0.2, np.nan, np.nan], [np.nan] * 3])


def test_even_routing_has_the_rate_of_chance():
    ids = np.argsort(RNG.random((20_000, 16)), axis=1)[:, :4]
    rate = coactivation_rate(coactivation(ids, 16))
    np.testing.assert_allclose(rate[~np.eye(16, dtype=bool)], 3 / 15, atol=0.02)


def planted(samples=60, experts=200, seed=0):
    """Columns 3, 40 and 120 share one factor, 7 and 8 another; 199 never varies."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(samples, experts))
    for members in ([3, 40, 120], [7, 8]):
        values[:, members] = rng.normal(size=(samples, 1)) * 3 + values[:, members]
    values[:, 199] = 0.25
    values[:, 40] *= 100  # scale does not matter
    return values


def test_planted_coalitions_are_found():
    found = find_coalitions(planted())
    assert [members.tolist() for members in found] == [[3, 40, 120], [7, 8]]
    assert [members.tolist() for members in find_coalitions(planted(), smallest=3)] == [[3, 40, 120]]
    assert find_coalitions(np.random.default_rng(1).normal(size=(60, 200))) == []
    assert find_coalitions(np.ones((5, 4))) == []


def test_values_by_hand():
    values = np.array([[0.0, 0, 5], [1, 10, 5], [2, 20, 5]])
    # both columns standardise to -1, 0, 1; the constant one says nothing
    np.testing.assert_allclose(coalition_values(values, [[0, 1, 2], [1]]), [[-1, -1], [0, 0], [1, 1]])
    assert coalition_values(values, []).shape == (3, 0)


def test_a_coalition_is_stronger_than_its_members():
    """Members carry a weak effect and independent noise: together they pass BH, alone they hardly do."""
    labels = np.repeat([1, 0], 15)
    alone, together, moderated = [], [], []
    for seed in range(40):
        values = np.random.default_rng(seed).normal(size=(30, 300))
        values[:, :8] += 0.8 * labels[:, None]
        columns = coalition_values(values, [range(8), *([e] for e in range(8, 300))])
        alone.append(np.mean(adjust(ttest_ind(values[labels == 1], values[labels == 0]).pvalue)[:8] < 0.05))
        together.append(adjust(ttest_ind(columns[labels == 1], columns[labels == 0]).pvalue)[0] < 0.05)
        moderated.append(adjust(moderated_t(columns, labels, trend=False).p)[0] < 0.05)
    assert np.mean(together) > 0.9 > 0.3 > np.mean(alone)
    assert np.mean(moderated) < np.mean(together)  # why the docstring advises against moderation here


def test_finding_without_labels_keeps_the_level():
    """Coalitions found in the data that are then tested: 5 % of p below .05 where the label does nothing."""
    labels, p = np.repeat([1, 0], 12), []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=(24, 40)) + rng.normal(size=(24, 1)) * np.repeat([1.6, 0.0], 20)
        columns = coalition_values(values, find_coalitions(values, correlation=0.6))
        p.extend(ttest_ind(columns[labels == 1], columns[labels == 0]).pvalue)
    assert len(p) > 200
    assert np.mean(np.array(p) < 0.05) < 0.09


def test_refusals():
    with pytest.raises(StatsError, match="outside"):
        coactivation([[12]], 12)
    with pytest.raises(StatsError, match="whole numbers"):
        coactivation([[0.5]], 12)
    with pytest.raises(StatsError, match="experts, experts"):
        coactivation_rate(np.ones((2, 3)))
    with pytest.raises(StatsError, match="three units"):
        find_coalitions(np.ones((2, 3)))
    with pytest.raises(StatsError, match="finite"):
        find_coalitions([[np.nan, 1], [1, 2], [2, 3]])
    with pytest.raises(StatsError, match="too many"):
        find_coalitions(RNG.normal(size=(3, 4097)))
    with pytest.raises(StatsError, match="unknown expert"):
        coalition_values(np.eye(3), [[3]])
    with pytest.raises(StatsError, match="twice"):
        coalition_values(np.eye(3), [[1, 1]])
    with pytest.raises(StatsError, match="varies"):
        coalition_values(np.ones((3, 2)), [[0]])
    with pytest.raises(StatsError, match="list of column"):
        coalition_values(np.eye(3), [[]])
