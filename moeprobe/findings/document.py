"""The findings file: `docs/findings.md` is its description, this module its reader and writer."""

import html
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import moeprobe
from moeprobe.errors import FindingsError
from moeprobe.fields import Fields, parse_json, read_text
from moeprobe.files import check_output, write_text
from moeprobe.findings.checks import check_sizes
from moeprobe.findings.evidence import check_agreement
from moeprobe.findings.question import check_question
from moeprobe.findings.row import check_row
from moeprobe.findings.run import check_flags, check_run, check_source
from moeprobe.findings.verdicts import in_words, said

if TYPE_CHECKING:
    import pandas

SCHEMA = "moeprobe.findings/5"


@dataclass
class Findings:
    """Associations and verdicts, in the form of docs/findings.md (plain dicts inside, so that JSON is the truth).

    Attributes:
        model, trace: where the data come from.
        questions: one object for each probe or label asked about.
        rows: one object for each (site, question).
        interchange: one object for each interchange run.
        notes: sentences a reader must see.
        commands: the command lines that made the document, in order.
    """

    model: dict[str, Any]
    trace: dict[str, Any]
    questions: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    interchange: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    moeprobe: str = moeprobe.__version__

    def question(self, name: str | None = None) -> dict[str, Any]:
        """The question called `name`, or the only one.

        Raises:
            FindingsError: no such question, or several and no name given.
        """
        names = [question["name"] for question in self.questions]
        if name is None and len(names) == 1:
            return self.questions[0]
        if name not in names:
            said = "Say which one" if name is None else f"There is no {name!r}; choose one"
            raise FindingsError(f"{said} with --probe: {', '.join(names) or 'the file holds no question'}.")
        return self.questions[names.index(name)]

    def rows_of(self, question: str) -> list[dict[str, Any]]:
        """Rows of one question, most significant first; untestable ones last."""
        rows = [row for row in self.rows if row["probe"] == question]
        return sorted(rows, key=significance)

    def frame(self) -> "pandas.DataFrame":
        """One line for each (question, expert): `frames.rows_frame`."""
        from moeprobe.findings.frames import rows_frame

        return rows_frame(self)

    def effects_frame(self) -> "pandas.DataFrame":
        """One line for each effect that interchange measured: `frames.effects_frame`."""
        from moeprobe.findings.frames import effects_frame

        return effects_frame(self)

    def pairs_frame(self) -> "pandas.DataFrame":
        """One line for each site, arm and pair of the interchange runs: `frames.pairs_frame`."""
        from moeprobe.findings.frames import pairs_frame

        return pairs_frame(self)

    def layers_frame(self) -> "pandas.DataFrame":
        """One line for each layer of each question: `frames.layers_frame`."""
        from moeprobe.findings.frames import layers_frame

        return layers_frame(self)

    def to_json(self) -> dict[str, Any]:
        """The whole document as JSON-able objects."""
        return {"schema": SCHEMA, **vars(self)}

    def write(self, path: Path, *, force: bool = False) -> None:
        """Write the file atomically.

        Raises:
            OutputError: `path` exists and not `force`, or the disk refuses.
        """
        check_output(path, force=force)
        write_text(path, "".join(_lines(self.to_json())))

    def __repr__(self) -> str:
        counts = ", ".join(f"{in_words(name)}: {number}" for name, number in self.verdicts().items())
        return f"<Findings on {self.model.get('id')!r}: {len(self.rows)} rows ({counts})>"

    def _repr_html_(self) -> str:
        head = "<tr><th>site</th><th>question</th><th>rate difference</th><th>q</th><th>verdict</th></tr>"
        cells = (
            (
                row["site"],
                row["probe"],
                shown(row["rate_difference"]),
                shown(row["q"]),
                said(row["verdict"], row["interchange"]),
            )
            for row in sorted(self.rows, key=significance)[:10]
        )
        body = "".join("<tr>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in line) + "</tr>" for line in cells)
        return f"<table><caption>{html.escape(repr(self))}</caption>{head}{body}</table>"

    def verdicts(self) -> dict[str, int]:
        """How many rows carry each verdict."""
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row["verdict"]] = counts.get(row["verdict"], 0) + 1
        return counts


