"""Several findings files on one question, side by side: which findings of one run hold in the others, by site."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.findings.verdicts import in_words
from moeprobe.report import figures, verdicts, words
from moeprobe.report.methods import settings

Json = Mapping[str, Any]

MOST_LINES = 200
# What became of a finding of the first run in another one.
HOLDS, TURNED, WORDS_ONLY, MISSED, UNTESTED, NEW = (
    "holds", "other direction", in_words("tokens only"), "not found again", "not tested there", "found only here",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One site in one run: what came of it, its verdict (None where it has no row), its difference and q."""

    fate: str
    verdict: verdicts.Badge | None
    numbers: str


@dataclass(frozen=True)
class Line:
    """One site over all runs."""

    site: str
    cells: list[Cell]


@dataclass(frozen=True)
class Comparison:
    """One question that several files ask: the runs, what agrees in words, lines, and what to know before reading."""

    name: str
    runs: list[str]
    summary: list[str]
    cautions: list[str]
    lines: list[Line]
    left_out: int


def comparisons(documents: Sequence[Json]) -> list[Comparison]:
    """Compare every question (by name and kind) that two or more of the files ask."""
    asked: dict[tuple[str, str], list[tuple[int, Json]]] = {}
    for number, one in enumerate(documents):
        for question in one["questions"]:
            asked.setdefault((str(question["name"]), str(question["kind"])), []).append((number, question))
    return [_comparison(name, found, documents) for (name, _), found in asked.items() if len(found) > 1]


def _comparison(name: str, found: Sequence[tuple[int, Json]], documents: Sequence[Json]) -> Comparison:
    several = [documents[number] for number, _ in found]
    runs = [f"{letter(number)}: {one['model']['id']}, {one['trace']['path']}"
            for (number, _), one in zip(found, several, strict=True)]  # fmt: skip
    cautions = _cautions(several, [question for _, question in found])
    if not _same_sites(several):
        said = "The files are of models with other layers or other numbers of experts. Expert numbers carry over to no "
        return Comparison(name, runs, [], [f"{said}other model, so nothing is compared by site.", *cautions], [], 0)
    by_site = [{words.site(row): row for row in one["rows"] if row["probe"] == name} for one in several]
    sites = sorted(
        {site for rows in by_site for site, row in rows.items() if _notable(row)},
        key=lambda site: (-sum(_found(rows.get(site)) for rows in by_site), _smallest(by_site, site), site),
    )
    lines = [Line(site, [_cell(by_site[0].get(site), rows.get(site), i) for i, rows in enumerate(by_site)])
             for site in sites]  # fmt: skip
    summary = [_counted(runs[0], runs[i], by_site[0], by_site[i]) for i in range(1, len(runs))]
    return Comparison(name, runs, summary, cautions, lines[:MOST_LINES], max(0, len(lines) - MOST_LINES))


def letter(number: int) -> str:
    """The name of a run on the page: A, B, ..., and numbers beyond Z."""
    return chr(ord("A") + number) if number < 26 else str(number + 1)


def _same_sites(several: Sequence[Json]) -> bool:
    shapes = {tuple(sorted((int(a["layer"]), int(a["experts"])) for a in one["model"]["layers"])) for one in several}
    return len(shapes) == 1


def _cautions(several: Sequence[Json], questions: Sequence[Json]) -> list[str]:
    """What makes agreement or disagreement mean less than it seems to."""
    found = []
    if len({one["trace"]["digest"] for one in several}) < len(several):
        found.append(
            "Some of these files are of the same trace: the same generations looked at twice. Agreement between them "
            "confirms nothing."
        )
    if len({one["model"]["id"] for one in several}) > 1:
        found.append(
            "The models differ. That an expert has the same number in two models says that it is the same expert only "
            "where one was made from the other."
        )
    for what, key in (("version of the probe", "version"), ("definition", "definition")):
        if len({str(question[key]) for question in questions}) > 1:
            found.append(f"The {what} is not the same in all files, so this is not quite the same question.")
    if any((one.get("parameters") or {}) != (questions[0].get("parameters") or {}) for one in questions):
        said = "; ".join(dict.fromkeys(settings(one) or "none" for one in questions))
        found.append(f"The probe is not set to the same in all files ({said}), so this is not quite the same question.")
    if len({str(question["design"]["kind"]) for question in questions}) > 1:
        found.append("The designs differ, so differences and q are not of one kind.")
    found.append(
        "\u201cNot found again\u201d is no proof that the runs differ: a run with fewer generations misses more. "
        "Whether a difference between two runs is itself beyond chance is what moeprobe compare tests."
    )
    return found


def _notable(row: Json) -> bool:
    return _found(row) or row["association"] == "tokens only" or row["interchange"] is not None


def _found(row: Json | None) -> bool:
    return row is not None and (row["association"] == "associated" or row["verdict"] in verdicts.CAUSAL)


def _smallest(by_site: Sequence[Mapping[str, Json]], site: str) -> float:
    known = [rows[site]["q"] for rows in by_site if site in rows and rows[site]["q"] is not None]
    return min(known, default=2.0)


def fate(first: Json | None, other: Json | None) -> str:
    """What became of a finding of the first run in the other; NEW where only the other found it, "" where neither."""
    if first is None or not _found(first):
        return NEW if _found(other) else ""
    if other is None or (other["p"] is None and not _found(other)):
        return UNTESTED
    if other["association"] == "tokens only":
        return WORDS_ONLY
    if not _found(other):
        return MISSED
    return HOLDS if words.direction(first) == words.direction(other) else TURNED


def _cell(first: Json | None, row: Json | None, index: int) -> Cell:
    said = fate(first, row) if index else ""
    if row is None:
        return Cell(said, None, "no row")
    numbers = f"{figures.points(row['rate_difference'])} points, q\u00a0{figures.chance(row['q'])}"
    effects = row["interchange"]
    if effects is not None:
        swaps = (figures.percent(effects[name]["percent"]) for name in ("necessity", "sufficiency"))
        numbers += "; necessity {}, sufficiency {}".format(*swaps)
    return Cell(said, verdicts.badge(row["verdict"], effects), numbers)


def _counted(first: str, other: str, rows: Mapping[str, Json], others: Mapping[str, Json]) -> str:
    """``Of 6 findings of A, 4 hold in B; not found again: 1; other direction: 1. B has 2 of its own.``"""
    fates = [fate(rows.get(site), others.get(site)) for site in dict.fromkeys([*rows, *others])]
    total = sum(_found(row) for row in rows.values())
    a, b = first.partition(":")[0], other.partition(":")[0]
    rest = "".join(f"; {said}: {fates.count(said)}" for said in (TURNED, WORDS_ONLY, MISSED, UNTESTED) if said in fates)
    new = f" {b} has {figures.count(fates.count(NEW), 'finding')} that {a} has not." if NEW in fates else ""
    if not total:
        return f"{a} has no finding that could hold in {b}.{new}"
    holds = fates.count(HOLDS)
    text = (
        f"Of {figures.count(total, 'finding')} of {a}, {holds} {'holds' if holds == 1 else 'hold'} in {b}{rest}.{new}"
    )
    causal = [site for site, row in rows.items() if row["verdict"] in verdicts.CAUSAL]
    if causal:
        same = sum(others[site]["verdict"] in verdicts.CAUSAL for site in causal if site in others)
        tested = sum(site in others and others[site]["interchange"] is not None for site in causal)
        text += f" Of {len(causal)} with a causal verdict in {a}, {tested} {'was' if tested == 1 else 'were'} swapped "
        text += f"in {b}, and {same} {'has' if same == 1 else 'have'} a causal verdict there."
    return text
