"""From effects to verdicts: the rule part by part, what it says of what, and what it refuses."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from moeprobe.errors import InterchangeError
from moeprobe.findings import judgement, passes, rule, undecided, verdict
from moeprobe.judging.judge import Criteria, judge

Json = dict[str, Any]
QUICK = Criteria(bootstrap=500, flips=499)
OTHERS = [f"other {i}" for i in range(20)]


def effects_of(
    sites: Mapping[str, Mapping[str, float]], pairs: int = 16, *, noise: float = 0.7, seed: int = 0
) -> tuple[dict[str, dict[str, Any]], Any]:
    """Effects with the given percentages of the gap by name, noise in percent, and comparison sites at 0."""
    generator = np.random.default_rng(seed)
    gap = generator.uniform(3, 5, pairs)
    named = {"necessity", "sufficiency", "knockout", "placebo_necessity", "placebo_sufficiency"}
    effects = {
        site: {
            name: (wanted.get(name, 0.0) * gap + noise * generator.normal(size=pairs) * 4) / 100
            for name in sorted(named | set(wanted))
        }
        for site, wanted in {**sites, **{other: {} for other in OTHERS}}.items()
    }
    return effects, gap


def judged(sites: Mapping[str, Mapping[str, float]], *, criteria: Criteria = QUICK, **world: Any) -> dict[str, Json]:
    effects, gap = effects_of(sites, **world)
    return judge(effects, gap, dict.fromkeys(sites, OTHERS), criteria).rows


def test_each_word_where_it_belongs() -> None:
    rows = judged(
        {
            "both": {"necessity": 60, "sufficiency": 40},
            "needed": {"necessity": 30},
            "enough": {"sufficiency": 30},
            "idle": {},
            "small": {"necessity": 1.8, "sufficiency": 0.0},
            "disturbing": {"necessity": 30, "placebo_necessity": 30},
            "topic": {"placebo_necessity": -30},
            "against": {"necessity": -30},
        }
    )
    words = {site: verdict("associated", row) for site, row in rows.items()}
    assert words == {
        "both": "necessary and sufficient",
        "needed": "necessary",
        "enough": "sufficient",
        "idle": "association only",
        "small": "association only",  # clearly there, and below the minimum effect
        "disturbing": "association only",  # a placebo donor does as much
        "topic": "association only",  # nothing but the placebo's own harm
        "against": "association only",
    }
    assert rows["topic"]["necessity"]["contrasts"]["minus_placebo"]["ci"][0] > 20  # the contrast alone would say yes
    assert rows["disturbing"]["necessity"]["ci"][0] > 20  # and so would the swap alone
    assert rows["small"]["necessity"]["ci"][0] > 0
    assert rows["against"]["opposes"] == ["necessity"]
    assert [site for site, row in rows.items() if row["opposes"]] == ["against"]
    assert verdict("not associated", rows["idle"]) == "neither"
    for row in rows.values():
        assert {key: row[key] for key in judgement(row)} == judgement(row)


def test_numbers_of_a_row_by_hand() -> None:
    effects, gap = effects_of({"a": {"random_necessity": 5.0, "noise_necessity": 2.0}})
    row = judge(effects, gap, {"a": OTHERS}, QUICK).rows["a"]
    own = effects["a"]
    assert row["necessity"]["percent"] == pytest.approx(100 * own["necessity"].sum() / gap.sum())
    contrasts = row["necessity"]["contrasts"]
    assert set(contrasts) == {"minus_placebo", "minus_random", "minus_noise", "random_minus_placebo"}
    wanted = own["random_necessity"] - own["placebo_necessity"]
    assert contrasts["random_minus_placebo"]["percent"] == pytest.approx(100 * wanted.sum() / gap.sum())
    assert set(row["sufficiency"]["contrasts"]) == {"minus_placebo"}
    assert row["necessity"]["per_pair"] == own["necessity"].tolist()
    assert row["necessity"]["p"] == max(row["necessity"]["p_swap"], row["necessity"]["p_minus_placebo"])
    assert row["null"]["knockout"][3] == pytest.approx(100 * effects["other 3"]["knockout"].sum() / gap.sum())
    own_contrast = 100 * (own["necessity"] - own["placebo_necessity"]).sum() / gap.sum()
    others = [100 * (effects[o]["necessity"] - effects[o]["placebo_necessity"]).sum() / gap.sum() for o in OTHERS]
    above = sum(other >= own_contrast for other in others)
    assert row["necessity"]["rank"] == {
        "sites": 20, "above": above, "p": (1 + above) / 21, "best_p": 1 / 21, "of": "minus_placebo",
    }  # fmt: skip


def test_a_gap_of_the_other_sign_says_the_same() -> None:
    effects, gap = effects_of({"a": {"necessity": 50}, "b": {"sufficiency": -30}})
    turned = {site: {name: -values for name, values in own.items()} for site, own in effects.items()}
    nulls = {"a": OTHERS, "b": OTHERS}
    first, second = judge(effects, gap, nulls, QUICK), judge(turned, -gap, nulls, QUICK, signed=True)
    assert second.gap["mean"] == -first.gap["mean"]
    for site in nulls:
        for name in ("necessity", "sufficiency"):
            one, two = first.rows[site][name], second.rows[site][name]
            assert two["mean"] == -one["mean"]
            for key in ("percent", "ci", "p", "p_zero"):
                assert two[key] == pytest.approx(one[key])
    with pytest.raises(InterchangeError, match="higher value on the sensitive side"):
        judge(turned, -gap, nulls, QUICK)


def test_few_pairs_give_numbers_but_no_verdict() -> None:
    row = judged({"a": {"necessity": 90}}, pairs=7)["a"]
    assert row["necessity"]["percent"] == pytest.approx(90, abs=3)
    assert not row["enough_pairs"]
    assert not row["necessary"]
    assert verdict("associated", row) == "underpowered"


def test_noise_is_underpowered_until_there_are_pairs_enough() -> None:
    """The same site without an effect: first nothing can be said, then that there is nothing as large as 10 %."""
    few = judged({"a": {}}, pairs=8, noise=20.0)["a"]
    many = judged({"a": {}}, pairs=200, noise=20.0)["a"]
    assert verdict("associated", few) == "underpowered"
    assert verdict("associated", many) == "association only"
    assert many["necessity"]["ci"][1] < 10 < few["necessity"]["ci"][1]


def summary(
    *,
    low: float = 40.0,
    high: float = 60.0,
    contrast: tuple[float, float] = (30.0, 60.0),
    p: float = 0.001,
    above: int = 0,
    sites: int = 5,
    enough: bool = True,
) -> Json:
    effect = {
        "percent": 50.0, "ci": [low, high], "p": p, "p_zero": p, "rank": {"sites": sites, "above": above},
        "contrasts": {"minus_placebo": {"ci": list(contrast)}},
    }  # fmt: skip
    thresholds = {"minimum_effect": 2.0, "material_effect": 10.0, "alpha": 0.05}
    return {"necessity": effect, "sufficiency": effect, "enough_pairs": enough, "thresholds": thresholds}


@pytest.mark.parametrize(
    ("changed", "passed", "left_open"),
    [
        ({}, True, False),
        ({"above": 1}, False, False),  # another site does as much: that is an answer
        ({"sites": 59, "above": 2}, True, False),  # 3 of 60 is 5 %
        ({"sites": 59, "above": 3}, False, False),
        ({"sites": 0}, False, True),  # nothing to compare with
        ({"low": 1.9}, False, True),  # uncertain, and may be large
        ({"contrast": (1.9, 60.0)}, False, True),  # the placebo may do as much, or nearly nothing
        ({"contrast": (-5.0, 8.0), "p": 0.6}, False, False),  # beyond the placebo there is less than 10 %
        ({"p": 0.2}, False, True),  # both intervals are clear, chance is not excluded
        ({"low": 1.0, "high": 6.0, "contrast": (1.0, 6.0), "p": 0.2}, False, False),
        ({"low": 1.9, "high": 6.0, "contrast": (1.9, 6.0), "p": 0.01}, False, True),  # p and interval disagree
        ({"enough": False}, False, True),
    ],
)
def test_the_rule_needs_all_its_parts(changed: Json, passed: bool, left_open: bool) -> None:
    row = summary(**changed)
    assert passes(row, "necessity") is passed
    assert undecided(row, "necessity") is left_open


def test_a_site_alone_of_its_kind_is_not_compared() -> None:
    effects, gap = effects_of({"residual": {"necessity": 90}, "lonely": {"necessity": 90}})
    rows = judge(effects, gap, {"residual": None, "lonely": []}, QUICK).rows
    assert rows["residual"]["necessity"]["rank"] is None
    assert verdict("associated", rows["residual"]) == "necessary"
    assert verdict("associated", rows["lonely"]) == "underpowered"


def test_comparison_sites_that_do_as_much() -> None:
    effects, gap = effects_of({"a": {"necessity": 30}, **{f"b{i}": {"necessity": 35} for i in range(3)}})
    row = judge(effects, gap, {"a": [*OTHERS, "b0", "b1", "b2"]}, QUICK).rows["a"]
    assert row["necessity"]["rank"]["above"] == 3
    assert verdict("associated", row) == "association only"


def test_exactly_zero_needs_no_chance() -> None:
    effects, gap = effects_of({"a": {}}, noise=0.0)
    row = judge(effects, gap, {"a": OTHERS}, QUICK).rows["a"]
    assert row["exactly_zero"]
    assert row["necessity"]["ci"] == [0.0, 0.0]
    assert verdict("associated", row) == "association only"


def test_what_is_refused() -> None:
    effects, gap = effects_of({"a": {}})
    bare = {site: {n: v for n, v in own.items() if "placebo" not in n} for site, own in effects.items()}
    with pytest.raises(InterchangeError, match="a was swapped without a placebo donor"):
        judge(bare, gap, {"a": OTHERS}, QUICK)
    alone = judge(bare, gap, {"a": OTHERS}, Criteria(bootstrap=200, placebo=False)).rows["a"]
    assert alone["necessity"]["contrasts"] == {}
    assert alone["necessity"]["rank"]["of"] == "swap"
    with pytest.raises(InterchangeError, match=r"shape \(15,\); the gap has \(16,\)"):
        judge({**effects, "a": effects["a"] | {"knockout": gap[1:]}}, gap, {"a": OTHERS}, QUICK)
    with pytest.raises(InterchangeError, match="necessity of a is NaN"):
        judge({**effects, "a": effects["a"] | {"necessity": np.full(16, np.nan)}}, gap, {"a": OTHERS}, QUICK)
    with pytest.raises(InterchangeError, match="sufficiency of a is missing"):
        judge({**effects, "a": {"necessity": gap}}, gap, {"a": OTHERS}, QUICK)
    with pytest.raises(InterchangeError, match="no effects of nobody"):
        judge(effects, gap, {"a": ["nobody"]}, QUICK)
    with pytest.raises(InterchangeError, match="no site"):
        judge(effects, gap, {}, QUICK)
    with pytest.raises(InterchangeError, match="below the material effect"):
        Criteria(minimum_effect=12.0, material=10.0)


def test_the_rule_in_words_has_its_numbers() -> None:
    assert "above 2 % of the gap" in rule(2.0)
    assert "an effect of 10 % of the gap is not excluded" in rule(2.0)
    assert "an effect of 15 % of the gap is not excluded" in rule(5.0)
    assert "without a placebo" in rule(2.0, placebo=False)
    assert "Benjamini-Hochberg" in rule(2.0, held_out=True)