def significance(row: dict[str, Any]) -> tuple[bool, float, float, int, int]:
    """Sort key: tested before untestable, small p first, then the larger difference, then layer and expert."""
    p = row["p"]
    return (p is None, 1.0 if p is None else p, -abs(row["rate_difference"] or 0.0), row["layer"], row["expert"])


def shown(value: float | None) -> str:
    """A number for people: three digits, and a dash for what does not exist."""
    return "-" if value is None else f"{value:.3g}"


def load_findings(path: str | Path) -> Findings:
    """Read and validate a findings file.

    Raises:
        FindingsError: no such file, another schema version, or a field that is missing or of the wrong kind.
    """
    where = str(path)
    fields = Fields(parse_json(read_text(Path(path), FindingsError), where, FindingsError), where, FindingsError)
    if str(fields.data.get("schema")).startswith("moeprobe.compare/"):
        raise FindingsError(
            f"{where} is a comparison of two runs, not findings. A comparison has no report page and no interchange: "
            "`moeprobe compare` prints it. Make findings of one run with `moeprobe correlate`."
        )
    if fields.data.get("schema") != SCHEMA:
        raise FindingsError(
            f"{where}: schema {fields.data.get('schema')!r}, but this moeprobe reads {SCHEMA!r}. "
            "Make the file again with `moeprobe correlate`."
        )
    check_sizes(fields.data, where)
    for key in ("notes", "commands"):
        if not all(isinstance(text, str) for text in fields.items(key)):
            raise FindingsError(f"{where}: {key!r} must be a list of texts.")
    findings = Findings(
        model=fields.section("model"),
        trace=fields.section("trace"),
        questions=_checked(fields.items("questions"), check_question, f"{where}, questions"),
        rows=_checked(fields.items("rows"), check_row, f"{where}, rows"),
        interchange=_checked(fields.items("interchange"), check_run, f"{where}, interchange"),
        notes=fields.items("notes"),
        commands=fields.items("commands"),
        created=fields.text("created"),
        moeprobe=fields.text("moeprobe"),
    )
    check_source(findings.model, findings.trace, where)
    _check_together(findings, where)
    return findings


def _check_together(findings: Findings, where: str) -> None:
    """Checks across rows, questions and runs."""
    names = [question["name"] for question in findings.questions]
    if len(set(names)) < len(names):
        raise FindingsError(f"{where}: two questions have the same name.")
    runs = {run["probe"]: run for run in findings.interchange}
    if len(runs) < len(findings.interchange) or not set(runs) <= set(names):
        raise FindingsError(f"{where}: an interchange run is of no question there, or there are two of one question.")
    seen: set[tuple[str, str]] = set()
    for row in findings.rows:
        key = (row["site"], row["probe"])
        if row["probe"] not in names:
            raise FindingsError(f"{where}: {row['site']} belongs to {row['probe']!r}, which is no question there.")
        if key in seen:
            raise FindingsError(f"{where}: {row['site']} stands there twice for {row['probe']!r}.")
        seen.add(key)
        if row["interchange"] is not None:
            if row["probe"] not in runs:
                raise FindingsError(f"{where}: {row['site']} has interchange effects, but there is no such run.")
            check_flags(row, runs[row["probe"]], where)
    for question in findings.questions:
        check_agreement(question, [row for row in findings.rows if row["probe"] == question["name"]], where)
    for run in findings.interchange:
        shown = {row["site"] for row in findings.rows if row["probe"] == run["probe"] and row["interchange"]}
        missing = set(run["tested"]) - shown - {other["site"] for other in run["others"]}
        if missing:
            raise FindingsError(f"{where}: {min(missing)} was tested by interchange, but its effects are missing.")


def _lines(document: dict[str, Any]) -> Iterable[str]:
    """The document as JSON with a line for each question, row and run: evidence by token would be a line a number."""
    for start, (key, value) in zip(["{", *[","] * len(document)], document.items(), strict=False):
        yield f"{start}\n {_text(key)}: "
        if isinstance(value, list) and value:
            yield "[\n  " + ",\n  ".join(_text(item) for item in value) + "\n ]"
        else:
            yield _text(value)
    yield "\n}\n"


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def _checked(items: Iterable[object], check: Any, where: str) -> list[dict[str, Any]]:
    return [check(item, f"{where}[{index}]") for index, item in enumerate(items)]
