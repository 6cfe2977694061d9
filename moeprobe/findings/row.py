"""What a findings file must hold: checks of its questions, rows and interchange runs when they are read."""

import math
from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.causes import CAUSAL_EFFECTS, EFFECTS, MIN_PAIRS, passes, verdict
from moeprobe.sites import parse_expert

ASSOCIATIONS = ("associated", "tokens only", "not associated", "untestable")
VERDICTS = (
    "untestable", "not associated", "tokens only", "associated", "association only", "necessary", "sufficient",
    "necessary and sufficient", "neither", "underpowered",
)  # fmt: skip
# What a test says: beyond token identity in the row itself, without it under "marginal".
TEST = ("t", "df", "p", "q", "fwer")
INTERVALS = ("rate_difference_ci", "dW_ci", "entry_ci", "valuation_ci")
ODDS = ("log_odds", "log_odds_se", "log_odds_shrunk")
PEERS = ("risk_difference", "npmi", "specialization", "ratio", "log_odds")
PROBABILITIES = ("p", "q", "fwer", "auc", "jsd", "jsd_p")
RATES = ("S1", "W1", "S0", "W0", "dS", "dW", "entry", "valuation")
MAX_EXPERTS = 65_536


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
        _check_optional(fields, key)
    marginal = Fields(fields.section("marginal"), f"{where}, marginal", FindingsError)
    for key in TEST:
        _check_optional(marginal, key)
    for key in INTERVALS:
        if key not in fields.data:
            raise FindingsError(f"{where}: the field {key!r} is missing.")
        _check_interval(fields, key)
    for key in ODDS:
        _check_optional(fields, key)
    peers = Fields(fields.section("peers"), f"{where}, peers", FindingsError)
    for key in PEERS:
        _check_optional(peers, key)
    if fields.data.get("leave_one_out") is not None:
        left = Fields(fields.section("leave_one_out"), f"{where}, leave_one_out", FindingsError)
        left.text("unit")
        _check_optional(left, "p")
    _check_choice(fields, "association", ASSOCIATIONS)
    _check_choice(fields, "verdict", VERDICTS)
    fields.optional_text("reason")
    effects = fields.data["interchange"]
    if effects is not None:
        _check_effects(Fields(effects, f"{where}, interchange", FindingsError))
    if fields.data["verdict"] != verdict(fields.data["association"], effects):
        raise FindingsError(f"{where}: the verdict {fields.data['verdict']!r} does not follow from its own numbers.")
    return fields.data


def check_question(item: object, where: str) -> dict[str, Any]:
    """Return the question when it has the form of docs/findings.md, else raise FindingsError."""
    fields = Fields(item, where, FindingsError)
    for key in ("name", "definition", "positive", "negative"):
        fields.text(key)
    fields.optional_text("version")
    _check_choice(fields, "kind", ("probe", "label"))
    if fields.data.get("quality") is not None:
        _check_quality(Fields(fields.section("quality"), f"{where}, quality", FindingsError))
    design = Fields(fields.section("design"), f"{where}, design", FindingsError)
    for key in ("kind", "unit", "segment", "sentence", "response", "prior", "length_matching", "strata", "resampling"):
        design.text(key)
    for key in ("tested", "tested_marginal", "untestable", "draws"):
        design.integer(key)
    for key in ("alpha", "length_ratio_before", "length_ratio_after", "common_tokens"):
        design.number(key)
    left_out = Fields(design.section("left_out"), f"{where}, design, left_out", FindingsError)
    for key in ("abstained", "unlabelled", "no_tokens"):
        left_out.integer(key)
    for key in ("positive", "negative"):
        group = Fields(design.section(key), f"{where}, design, {key}", FindingsError)
        for count in ("generations", "tokens", "tokens_used"):
            group.integer(count)
        group.number("median_length")
    for index, layer in enumerate(fields.items("layers")):
        _check_layer(Fields(layer, f"{where}, layers[{index}]", FindingsError))
    for index, example in enumerate(fields.items("examples")):
        _check_example(Fields(example, f"{where}, examples[{index}]", FindingsError))
    return fields.data


def _check_layer(fields: Fields) -> None:
    fields.integer("layer")
    for key in ("jsd", "jsd_p", "largest_load"):
        _check_optional(fields, key)
    _check_sites(fields, "committee")


def check_run(item: object, where: str) -> dict[str, Any]:
    """Return the interchange run when it has the form of docs/findings.md, else raise FindingsError."""
    fields = Fields(item, where, FindingsError)
    for key in ("probe", "positive", "negative", "metric", "alignment", "swap", "rule"):
        fields.text(key)
    for key in ("pairs", "left_out", "continuation_tokens", "bootstrap", "seed"):
        fields.integer(key)
    fields.number("minimum_effect")
    gap = Fields(fields.section("gap"), f"{where}, gap", FindingsError)
    gap.number("mean")
    _check_interval(gap, "ci")
    _check_sites(fields, "tested")
    fields.items("pair_ids")
    fields.section("engine")
    return fields.data


