"""Changes of a share between two arms, against hand computation and statsmodels."""

import numpy as np
import pytest
from scipy.stats import multinomial
from statsmodels.stats.contingency_tables import mcnemar

from moeprobe.errors import InterchangeError
from moeprobe.judging.rates import Change, change

NAN = float("nan")


def arms(rose: int, fell: int, both: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    before = [0] * rose + [1] * fell + [1] * both + [0] * neither
    after = [1] * rose + [0] * fell + [1] * both + [0] * neither
    return np.array(before, float), np.array(after, float)


def of(before: np.ndarray, after: np.ndarray, sign: int = 1, gap: np.ndarray | None = None) -> Change:
    return change(before, after, sign=sign, gap=gap, draws=2_000, seed=0)


@pytest.mark.parametrize("counts", [(7, 1, 3, 9), (0, 6, 2, 2), (3, 3, 0, 0), (12, 0, 0, 0), (1, 0, 5, 5)])
def test_the_exact_test_is_statsmodels(counts: tuple[int, int, int, int]) -> None:
    rose, fell, both, neither = counts
    found = of(*arms(*counts))
    table = [[both, fell], [rose, neither]]
    assert found.p == pytest.approx(float(mcnemar(table, exact=True).pvalue), abs=1e-12)
    assert found.points == pytest.approx(100 * (rose - fell) / sum(counts))
    assert (found.before, found.after) == (fell + both, rose + both)


def test_points_interval_by_hand() -> None:
    """20 pairs, 7 rose and 1 fell: up 8/22, down 2/22, difference 6/22; variance (10/22 - 36/484) / 22."""
    found = of(*arms(7, 1, 3, 9))
    half = 1.959964 * np.sqrt((10 / 22 - 36 / 484) / 22)
    assert found.points_ci == pytest.approx((100 * (6 / 22 - half), 100 * (6 / 22 + half)), abs=1e-4)
    turned = of(*arms(7, 1, 3, 9), sign=-1)
    assert turned.points == -found.points
    assert turned.points_ci == pytest.approx((-found.points_ci[1], -found.points_ci[0]))


def test_an_interval_has_a_width_where_all_pairs_moved_alike() -> None:
    before, after = arms(12, 0, 0, 0)
    found = of(before, after, gap=after - before)
    assert found.percent == 100.0
    assert found.percent_ci == (100.0, 100.0)
    assert found.points_ci[0] < 80


def test_points_interval_covers() -> None:
    """Bonett & Price's interval for 12 pairs, over all tables that can come out: at least 93 % hold the truth."""
    tables = [(rose, fell) for rose in range(13) for fell in range(13 - rose)]
    intervals = [of(*arms(rose, fell, 12 - rose - fell, 0)).points_ci for rose, fell in tables]
    for up, down in ((0.5, 0.05), (0.1, 0.1), (0.9, 0.02)):
        chances = multinomial.pmf(
            [(rose, fell, 12 - rose - fell) for rose, fell in tables], 12, [up, down, 1 - up - down]
        )
        holds = [low <= 100 * (up - down) <= high for low, high in intervals]
        assert chances.sum() == pytest.approx(1)
        assert chances[holds].sum() >= 0.93, (up, down)


def test_abstentions_leave_pairs_out_one_comparison_at_a_time() -> None:
    before, after = np.array([0, 0, NAN, 1, 0]), np.array([1, NAN, 1, 1, 0])
    found = of(before, after, gap=np.array([1, 1, 1, NAN, 1]))
    assert (found.pairs, found.left_out) == (3, 2)
    assert (found.before, found.after) == (1, 2)
    assert found.points == pytest.approx(100 / 3)
    assert found.percent == 50.0  # of the pairs with a gap, one of two
    assert found.to_json()["per_pair"] == [1, None, None, 0, 0]


def test_no_gap_no_percentage() -> None:
    before, after = arms(3, 0, 0, 3)
    for gap in (np.zeros(6), -np.ones(6), np.full(6, NAN), np.array([1.0, -1, 0, 0, 0, 0])):
        found = of(before, after, gap=gap)
        assert (found.percent, found.percent_ci) == (None, None)
    # One gap in many pairs: too many draws have none.
    rare = of(before, after, gap=np.array([1.0, 0, 0, 0, 0, 0]))
    assert rare.percent == 300.0
    assert rare.percent_ci is None


def test_refused() -> None:
    with pytest.raises(InterchangeError, match="3 and 2 pairs"):
        of(np.zeros(3), np.zeros(2))
    with pytest.raises(InterchangeError, match="abstained everywhere"):
        of(np.full(3, NAN), np.zeros(3))
