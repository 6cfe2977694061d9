"""What a screen selects and audits, and what may be said of its recall."""

from itertools import combinations

import numpy as np
import pytest

from moeprobe.errors import InterchangeError
from moeprobe.interchange.screen import Screen
from moeprobe.interchange.screen_quality import audit_size, most_beyond, quality
from moeprobe.sites import Site

COUNT = 40
SITES = tuple(Site(layer, "expert", expert) for layer in range(4) for expert in range(10))


def made(means: np.ndarray, *, sufficiency: np.ndarray | None = None, used: np.ndarray | None = None) -> Screen:
    """A screen of two pairs whose mean estimates are as given."""
    other = means if sufficiency is None else sufficiency
    both = {name: np.stack([values - 1, values + 1]) for name, values in (("necessity", means), ("sufficiency", other))}
    marks = np.ones(COUNT, bool) if used is None else used
    return Screen(("a", "b"), SITES, np.array([5.0, 3.0]), np.array([1.0, 2.0]), both, marks)


RISING = np.arange(COUNT, dtype=float)


def test_shares_are_ratios_of_sums() -> None:
    result = made(RISING)
    np.testing.assert_allclose(result.shares("necessity"), 100 * 2 * RISING / (4.0 + 1.0))
    flat = Screen(("a",), SITES, np.ones(1), np.ones(1), {"necessity": RISING[None]}, np.ones(COUNT, bool))
    with pytest.raises(InterchangeError, match="no gap"):
        flat.shares("necessity")


def test_the_ranking_takes_the_size_and_not_the_sign() -> None:
    means = RISING.copy()
    means[3] = -1000
    assert made(means).ranking("necessity")[:2] == (SITES[3], SITES[39])


def test_what_leads_in_either_effect_is_selected() -> None:
    result = made(RISING, sufficiency=-RISING[::-1])
    assert result.select(share=0.25, wanted=1, effects=["necessity"]) == SITES[30:]
    assert result.select(share=0.25, wanted=1) == SITES[:10] + SITES[30:]
    assert len(result.select(share=0.05, wanted=4, effects=["necessity"])) == 12
    assert result.select(share=1.0) == SITES


def test_experts_that_nobody_chose_are_neither_selected_nor_audited() -> None:
    used = np.ones(COUNT, bool)
    used[35:] = False
    result = made(RISING, used=used)
    chosen = result.select(share=0.25, wanted=1, effects=["necessity"])
    assert chosen == SITES[25:35]
    assert set(result.audit(chosen, COUNT, 0)) == set(SITES[:25])


def test_an_audit_is_a_random_sample_of_the_others() -> None:
    result = made(RISING)
    chosen = result.select(share=0.25, wanted=1, effects=["necessity"])
    drawn = [result.audit(chosen, 6, seed) for seed in range(300)]
    assert all(len(set(one)) == 6 and not set(one) & set(chosen) for one in drawn)
    assert result.audit(chosen, 6, 7) == drawn[7] != drawn[8]
    often = [sum(site in one for one in drawn) for site in SITES[:30]]
    assert min(often) > 30  # 60 expected, standard deviation 7
    assert max(often) < 90


def test_kinds_are_taken_apart() -> None:
    sites = (Site(0, "expert", 0), Site(0, "head", 1), Site(1, "expert", 0))
    result = Screen(("a",), sites, np.ones(1), np.zeros(1), {"necessity": np.array([[1.0, 5, 3]])}, np.ones(3, bool))
    assert result.kind("expert").ranking("necessity") == (sites[2], sites[0])
    with pytest.raises(InterchangeError, match="No site of kind 'moe'"):
        result.kind("moe")
    with pytest.raises(InterchangeError, match=r"L7\.moe was not screened"):
        result.of([Site(7, "moe")])


def test_bad_requests_are_refused() -> None:
    result = made(RISING)
    for options in ({"share": 0.0}, {"share": 1.1}, {"wanted": 0}, {"effects": []}):
        with pytest.raises(InterchangeError, match="share"):
            result.select(**options)
    with pytest.raises(InterchangeError, match="'knockout' was not estimated"):
        result.ranking("knockout")
    with pytest.raises(InterchangeError, match="0 sites or more"):
        result.audit([], -1, 0)
    for estimates in (np.full((2, COUNT), np.nan), np.zeros((3, COUNT))):
        with pytest.raises(InterchangeError, match="finite numbers"):
            Screen(("a", "b"), SITES, np.ones(2), np.ones(2), {"necessity": estimates}, np.ones(COUNT, bool))


def test_the_bound_is_the_exact_hypergeometric_one() -> None:
    """By counting all samples: the largest number of sites beyond that still shows so few in more than 5 % of them."""
    others, audited = 9, 4
    for beaten in range(audited + 1):
        samples = list(combinations(range(others), audited))
        allowed = []
        for beyond in range(beaten, others - (audited - beaten) + 1):
            few = sum(sum(one < beyond for one in sample) <= beaten for sample in samples)
            if few / len(samples) > 0.05:
                allowed.append(beyond)
        assert most_beyond(others, audited, beaten, 0.95) == max(allowed)


