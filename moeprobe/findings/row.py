"""What a findings file must hold: checks of its questions, rows and interchange runs when they are read."""

from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.sites import parse_expert

ASSOCIATIONS = ("associated", "not associated", "untestable")
VERDICTS = (
    "untestable", "not associated", "associated", "association only", "necessary", "sufficient",
    "necessary and sufficient", "neither",
)  # fmt: skip
RATES = ("S1", "W1", "S0", "W0", "dS", "dW", "entry", "valuation")
EFFECTS = ("necessity", "sufficiency", "knockout")


def verdict(association: str, interchange: dict[str, Any] | None) -> str:
    """The verdict in words, from the association and the interchange effects of a row (METHODS.md 4)."""
    if interchange is None:
        return association
    necessary, sufficient = interchange["necessary"], interchange["sufficient"]
    if necessary or sufficient:
        return " and ".join(["necessary"] * necessary + ["sufficient"] * sufficient)
    return "association only" if association == "associated" else "neither"


def check_row(item: object, where: str) -> dict[str, Any]:
    """Return the row when it has the form of docs/findings.md, else raise FindingsError."""
    fields = Fields(item, where, FindingsError)
    site = parse_expert(fields.text("site"))
    if (site.layer, site.expert) != (fields.integer("layer"), fields.integer("expert")):
        raise FindingsError(f"{where}: site {site} disagrees with its layer and expert.")
    fields.text("probe")
    for key in RATES:
        fields.optional_number(key)
    for key in ("Q1", "Q0", "rate_difference", "auc", "t", "df", "p", "q"):
        if key not in fields.data:
            raise FindingsError(f"{where}: the field {key!r} is missing.")
        value = fields.optional_number(key)
        if key in ("p", "q", "auc") and value is not None and not 0 <= value <= 1:
            raise FindingsError(f"{where}: {key} is {value}, which is no probability.")
    _check_interval(fields, "rate_difference_ci")
    _check_choice(fields, "association", ASSOCIATIONS)
    _check_choice(fields, "verdict", VERDICTS)
    fields.optional_text("reason")
    effects = fields.data.get("interchange")
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
        fields.section("quality")
    design = Fields(fields.section("design"), f"{where}, design", FindingsError)
    for key in ("kind", "unit", "segment", "sentence", "response", "prior", "length_matching"):
        design.text(key)
    for key in ("tested", "untestable"):
        design.integer(key)
    design.number("alpha")
    for key in ("positive", "negative"):
        group = Fields(design.section(key), f"{where}, design, {key}", FindingsError)
        for count in ("generations", "tokens", "tokens_used"):
            group.integer(count)
    for index, example in enumerate(fields.items("examples")):
        _check_example(Fields(example, f"{where}, examples[{index}]", FindingsError))
    return fields.data


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
    fields.items("tested")
    fields.items("pair_ids")
    fields.section("engine")
    return fields.data


def _check_effects(fields: Fields) -> None:
    fields.integer("pairs", 1)
    for key in ("exactly_zero", "necessary", "sufficient"):
        fields.flag(key)
    for name in EFFECTS:
        effect = Fields(fields.section(name), f"{fields.where}, {name}", FindingsError)
        effect.number("percent")
        effect.number("mean")
        _check_interval(effect, "ci")
        effect.items("per_pair")
    null = Fields(fields.section("null"), f"{fields.where}, null", FindingsError)
    for name in ("sites", *EFFECTS):
        null.items(name)


def _check_example(fields: Fields) -> None:
    tokens = fields.items("tokens")
    if not all(isinstance(token, str) for token in tokens):
        raise FindingsError(f"{fields.where}: 'tokens' must be a list of texts.")
    fields.integer("answer_start", 0, len(tokens))
    _check_choice(fields, "group", ("positive", "negative"))
    for site, weights in fields.section("weights").items():
        parse_expert(site)
        if not isinstance(weights, list) or len(weights) != len(tokens):
            raise FindingsError(f"{fields.where}: weights of {site} do not match the {len(tokens)} tokens.")


def _check_interval(fields: Fields, key: str) -> None:
    if fields.data.get(key) is None:
        return
    interval = fields.items(key)
    if len(interval) != 2 or not all(isinstance(end, int | float) and not isinstance(end, bool) for end in interval):
        raise FindingsError(f"{fields.where}: {key!r} must be [low, high].")


def _check_choice(fields: Fields, key: str, choices: tuple[str, ...]) -> None:
    if fields.text(key) not in choices:
        raise FindingsError(f"{fields.where}: {key!r} is {fields.data[key]!r}, expected one of {', '.join(choices)}.")
