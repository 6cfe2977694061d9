"""Comparison sites and ranks among them."""

from dataclasses import dataclass

import pytest

from moeprobe.errors import InterchangeError
from moeprobe.findings import allowed_above
from moeprobe.judging.competitive import match_sites, pooled, rank, usage_band


@dataclass(frozen=True)
class Place:
    layer: int
    index: int
    kind: str = "expert"


def test_the_nearest_by_rate_and_norm_come_first() -> None:
    here = [Place(0, i) for i in range(6)]
    rates = dict(zip(here, [0.10, 0.11, 0.10, 0.40, 0.01, 0.0], strict=True))
    norms = dict(zip(here, [1.0, 1.1, 5.0, 1.0, 1.0, 1.0], strict=True))
    found = match_sites(rates, norms, [here[0]], 3, seed=0)[here[0]]
    # By hand: log rates -2.30 -2.21 -2.30 -.92 -4.61, median -2.30, MAD .095; log norms 0 .095 1.61 0 0, MAD 0 -> 1.
    # Distances of .095/.141 = .68 and .1; of 1.61/1; of 1.39/.141 = 9.8; of 2.30/.141 = 16.
    assert found.sites == (here[1], here[2], here[3])
    assert found.rate_ratios == pytest.approx((1.1, 1.0, 4.0))
    assert found.norm_ratios == pytest.approx((1.1, 5.0, 1.0))
    assert found.mismatch == pytest.approx(5.0)
    everyone = match_sites(rates, norms, [here[0]], 9, seed=0)[here[0]]
    assert here[5] not in everyone.sites  # never ran: no comparison
    assert here[0] not in everyone.sites
    assert len(everyone.sites) == 4


def test_other_layers_only_within_the_band_and_targets_last() -> None:
    own, other = [Place(0, 0), Place(0, 1)], [Place(1, 0), Place(1, 1), Place(1, 2)]
    rates = dict(zip([*own, *other], [0.2, 0.2, 0.19, 0.45, 0.2], strict=True))
    norms = dict.fromkeys(rates, 1.0)
    assert set(match_sites(rates, norms, [own[0]], 9, 0)[own[0]].sites) == {own[1], other[0], other[2]}
    assert match_sites(rates, norms, [own[0]], 9, 0)[own[0]].sites[0] == own[1]  # its layer first
    both = match_sites(rates, norms, own, 9, 0)
    assert both[own[0]].sites[-1] == own[1]  # itself under test: last
    assert match_sites(rates, norms, own, 1, 0)[own[0]].sites == (other[2],)


def test_kinds_are_not_compared_with_each_other() -> None:
    expert, head, router = Place(0, 0), Place(0, 0, "head"), Place(3, 0, "router")
    rates = {expert: 1.0, head: 1.0, router: 1.0, Place(0, 1, "head"): 1.0}
    found = match_sites(rates, dict.fromkeys(rates, 1.0), [expert, head], 5, 0)
    assert found[expert].sites == ()
    assert found[expert].mismatch is None
    assert found[head].sites == (Place(0, 1, "head"),)


def test_ties_are_broken_by_the_seed_alone() -> None:
    places = [Place(0, i) for i in range(30)]
    rates, norms = dict.fromkeys(places, 0.1), dict.fromkeys(places, 2.0)
    first = match_sites(rates, norms, [places[0]], 5, 1)
    assert first == match_sites(rates, norms, [places[0]], 5, 1)
    assert first != match_sites(rates, norms, [places[0]], 5, 2)


def test_a_site_that_never_ran_is_compared_with_nothing() -> None:
    silent, busy = Place(0, 0), Place(0, 1)
    assert match_sites({silent: 0.0, busy: 0.5}, {silent: 0.0, busy: 1.0}, [silent], 3, 0)[silent].sites == ()


def test_sites_that_write_nothing_are_compared_with_only_where_nothing_else_is() -> None:
    one, other, *silent = (Place(0, i) for i in range(6))
    rates = dict.fromkeys([one, other, *silent], 0.5)
    norms = {one: 2.0, other: 1.0, **dict.fromkeys(silent, 0.0)}
    assert match_sites(rates, norms, [one], 9, 0)[one].sites == (other,)
    found = match_sites(rates, norms | {other: 0.0}, [one, silent[0]], 9, 0)
    assert set(found[one].sites) == {other, *silent}
    assert found[one].sites[-1] == silent[0]  # itself under test: last
    assert found[one].mismatch == float("inf")
    assert found[silent[0]].sites == ()
    assert (
        Place(1, 0) not in match_sites({**rates, Place(1, 0): 0.0}, {**norms, Place(1, 0): 0.0}, [one], 9, 0)[one].sites
    )


def test_what_cannot_be_matched() -> None:
    one, two = Place(0, 0), Place(0, 1)
    with pytest.raises(InterchangeError, match="No selection rate or norm"):
        match_sites({one: 1.0}, {one: 1.0}, [two], 3, 0)
    with pytest.raises(InterchangeError, match="negative, NaN"):
        match_sites({one: 1.0, two: float("nan")}, {one: 1.0, two: 1.0}, [one], 3, 0)
    with pytest.raises(InterchangeError, match="at least one"):
        match_sites({one: 1.0}, {one: 1.0}, [one], 0, 0)


def test_ranks_and_the_best_they_can_reach() -> None:
    assert rank(5.0, [1.0, 2.0, 3.0]) == {"sites": 3, "above": 0, "p": 0.25, "best_p": 0.25}
    assert rank(2.0, [1.0, 2.0, 3.0])["p"] == 0.75  # equal counts against it
    assert rank(2.0, [])["p"] == 1.0
    # (1 + above) / (1 + sites) <= .05: none of 19 to 38, one of 39 to 58, four of 99; fewer than 19 never reach it.
    assert [allowed_above(sites) for sites in (0, 5, 18, 19, 38, 39, 99)] == [0, 0, 0, 0, 0, 1, 4]


def test_pools_are_shared_inside_groups_only() -> None:
    found = pooled({"a": ("x", "y"), "b": ("y", "a"), "c": ("z",)}, {"a": 0, "b": 0, "c": 1})
    assert found == {"a": ("x", "y"), "b": ("x", "y", "a"), "c": ("z",)}
    assert [usage_band(rate) for rate in (1.0, 0.6, 0.5, 0.3, 0.1)] == [0, 0, -1, -1, -3]
    with pytest.raises(InterchangeError, match="in no band"):
        usage_band(0.0)
