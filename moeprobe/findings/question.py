"""What the findings file says of a question: checks when it is read."""

from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.checks import check_choice, check_optional, check_sites, is_number
from moeprobe.findings.evidence import check_confounds, check_positions, check_units
from moeprobe.findings.examples import check_example
from moeprobe.findings.quality import check_quality

KINDS = ("two groups", "pairs", "scores", "within generations")
LAYER = ("jsd", "jsd_p", "jsd_q", "entropy1", "entropy0", "entropy_p", "entropy_q", "largest_load")
UNITS = ("generation", "prompt", "pair")
LEFT_OUT = (
    "abstained", "unlabelled", "no_tokens", "no_covariate", "incomplete_pairs", "too_short", "one_kind",
    "extra_samples",
)  # fmt: skip


def check_question(item: object, where: str) -> dict[str, Any]:
    """Return the question when it has the form of docs/findings.md, else raise FindingsError."""
    fields = Fields(item, where, FindingsError)
    for key in ("name", "definition", "positive", "negative"):
        fields.text(key)
    fields.optional_text("version")
    check_choice(fields, "kind", ("probe", "label"))
    _check_parameters(fields)
    if fields.data.get("grouping") is not None:
        fields.section("grouping")
    check_quality(fields)
    _check_design(Fields(fields.section("design"), f"{where}, design", FindingsError))
    for index, layer in enumerate(fields.items("layers")):
        _check_layer(Fields(layer, f"{where}, layers[{index}]", FindingsError))
    for index, family in enumerate(fields.items("families")):
        _check_family(Fields(family, f"{where}, families[{index}]", FindingsError))
    for index, coalition in enumerate(fields.items("coalitions")):
        _check_coalition(Fields(coalition, f"{where}, coalitions[{index}]", FindingsError))
    fields.text("coalitions_found")
    for index, example in enumerate(fields.items("examples")):
        check_example(Fields(example, f"{where}, examples[{index}]", FindingsError))
    for key, check in (("units", check_units), ("positions", check_positions), ("confounds", check_confounds)):
        if key not in fields.data:
            raise FindingsError(f"{where}: the field {key!r} is missing.")
        if fields.data[key] is not None:
            check(fields.data[key], f"{where}, {key}")
    return fields.data


def _check_design(design: Fields) -> None:
    check_choice(design, "kind", KINDS)
    check_choice(design, "unit", UNITS)
    for key in ("segment", "sentence", "response", "prior", "length_matching", "strata", "resampling"):
        design.text(key)
    for key in ("units", "tested", "tested_marginal", "untestable", "draws"):
        design.integer(key)
    for key in ("alpha", "common_tokens"):
        design.number(key)
    for key in ("length_ratio_before", "length_ratio_after", "pairs", "detectable", "partial", "confirmation"):
        if key not in design.data:
            raise FindingsError(f"{design.where}: the field {key!r} is missing.")
    for key in ("length_ratio_before", "length_ratio_after"):
        design.optional_number(key)
    if (design.data["kind"] == "pairs") != (design.data["pairs"] is not None):
        raise FindingsError(f"{design.where}: 'pairs' does not agree with the kind {design.data['kind']!r}.")
    if design.data["pairs"] is not None:
        design.integer("pairs", 1)
    if not all(isinstance(word, str) for word in design.items("held")):
        raise FindingsError(f"{design.where}: 'held' must be a list of texts.")
    left_out = Fields(design.section("left_out"), f"{design.where}, left_out", FindingsError)
    for key in LEFT_OUT:
        left_out.integer(key)
    for key in ("positive", "negative"):
        group = Fields(design.section(key), f"{design.where}, {key}", FindingsError)
        for count in ("generations", "units", "tokens", "tokens_used"):
            group.integer(count)
        group.number("median_length")
    _check_beside(design)


def _check_beside(design: Fields) -> None:
    """The partial column, the confirmation and the power, where they are."""
    for name, numbers in (
        ("partial", ("units", "tested")),
        ("confirmation", ("screen_units", "confirm_units", "screened", "confirmed")),
    ):
        if design.data[name] is not None:
            part = Fields(design.section(name), f"{design.where}, {name}", FindingsError)
            for key in numbers:
                part.integer(key)
            if name == "partial":
                part.optional_text("reason")
                if not all(isinstance(other, str) for other in part.items("others")):
                    raise FindingsError(f"{part.where}: 'others' must be a list of texts.")
    if design.data["detectable"] is not None:
        power = Fields(design.section("detectable"), f"{design.where}, detectable", FindingsError)
        for key in ("d", "power", "alpha"):
            power.number(key)


def _check_layer(fields: Fields) -> None:
    fields.integer("layer")
    for key in LAYER:
        check_optional(fields, key)
    check_sites(fields, "committee")


def _check_family(fields: Fields) -> None:
    fields.text("family")
    for key in ("layers", "experts", "tested", "associated"):
        fields.integer(key)
    for key in ("mean_difference", "mean_t2", "expected_t2", "excess", "p", "p_holm"):
        check_optional(fields, key)


def _check_coalition(fields: Fields) -> None:
    check_sites(fields, "sites")
    fields.integer("needed", 1)
    fields.optional_text("reason")
    marginal = Fields(fields.section("marginal"), f"{fields.where}, marginal", FindingsError)
    for part in (fields, marginal):
        for key in ("t", "df", "p", "q", "fwer"):
            check_optional(part, key)
    for key in ("tokens_share1", "tokens_share0", "strength"):
        fields.number(key)


def _check_parameters(fields: Fields) -> None:
    """What the probe was set to; empty for a label and for a probe without parameters."""
    for key, value in fields.section("parameters").items() if "parameters" in fields.data else ():
        if not isinstance(value, str | bool) and not is_number(value):
            raise FindingsError(f"{fields.where}: the parameter {key!r} must be a number, a text, true or false.")
