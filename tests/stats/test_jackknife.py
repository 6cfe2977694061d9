"""Jackknife intervals against a plain delete-one loop, hand computation and simulation."""

import numpy as np
import pytest
from scipy.stats import t as student

from moeprobe.errors import StatsError
from moeprobe.stats.jackknife import jackknife_split, jackknife_variance
from moeprobe.stats.rates import GATE_SCALE, to_fixed

RNG = np.random.default_rng(5)
LABELS = np.array([1, 0, 1, 0, 0, 1, 1, 0, 1])
TOKENS = RNG.integers(40, 300, 9)
SELECTED = RNG.binomial(TOKENS[:, None], RNG.beta(2, 6, (9, 12)))
GATE = to_fixed(SELECTED * RNG.uniform(0.05, 0.4, (9, 12)))


def plain_parts(keep, labels=LABELS):
    """Entry and valuation of expert 0.. from scratch, with Python sums only."""
    sums = {}
    for label in (0, 1):
        rows = [i for i in range(len(labels)) if keep[i] and labels[i] == label]
        n = sum(int(TOKENS[i]) for i in rows)
        chosen = np.array([sum(int(SELECTED[i, e]) for i in rows) for e in range(12)])
        gate = np.array([sum(int(GATE[i, e]) for i in rows) / GATE_SCALE for e in range(12)])
        sums[label] = chosen / n, gate / chosen
    (s1, q1), (s0, q0) = sums[1], sums[0]
    return (s1 - s0) * (q1 + q0) / 2, (q1 - q0) * (s1 + s0) / 2


