"""The area under the ROC curve and its interval: scikit-learn, hand computation, simulation."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from moeprobe.probes.auc import area
from moeprobe.probes.rates import NOTHING


def alone(labels: list[int]) -> list[int]:
    """Every text its own prompt."""
    return list(range(len(labels)))


def test_is_that_of_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = rng.permutation([1] * 13 + [0] * 29).tolist()
        scores = (rng.integers(0, 6, 42) / 5).tolist()
        assert area(scores, labels, alone(labels)).value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_delong_by_hand() -> None:
    # Positives .3 and .5, negatives .1 and .4: three of four pairs in order. Placements (1/2, 1) of the positives and
    # (1, 1/2) of the negatives have variance 1/8 each, so the area has 1/8 / 2 + 1/8 / 2 = 1/8.
    found = area([0.3, 0.5, 0.1, 0.4], [1, 1, 0, 0], [0, 1, 2, 3])
    wide = 1.959963984540054 * math.sqrt(1 / 8) / (0.75 * 0.25)
    assert found.value == 0.75
    assert found.low == pytest.approx(1 / (1 + math.exp(-(math.log(3) - wide))), abs=1e-12)
    assert found.high == pytest.approx(1 / (1 + math.exp(-(math.log(3) + wide))), abs=1e-12)


def test_delong_by_counting_pairs() -> None:
    rng = np.random.default_rng(1)
    one, zero = rng.normal(1, 1, 17).round(1), rng.normal(0, 1, 23).round(1)
    wins = np.array([[float(a > b) + 0.5 * (a == b) for b in zero] for a in one])
    variance = wins.mean(axis=1).var(ddof=1) / 17 + wins.mean(axis=0).var(ddof=1) / 23
    labels = [1] * 17 + [0] * 23
    found = area([*one, *zero], labels, alone(labels))
    value = wins.mean()
    wide = 1.959963984540054 * math.sqrt(variance) / (value * (1 - value))
    assert found.low == pytest.approx(1 / (1 + math.exp(-(math.log(value / (1 - value)) - wide))), abs=1e-9)


@pytest.mark.parametrize("size", [1, 10, 30])
def test_all_in_order_is_not_certain(size: int) -> None:
    labels = [1] * size + [0] * size
    found = area([0.9] * size + [0.1] * size, labels, alone(labels))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low is not None
    # Newcombe's method 5 at its own limit, with Hanley & McNeil's variance written out
    low = found.low
    q1, q2 = low / (2 - low), 2 * low**2 / (1 + low)
    variance = (low * (1 - low) + (size - 1) * (q1 - low**2 + q2 - low**2)) / size**2
    assert 1 - low == pytest.approx(1.959963984540054 * math.sqrt(variance), rel=1e-6)
    turned = area([0.1] * size + [0.9] * size, labels, alone(labels))
    assert (turned.value, turned.low) == (0.0, 0.0)
    assert turned.high == pytest.approx(1 - low, abs=1e-6)


def test_a_probe_that_says_the_same_of_all_may_be_anything() -> None:
    found = area([0.2] * 20, [1, 0] * 10, alone([0] * 20))
    assert found.value == 0.5
    assert found.low is not None
    assert 0.2 < found.low < 0.35
    assert area([0.2, 0.3], [1, 1], [0, 1]) == NOTHING


@pytest.mark.parametrize(("size", "truth"), [(20, 0.8), (20, 0.97), (40, 0.99)])
def test_the_interval_covers_where_the_plain_one_does_not(size: int, truth: float) -> None:
    rng, draws, shift = np.random.default_rng(2), 600, norm.ppf(truth) * math.sqrt(2)
    labels, covered, plain = [1] * size + [0] * size, 0, 0
    for _ in range(draws):
        one, zero = rng.normal(shift, 1, size), rng.normal(0, 1, size)
        found = area([*one, *zero], labels, alone(labels))
        assert found.low is not None and found.high is not None and found.value is not None  # noqa: PT018
        covered += found.low <= truth <= found.high
        wins = one[:, None] > zero[None, :]
        error = math.sqrt(wins.mean(axis=1).var(ddof=1) / size + wins.mean(axis=0).var(ddof=1) / size)
        plain += abs(wins.mean() - truth) <= 1.96 * error
    assert covered / draws >= 0.93
    if truth > 0.9:
        assert plain / draws < 0.85


def test_copies_of_a_text_add_nothing() -> None:
    rng = np.random.default_rng(3)
    labels = [1, 0] * 15
    scores = (np.array(labels) * 0.8 + rng.normal(0, 1, 30)).tolist()
    once = area(scores, labels, alone(labels))
    copied = area(scores * 5, labels * 5, alone(labels) * 5)
    naive = area(scores * 5, labels * 5, list(range(150)))
    assert copied.value == pytest.approx(once.value)
    assert copied.low is not None and once.low is not None and naive.low is not None  # noqa: PT018
    assert abs(copied.low - once.low) < 0.02 < naive.low - once.low
