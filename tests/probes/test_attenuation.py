"""What label error leaves of a difference: hand computation, and a planted difference that must be got back."""

import json
import math

import numpy as np
import pytest

from moeprobe.probes import Example, Quality, Reading
from moeprobe.probes.attenuation import attenuation
from moeprobe.probes.quality import measure

Z = 1.959963984540054


def quality(hits: int, misses: int, passes: int, alarms: int) -> Quality:
    """The record of a probe with these counts."""
    counts = ((1, 0.9, hits), (1, 0.1, misses), (0, 0.1, passes), (0, 0.9, alarms))
    cells = [(label, score) for label, score, number in counts for _ in range(number)]
    examples = [Example(str(number), label) for number, (label, _) in enumerate(cells)]
    return measure("x", examples, [Reading(score) for _, score in cells], "held-out examples")


def test_by_hand() -> None:
    # Se = .9, Sp = .8, half called positive: true share (.5 + .8 - 1) / .7 = 3/7. PPV = .9 * 3/7 / .5 = 27/35, NPV =
    # .8 * 4/7 / .5 = 32/35; the groups keep 27/35 + 32/35 - 1 = 24/35 of the difference.
    found = attenuation(quality(90, 10, 80, 20), [True, False] * 100)
    assert found is not None
    assert found.share.value == pytest.approx(3 / 7, abs=1e-12)
    assert found.factor.value == pytest.approx(24 / 35, abs=1e-12)
    assert "sensitivity 0.90 and specificity 0.80 on held-out examples (200)" in found.basis
    assert "(200), which is kind where one author wrote rule and examples; assumes" in found.basis
    body = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert set(body) == {"factor", "share", "basis"}
    assert body["factor"]["ci"][0] < 24 / 35 < body["factor"]["ci"][1]


def test_a_perfect_record_may_still_shrink_a_little() -> None:
    found = attenuation(quality(20, 0, 20, 0), [True] * 30 + [False] * 30)
    assert found is not None
    assert (found.factor.value, found.factor.high) == (1.0, 1.0)
    assert found.factor.low is not None
    assert 0.75 < found.factor.low < 0.95


def test_where_all_calls_may_be_false_alarms_nothing_may_be_left() -> None:
    # 5 % called positive by a probe with 10 % false alarms: no sign that any is truly positive.
    found = attenuation(quality(45, 5, 45, 5), [True] * 5 + [False] * 95)
    assert found is not None
    assert (found.factor.value, found.share.value, found.factor.low) == (0.0, 0.0, 0.0)
    assert found.factor.high is not None
    assert found.factor.high > 0.3


@pytest.mark.parametrize("counts", [(5, 5, 5, 5), (2, 8, 5, 5)])
def test_a_probe_that_guesses_says_nothing(counts: tuple[int, int, int, int]) -> None:
    assert attenuation(quality(*counts), [True, False] * 20) is None
    assert attenuation(quality(9, 1, 9, 1), []) is None


def test_generations_of_one_prompt_widen_it() -> None:
    called = [True] * 40 + [False] * 60
    alone = attenuation(quality(90, 10, 80, 20), called)
    alike = attenuation(quality(90, 10, 80, 20), called, [str(number // 10) for number in range(100)])
    assert alone is not None and alike is not None  # noqa: PT018
    assert alone.share.low is not None and alike.share.low is not None  # noqa: PT018
    assert alike.share.low < alone.share.low - 0.1


def corrected(difference: float, error: float, low: float, value: float, high: float) -> tuple[float, float]:
    """Limits of difference / factor for a positive difference, by MOVER-R (Donner & Zou 2012) from both limits."""
    below, above = difference - Z * error, difference + Z * error
    ends = []
    for end, other, sign in ((below, high, -1), (above, low, 1)):
        if not other:
            return ends[0], math.inf  # the factor may be 0
        product = difference * value
        root = math.sqrt(max(0.0, product**2 - end * other * (2 * difference - end) * (2 * value - other)))
        ends.append((product + sign * root) / (other * (2 * value - other)))
    return ends[0], ends[1]


@pytest.mark.parametrize(("sensitivity", "specificity", "share"), [(0.85, 0.9, 0.4), (0.95, 0.8, 0.3)])
def test_a_planted_difference_is_got_back(sensitivity: float, specificity: float, share: float) -> None:
    rng, draws, planted, spread = np.random.default_rng(4), 300, 0.10, 0.10
    covered = plain = factors = 0
    p = sensitivity * share + (1 - specificity) * (1 - share)
    truth = sensitivity * share / p + specificity * (1 - share) / (1 - p) - 1
    for _ in range(draws):
        hits, passes = int(rng.binomial(80, sensitivity)), int(rng.binomial(80, specificity))
        positive = rng.random(400) < share
        called = np.where(positive, rng.random(400) < sensitivity, rng.random(400) > specificity)
        rate = 0.3 + planted * positive + rng.normal(0, spread, 400)
        one, zero = rate[called], rate[~called]
        difference = float(one.mean() - zero.mean())
        error = math.sqrt(one.var(ddof=1) / one.size + zero.var(ddof=1) / zero.size)
        found = attenuation(quality(hits, 80 - hits, passes, 80 - passes), called.tolist())
        assert found is not None
        low, value, high = found.factor.low, found.factor.value, found.factor.high
        assert low is not None and value is not None and high is not None  # noqa: PT018
        factors += low <= truth <= high
        ends = corrected(difference, error, low, value, high)
        covered += ends[0] <= planted <= ends[1]
        plain += abs(difference - planted) <= Z * error
    assert 0.92 <= covered / draws <= 0.99
    assert factors / draws >= 0.92
    assert plain / draws < 0.5
