"""More and less of an expert: does the outcome follow?"""

from collections.abc import Sequence
from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.checks import check_numbers, check_texts, is_number
from moeprobe.report import figures
from moeprobe.report.results.part import Part, Table

_KINDS = {"bias": "bias on its router score", "scale": "scale of its contribution"}


def dose_part(fields: Fields) -> Part:
    """`moeprobe.dose/1`.

    Raises:
        FindingsError: a field is missing or of the wrong kind.
    """
    site, prompts = fields.text("site"), len(check_texts(fields, "prompts"))
    metric = Fields(fields.section("metric"), f"{fields.where}, metric", FindingsError)
    series = Fields(fields.section("series"), f"{fields.where}, series", FindingsError)
    if site not in series.data:
        raise FindingsError(f"{fields.where}: 'series' does not hold {site[:80]!r}.")
    shams = check_texts(fields, "shams")
    against = fields.section("against_shams")
    tables, sentences = [], []
    for kind, found in series.section(site).items():
        own = Fields(found, f"{fields.where}, series, {kind}", FindingsError)
        others = [Fields(series.section(sham)[kind], f"{fields.where}, series, {sham}", FindingsError)
                  for sham in shams if sham in series.data and kind in series.section(sham)]  # fmt: skip
        tables.append(_table(kind, own, others, prompts))
        sentences.append(_sentence(kind, site, own, against.get(kind), fields.where))
    return Part(
        title=f"More and less of {site}",
        model=str(fields.section("model").get("id", "a model")),
        sentences=[*sentences, *check_texts(fields, "notes")],
        facts=[
            ("Outcome", metric.text("sentence")),
            ("Prompts", f"{prompts:,}, the {fields.text('side')} side"),
            ("Shams", ", ".join(shams) or "none"),
        ],
        tables=tables,
        cautions=["A dose beyond what the model itself ever uses says what the expert could do, not what it does."],
    )


def _sentence(kind: str, site: str, own: Fields, against: object, where: str) -> str:
    slope = Fields(own.section("slope"), f"{own.where}, slope", FindingsError)
    rise = f"{figures.signed(slope.optional_number('mean'))} {_range(slope.items('ci'))}"
    said = f"{_KINDS.get(kind, kind).capitalize()} of {site}: the outcome changes by {rise} for one unit of dose"
    if against is None:
        return f"{said}; there was no sham to compare it with."
    contrast = Fields(against, f"{where}, against_shams", FindingsError)
    return (
        f"{said}; beyond its shams by {figures.signed(contrast.optional_number('difference'))} "
        f"{_range(contrast.items('ci'))}."
    )


def _table(kind: str, own: Fields, others: Sequence[Fields], prompts: int) -> Table:
    check_numbers(own, "doses")
    doses = own.items("doses")
    outcome, rate = (_means(own, key, len(doses), prompts) for key in ("outcome", "rate"))
    sham = [_means(one, "outcome", len(doses), prompts) for one in others]
    rows = []
    for place, dose in enumerate(doses):
        beside = [one[place] for one in sham if one[place] is not None]
        rows.append(
            [str(dose), figures.number(outcome[place], 4), figures.share(rate[place]),
             figures.number(sum(beside) / len(beside), 4) if beside else figures.NONE]
        )  # fmt: skip
    return Table(f"Dose: {_KINDS.get(kind, kind)}.", ["dose", "outcome, mean", "chosen", "shams\u2019 outcome"], rows)


def _means(fields: Fields, key: str, doses: int, prompts: int) -> list[Any]:
    """Mean over prompts at each dose, of the numbers that are there."""
    lines = fields.items(key)
    if len(lines) != prompts or not all(isinstance(one, list) and len(one) == doses for one in lines):
        raise FindingsError(f"{fields.where}: {key!r} must be {prompts} lists of {doses} numbers.")
    found = []
    for place in range(doses):
        known = [one[place] for one in lines if is_number(one[place])]
        found.append(sum(known) / len(known) if known else None)
    return found


def _range(ends: Sequence[object]) -> str:
    if len(ends) != 2 or not all(is_number(end) for end in ends):
        return "[no interval]"
    low, high = (figures.signed(float(end)).removeprefix("+") for end in ends)  # type: ignore[arg-type]
    return f"[{low}, {high}]"
