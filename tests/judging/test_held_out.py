"""Confirmation on held-out pairs, stability of the leading sites, and additivity of sets."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from moeprobe.errors import InterchangeError
from moeprobe.judging.additivity import additivity
from moeprobe.judging.confirming import confirm, leading, split_pairs
from moeprobe.judging.judge import Criteria
from moeprobe.judging.ratio import resamples
from moeprobe.judging.signflip import flip_p, flip_signs
from moeprobe.judging.stability import stability

NAMES = ("necessity", "sufficiency")
QUICK = Criteria(bootstrap=300, flips=499)


def world(pairs: int, causal: int, seed: int = 0) -> tuple[dict[int, dict[str, np.ndarray]], np.ndarray]:
    generator = np.random.default_rng(seed)
    gap = generator.uniform(3, 5, pairs)
    effects = {}
    for site in range(40):
        share = 0.5 if site < causal else 0.0
        effects[site] = {name: share * gap + 0.3 * generator.standard_t(3, pairs) for name in NAMES}
        effects[site] |= {f"placebo_{name}": 0.3 * generator.standard_t(3, pairs) for name in NAMES}
    return effects, gap


def test_halves_are_random_and_whole() -> None:
    first, second = split_pairs(17, 3)
    assert (len(first), len(second)) == (8, 9)
    assert sorted([*first, *second]) == list(range(17))
    assert first.tolist() != split_pairs(17, 4)[0].tolist()
    with pytest.raises(InterchangeError, match="15 pairs cannot be split"):
        split_pairs(15, 0)


def test_the_second_half_alone_decides() -> None:
    effects, gap = world(32, 3)
    nulls = {site: list(range(20, 40)) for site in range(20)}
    found = confirm(effects, gap, nulls, 6, QUICK)
    assert {0, 1, 2} == set(found.candidates[:3])
    assert len(found.candidates) == 6
    rows = found.judged.rows
    assert [site for site in rows if rows[site]["necessary"] and rows[site]["sufficient"]] == list(found.candidates[:3])
    assert rows[0]["pairs"] == 16
    assert rows[0]["adjustment"] == "held out"
    # What stands in the second half cannot choose, and what stands in the first cannot confirm.
    spoiled = {site: {name: values.copy() for name, values in own.items()} for site, own in effects.items()}
    for name in NAMES:
        spoiled[0][name][found.tested_on] = 0.0
        spoiled[1][name][found.chosen_on] = 0.0
    again = confirm(spoiled, gap, nulls, 6, QUICK)
    assert 0 in again.candidates
    assert not again.judged.rows[0]["necessary"]
    assert 1 not in again.candidates[:2]


def test_p_are_those_of_statsmodels() -> None:
    effects, gap = world(32, 2)
    found = confirm(effects, gap, {site: [39] for site in range(20)}, 5, QUICK)
    half, signs = found.tested_on, flip_signs(16, 0, 499)
    plain = []
    for site in found.candidates:
        for name in NAMES:
            both = [effects[site][name], effects[site][name] - effects[site][f"placebo_{name}"]]
            plain.append(max(flip_p((one - 0.02 * gap)[half][:, None], signs)[0] for one in both))
    wanted = multipletests(plain, method="fdr_bh")[1]
    got = [found.judged.rows[site][name]["p"] for site in found.candidates for name in NAMES]
    assert got == pytest.approx(list(wanted))


def test_leading_needs_swap_and_placebo() -> None:
    effects, gap = world(16, 0)
    effects[5]["necessity"] = 0.5 * gap
    effects[7]["necessity"] = effects[7]["placebo_necessity"] = 0.6 * gap  # any donor does it
    assert leading(effects, gap, list(effects), 1, 2.0) == [5]


def test_top_must_be_sensible() -> None:
    effects, gap = world(16, 0)
    with pytest.raises(InterchangeError, match="at least one"):
        confirm(effects, gap, {0: [1]}, 0, QUICK)


def test_stability_by_hand() -> None:
    # Site 0 always leads; the second place goes to site 1 unless only pair 1 is drawn (weights (0, 1)).
    values = np.array([[9.0, 5.0, 0.0], [9.0, 1.0, 2.0]])
    weights = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.0, 1.0]])
    found = stability(values, 2, weights)
    assert found["mean"] == pytest.approx((1 + 1 + 1 / 3 + 1 / 3) / 4)
    assert found["p5"] == pytest.approx(1 / 3)
    # Two of three at random share one (2/3 of the time: 1/3) or both (1/3: 1).
    assert found["chance"] == pytest.approx(2 / 3 * 1 / 3 + 1 / 3)
    with pytest.raises(InterchangeError, match="must be shorter"):
        stability(values, 3, weights)


def test_noise_can_look_stable() -> None:
    """Why stability is never a test: without any effect it lies far above that of random lists."""
    values = np.random.default_rng(0).standard_t(2, (30, 128))
    found = stability(values, 10, resamples(30, 400, 0))
    assert found["mean"] > 5 * found["chance"]


def test_a_set_and_its_members() -> None:
    generator = np.random.default_rng(1)
    gap = generator.uniform(3, 5, 30)
    weights = resamples(30, 1000, 0)
    noise = generator.normal(0, 0.1, (30, 3))
    singles = 0.3 * gap[:, None] + noise
    copies = additivity(0.3 * gap, singles, gap, weights)
    assert copies["words"] == "redundant"
    assert copies["redundancy"]["value"] == pytest.approx(2 / 3, abs=0.02)  # 1 - .3 / .9
    assert copies["redundancy"]["ci"][0] < 2 / 3 < copies["redundancy"]["ci"][1]
    assert copies["sum"]["percent"] == pytest.approx(90, abs=2)
    backups = additivity(0.9 * gap, noise, gap, weights)
    assert backups["words"] == "more than its members"
    assert backups["redundancy"] is None  # the members' sum is noise
    plain = additivity(singles.sum(axis=1) + generator.normal(0, 0.1, 30), singles, gap, weights)
    assert plain["words"] == "not told apart from additive"
    turned = additivity(-0.3 * gap, -singles, -gap, weights)
    assert turned["words"] == "redundant"
    assert turned["missing"]["ci"] == pytest.approx(copies["missing"]["ci"])
    with pytest.raises(InterchangeError, match="2 or more"):
        additivity(gap, singles[:, :1], gap, weights)
