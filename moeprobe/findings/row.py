"""What the findings file says of an expert: checks when it is read."""

from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.causes import CAUSAL_EFFECTS, EFFECTS, MIN_PAIRS, verdict
from moeprobe.findings.checks import check_choice, check_interval, check_numbers, check_optional, check_sites
from moeprobe.sites import parse_expert

ASSOCIATIONS = ("associated", "tokens only", "not associated", "untestable")
VERDICTS = (
    "untestable", "not associated", "tokens only", "associated", "association only", "necessary", "sufficient",
    "necessary and sufficient", "neither", "underpowered",
)  # fmt: skip
# What a test says: beyond token identity in the row itself, without it under "marginal".
TEST = ("t", "df", "p", "q", "fwer")
INTERVALS = ("rate_difference_ci", "dW_ci", "entry_ci", "valuation_ci")
ODDS = ("odds_ratio", "log_odds", "log_odds_se", "log_odds_shrunk")
PEERS = ("risk_difference", "npmi", "specialization", "ratio", "log_odds")
RATES = ("S1", "W1", "S0", "W0", "dS", "dW", "entry", "valuation")


def check_row(item: object, where: str) -> dict[str, Any]:
    """Return the row when it has the form of docs/findings.md, else raise FindingsError."""
    fields = Fields(item, where, FindingsError)
    site = parse_expert(fields.text("site"))
    if (site.layer, site.expert) != (fields.integer("layer"), fields.integer("expert")):
        raise FindingsError(f"{where}: site {site} disagrees with its layer and expert.")
    fields.text("probe")
    for key in ("rate_difference_ci", "interchange", "reason", *RATES):
        if key not in fields.data:
            raise FindingsError(f"{where}: the field {key!r} is missing.")
    for key in RATES:
        fields.number(key)
    for key in ("Q1", "Q0", "rate_difference", "beyond_difference", "auc", *TEST):
        check_optional(fields, key)
    marginal = Fields(fields.section("marginal"), f"{where}, marginal", FindingsError)
    for key in TEST:
        check_optional(marginal, key)
    for key in INTERVALS:
        if key not in fields.data:
            raise FindingsError(f"{where}: the field {key!r} is missing.")
        check_interval(fields, key)
    for key in ODDS:
        check_optional(fields, key)
    peers = Fields(fields.section("peers"), f"{where}, peers", FindingsError)
    for key in PEERS:
        check_optional(peers, key)
    _check_robustness(fields)
    check_choice(fields, "association", ASSOCIATIONS)
    check_choice(fields, "verdict", VERDICTS)
    fields.optional_text("reason")
    effects = fields.data["interchange"]
    if effects is not None:
        _check_effects(Fields(effects, f"{where}, interchange", FindingsError))
    if fields.data["verdict"] != verdict(fields.data["association"], effects):
        raise FindingsError(f"{where}: the verdict {fields.data['verdict']!r} does not follow from its own numbers.")
    return fields.data


def _check_effects(fields: Fields) -> None:
    fields.integer("pairs", 1)
    for key in ("exactly_zero", "enough_pairs", "necessary", "sufficient"):
        fields.flag(key)
    if fields.data["enough_pairs"] != (fields.data["pairs"] >= MIN_PAIRS):
        raise FindingsError(f"{fields.where}: 'enough_pairs' does not agree with {fields.data['pairs']} pairs.")
    for name in EFFECTS:
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
    check_sites(null, "sites")
    for name in EFFECTS:
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


def _check_robustness(fields: Fields) -> None:
    """Further tests beside the decision; each may be null."""
    for key in ("leave_one_out", "leave_token_out", "partial", "confirmed"):
        if key not in fields.data:
            raise FindingsError(f"{fields.where}: the field {key!r} is missing.")
    if fields.data["leave_one_out"] is not None:
        left = Fields(fields.section("leave_one_out"), f"{fields.where}, leave_one_out", FindingsError)
        left.text("unit")
        check_optional(left, "p")
    if fields.data["leave_token_out"] is not None:
        token = Fields(fields.section("leave_token_out"), f"{fields.where}, leave_token_out", FindingsError)
        token.text("token")
        token.integer("token_id")
        for key in ("rate_difference", "p"):
            check_optional(token, key)
    if fields.data["partial"] is not None:
        partial = Fields(fields.section("partial"), f"{fields.where}, partial", FindingsError)
        for key in TEST:
            check_optional(partial, key)
    if fields.data["confirmed"] is not None:
        confirmed = Fields(fields.section("confirmed"), f"{fields.where}, confirmed", FindingsError)
        for key in ("p", "q"):
            check_optional(confirmed, key)
        confirmed.flag("confirmed")
