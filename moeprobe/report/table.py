"""The table of experts: all of them, or the leading 200 by q together with every expert that interchange tested."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.report import details, figures, verdicts, words
from moeprobe.report.voice import Voice

Json = Mapping[str, Any]

LONGEST = 200
DETAILED = 60  # leading lines with all figures beside the decision, and every line that interchange tested


@dataclass(frozen=True)
class Column:
    """A head of the table: plain words, the symbol of the methods section, and what it means."""

    plain: str
    symbol: str
    meaning: str


@dataclass(frozen=True)
class Line:
    """One expert, every cell as text. `anchor` is the id the map jumps to."""

    anchor: str
    site: str
    cells: list[str]
    verdict: verdicts.Badge
    reason: str
    details: list[details.Detail]


@dataclass(frozen=True)
class Table:
    """The lines, how many experts were left out, and what to know of the details, once for all lines."""

    lines: list[Line]
    left_out: int
    total: int
    notes: list[tuple[str, str]]


def columns(voice: Voice) -> list[Column]:
    """The heads between the site and the verdict."""
    unit = voice.unit
    first, second = {
        "scores": ("upper half", "lower half"),
        "within generations": ("marked tokens", "other tokens"),
    }.get(voice.kind, (f"with {voice.about}", "without"))
    same = {"scores": "of the lower half", "within generations": "of the other tokens of the same generations"}
    other = same.get(voice.kind, "without it")
    here = " It holds for these generations only, not for new prompts." if voice.shifts else ""
    return [
        Column(
            f"Chosen, {first}" if voice.scores or voice.inside else f"Chosen {first}",
            "S\u2081",
            f"Share of the tokens {voice.tokens_one} for which the router chose this expert.",
        ),
        Column(
            f"Chosen, {second}" if voice.scores or voice.inside else f"Chosen {second}",
            "S\u2080",
            f"The same share {other}.",
        ),
        Column(f"Weight, {voice.one}", "Q\u2081", "Mean gate weight where it was chosen. A dash: it was never chosen."),
        Column(f"Weight, {voice.other}", "Q\u2080", f"The same mean {other}."),
        _difference(voice),
        Column(
            "Entry", "\u0394W, S part", "Part of the change in mean weight that comes from being chosen more often."
        ),
        Column(
            "Valuation", "\u0394W, Q part", "Part that comes from a larger weight when chosen. The two sum to \u0394W."
        ),
        Column("Separates", "AUC", f"{_separates(voice)} 0.5 is a coin toss. It decides nothing."),
        _beyond(voice),
        Column(
            "q",
            "BH",
            "Expected share of false discoveries if all experts with this q or a smaller one are called associated. "
            f"{_fixed(voice)} The unit is the {unit}.{here}{_quantity(voice)}",
        ),
    ]


def _difference(voice: Voice) -> Column:
    unit = voice.unit
    if voice.scores:
        return Column(
            "Change, points per unit of score",
            "\u0394S",
            "How much the selection rate changes, in percentage points, where the score is larger by one, with its "
            f"95 % interval. Every {unit} counts once.",
        )
    if voice.inside or voice.pairs:
        sides = "marked less other tokens" if voice.inside else "positive less negative side"
        return Column(
            f"Difference in a {unit}, points",
            "\u0394S",
            f"Mean over all {unit}s of the difference of the two selection rates inside one ({sides}), in percentage "
            "points, with its 95 % interval.",
        )
    return Column(
        "Difference, points",
        "\u0394S",
        f"Difference of the mean selection rates per {unit}, in percentage points, with its 95 % interval. Every "
        f"{unit} counts once here, every token once in S\u2081 \u2212 S\u2080, so the two can differ a little.",
    )


def _beyond(voice: Voice) -> Column:
    per = " per unit of score" if voice.scores else ""
    held = f" with the {voice.fixed} held fixed" if voice.strata else ""
    if voice.measured:
        chosen = (
            " The excess of all its choices is divided by all tokens." if "given the choice" in voice.measured else ""
        )
        return Column(
            f"Difference of {voice.thing} per token{per}",
            "O \u2212 E",
            f"What was tested: {voice.measured}. Its difference per token{per}{held}, in its own unit.{chosen}",
        )
    return Column(
        f"Beyond the {voice.fixed or 'words'}, points{per}",
        "O \u2212 E",
        f"The difference of the selection rates{per} that is left{held}, in percentage points.",
    )


def _quantity(voice: Voice) -> str:
    return f" It is of {voice.measured}, and not of the selection rates." if voice.measured else ""


def _separates(voice: Voice) -> str:
    unit = voice.unit
    if voice.scores:
        return f"Chance that a {unit} of the upper half has the higher selection rate than one of the lower half."
    if voice.inside:
        return (
            f"Chance that the marked tokens of a {unit} have the higher selection rate than the other tokens of a "
            f"{unit}, not always the same."
        )
    if voice.pairs:
        return (
            "Chance that the positive side of a pair has the higher selection rate than the negative side of a pair, "
            "not always the same."
        )
    return f"Chance that a {unit} with the behaviour has the higher selection rate than one without."


def _fixed(voice: Voice) -> str:
    if not voice.strata:
        return "Words are not held fixed."
    if voice.strata in ("token", "token id"):
        return "Words are held fixed: each token is compared only with the same token elsewhere."
    return f"Each token is compared only with tokens of the same kind elsewhere ({voice.strata})."


def order(rows: Sequence[Json]) -> list[Json]:
    """Causal verdicts first, then by q, then by the size of the difference; untestable rows last."""
    return sorted(
        rows,
        key=lambda row: (
            row["verdict"] not in verdicts.CAUSAL,
            row["q"] is None,
            row["q"] if row["q"] is not None else 0.0,
            -abs(row["rate_difference"] or 0.0),
            int(row["layer"]),
            int(row["expert"]),
        ),
    )


def table(key: str, rows: Sequence[Json], question: Json, voice: Voice) -> Table:
    """Lay out the rows of one question; `rows` in the order of `order`."""
    kept = [row for index, row in enumerate(rows) if index < LONGEST or row["interchange"] is not None]
    lines = [
        _line(key, row, question, voice, more=index < DETAILED or row["interchange"] is not None)
        for index, row in enumerate(kept)
    ]
    notes = {one.heading: one.note for line in lines for one in line.details if one.note}
    return Table(lines, len(rows) - len(kept), len(rows), list(notes.items()))


def anchor(key: str, row: Json) -> str:
    """The id of a row in the page, safe by construction."""
    return f"{key}-L{int(row['layer'])}E{int(row['expert'])}"


def _line(key: str, row: Json, question: Json, voice: Voice, *, more: bool) -> Line:
    interval = figures.change_interval(row["rate_difference_ci"], fine=voice.scores)
    held = interval if voice.scores else interval.replace(" ", figures.NBSP)  # long digits may break after the comma
    gap = f"{figures.change(row['rate_difference'], fine=voice.scores)} {held}"
    cells = [
        figures.share(row["S1"]),
        figures.share(row["S0"]),
        figures.number(row["Q1"]),
        figures.number(row["Q0"]),
        gap if row["rate_difference"] is not None else figures.NONE,
        figures.number(row["entry"], 3, sign=True),
        figures.number(row["valuation"], 3, sign=True),
        figures.number(row["auc"], 2),
        figures.signed(row["beyond_difference"])
        if voice.measured
        else figures.change(row["beyond_difference"], fine=voice.scores),
        figures.chance(row["q"]),
    ]
    beside = details.details(row, question, voice) if more else []
    shown = verdicts.badge(row["verdict"], row["interchange"])
    return Line(anchor(key, row), words.site(row), cells, shown, remark(row, voice), beside)


def remark(row: Json, voice: Voice) -> str:
    """What stands below the verdict: why nothing was tested, what the test that ignores the words says, or that the
    direction of the test that decides is not that of the plain difference."""
    sign = words.direction(row)
    if row["association"] == "associated" and sign * (row["rate_difference"] or 0.0) < 0:
        return f"with the {voice.fixed or 'words'} held fixed, {voice.more if sign > 0 else voice.less} {voice.where}"
    if row["verdict"] == "tokens only":
        plain = f"q without holding the words fixed: {figures.chance(row['marginal']['q'])}"
        return f"{plain}; {row['reason']}" if row["reason"] else plain
    return row["reason"] or ""