def test_equals_the_delete_one_loop():
    result = jackknife_split(TOKENS, SELECTED, GATE, LABELS, level=0.9)
    full = plain_parts(np.ones(9, bool))
    for part in (0, 1):
        variances = []
        for label in (1, 0):
            left = np.array([plain_parts(np.arange(9) != i)[part] for i in range(9) if LABELS[i] == label])
            variances.append((len(left) - 1) / len(left) * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
        v1, v0 = variances
        df = (v1 + v0) ** 2 / (v1**2 / 4 + v0**2 / 3)
        half = student.ppf(0.95, df) * np.sqrt(v1 + v0)
        interval = (result.entry, result.valuation)[part]
        np.testing.assert_allclose(interval.estimate, full[part], rtol=1e-12)
        np.testing.assert_allclose(interval.high - interval.estimate, half, rtol=1e-9)
        np.testing.assert_allclose(interval.estimate - interval.low, half, rtol=1e-9)
    np.testing.assert_allclose(result.difference.estimate, sum(full), atol=1e-15)


def test_jackknife_of_a_mean_is_its_standard_error():
    values = RNG.normal(size=(7, 4))
    left = (values.sum(axis=0) - values) / 6
    variance, df = jackknife_variance([left])
    np.testing.assert_allclose(variance, values.var(axis=0, ddof=1) / 7, rtol=1e-12)
    np.testing.assert_allclose(df, 6)


def test_pairs_are_left_out_together():
    """With units of equal length the entry part of a k = 1 layer is the mean pair difference of the rates."""
    tokens, labels, pairs = np.full(12, 100), np.tile([1, 0], 6), np.repeat(np.arange(6), 2)
    pair_level = RNG.beta(20, 20, (6, 1, 5))
    selected = RNG.binomial(100, np.clip(pair_level + np.array([0.05, -0.05])[:, None], 0, 1)).reshape(12, 5)
    gate = to_fixed(selected.astype(float))
    shuffled = RNG.permutation(12)
    result = jackknife_split(tokens, selected[shuffled], gate[shuffled], labels[shuffled], pairs=pairs[shuffled])
    difference = (selected[::2] - selected[1::2]) / 100
    mean, se = difference.mean(axis=0), difference.std(axis=0, ddof=1) / np.sqrt(6)
    # the difference of a pair may vary less than independent tokens would: then the floor rules
    p1, p0 = (selected[::2].sum(axis=0) + 2) / 604, (selected[1::2].sum(axis=0) + 2) / 604
    se = np.maximum(se, np.sqrt((p1 * (1 - p1) + p0 * (1 - p0)) / 600))
    np.testing.assert_allclose(result.entry.estimate, mean, rtol=1e-10)
    np.testing.assert_allclose(result.entry.high, mean + student.ppf(0.975, 5) * se, rtol=1e-9)
    np.testing.assert_allclose(result.valuation.estimate, 0, atol=1e-15)
    np.testing.assert_allclose(result.valuation.high, 0, atol=1e-12)


def test_intervals_cover_the_truth():
    """Generations with their own rate and weight: 95 % of the intervals hold the true entry, valuation and dW."""
    rng, experts, units = np.random.default_rng(8), 4000, 20
    labels, tokens = np.repeat([1, 0], units), np.full(2 * units, 150)
    shape = np.where(labels == 1, 6.0, 4.0)[:, None]
    rate = rng.beta(shape, 20.0, (2 * units, experts))
    weight = rng.uniform(0.1, 0.3, (2 * units, experts)) + 0.05 * labels[:, None]
    selected = rng.binomial(tokens[:, None], rate)
    result = jackknife_split(tokens, selected, to_fixed(selected * weight), labels)
    s1, s0, q1, q0 = 6 / 26, 4 / 24, 0.25, 0.2
    truth = {"entry": (s1 - s0) * (q1 + q0) / 2, "valuation": (q1 - q0) * (s1 + s0) / 2}
    truth["difference"] = s1 * q1 - s0 * q0
    for name, value in truth.items():
        interval = getattr(result, name)
        covered = np.mean((interval.low <= value) & (value <= interval.high))
        assert covered == pytest.approx(0.95, abs=0.015), name


def test_agreement_of_all_units_is_not_certainty():
    """Always chosen in one group, never in the other: units do not vary, but finite tokens leave doubt."""
    tokens, labels = np.full(6, 50), np.array([1, 1, 1, 0, 0, 0])
    selected = np.where(labels == 1, 50, 0)[:, None]
    result = jackknife_split(tokens, selected, to_fixed(selected * 0.5), labels)
    p1, p0 = 152 / 154, 2 / 154
    se = 0.5 * np.sqrt((p1 * (1 - p1) + p0 * (1 - p0)) / 150)  # all of dW is entry, Q = 0.5
    assert result.entry.estimate[0] == pytest.approx(0.5)
    assert result.entry.estimate[0] - result.entry.low[0] == pytest.approx(student.ppf(0.975, 2) * se)
    never = jackknife_split(tokens, np.zeros((6, 1), int), np.zeros((6, 1), int), labels)
    assert (never.difference.low[0], never.difference.high[0]) == (0, 0)


def test_one_unit_that_holds_all_selections():
    """Without that unit nothing is left: its Q is missing, not noise, and the interval spans 0."""
    selected = np.zeros((9, 1), int)
    selected[0] = 30
    result = jackknife_split(TOKENS, selected, to_fixed(selected * 0.3), LABELS)
    assert np.isfinite(result.difference.low[0])
    assert result.difference.low[0] < 0 < result.difference.estimate[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.zeros(9, int)}, "two units"),
        ({"labels": LABELS[:4]}, "do not fit"),
        ({"gate": GATE / GATE_SCALE}, "whole numbers"),
        ({"selected": SELECTED + 1000}, "more selections"),
        ({"tokens": np.zeros(9, int)}, "no tokens"),
        ({"pairs": np.arange(9)}, "Every pair"),
    ],
)
def test_refusals(change, says):
    arguments = {"tokens": TOKENS, "selected": SELECTED, "gate": GATE, "labels": LABELS} | change
    with pytest.raises(StatsError, match=says):
        jackknife_split(**arguments)
