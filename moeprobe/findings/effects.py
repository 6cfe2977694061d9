"""What the findings file says of a site's interchange effects: checks when it is read."""

import math
from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.causes import CAUSAL_EFFECTS, EFFECTS, MIN_PAIRS
from moeprobe.findings.checks import check_choice, check_ends, check_numbers, check_texts, check_unit

# Further knock-outs, shown beside the swaps.
VARIANTS = ("knockout_bar", "knockout_mean", "knockout_resample")
CONTRASTS = ("minus_placebo", "minus_random", "minus_noise", "random_minus_placebo")
ADJUSTMENTS = ("family-wise", "held out")
ADDITIVITY = ("redundant", "more than its members", "not told apart from additive")


def check_effects(fields: Fields) -> None:
    """Hold `rows[].interchange` against the form of docs/findings.md, else raise FindingsError."""
    fields.integer("pairs", 1)
    for key in ("exactly_zero", "enough_pairs", "necessary", "sufficient"):
        fields.flag(key)
    for key in ("undecided", "opposes"):
        check_texts(fields, key)
    check_choice(fields, "adjustment", ADJUSTMENTS)
    if fields.data["enough_pairs"] != (fields.data["pairs"] >= MIN_PAIRS):
        raise FindingsError(f"{fields.where}: 'enough_pairs' does not agree with {fields.data['pairs']} pairs.")
    given = given_effects(fields.data)
    for name in given:
        _check_effect(_inside(fields, name), fields.data["pairs"], name)
    _check_thresholds(_inside(fields, "thresholds"))
    _check_null(fields, [name for name in given if name in EFFECTS])
    for key, check in (("price", _check_price), ("additivity", _check_additivity)):
        if key not in fields.data:
            raise FindingsError(f"{fields.where}: the field {key!r} is missing.")
        if fields.data[key] is not None:
            check(_inside(fields, key))


def given_effects(effects: dict[str, Any]) -> list[str]:
    """Names of the effects of a site: both swaps, and the knock-outs that were run (a choice has none)."""
    return [name for name in (*EFFECTS, *VARIANTS) if name in CAUSAL_EFFECTS or name in effects]


def check_shares(effects: dict[str, Any], gap: float, where: str) -> None:
    """Hold the percentages against the mean gap of the run they are made with."""
    for name in given_effects(effects):
        parts = {name: effects[name], **effects[name].get("contrasts", {})}
        for part, share in parts.items():
            if not math.isclose(share["percent"] * gap, 100 * share["mean"], rel_tol=1e-6, abs_tol=1e-6 * abs(gap)):
                raise FindingsError(f"{where}, {name}: the percent of {part!r} is not its mean over the mean gap.")


def _check_effect(effect: Fields, pairs: int, name: str) -> None:
    _check_share(effect)
    check_numbers(effect, "per_pair")
    each = effect.data["per_pair"]
    if len(each) != pairs:
        raise FindingsError(f"{effect.where}: 'per_pair' has {len(each)} numbers for {pairs} pairs.")
    mean, scale = sum(each) / pairs, max(map(abs, each))
    if not math.isclose(mean, effect.data["mean"], rel_tol=1e-6, abs_tol=1e-9 * scale):
        raise FindingsError(f"{effect.where}: 'mean' is not the mean of 'per_pair'.")
    if name not in CAUSAL_EFFECTS:
        return
    for key in ("p", "p_zero", "p_swap"):
        check_unit(effect, key)
    for contrast in effect.section("contrasts"):
        if contrast not in CONTRASTS:
            raise FindingsError(f"{effect.where}: unknown contrast {contrast[:80]!r}.")
        _check_share(Fields(effect.data["contrasts"][contrast], f"{effect.where}, {contrast}", FindingsError))
    if "minus_placebo" in effect.data["contrasts"]:
        check_unit(effect, "p_minus_placebo")


def _check_share(share: Fields) -> None:
    for key in ("percent", "mean"):
        share.number(key)
    check_ends(share, "ci")


def _check_thresholds(thresholds: Fields) -> None:
    for key in ("minimum_effect", "material_effect"):
        if thresholds.number(key) < 0:
            raise FindingsError(f"{thresholds.where}: {key!r} is negative.")
    check_unit(thresholds, "alpha")


def _check_null(fields: Fields, given: list[str]) -> None:
    """Comparison sites and the ranks among them; neither for a site that is alone of its kind."""
    null = _inside(fields, "null")
    asked, sites = null.flag("asked"), len(check_texts(null, "sites"))
    if null.integer("active") > sites or (sites and not asked):
        raise FindingsError(f"{null.where}: {sites} comparison sites do not agree with 'active' and 'asked'.")
    for name in given:
        if name in CAUSAL_EFFECTS or name in null.data:
            check_numbers(null, name)
            if len(null.data[name]) != sites:
                raise FindingsError(f"{null.where}: {name!r} must have one number for each site.")
    for name in CAUSAL_EFFECTS:
        effect = _inside(fields, name)
        if "rank" not in effect.data:
            raise FindingsError(f"{effect.where}: the field 'rank' is missing.")
        if (effect.data["rank"] is not None) != asked:
            raise FindingsError(f"{effect.where}: a rank stands there if, and only if, the site was compared.")
        if asked:
            _check_rank(_inside(effect, "rank"), sites)


def _check_rank(rank: Fields, sites: int) -> None:
    if rank.integer("sites") != sites:
        raise FindingsError(f"{rank.where}: the rank is not among the {sites} comparison sites.")
    if rank.integer("above") > sites:
        raise FindingsError(f"{rank.where}: more sites are above than there are.")
    check_unit(rank, "p")
    check_unit(rank, "best_p")
    check_choice(rank, "of", ("minus_placebo", "swap"))


def _check_price(price: Fields) -> None:
    price.number("kl")
    check_ends(price, "ci")
    price.integer("prompts", 1)


def _check_additivity(additivity: Fields) -> None:
    for name in CAUSAL_EFFECTS:
        one = _inside(additivity, name)
        for key in ("set", "sum", "missing"):
            part = _inside(one, key)
            part.number("percent")
            check_ends(part, "ci")
        check_choice(one, "words", ADDITIVITY)
        if "redundancy" not in one.data:
            raise FindingsError(f"{one.where}: the field 'redundancy' is missing.")
        if one.data["redundancy"] is not None:
            redundancy = _inside(one, "redundancy")
            redundancy.number("value")
            check_ends(redundancy, "ci")


def _inside(fields: Fields, key: str) -> Fields:
    return Fields(fields.section(key), f"{fields.where}, {key}", FindingsError)
