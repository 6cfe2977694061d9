"""Ratios of sums, their intervals, and the gap they are divided by."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from moeprobe.errors import InterchangeError
from moeprobe.judging.ratio import check_gap, oriented, ratio, ratios, resamples, tail


def test_ratio_by_hand() -> None:
    values, gap = np.array([1.0, 3.0, 2.0]), np.array([2.0, 4.0, 6.0])
    result = ratio(values, gap, resamples(3, 2000, 0))
    assert result["percent"] == pytest.approx(50)  # (1 + 3 + 2) / (2 + 4 + 6), not the mean of 1/2, 3/4, 1/3
    assert result["mean"] == pytest.approx(2)
    assert result["ci"] == pytest.approx([100 / 3, 75])  # all draws pair three, all draws pair two


def test_tail_is_wider_than_the_percentile_interval() -> None:
    # By hand from tables: t.975 with 7 df is 2.3646; 2.3646 * sqrt(8/7) = 2.5279; Phi(-2.5279) = .00574.
    assert tail(8) == pytest.approx(0.00574, abs=1e-5)
    assert tail(8) < tail(15) < tail(60) < tail(100_000) == pytest.approx(0.025, abs=1e-5)


@pytest.mark.parametrize("pairs", [8, 30])
def test_interval_is_that_of_scipy(pairs: int) -> None:
    generator = np.random.default_rng(1)
    gap = generator.lognormal(1, 0.4, pairs)
    values = 0.4 * gap + generator.standard_t(3, pairs)
    ours = ratio(values, gap, resamples(pairs, 100_000, 0))["ci"]
    theirs = bootstrap(
        (values, gap),
        lambda top, bottom, axis: 100 * top.sum(axis=axis) / bottom.sum(axis=axis),
        paired=True,
        n_resamples=100_000,
        batch=10_000,
        confidence_level=1 - 2 * tail(pairs),
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert ours == pytest.approx([theirs.low, theirs.high], abs=0.015 * (ours[1] - ours[0]))


@pytest.mark.parametrize(("pairs", "lowest"), [(8, 0.91), (15, 0.91), (60, 0.92)])
def test_interval_covers(pairs: int, lowest: float) -> None:
    """95 % intervals with t3 tails, in 400 draws of data; docs/causes.md has the whole table."""
    generator = np.random.default_rng(3)
    gap = generator.gamma(4.0, 1.0, size=(400, pairs))
    values = 0.5 * gap + generator.standard_t(3, size=(400, pairs))
    hits = 0
    for trial in range(400):
        low, high = ratio(values[trial], gap[trial], resamples(pairs, 600, trial))["ci"]
        hits += low <= 50 <= high
    assert lowest <= hits / 400 <= 0.985


def test_columns_do_not_mix() -> None:
    generator = np.random.default_rng(4)
    gap, values, weights = generator.gamma(4, 1, 12), generator.normal(size=(12, 3)), resamples(12, 300, 0)
    found = ratios(values, gap, weights)
    for column in range(3):
        alone = ratio(values[:, column], gap, weights)
        assert alone["percent"] == pytest.approx(found.percent[column])
        assert alone["ci"] == pytest.approx([found.low[column], found.high[column]])


def test_the_gap_as_it_should_be() -> None:
    gap = np.array([2.0, 3.0, 2.5, 1.0, 4.0, 2.2, 3.1, 2.7])
    found = check_gap(gap, resamples(8, 1000, 0))
    assert found["p"] == 1 / 256  # all of one sign
    assert found["direction"] == 1
    assert found["mean"] == pytest.approx(gap.mean())
    assert found["ci"][0] < gap.mean() < found["ci"][1]
    turned = check_gap(-gap, resamples(8, 1000, 0), signed=True)
    assert turned["direction"] == -1
    assert turned["p"] == 2 / 256
    assert oriented(np.array([-1.0, 2.0]), np.array([-3.0, 1.0])).tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    ("gap", "said"),
    [
        ([0.0] * 8, "exactly the same on both sides"),
        ([-2.0, -3.0, -2.5, -1.0], "does not clearly have a higher value on the sensitive side"),
        ([2.0, -2.0, 2.5, -1.0, 1.0, -2.0, 0.5, -0.5], "does not clearly"),
        ([1.0], "at least 2 pairs"),
        ([1.0, float("nan")], "NaN"),
    ],
)
def test_a_gap_that_allows_no_ratio(gap: list[float], said: str) -> None:
    with pytest.raises(InterchangeError, match=said):
        check_gap(np.array(gap), resamples(len(gap), 500, 0))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("pairs", [8, 20])
def test_a_gap_with_shuffled_labels_is_refused(pairs: int, signed: bool) -> None:
    """However large the gap is: with labels shuffled inside pairs its signs are coin tosses."""
    generator = np.random.default_rng(pairs)
    weights, passed = resamples(pairs, 500, 0), 0
    for _ in range(400):
        gap = generator.choice([-1.0, 1.0], pairs) * generator.gamma(9, 1, pairs)
        try:
            check_gap(gap, weights, signed=signed)
            passed += 1
        except InterchangeError:
            pass
    assert passed <= 0.05 * 400 + 2 * (0.05 * 0.95 * 400) ** 0.5
