"""What a reader can see of a finding: rates by unit, by position, and what else tells the groups apart."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.checks import check_choice, check_ends, check_optional, check_range, check_unit, is_number
from moeprobe.findings.examples import GROUPS, check_windows

Json = Mapping[str, Any]

SORTERS = ("length", "prompt words", "position")
# Rates are written to six digits, so what follows from them does so only that far.
ROUNDING = 1e-4


def check_units(item: object, where: str) -> None:
    """Who has a rate: for each side names, tokens used and, of scores, the score."""
    fields = Fields(item, where, FindingsError)
    for side in GROUPS:
        part = Fields(fields.section(side), f"{where}, {side}", FindingsError)
        names, tokens = part.items("names"), part.items("tokens")
        if not all(isinstance(name, str) for name in names):
            raise FindingsError(f"{part.where}: 'names' must be a list of texts.")
        _same_length(part.where, names, tokens=tokens)
        _check_counts(part.where, "tokens", tokens)
        if part.data.get("scores") is not None:
            scores = part.items("scores")
            _same_length(part.where, names, scores=scores)
            if not all(is_number(score) for score in scores):
                raise FindingsError(f"{part.where}: 'scores' must be a list of numbers.")
            check_range(part.where, "a score", scores)


def check_positions(item: object, where: str) -> None:
    """Bins of positions in the segment, with tokens and units of either side in each."""
    fields = Fields(item, where, FindingsError)
    edges = fields.items("edges")
    _check_counts(where, "edges", edges)
    if len(edges) < 2 or any(a >= b for a, b in pairwise(edges)):
        raise FindingsError(f"{where}: 'edges' must increase, two at least.")
    for side in GROUPS:
        part = Fields(fields.section(side), f"{where}, {side}", FindingsError)
        for key in ("tokens", "units"):
            _same_length(part.where, edges[1:], **{key: part.items(key)})
            _check_counts(part.where, key, part.data[key])


def check_evidence(item: object, where: str) -> None:
    """Rates, timeline and windows of one expert."""
    fields = Fields(item, where, FindingsError)
    rates, timeline = fields.section("rates"), fields.section("timeline")
    for side in GROUPS:
        values = Fields(rates, f"{where}, rates", FindingsError).items(side)
        _check_shares(f"{where}, rates", side, values, optional=False)
        line = Fields(
            Fields(timeline, f"{where}, timeline", FindingsError).section(side),
            f"{where}, timeline, {side}",
            FindingsError,
        )
        for key in ("rate", "low", "high"):
            _check_shares(line.where, key, line.items(key), optional=True)
            _same_length(line.where, line.items("rate"), **{key: line.data[key]})
        _check_ordered(line)
    check_windows(fields, "windows")


def check_confounds(item: object, where: str) -> None:
    """What else differs between the groups, and how well it tells them apart."""
    fields = Fields(item, where, FindingsError)
    lengths = Fields(fields.section("lengths"), f"{where}, lengths", FindingsError)
    for when in ("before", "after"):
        part = Fields(lengths.section(when), f"{lengths.where}, {when}", FindingsError)
        for side in GROUPS:
            numbers = part.items(side)
            if len(numbers) != 5 or not all(is_number(number) for number in numbers) or numbers != sorted(numbers):
                raise FindingsError(f"{part.where}: {side!r} must hold five numbers: least, quartiles, largest.")
    for index, item_ in enumerate(fields.items("tokens")):
        kind = Fields(item_, f"{where}, tokens[{index}]", FindingsError)
        kind.integer("token_id")
        kind.text("token")
        for side in GROUPS:
            check_unit(kind, side)
    for index, item_ in enumerate(fields.items("topics")):
        word = Fields(item_, f"{where}, topics[{index}]", FindingsError)
        word.text("word")
        word.number("z")
        for side in GROUPS:
            word.integer(side)
    for index, item_ in enumerate(fields.items("sorting")):
        one = Fields(item_, f"{where}, sorting[{index}]", FindingsError)
        check_choice(one, "sorter", SORTERS)
        one.text("how")
        one.optional_text("reason")
        check_optional(one, "auc")
        if one.data["auc"] is not None:
            check_ends(one, "ci")


def check_agreement(question: Json, rows: Sequence[Json], where: str) -> None:
    """Evidence of the rows against the units and positions of their question, and against their own difference."""
    units, positions, design = question["units"], question["positions"], question["design"]
    plain = design["kind"] != "scores" and not design["held"]
    for row in rows:
        evidence = row["evidence"]
        if evidence is None:
            continue
        here = f"{where}, {row['site']}, evidence"
        if units is None or positions is None:
            raise FindingsError(f"{here}: the question {question['name']!r} does not say of which units.")
        _check_kind(units, design["kind"], f"{where}, {question['name']}, units")
        for side in GROUPS:
            _same_length(here, units[side]["names"], **{f"{side} rates": evidence["rates"][side]})
            _same_length(here, positions["edges"][1:], **{f"{side} timeline": evidence["timeline"][side]["rate"]})
        one, zero = (evidence["rates"][side] for side in GROUPS)
        if plain and one and zero and row["rate_difference"] is not None:
            difference = sum(one) / len(one) - sum(zero) / len(zero)
            if abs(difference - row["rate_difference"]) > ROUNDING:
                raise FindingsError(
                    f"{here}: the rates differ by {difference:.4f} on average, but the row says "
                    f"{row['rate_difference']:.4f}."
                )


def _check_kind(units: Json, kind: str, where: str) -> None:
    """Scores have a score each; pairs and parts of generations stand side by side."""
    one, zero = (units[side] for side in GROUPS)
    if kind == "scores" and not (one.get("scores") or zero.get("scores")):
        raise FindingsError(f"{where}: the design is of scores, but there are none.")
    if kind == "scores" and any(side["names"] and side.get("scores") is None for side in (one, zero)):
        raise FindingsError(f"{where}: the design is of scores, but one side has none.")
    if kind in ("pairs", "within generations") and one["names"] != zero["names"]:
        raise FindingsError(f"{where}: both sides of {kind} must have the same names.")


def _check_ordered(line: Fields) -> None:
    for low, rate, high in zip(line.data["low"], line.data["rate"], line.data["high"], strict=True):
        if (low is None) != (high is None) or (low is not None and (rate is None or not low <= rate <= high)):
            raise FindingsError(f"{line.where}: an interval does not hold its rate.")


def _check_shares(where: str, key: str, values: Sequence[object], *, optional: bool) -> None:
    for value in values:
        if value is None and optional:
            continue
        if not (isinstance(value, int | float) and is_number(value) and 0 <= value <= 1):
            raise FindingsError(f"{where}: {key!r} must hold shares from 0 to 1.")


def _check_counts(where: str, key: str, values: Sequence[object]) -> None:
    if not all(type(value) is int and 0 <= value <= 2**53 for value in values):
        raise FindingsError(f"{where}: {key!r} must hold whole numbers from 0.")


def _same_length(where: str, names: Sequence[object], **lists: Sequence[object]) -> None:
    for key, values in lists.items():
        if len(values) != len(names):
            raise FindingsError(f"{where}: {key!r} has {len(values)} entries, expected {len(names)}.")
