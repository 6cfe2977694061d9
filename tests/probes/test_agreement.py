"""Cohen's kappa against statsmodels, by hand and by simulation."""

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa as reference

from moeprobe.errors import ProbeError
from moeprobe.probes.agreement import _interval, _linearised, cohens_kappa
from moeprobe.probes.clusters import cluster_numbers, shrinkage


def answers(n00: int, n01: int, n10: int, n11: int) -> tuple[list[int], list[int]]:
    return [0] * (n00 + n01) + [1] * (n10 + n11), [0] * n00 + [1] * n01 + [0] * n10 + [1] * n11


@pytest.mark.parametrize("cells", [(20, 5, 10, 15), (80, 1, 2, 17), (3, 9, 8, 4)])
def test_is_that_of_statsmodels(cells: tuple[int, int, int, int]) -> None:
    found = cohens_kappa(*answers(*cells))
    table = np.array(cells, dtype=float).reshape(2, 2)
    assert found.value == pytest.approx(reference(table).kappa, abs=1e-12)
    halves = reference(table + 0.5)
    assert (found.low, found.high) == pytest.approx((halves.kappa_low, halves.kappa_upp), abs=1e-10)
    assert found.n == sum(cells)
    assert found.observed == (cells[0] + cells[3]) / sum(cells)
    assert found.table == ((cells[0], cells[1]), (cells[2], cells[3]))


def test_by_hand() -> None:
    # 35 of 50 agree; the margins (25, 25) and (30, 20) agree by chance in 25. Kappa = (35 - 25) / (50 - 25).
    assert cohens_kappa(*answers(20, 5, 10, 15)).value == pytest.approx(0.4, abs=1e-15)


def test_full_agreement_is_not_certain() -> None:
    found = cohens_kappa(*answers(6, 0, 0, 6))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low is not None
    assert 0.4 < found.low < 0.8


@pytest.mark.parametrize("cells", [(0, 0, 0, 0), (9, 0, 0, 0), (5, 4, 0, 0), (5, 0, 4, 0)])
def test_a_judge_with_one_answer_shows_nothing(cells: tuple[int, int, int, int]) -> None:
    found = cohens_kappa(*answers(*cells))
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.observed == ((cells[0] + cells[3]) / sum(cells) if sum(cells) else None)


def test_refuses_what_is_no_pair_of_answers() -> None:
    with pytest.raises(ProbeError, match="two answers for each text"):
        cohens_kappa([0, 1], [0])
    with pytest.raises(ProbeError, match="0 and 1"):
        cohens_kappa([0, 2], [0, 1])


@pytest.mark.parametrize(("share", "kappa"), [(0.5, 0.4), (0.5, 0.95), (0.15, 0.8), (0.15, 0.95)])
def test_the_interval_covers_where_the_plain_one_does_not(share: float, kappa: float) -> None:
    rng, draws, size = np.random.default_rng(3), 1000, 30
    both, mixed = share**2 + kappa * share * (1 - share), share * (1 - share) * (1 - kappa)
    tables = rng.multinomial(size, [1 - both - 2 * mixed, mixed, mixed, both], size=draws)
    covered = plain = used = 0
    for cells in tables.tolist():
        found = cohens_kappa(*answers(*cells))
        if found.low is None or found.high is None:
            continue
        used += 1
        covered += found.low <= kappa <= found.high
        stated = reference(np.array(cells, dtype=float).reshape(2, 2))
        plain += bool(stated.kappa_low <= kappa <= stated.kappa_upp)
    assert covered / used >= 0.93
    if kappa > 0.9:
        assert plain / used < 0.75


def test_several_texts_of_a_prompt_widen_the_interval() -> None:
    first, second = answers(20, 5, 10, 15)
    copies = [prompt for prompt in map(str, range(50)) for _ in range(4)]
    fourfold = cohens_kappa(np.repeat(first, 4).tolist(), np.repeat(second, 4).tolist(), copies)
    once, naive = cohens_kappa(first, second), cohens_kappa(first * 4, second * 4)
    assert fourfold.value == once.value
    assert once.low is not None and fourfold.low is not None and naive.low is not None  # noqa: PT018
    # a text and its three copies say as much as the text: the counts are a fourth, less 1.96 / t(49) squared
    assert fourfold.low == pytest.approx(once.low, abs=0.02)
    assert fourfold.low < naive.low - 0.1


def test_shrinkage_by_hand() -> None:
    assert shrinkage([0, 1, 1], cluster_numbers(["", "", "a"])) == 1.0  # not known is not the same prompt
    # two prompts of two equal texts: the sums vary four times as much as the texts, over two prompts (factor 2/1)
    from scipy.stats import t

    found = shrinkage([0, 0, 1, 1], cluster_numbers(["a", "a", "b", "b"]))
    assert found == pytest.approx((1.959964 / t.ppf(0.975, 1)) ** 2 / 4, rel=1e-6)
    perfect = shrinkage([1, 1, 1, 1, 1, 1], cluster_numbers(["a", "a", "b", "b", "c", "c"]))
    assert perfect == pytest.approx((1.959964 / t.ppf(0.975, 2)) ** 2 / 2, rel=1e-6)


def test_the_linearisation_is_the_derivative() -> None:
    shares = np.array([[0.4, 0.1], [0.2, 0.3]])
    value, slope = _linearised(shares)
    for cell in np.ndindex(2, 2):
        moved = shares.copy()
        moved[cell] += 1e-6
        assert (_linearised(moved)[0] - value) / 1e-6 == pytest.approx(slope[cell], abs=1e-4)
    assert _interval(np.array([[8.0, 0.0], [0.0, 8.0]]))[1] <= 1.0
