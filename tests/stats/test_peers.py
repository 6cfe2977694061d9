"""Peers' scores by hand, and that they find "experts" in noise."""

import numpy as np
import pytest

from moeprobe.errors import StatsError
from moeprobe.stats.peers import peer_scores, saturation


def test_by_hand():
    """100 and 200 tokens; 30 and 20 choose the expert."""
    result = peer_scores([30], 100, [20], 200)
    assert result.risk_difference[0] == pytest.approx(0.3 - 0.1)  # 30 / (30 + 70) - 20 / (20 + 180)
    assert result.ratio[0] == pytest.approx(3)
    assert result.specialization[0] == pytest.approx(0.3)
    # p(x, y) = 30 / 300, p(x) = 50 / 300, p(y) = 1 / 3: ln(0.1 / (1 / 18)) / -ln 0.1 = ln 1.8 / ln 10
    assert result.npmi[0] == pytest.approx(0.25527250510330607)
    assert result.log_odds[0] == pytest.approx(np.log(30.5 * 180.5 / (70.5 * 20.5)))


def test_bounds_of_npmi():
    """Always and only together 1, independent 0, never together -1, never chosen: nothing to say."""
    result = peer_scores([100, 50, 0, 0], 100, [0, 100, 5, 0], 200)
    np.testing.assert_allclose(result.npmi[:3], [1, 0, -1], atol=1e-12)
    assert np.isnan(result.npmi[3])


def test_what_does_not_exist_is_nan_and_the_rest_is_finite():
    result = peer_scores([4, 0], 10, [0, 0], 10)
    assert np.isnan(result.ratio).all()
    for name in ("risk_difference", "specialization", "log_odds"):
        assert np.isfinite(getattr(result, name)).all(), name
    assert result.log_odds[1] == 0


def test_rare_experts_lead_the_ratio_in_noise():
    """No expert differs; the largest ratio is still above 5, and belongs to a rare one (STATISTICS 1)."""
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(-5, 1.5, 3000))
    one, zero = rng.poisson(rate * 10_000), rng.poisson(rate * 10_000)
    ratio = np.nan_to_num(peer_scores(one, 10_000, zero, 10_000).ratio)
    assert ratio.max() > 5
    assert rate[ratio.argmax()] < np.quantile(rate, 0.2)


def test_saturation_by_hand():
    earlier = np.array([[0, 1], [2, 3], [0, 3], [1, 2]])
    later = np.array([[1, 0], [2, 0], [1, -1], [-1, -1]])
    result = saturation(earlier, later, 5)
    # 2 of 2, 1 of 2, 0 of 1; the last token has no later choice and does not count
    assert result.overall == pytest.approx(0.5)
    # expert 0: once of two; 1: once of two; 2: once of one
    np.testing.assert_allclose(result.by_expert, [0.5, 0.5, 1, np.nan, np.nan])


def test_saturation_of_chance_is_k_over_experts():
    rng = np.random.default_rng(3)
    draw = [np.argsort(rng.random((4000, 32)), axis=1)[:, :8] for _ in range(2)]
    assert saturation(*draw, 32).overall == pytest.approx(8 / 32, abs=0.01)
    assert saturation(draw[0], draw[0][:, ::-1], 32).overall == 1


def test_saturation_equals_sets():
    rng = np.random.default_rng(6)
    one, two = (np.argsort(rng.random((200, 12)), axis=1)[:, :3] for _ in range(2))
    plain = [len(set(a.tolist()) & set(b.tolist())) / 3 for a, b in zip(one, two, strict=True)]
    assert saturation(one, two, 12).overall == pytest.approx(np.mean(plain))


def test_refusals():
    with pytest.raises(StatsError, match="do not fit"):
        peer_scores([1], 0, [1], 5)
    with pytest.raises(StatsError, match="more selections"):
        peer_scores([6], 5, [1], 5)
    with pytest.raises(StatsError, match="same tokens"):
        saturation([[0]], [[0], [1]], 2)
    with pytest.raises(StatsError, match="outside"):
        saturation([[2]], [[0]], 2)
    with pytest.raises(StatsError, match="twice"):
        saturation([[0, 0]], [[0, 1]], 2)
    with pytest.raises(StatsError, match="whole numbers"):
        saturation([[0.5]], [[0]], 2)
    with pytest.raises(StatsError, match="no expert"):
        saturation([[0]], [[-1]], 2)
