"""The overlap's null against scipy, full enumeration and drawing at random."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import hypergeom

from moeprobe.errors import StatsError
from moeprobe.stats.overlap import overlap


def mask(size, members):
    return np.isin(np.arange(size), members)


def test_one_layer_equals_scipy():
    first, second = mask(50, range(10)), mask(50, range(6, 20))
    result = overlap(first, second, np.zeros(50))
    null = hypergeom(50, 10, 14)
    assert result.shared == 4
    assert result.p_more == pytest.approx(null.sf(3), rel=1e-12)
    assert result.p_fewer == pytest.approx(null.cdf(4), rel=1e-12)
    assert result.expected == pytest.approx(2.8)
    assert result.jaccard == pytest.approx(4 / 20)
    assert (result.first, result.second, result.universe) == (10, 14, 50)


def test_two_layers_equal_enumeration():
    layers = np.repeat(["L3", "L9"], [6, 5])
    first, second = mask(11, [0, 1, 2, 6, 7]), mask(11, [1, 2, 6])
    shared = [
        int(first[list(a)].sum() + first[[6 + i for i in b]].sum())
        for a, b in product(combinations(range(6), 2), combinations(range(5), 1))
    ]
    result = overlap(first, second, layers)
    assert result.shared == 3
    assert result.p_more == pytest.approx(np.mean(np.array(shared) >= 3), rel=1e-12)
    assert result.p_fewer == pytest.approx(np.mean(np.array(shared) <= 3), rel=1e-12)
    assert result.expected == pytest.approx(np.mean(shared), rel=1e-12)


def test_preferring_one_layer_is_no_overlap():
    """Both sets lie in layer 0, drawn at random there: impossible when layers are pooled, usual by layer."""
    rng = np.random.default_rng(5)
    layers = np.repeat(np.arange(40), 64)
    p, pooled = [], []
    for _ in range(300):
        first, second = mask(2560, rng.choice(64, 30, replace=False)), mask(2560, rng.choice(64, 30, replace=False))
        p.append(overlap(first, second, layers).p_more)
        pooled.append(overlap(first, second, np.zeros(2560)).p_more)
    assert np.mean(np.array(p) <= 0.05) < 0.09
    assert np.max(pooled) < 1e-6


def test_far_tail_is_exact():
    """All 40 experts of each of 40 layers' pairs agree: the product of the layers' chances, far below rounding of 1."""
    layers = np.repeat(np.arange(40), 64)
    same = np.tile(mask(64, [0, 1]), 40)
    assert np.log(overlap(same, same, layers).p_more) == pytest.approx(40 * np.log(1 / 2016), rel=1e-10)


def test_universe():
    layers, first, second = np.zeros(10), mask(10, [0, 1]), mask(10, [0, 1])
    small = overlap(first, second, layers, universe=mask(10, range(4)))
    assert small.p_more == pytest.approx(1 / 6)
    assert overlap(first, second, layers).p_more == pytest.approx(1 / 45)


def test_empty_sets():
    result = overlap(mask(5, []), mask(5, []), np.zeros(5))
    assert (result.shared, result.p_more, result.p_fewer) == (0, 1, 1)
    assert np.isnan(result.jaccard)


def test_refusals():
    with pytest.raises(StatsError, match="differ"):
        overlap(mask(5, [1]), mask(4, [1]), np.zeros(5))
    with pytest.raises(StatsError, match="True and False"):
        overlap([0, 1], [1, 0], [0, 0])
    with pytest.raises(StatsError, match="outside the universe"):
        overlap(mask(5, [1]), mask(5, [1]), np.zeros(5), universe=mask(5, [2]))
