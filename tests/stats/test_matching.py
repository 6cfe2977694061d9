"""Rank-matched truncation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprobe.errors import StatsError
from moeprobe.stats import matched_lengths

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=40)


def test_equal_sizes_by_hand():
    """Sorted 5 9 30 and 7 8 100: pairs (5, 7), (9, 8), (30, 100)."""
    one, zero = matched_lengths([30, 5, 9], [7, 100, 8])
    assert one.tolist() == [30, 5, 8]
    assert zero.tolist() == [5, 30, 8]


def test_unequal_sizes_by_hand():
    """Two against four: ranks 0, 1 of four meet rank 0 of two; rank 0 of two (at 1/4) meets rank 1 of four."""
    one, zero = matched_lengths([10, 100], [4, 20, 30, 200])
    assert zero.tolist() == [4, 10, 30, 100]
    assert one.tolist() == [10, 100]


@settings(max_examples=200, deadline=None)
@given(LENGTHS, LENGTHS)
def test_properties(first, second):
    one, zero = matched_lengths(first, second)
    assert (one >= 1).all()
    assert (one <= first).all()
    assert (zero <= second).all()
    again = matched_lengths(second, first)
    assert again[0].tolist() == zero.tolist()
    assert again[1].tolist() == one.tolist()
    if len(first) == len(second):
        assert sorted(one) == sorted(zero)


def test_unequal_groups_end_up_equally_long():
    rng = np.random.default_rng(0)
    long, short = rng.lognormal(6, 0.5, 400).astype(int) + 1, rng.lognormal(4.2, 0.5, 90).astype(int) + 1
    one, zero = matched_lengths(short, long)
    assert np.mean(long) / np.mean(short) > 5
    assert np.mean(one) / np.mean(zero) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("bad", [([], [1]), ([0, 4], [3]), ([[1]], [1])])
def test_refuses_empty(bad):
    with pytest.raises(StatsError):
        matched_lengths(*bad)
