"""What the findings file says of interchange runs and of its sources: checks when it is read."""

from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.causes import judgement, verdict
from moeprobe.findings.checks import check_interval, check_numbers
from moeprobe.findings.effects import check_effects

MAX_EXPERTS = 65_536


def check_run(item: object, where: str) -> dict[str, Any]:
    """Return the interchange run when it has the form of docs/findings.md, else raise FindingsError."""
    fields = Fields(item, where, FindingsError)
    for key in ("probe", "positive", "negative", "metric", "unit", "alignment", "coverage", "swap", "rule"):
        fields.text(key)
    for key in ("pairs", "left_out", "null", "bootstrap", "seed"):
        fields.integer(key)
    fields.number("minimum_effect")
    gap = Fields(fields.section("gap"), f"{where}, gap", FindingsError)
    gap.number("mean")
    check_interval(gap, "ci")
    fields.items("tested")
    fields.items("pair_ids")
    for key in ("engine", "metric_options", "alignment_options"):
        fields.section(key)
    for key in ("sensitive", "control"):
        check_numbers(fields, key)
    for index, other in enumerate(fields.items("others")):
        check_other(other, f"{where}, others[{index}]", fields.data)
    return fields.data


def check_other(item: object, where: str, run: dict[str, Any]) -> None:
    """A tested site that is no single expert: a head, a block, a set. It has effects and a verdict but no row."""
    fields = Fields(item, where, FindingsError)
    name = fields.text("site")
    fields.text("name")
    effects = Fields(fields.section("interchange"), f"{where}, interchange", FindingsError)
    check_effects(effects)
    check_flags({"site": name, "interchange": effects.data}, run, where)
    if fields.text("verdict") != verdict("untestable", effects.data):
        raise FindingsError(f"{where}: the verdict does not follow from its own numbers.")


def check_flags(row: dict[str, Any], run: dict[str, Any], where: str) -> None:
    """Hold the flags of a row against its own numbers, and its minimum effect against its run's."""
    effects = row["interchange"]
    if effects["thresholds"]["minimum_effect"] != run["minimum_effect"]:
        raise FindingsError(f"{where}: {row['site']}: the minimum effect is not that of its interchange run.")
    for flag, value in judgement(effects).items():
        if effects.get(flag) != value:
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
