"""Coalitions: found on one half of the pairs, measured on the other; on effects that are made up, and on a model."""

import sys

import numpy as np
import pytest

from moeprobe.errors import InterchangeError
from moeprobe.interchange import Lab, Search, coalition, lab
from moeprobe.interchange.measure import Effects
from moeprobe.sites import Site, SiteSet
from tests.interchange.random_moe import random_model, random_pairs

SITES = [Site(layer, "expert", expert) for layer in range(3) for expert in range(4)]
QUIET = {"say": lambda text: None}


def made_up(carried):
    """A stand-in for `measure`: what a set carries is a function of its members, plus noise of each pair."""
    calls = []

    def measure(lab: Lab, pairs, sets, arms) -> Effects:
        calls.append(sum(len(arms) for _ in sets))
        generator = np.random.default_rng(len(pairs[0].sensitive))
        gap = 1 + 0.1 * generator.standard_normal(len(pairs))
        effects = {}
        for one in sets:
            value = carried(set(one.sites)) * gap + 0.01 * generator.standard_normal(len(pairs))
            effects[one] = {arm: value if not arm.startswith("placebo") else 0 * value for arm in arms}
        return Effects(tuple(pair.id for pair in pairs), gap, np.zeros(len(pairs)), effects)

    return measure, calls


@pytest.fixture
def bench() -> Lab:
    return lab(random_model("mixtral"))


def search(bench: Lab, monkeypatch: pytest.MonkeyPatch, carried, **options):
    module = sys.modules["moeprobe.interchange.coalition"]
    measure, calls = made_up(carried)
    monkeypatch.setattr(module, "measure", measure)
    pairs = random_pairs([(6, 6)] * 20)
    return coalition(bench, pairs, SITES, Search(bootstrap=200, null=4, **options), **QUIET), calls


def test_a_redundant_pair_is_found_and_told(bench: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sites that stand in for each other, and one that adds: single effects sum to more than the set."""
    stand_in, other = set(SITES[:2]), SITES[5]
    found, _ = search(bench, monkeypatch, lambda members: 0.5 * bool(members & stand_in) + 0.4 * (other in members))
    assert len(found.members) == 2
    assert other in found.members
    assert found.record["set"]["percent"] == pytest.approx(90, abs=2)
    assert found.record["share_of_all"]["percent"] == pytest.approx(100, abs=3)
    assert found.record["null"]["percent"]
    assert "2 of 12 sites together carry 90 %" in found.sentence


def test_members_that_turn_out_not_to_be_missed_are_taken_out(bench: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first choice is the best alone, but the two that make it needless carry more together."""
    first, left, right = SITES[0], SITES[4], SITES[8]

    def carried(members):
        both = {left, right} <= members
        return 0.95 if both else 0.5 * (first in members) + 0.2 * (left in members) + 0.2 * (right in members)

    found, _ = search(bench, monkeypatch, carried)
    assert set(found.members) == {left, right}
    assert [(step.site, step.added) for step in found.steps][-1] == (first, False)
    assert found.record["additivity"]["words"] == "more than its members"
    assert "made up for by the others" in found.sentence


def test_sets_are_measured_once(bench: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    found, calls = search(bench, monkeypatch, lambda members: len(members) / 12, share=0.5, width=3)
    assert len(found.members) == 6
    # All, twelve singles, then at most three a step.
    assert sum(calls[:-1]) <= 1 + 12 + 3 * 6 + 6


def test_what_is_reported_is_of_unseen_pairs(bench: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = search(bench, monkeypatch, lambda members: len(members) / 12, share=0.3)
    assert len(found.record["measured_on"]) == 10
    assert found.to_json()["members"] == [str(site) for site in found.members]


def test_on_a_model_all_candidates_carry_what_their_set_carries(bench: Lab) -> None:
    """Real swaps on random weights: the greedy set is a subset, and its effect is that of `measure`."""
    from moeprobe.interchange import measure

    pairs = random_pairs([(6 + n % 2, 6) for n in range(18)])
    try:
        found = coalition(bench, pairs, SITES, Search(bootstrap=200, null=2, share=0.6, width=4), **QUIET)
    except InterchangeError as error:
        pytest.skip(f"random weights carry nothing: {error}")
    unseen = [pair for pair in pairs if pair.id in found.record["measured_on"]]
    effects = measure(bench, unseen, [SiteSet("", found.members)], ["necessity"])
    values = effects.sites[found.site_set]["necessity"]
    assert found.record["set"]["percent"] == pytest.approx(100 * values.sum() / effects.gap.sum(), rel=1e-4)


def test_what_cannot_be_searched_is_said(bench: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = random_pairs([(6, 6)] * 20)
    with pytest.raises(InterchangeError, match="at least 2 sites"):
        coalition(bench, pairs, SITES[:1], **QUIET)
    with pytest.raises(InterchangeError, match="cannot be split"):
        coalition(bench, pairs[:10], SITES, **QUIET)
    with pytest.raises(InterchangeError, match="not 'price'"):
        Search(arm="price")
    with pytest.raises(InterchangeError, match="share"):
        Search(share=0)
    with pytest.raises(InterchangeError, match="nothing to search"):
        search(bench, monkeypatch, lambda members: -0.1)
