"""What the findings file says of interchange runs and of its sources: checks when it is read."""

import math
import re
from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.causes import judgement, verdict
from moeprobe.findings.checks import check_choice, check_ends, check_numbers, check_texts, check_unit, is_number
from moeprobe.findings.effects import check_effects, check_shares

MAX_EXPERTS = 65_536
SWAPS = ("contribution", "output", "routing")
# The form of docs/sites.md; which sites a model has is known only where the model is.
_TERM = r"L\d{1,6}(?:-L\d{1,6})?\.(?:[EH]\d{1,6}(?:-[EH]\d{1,6})?|router|shared|moe|residual)"
_MORE = r"\+(?:[EH]\d{1,6}(?:-[EH]\d{1,6})?|router|shared|moe|residual)"
SITES = re.compile(rf"{_TERM}(?:{_MORE}|\+{_TERM})*")


def check_run(item: object, where: str) -> dict[str, Any]:
    """Return the interchange run when it has the form of docs/findings.md, else raise FindingsError."""
    fields = Fields(item, where, FindingsError)
    for key in ("probe", "positive", "negative", "metric", "unit", "alignment", "coverage", "rule"):
        fields.text(key)
    check_choice(fields, "swap", SWAPS)
    for key in ("left_out", "null", "bootstrap", "seed"):
        fields.integer(key)
    if fields.number("minimum_effect") < 0:
        raise FindingsError(f"{where}: 'minimum_effect' is negative.")
    for key in ("engine", "metric_options", "alignment_options", "pairs_from"):
        fields.section(key)
    for key in ("tested", "arms"):
        check_texts(fields, key)
    _check_pairs(fields)
    _check_per_pair(fields)
    names = []
    for index, other in enumerate(fields.items("others")):
        names.append(check_other(other, f"{where}, others[{index}]", fields.data))
    if len(set(names)) < len(names) or not set(names) <= set(fields.data["tested"]):
        raise FindingsError(f"{where}: 'others' holds a site twice, or one that is not among 'tested'.")
    return fields.data


def _check_pairs(fields: Fields) -> None:
    """One metric of either run for each pair, and the gap that they make over the pairs that were judged."""
    where, pairs = fields.where, fields.integer("pairs", 1)
    names = check_texts(fields, "pair_ids")
    for key in ("sensitive", "control"):
        check_numbers(fields, key)
        if len(fields.data[key]) != pairs or len(names) != pairs:
            raise FindingsError(f"{where}: 'pair_ids' and {key!r} must have one entry for each of {pairs} pairs.")
    gap = Fields(fields.section("gap"), f"{where}, gap", FindingsError)
    check_ends(gap, "ci")
    check_unit(gap, "p")
    _check_halves(fields)
    used = judged_pairs(fields.data)
    gaps = [fields.data["sensitive"][place] - fields.data["control"][place] for place in used]
    scale = max(map(abs, gaps))
    if not math.isclose(sum(gaps) / len(gaps), gap.number("mean"), rel_tol=1e-6, abs_tol=1e-9 * scale):
        raise FindingsError(f"{where}: the mean gap is not that of the judged pairs.")


def _check_per_pair(fields: Fields) -> None:
    """Each arm of each site has one number (or null) for each pair; files without them are read, too."""
    if "per_pair" not in fields.data:
        return
    for site, arms in fields.section("per_pair").items():
        if not isinstance(arms, dict):
            raise FindingsError(f"{fields.where}: 'per_pair' of {site[:80]!r} must be an object of arms.")
        for arm, values in arms.items():
            listed = values if isinstance(values, list) else []
            if len(listed) != fields.data["pairs"] or not all(one is None or is_number(one) for one in listed):
                raise FindingsError(
                    f"{fields.where}: 'per_pair' of {site[:80]!r}, {arm[:40]!r}, needs one number or null for each of "
                    f"{fields.data['pairs']} pairs."
                )


def _check_halves(fields: Fields) -> None:
    if "confirmation" not in fields.data:
        raise FindingsError(f"{fields.where}: the field 'confirmation' is missing.")
    if fields.data["confirmation"] is None:
        return
    halves = Fields(fields.section("confirmation"), f"{fields.where}, confirmation", FindingsError)
    screened, chosen, first, second = (
        set(check_texts(halves, key)) for key in ("screened", "chosen", "chosen_on", "tested_on")
    )
    if not chosen <= screened or not second or first & second or first | second != set(fields.data["pair_ids"]):
        raise FindingsError(
            f"{halves.where}: the halves are no halves of the pairs, or a chosen site was not screened."
        )


def judged_pairs(run: dict[str, Any]) -> list[int]:
    """Places of the pairs that verdicts are of: all, or with held-out confirmation the second half."""
    halves = run["confirmation"]
    kept = set(run["pair_ids"]) if halves is None else set(halves["tested_on"])
    return [place for place, name in enumerate(run["pair_ids"]) if name in kept]


def check_other(item: object, where: str, run: dict[str, Any]) -> str:
    """A tested site that is no single expert: a head, a block, a set. It has effects and a verdict but no row."""
    fields = Fields(item, where, FindingsError)
    name = fields.text("site")
    if not SITES.fullmatch(name):
        raise FindingsError(f"{where}: {name[:80]!r} names no site.")
    fields.text("name")
    effects = Fields(fields.section("interchange"), f"{where}, interchange", FindingsError)
    check_effects(effects)
    check_flags({"site": name, "interchange": effects.data}, run, where)
    if fields.text("verdict") != verdict("untestable", effects.data):
        raise FindingsError(f"{where}: the verdict does not follow from its own numbers.")
    return name


def check_flags(row: dict[str, Any], run: dict[str, Any], where: str) -> None:
    """Hold the flags of a row against its own numbers, and those against its run's."""
    effects, where = row["interchange"], f"{where}: {row['site']}"
    if row["site"] not in run["tested"]:
        raise FindingsError(f"{where}: has interchange effects, but the run did not test it.")
    if effects["thresholds"]["minimum_effect"] != run["minimum_effect"]:
        raise FindingsError(f"{where}: the minimum effect is not that of its interchange run.")
    if effects["pairs"] != len(judged_pairs(run)):
        raise FindingsError(f"{where}: {effects['pairs']} pairs, but the run judged {len(judged_pairs(run))}.")
    if (effects["adjustment"] == "held out") != (run["confirmation"] is not None):
        raise FindingsError(f"{where}: 'adjustment' does not agree with how the run chose its sites.")
    check_shares(effects, run["gap"]["mean"], where)
    for flag, value in judgement(effects).items():
        if effects.get(flag) != value:
            raise FindingsError(f"{where}: {flag!r} does not follow from its own numbers.")


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
    provenance = Fields(run.section("provenance"), f"{where}, trace, provenance", FindingsError)
    for key in provenance.data:
        if provenance.data[key] is not None:
            provenance.section(key)
