"""The report in other forms: Markdown for a text, JSON for a program, CSV for a spreadsheet."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from moeprobe.findings import Findings
from moeprobe.findings.frames import rows_frame
from moeprobe.report import verdicts
from moeprobe.report.render import view
from moeprobe.report.results import Part
from moeprobe.visible import cleaned, guarded

SCHEMA = "moeprobe.report/1"
_MARKED = re.compile(r"([\\`*_\[\]#|~$])")
# What GitHub's Markdown links without brackets: addresses, and names behind an @.
_SCHEME = re.compile(r":(?=//)")
_WWW = re.compile(r"(?i)\b(www)\.")
# What would begin a list or underline a heading at the start of a line.
_LEADING = re.compile(r"\A([-+=])|\A(\d{1,9})([.)])(?= )")


def as_json(
    findings: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]] = (), *, title: str | None = None
) -> str:
    """What the page says, for a program: sentences, verdicts and limits of each question, no text of a generation.

    Args:
        findings, results, title: as `render`.

    Raises:
        FindingsError: as `render`.
    """
    page = view(findings, results, text=False, title=title)
    document = {
        "schema": SCHEMA,
        "title": page.title,
        "lead": page.lead,
        "notes": page.notes,
        "questions": [_question(one) for one in page.questions],
        "experiments": [_experiment(one) for one in page.parts],
        "provenance": [{"model": model, **dict(lines)} for model, lines in page.provenance],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def as_markdown(
    findings: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]] = (), *, title: str | None = None
) -> str:
    """The page as Markdown without text of generations: what was asked, found, and may not be concluded, and how.

    Every value is escaped, so that no name of a label can become a heading, a link, a mention or HTML, in CommonMark
    and in GitHub's Markdown. (On its own pages GitHub also links numbers of issues and commits; no escape stops that.)

    Raises:
        FindingsError: as `render`.
    """
    environment = Environment(  # noqa: S701 -- Markdown, escaped by `finalize` below
        loader=PackageLoader("moeprobe.report", "page"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=escaped,
    )
    return environment.get_template("page.md.j2").render(page=view(findings, results, text=False, title=title))


def as_csv(findings: Sequence[Findings]) -> str:
    """All rows of all findings, one line each, with the model in the first column; `rows_frame` says the columns.

    Verdicts and associations stand in the words of the page.

    A text, or the name of a column, that a spreadsheet would run as a formula gets an apostrophe before it, as
    spreadsheets write it themselves.
    """
    import pandas as pd

    frames = []
    for one in findings:
        frame = rows_frame(one)
        frame = frame.drop(columns="model", errors="ignore")  # a file may hold keys that no row has
        frame.insert(0, "model", str(one.model["id"]))
        for name in ("verdict", "association"):
            frame[name] = frame[name].map(lambda known: verdicts.badge(known, None).label)
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    for name in table.columns:
        table[name] = table[name].map(_cell)
    table.columns = [_cell(name) for name in table.columns]
    return str(table.to_csv(index=False, lineterminator="\n"))


def escaped(value: object) -> str:
    """A value as plain Markdown text on one line."""
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _MARKED.sub(r"\\\1", text)
    text = _LEADING.sub(lambda match: f"\\{match[1]}" if match[1] else f"{match[2]}\\{match[3]}", text)
    text = _WWW.sub(r"\1&#46;", _SCHEME.sub("&#58;", text))
    # An entity is not enough here: addresses of mail and names are looked for in the text that is left of it.
    return text.replace("@", "@<!-- -->")


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    return guarded(str(cleaned(value)))


def _question(one: Any) -> dict[str, Any]:
    """One question in the order of the page."""
    return {
        "question": one.about,
        "model": one.model,
        "in_short": one.in_short,
        "asked": dict(one.asked),
        "design": one.design,
        "findings": [
            {
                "site": card.site,
                "verdict": card.verdict.name,
                "verdict_in_words": card.verdict.text,
                "summary": card.summary,
                "routing": card.routing,
                "figures": dict(card.facts),
                "notes": card.notes,
                "what_would_make_it_wrong": card.doubts,
            }
            for card in one.cards
        ],
        "nothing": one.nothing,
        "more": one.more,
        "not_to_be_concluded": [asdict(limit) for limit in one.limits],
        "method": one.method,
    }


def _experiment(part: Part) -> dict[str, Any]:
    """A further experiment without its texts."""
    return {
        "title": part.title,
        "model": part.model,
        "sentences": part.sentences,
        "facts": dict(part.facts),
        "tables": [asdict(table) for table in part.tables],
        "not_to_be_concluded": part.cautions,
    }