def test_the_size_of_an_audit() -> None:
    assert audit_size(72, 72) == 0
    assert audit_size(72, 0) == 69  # one beyond escapes 69 of 72 in 3 of 72 draws, and 68 in 4 of 72
    size = audit_size(72, 1)
    assert most_beyond(72, size, 0, 0.95) == 1 < most_beyond(72, size - 1, 0, 0.95)


def exact_of(means: np.ndarray) -> dict[Site, float]:
    return dict(zip(SITES, means.tolist(), strict=True))


def test_a_perfect_screen_and_a_full_audit() -> None:
    result = made(RISING)
    chosen = result.select(share=0.25, wanted=1, effects=["necessity"])
    found = quality(result, "necessity", exact_of(-(RISING**2)), selected=chosen, audited=result.others(chosen))
    assert (found.found, found.beaten, found.most, found.recall, found.least_recall) == (10, 0, 0, 1.0, 1.0)
    assert found.correlation == pytest.approx(1)
    assert "all 30 others were swapped exactly as well: 10 of the first 10" in found.sentence


def test_what_was_missed_is_counted() -> None:
    result = made(RISING)
    chosen = result.select(share=0.25, wanted=1, effects=["necessity"])
    exact = exact_of(RISING)
    exact[SITES[2]], exact[SITES[4]], exact[SITES[20]] = -100.0, 101.0, 102.0
    every = quality(result, "necessity", exact, selected=chosen, audited=result.others(chosen))
    assert (every.found, every.beaten, every.most, every.recall) == (7, 3, 3, 0.7)
    part = quality(result, "necessity", exact, selected=chosen, audited=[SITES[2], SITES[9], SITES[11]])
    assert (part.found, part.beaten, part.audited) == (9, 1, 3)
    assert part.most is not None
    assert part.most >= 3
    none = quality(result, "necessity", exact, selected=chosen, audited=[])
    assert none.most is None
    assert "what was missed is not known" in none.sentence


def test_a_small_audit_claims_nothing() -> None:
    result = made(RISING)
    chosen = result.select(share=0.25, wanted=1, effects=["necessity"])
    found = quality(result, "necessity", exact_of(RISING), selected=chosen, audited=result.audit(chosen, 3, 0))
    assert found.least_recall == 0
    size = audit_size(30, 9)
    assert f"says nothing of how many of the first 10 were selected: that takes an audit of {size} or more" in (
        found.sentence
    )
    enough = quality(result, "necessity", exact_of(RISING), selected=chosen, audited=result.audit(chosen, size, 0))
    assert enough.least_recall == pytest.approx(0.1)
    assert "at least 1 of the first 10 of all were selected" in enough.sentence
    assert enough.to_json()["sentence"] == enough.sentence


def test_the_bound_holds_in_at_least_95_of_100_audits() -> None:
    """Exact effects that the estimates know little of: the true share of the first ten is below the bound seldom."""
    chance = np.random.default_rng(0)
    wrong = 0
    for seed in range(400):
        result = made(chance.normal(size=COUNT))
        exact = exact_of(result.estimates["necessity"].mean(axis=0) + 2 * chance.normal(size=COUNT))
        chosen = result.select(share=0.5, wanted=1, effects=["necessity"])
        found = quality(result, "necessity", exact, selected=chosen, audited=result.audit(chosen, 12, seed))
        first = sorted(SITES, key=lambda site: -abs(exact[site]))[:10]
        true = sum(site in set(chosen) for site in first) / 10
        assert found.least_recall is not None
        wrong += true < found.least_recall
    assert wrong <= 20


def test_equal_effects_count_against_the_screen() -> None:
    """Ties at the threshold are sites that would have been among the first just as well; effects of 0 are none."""
    result = made(RISING)
    chosen = result.select(share=0.25, wanted=1, effects=["necessity"])
    same = quality(result, "necessity", exact_of(np.ones(COUNT)), selected=chosen, audited=result.others(chosen))
    assert (same.found, same.beaten, same.correlation) == (0, 30, None)
    zeros = np.zeros(COUNT)
    zeros[30:32] = 1.0
    few = quality(result, "necessity", exact_of(zeros), selected=chosen, audited=result.others(chosen), wanted=2)
    assert (few.found, few.beaten) == (2, 0)


def test_what_cannot_be_judged() -> None:
    result = made(RISING)
    chosen = result.select(share=0.25, wanted=1, effects=["necessity"])
    exact = exact_of(RISING)
    with pytest.raises(InterchangeError, match=r"L3\.E9 is none of the sites not selected"):
        quality(result, "necessity", exact, selected=chosen, audited=[SITES[39]])
    with pytest.raises(InterchangeError, match="first 11 cannot be named"):
        quality(result, "necessity", exact, selected=chosen, audited=[], wanted=11)
    del exact[SITES[35]]
    with pytest.raises(InterchangeError, match=r"no exact effect of L3\.E5"):
        quality(result, "necessity", exact, selected=chosen, audited=[])