def check_flags(row: dict[str, Any], run: dict[str, Any], where: str) -> None:
    """Hold `necessary` and `sufficient` of a row against its own numbers and its run's minimum effect."""
    effects = row["interchange"]
    for flag, name in (("necessary", "necessity"), ("sufficient", "sufficiency")):
        if effects[flag] != passes(effects, name, run["minimum_effect"]):
            raise FindingsError(f"{where}: {row['site']}: {flag!r} does not follow from its own numbers.")


def check_source(model: dict[str, Any], trace: dict[str, Any], where: str) -> None:
    """Check the `model` and `trace` objects of a document, else raise FindingsError."""
    about = Fields(model, f"{where}, model", FindingsError)
    about.text("id")
    about.text("family")
    about.integer("num_hidden_layers", 1, 1_000_000)
    for index, item in enumerate(about.items("layers")):
        layer = Fields(item, f"{where}, model, layers[{index}]", FindingsError)
        layer.integer("layer", 0, 999_999)
        layer.integer("k", 1, layer.integer("experts", 1, MAX_EXPERTS))
    run = Fields(trace, f"{where}, trace", FindingsError)
    run.text("path")
    run.text("digest")
    run.integer("generations")
    run.integer("rows")
    run.section("provenance")


def _check_quality(fields: Fields) -> None:
    fields.integer("examples")
    for name in ("precision", "recall", "balanced_accuracy"):
        rate = Fields(fields.section(name), f"{fields.where}, {name}", FindingsError)
        rate.optional_number("value")


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
        _check_interval(effect, "ci")
        if effect.data.get("ci") is None:
            raise FindingsError(f"{effect.where}: the field 'ci' is missing.")
        if name in CAUSAL_EFFECTS and not 0 <= effect.number("p") <= 1:
            raise FindingsError(f"{effect.where}: p is no probability.")
        _check_numbers(effect, "per_pair")
    null = Fields(fields.section("null"), f"{fields.where}, null", FindingsError)
    _check_sites(null, "sites")
    for name in EFFECTS:
        _check_numbers(null, name)
        if len(null.data[name]) != len(null.data["sites"]):
            raise FindingsError(f"{null.where}: {name!r} must have one number for each site.")


def _check_example(fields: Fields) -> None:
    tokens = fields.items("tokens")
    if not all(isinstance(token, str) for token in tokens):
        raise FindingsError(f"{fields.where}: 'tokens' must be a list of texts.")
    fields.integer("answer_start", 0, len(tokens))
    fields.integer("generation")
    fields.text("prompt_id")
    fields.optional_number("score")
    for span in fields.items("spans"):
        if not isinstance(span, list) or [type(end) for end in span] != [int, int]:
            raise FindingsError(f"{fields.where}: 'spans' must hold pairs of token numbers.")
    _check_choice(fields, "group", ("positive", "negative"))
    for site, weights in fields.section("weights").items():
        parse_expert(site)
        if not isinstance(weights, list) or len(weights) != len(tokens):
            raise FindingsError(f"{fields.where}: weights of {site} do not match the {len(tokens)} tokens.")
        if not all(weight is None or _is_number(weight) for weight in weights):
            raise FindingsError(f"{fields.where}: weights of {site} must be numbers or null.")


def _check_optional(fields: Fields, key: str) -> None:
    """A number or null that is there; probabilities lie in [0, 1]."""
    if key not in fields.data:
        raise FindingsError(f"{fields.where}: the field {key!r} is missing.")
    value = fields.optional_number(key)
    if key in PROBABILITIES and value is not None and not 0 <= value <= 1:
        raise FindingsError(f"{fields.where}: {key} is {value}, which is no probability.")


def _check_interval(fields: Fields, key: str) -> None:
    if fields.data.get(key) is None:
        return
    interval = fields.items(key)
    if len(interval) != 2 or not all(_is_number(end) for end in interval):
        raise FindingsError(f"{fields.where}: {key!r} must be [low, high].")


def _check_numbers(fields: Fields, key: str) -> None:
    if not all(_is_number(value) for value in fields.items(key)):
        raise FindingsError(f"{fields.where}: {key!r} must be a list of numbers.")


def _check_sites(fields: Fields, key: str) -> None:
    for name in fields.items(key):
        parse_expert(name if isinstance(name, str) else repr(name))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_choice(fields: Fields, key: str, choices: tuple[str, ...]) -> None:
    if fields.text(key) not in choices:
        raise FindingsError(f"{fields.where}: {key!r} is {fields.data[key]!r}, expected one of {', '.join(choices)}.")
