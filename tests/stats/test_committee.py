"""Load and standing committee by hand and on planted busy experts."""

import numpy as np
import pytest

from moeprobe.errors import StatsError
from moeprobe.stats.committee import standing_committee


def test_by_hand():
    """Four experts, equal share 1/4. Expert 0 has half of every unit; expert 1 is busy in one unit only."""
    counts = np.array([[10, 10, 0, 0], [20, 4, 8, 8], [50, 10, 20, 20]])
    result = standing_committee(counts)
    np.testing.assert_array_equal(result.members, [True, False, False, False])
    np.testing.assert_allclose(result.presence, [1, 1 / 3, 0, 0])
    np.testing.assert_allclose(result.load, [2, 4 * (0.5 + 0.1 + 0.1) / 3, 4 * 0.4 / 3, 4 * 0.4 / 3])
    assert result.largest == 2
    assert result.members_share == 0.5


def test_an_expert_of_one_register_is_no_member():
    """Busy in all units of one group and none of the other: that is a finding, not a committee."""
    rng = np.random.default_rng(2)
    labels = np.repeat(["yes", "no"], [90, 10])
    share = np.full((100, 16), 1.0)
    share[:, 3] = 6
    share[labels == "yes", 8] = 6
    counts = np.array([rng.multinomial(2000, row / row.sum()) for row in share])
    np.testing.assert_array_equal(np.flatnonzero(standing_committee(counts, labels).members), [3])
    # without the labels it passes, because nine units of ten are "yes"
    np.testing.assert_array_equal(np.flatnonzero(standing_committee(counts).members), [3, 8])


def test_the_worst_of_many_groups_counts():
    """Twenty topics; expert 8 is busy in nineteen of them, expert 3 in all."""
    topic = np.repeat(np.arange(20), 3)
    counts = np.full((60, 16), 10)
    counts[:, 3] = 60
    counts[topic != 7, 8] = 60
    np.testing.assert_array_equal(np.flatnonzero(standing_committee(counts, topic).members), [3])
    np.testing.assert_array_equal(np.flatnonzero(standing_committee(counts).members), [3, 8])


def test_even_routing_and_k_equal_to_experts_have_none():
    assert not standing_committee(np.full((10, 8), 30)).members.any()
    assert standing_committee(np.full((10, 8), 30)).largest == 1
    one_expert = standing_committee(np.full((10, 1), 30))
    assert not one_expert.members.any()
    assert one_expert.members_share == 0


def test_long_units_do_not_rule():
    short, long = np.array([[3, 1]]), np.array([[1000, 3000]])
    np.testing.assert_allclose(standing_committee(np.vstack([short, long])).load, [1, 1])


@pytest.mark.parametrize(
    ("counts", "settings", "says"),
    [
        (np.zeros((2, 3)), {}, "needs some"),
        (np.ones(3), {}, "table"),
        (np.ones((2, 3)), {"threshold": 1.0}, "above 1"),
        (np.ones((2, 3)), {"presence": 0.0}, "presence"),
        (np.ones((2, 3)), {"labels": [1]}, "one entry"),
    ],
)
def test_refusals(counts, settings, says):
    with pytest.raises(StatsError, match=says):
        standing_committee(counts, **settings)
