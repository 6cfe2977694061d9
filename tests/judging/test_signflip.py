"""Sign flips: by hand, against loops from the definition, and their family-wise error."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from moeprobe.judging.signflip import flip_p, flip_signs, step_down_p


def test_four_pairs_by_hand() -> None:
    values = np.array([[1.0], [2.0], [4.0], [8.0]])
    signs = flip_signs(4, 0)
    # The 16 signed sums are the odd numbers from -15 to 15, each once.
    assert flip_p(values, signs)[0] == 1 / 16  # 15 is reached once
    assert flip_p(values * [[1], [1], [1], [-1]], signs)[0] == 9 / 16  # -1 or more: -1, 1, ..., 15
    assert flip_p(values * [[-1], [1], [1], [1]], signs)[0] == 2 / 16  # 13 or more
    assert step_down_p(values * [[-1], [1], [1], [1]], signs, two_sided=True)[0] == 4 / 16  # -15, -13, 13, 15


def test_two_columns_by_hand() -> None:
    # Four equal pairs: T = sum / 4, from the signs alone. Columns (1, 1, 1, 1) and (1, 1, 1, -1): T = 1 and 1/2.
    values = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    found = step_down_p(values, flip_signs(4, 0))
    # The first column reaches 1 under one pattern, the second under another one: 2 of 16.
    assert found[0] == 2 / 16
    # Alone in its step, the second reaches 1/2 with at most one of its four terms negative: 5 of 16.
    assert found[1] == 5 / 16


def test_step_down_against_its_definition() -> None:
    generator = np.random.default_rng(0)
    for trial in range(6):
        values = generator.standard_t(3, (6, 5)) + generator.normal(0.4, 0.5, 5) + generator.normal(size=(6, 1))
        statistic = [
            [
                sum(s * x for s, x in zip(signs, values[:, column], strict=True))
                / (6 * sum(x * x for x in values[:, column])) ** 0.5
                for column in range(5)
            ]
            for signs in itertools.product([1, -1], repeat=6)
        ]
        for two_sided in (False, True):
            table = [[abs(t) if two_sided else t for t in row] for row in statistic]
            order = sorted(range(5), key=lambda column: -table[0][column])
            expected, before = [0.0] * 5, 0.0
            for place, column in enumerate(order):
                later = order[place:]
                share = sum(max(row[c] for c in later) >= table[0][column] - 1e-12 for row in table) / len(table)
                before = expected[column] = max(before, share)
            found = step_down_p(values, flip_signs(6, trial), two_sided=two_sided)
            assert found == pytest.approx(expected, abs=1e-12)


def test_step_down_is_never_less_powerful_than_one_step() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(0.5, 1, (12, 30))
    values[:, :10] += 2
    signs = flip_signs(12, 0)
    columns = values / np.sqrt(12 * (values**2).sum(axis=0))
    largest = (signs @ columns).max(axis=1)
    single = (largest[:, None] >= columns.sum(axis=0) - 1e-10).mean(axis=0)
    stepped = step_down_p(values, signs)
    assert (stepped <= single + 1e-12).all()
    assert (stepped < 0.8 * single).sum() >= 5
    assert (stepped >= flip_p(values, signs) - 1e-12).all()


def test_columns_without_any_effect_and_large_numbers_of_pairs() -> None:
    signs = flip_signs(4, 0)
    two = step_down_p(np.array([[1.0, 0], [2, 0], [4, 0], [8, 0]]), signs)
    assert two.tolist() == [1 / 16, 1.0]
    assert step_down_p(np.zeros((4, 2)), signs).tolist() == [1.0, 1.0]
    many = flip_signs(30, 0)
    assert many.shape == (10_001, 30)
    assert many[0].tolist() == [1.0] * 30
    assert step_down_p(np.ones((30, 1)), many)[0] == 1 / 10_001
    assert step_down_p(np.full((30, 2), -1.0), many).tolist() == [1.0, 1.0]


def test_lowering_values_never_lowers_p() -> None:
    """Why the test of one column stays valid for effects below the minimum effect."""
    generator = np.random.default_rng(2)
    signs = flip_signs(9, 0)
    for _ in range(50):
        values = generator.standard_t(2, (9, 1))
        lower = values - generator.gamma(0.5, 1, (9, 1))
        assert flip_p(lower, signs)[0] >= flip_p(values, signs)[0]


@pytest.mark.parametrize("pairs", [8, 20])
def test_family_wise_error_beside_strong_effects(pairs: int) -> None:
    """Heavy tails, columns that go together, a third of them with an effect: 5 % of 600 runs, within chance."""
    generator, signs, false, naive = np.random.default_rng(pairs), flip_signs(pairs, 0, 499), 0, 0
    for _ in range(600):
        values = generator.standard_t(2, (pairs, 15)) + 2 * generator.standard_t(2, (pairs, 1))
        values[:, :5] += 30
        false += (step_down_p(values, signs)[5:] <= 0.05).any()
        naive += (flip_p(values, signs)[5:] <= 0.05).any()
    assert binom.sf(false - 1, 600, 0.05) > 0.01
    assert binom.sf(naive - 1, 600, 0.05) < 1e-6
