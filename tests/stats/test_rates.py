"""S, Q, W: the identity W = S * Q, sums before ratios, and gate sums that do not depend on order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moeprobe.errors import StatsError
from moeprobe.stats import GATE_SCALE, asin_sqrt, decompose, pool, sampling_floor, to_fixed

RATE = st.floats(0, 1)
WEIGHT = st.floats(0, 20)


def test_identity_at_every_level_and_not_by_averaging_q():
    rng = np.random.default_rng(0)
    tokens = rng.integers(20, 400, 30)
    selected = rng.binomial(tokens[:, None], rng.beta(0.5, 20, 500))
    gate = to_fixed(selected * rng.gamma(2, 0.1, selected.shape))
    levels = [pool(int(n), c, a) for n, c, a in zip(tokens, selected, gate, strict=True)]
    levels.append(pool(int(tokens.sum()), selected.sum(axis=0), gate.sum(axis=0)))
    for rates in levels:
        assert np.abs(rates.W - rates.S * np.nan_to_num(rates.Q)).max() <= 1e-12
        assert np.isnan(rates.Q[rates.S == 0]).all()
        assert (rates.W[rates.S == 0] == 0).all()
    # the trap: mean of Q's times mean of S's is another number
    seen = levels[-1].S > 0
    single = levels[:-1]
    averaged = np.nanmean([r.Q[seen] for r in single], axis=0) * np.mean([r.S[seen] for r in single], axis=0)
    assert np.median(np.abs(averaged / levels[-1].W[seen] - 1)) > 0.01


def test_fixed_point_sums_do_not_depend_on_order():
    weights = np.random.default_rng(1).gamma(2, 0.1, 200_000).astype(np.float32)
    there, back = to_fixed(weights).sum(), to_fixed(weights[::-1]).sum()
    assert there == back
    assert there / GATE_SCALE == pytest.approx(weights.astype(np.float64).sum(), rel=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e7])
def test_weights_that_are_no_weights(bad):
    with pytest.raises(StatsError, match="Gate weights"):
        to_fixed([0.1, bad])


def test_pool_refuses_no_tokens():
    with pytest.raises(StatsError, match="0 tokens"):
        pool(0, [0], [0])


def test_asin_sqrt():
    np.testing.assert_allclose(asin_sqrt([0, 0.25, 1]), [0, np.pi / 6, np.pi / 2])
    with pytest.raises(StatsError):
        asin_sqrt([1.1])
    with pytest.raises(StatsError):
        sampling_floor([0, 3], [0.5])


def test_floor_is_the_variance_of_independent_tokens():
    """Monte Carlo: the transformed rate of 80 independent tokens varies by about 1 / (4 * 80)."""
    rng = np.random.default_rng(2)
    for rate in (0.1, 0.5, 0.9):
        observed = asin_sqrt(rng.binomial(80, rate, 200_000) / 80).var()
        assert observed == pytest.approx(sampling_floor([80], [rate])[0], rel=0.12)


@settings(max_examples=200, deadline=None)
@given(arrays(np.float64, (4, 5), elements=RATE), arrays(np.float64, (2, 5), elements=WEIGHT))
def test_split_adds_up_exactly(rates, weights):
    s1, s0 = rates[0], rates[1]
    q1, q0 = np.where(s1 > 0, weights[0], np.nan), np.where(s0 > 0, weights[1], np.nan)
    split = decompose(s1, q1, s0, q0)
    scale = max(1.0, float(weights.max()))
    difference = s1 * np.nan_to_num(q1) - s0 * np.nan_to_num(q0)
    assert np.abs(split.entry + split.valuation - difference).max() <= 1e-15 * scale * 4
    np.testing.assert_array_equal(split.difference, difference)
    one_sided = np.isnan(q1) | np.isnan(q0)
    assert (split.valuation[one_sided] == 0).all()


def test_split_by_hand():
    """S 0.3 -> 0.1, Q 0.5 -> 0.2: dW = 0.13; entry 0.35 * 0.2 = 0.07, valuation 0.2 * 0.3 = 0.06."""
    split = decompose([0.3], [0.5], [0.1], [0.2])
    np.testing.assert_allclose([split.entry[0], split.valuation[0], split.difference[0]], [0.07, 0.06, 0.13])
    swapped = decompose([0.1], [0.2], [0.3], [0.5])
    np.testing.assert_allclose([swapped.entry[0], swapped.valuation[0]], [-0.07, -0.06])


def test_split_where_one_side_never_selected():
    split = decompose([0.2, 0.0, 0.0], [0.4, np.nan, np.nan], [0.0, 0.5, 0.0], [np.nan, 0.1, np.nan])
    np.testing.assert_allclose(split.entry, [0.08, -0.05, 0])
    np.testing.assert_array_equal(split.valuation, 0)


def test_split_refuses_missing_q():
    with pytest.raises(StatsError, match="Q is missing"):
        decompose([0.2], [np.nan], [0.1], [0.1])
    with pytest.raises(StatsError, match="shapes"):
        decompose([0.2], [0.1, 0.2], [0.1], [0.1])
