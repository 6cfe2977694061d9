"""What everything later does when an expert is taken out."""

from collections.abc import Sequence
from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.checks import check_texts, is_number
from moeprobe.report import figures
from moeprobe.report.results.part import Part, Table

LEADING = 12
_EDITS = {"zero": "its contribution set to zero", "bar": "barred before the choice"}
_PATHS = ("total", "direct", "indirect", "norm")
_KINDS = ("parts", "experts", "routers")


def cascade_part(fields: Fields) -> Part:
    """`moeprobe.cascade/1`.

    Raises:
        FindingsError: a field is missing or of the wrong kind.
    """
    site, shams = fields.text("site"), check_texts(fields, "shams")
    sentences, tables = [], []
    for edit, found in fields.section("edits").items():
        one = Fields(found, f"{fields.where}, edits, {edit}", FindingsError)
        how = _EDITS.get(edit, edit)
        paths = [f"{name} {_with_interval(one, name)}" for name in _PATHS if name in one.data]
        sentences.append(f"{site}, {how}: {fields.text('what')} {', '.join(paths)}.")
        for kind in _KINDS:
            if one.data.get(kind):
                tables.append(_units(how, kind, Fields(one.section(kind), one.where, FindingsError)))
    refused = fields.optional_text("contributions_refused")
    return Part(
        title=f"What follows when {site} is taken out",
        model=str(fields.section("model").get("id", "a model")),
        sentences=sentences + ([f"Contributions were not compared, only routing. {refused}"] if refused else []),
        facts=[("Prompts", f"{len(check_texts(fields, 'prompts')):,}"), ("Shams", ", ".join(shams) or "none")],
        tables=[table for table in tables if table.rows],
        cautions=["What changes downstream is not thereby what the behaviour needs: swap those sites to find out."],
    )


def _units(how: str, kind: str, units: Fields) -> Table:
    """The units of one kind that change most, by the first of their measures."""
    lines = []
    for name in units.data:
        measures = units.section(name)
        for measure in list(measures)[:1]:
            one = Fields(measures[measure], f"{units.where}, {name}, {measure}", FindingsError)
            mean = one.optional_number("mean")
            if mean:
                lines.append((abs(mean), name, measure, one))
    lines.sort(key=lambda line: (-line[0], line[1]))
    measure = lines[0][2] if lines else ""
    rows = [
        [name, _with_interval(one, None), figures.signed(one.optional_number("shams"))]
        for _, name, _, one in lines[:LEADING]
    ]
    head = ["unit", f"{measure.replace('_', ' ')}, mean over prompts", "the same under shams"]
    return Table(f"Later {kind} that change most ({how}).", head, rows)


def _with_interval(fields: Fields, key: str | None) -> str:
    one = fields if key is None else Fields(fields.section(key), f"{fields.where}, {key}", FindingsError)
    ends: Sequence[Any] = () if one.data.get("ci") is None else one.items("ci")
    known = len(ends) == 2 and all(is_number(end) for end in ends)
    shown = f" [{', '.join(figures.signed(float(end)).removeprefix('+') for end in ends)}]" if known else ""
    return f"{figures.signed(one.optional_number('mean'))}{shown}"
