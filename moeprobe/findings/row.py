"""What the findings file says of an expert: checks when it is read."""

from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.causes import verdict
from moeprobe.findings.checks import check_choice, check_interval, check_optional, check_range, check_unit
from moeprobe.findings.effects import check_effects
from moeprobe.findings.evidence import check_evidence
from moeprobe.findings.verdicts import NAMES
from moeprobe.sites import parse_expert

ASSOCIATIONS = ("associated", "tokens only", "not associated", "untestable")
VERDICTS = NAMES
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
    _check_ranges(fields)
    for key in ODDS:
        check_optional(fields, key)
    peers = Fields(fields.section("peers"), f"{where}, peers", FindingsError)
    for key in PEERS:
        check_optional(peers, key)
    _check_robustness(fields)
    if "evidence" not in fields.data:
        raise FindingsError(f"{where}: the field 'evidence' is missing.")
    if fields.data["evidence"] is not None:
        check_evidence(fields.data["evidence"], f"{where}, evidence")
    check_choice(fields, "association", ASSOCIATIONS)
    check_choice(fields, "verdict", VERDICTS)
    fields.optional_text("reason")
    effects = fields.data["interchange"]
    if effects is not None:
        check_effects(Fields(effects, f"{where}, interchange", FindingsError))
    if fields.data["verdict"] != verdict(fields.data["association"], effects):
        raise FindingsError(f"{where}: the verdict {fields.data['verdict']!r} does not follow from its own numbers.")
    return fields.data


def _check_ranges(fields: Fields) -> None:
    """Rates are shares, t is there where p is, and the rest has a size that can be drawn."""
    data = fields.data
    for key in ("S1", "S0"):
        check_unit(fields, key)
    check_range(fields.where, "dS", [data["dS"]], 1.0)
    for key in (*RATES, "Q1", "Q0", "rate_difference"):
        check_range(fields.where, key, [data[key]])
    for key in INTERVALS:
        check_range(fields.where, key, data[key] or ())
    if (data["t"] is None) != (data["p"] is None):
        raise FindingsError(f"{fields.where}: t and p stand there together or not at all.")


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
