"""What the findings file says of a site's interchange effects: checks when it is read."""

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.causes import CAUSAL_EFFECTS, EFFECTS, MIN_PAIRS
from moeprobe.findings.checks import check_interval, check_numbers


def check_effects(fields: Fields) -> None:
    """Hold `rows[].interchange` against the form of docs/findings.md, else raise FindingsError."""
    fields.integer("pairs", 1)
    for key in ("exactly_zero", "enough_pairs", "necessary", "sufficient"):
        fields.flag(key)
    if fields.data["enough_pairs"] != (fields.data["pairs"] >= MIN_PAIRS):
        raise FindingsError(f"{fields.where}: 'enough_pairs' does not agree with {fields.data['pairs']} pairs.")
    # A router's choice can be swapped, not knocked out.
    given = [name for name in EFFECTS if name in CAUSAL_EFFECTS or name in fields.data]
    for name in given:
        effect = Fields(fields.section(name), f"{fields.where}, {name}", FindingsError)
        effect.number("percent")
        effect.number("mean")
        check_interval(effect, "ci")
        if effect.data.get("ci") is None:
            raise FindingsError(f"{effect.where}: the field 'ci' is missing.")
        if name in CAUSAL_EFFECTS and not 0 <= effect.number("p") <= 1:
            raise FindingsError(f"{effect.where}: p is no probability.")
        check_numbers(effect, "per_pair")
        if name in CAUSAL_EFFECTS:
            _check_controls(effect)
    thresholds = Fields(fields.section("thresholds"), f"{fields.where}, thresholds", FindingsError)
    for key in ("minimum_effect", "material_effect", "alpha"):
        thresholds.number(key)
    null = Fields(fields.section("null"), f"{fields.where}, null", FindingsError)
    null.items("sites")
    for name in given:
        check_numbers(null, name)
        if len(null.data[name]) != len(null.data["sites"]):
            raise FindingsError(f"{null.where}: {name!r} must have one number for each site.")


def _check_controls(effect: Fields) -> None:
    """What the verdict rests on beside the swap itself: contrasts with control donors, rank among other sites."""
    if not 0 <= effect.number("p_zero") <= 1:
        raise FindingsError(f"{effect.where}: p_zero is no probability.")
    for name in effect.section("contrasts"):
        contrast = Fields(effect.section("contrasts")[name], f"{effect.where}, {name}", FindingsError)
        contrast.number("percent")
        if contrast.data.get("ci") is None:
            raise FindingsError(f"{contrast.where}: the field 'ci' is missing.")
        check_interval(contrast, "ci")
    if "rank" not in effect.data:
        raise FindingsError(f"{effect.where}: the field 'rank' is missing.")
    if effect.data["rank"] is not None:
        rank = Fields(effect.section("rank"), f"{effect.where}, rank", FindingsError)
        if rank.integer("above") > rank.integer("sites"):
            raise FindingsError(f"{rank.where}: more sites are above than there are.")
