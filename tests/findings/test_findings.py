"""The findings file: round trip, verdict logic, and a reader that refuses what does not hold together."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from moeprobe.correlate import correlate
from moeprobe.correlate.document import findings_of
from moeprobe.errors import FindingsError, OutputError
from moeprobe.findings import Findings, load_findings, verdict
from moeprobe.trace import Trace


@pytest.fixture(scope="module")
def document(compiled_trace: Trace) -> dict[str, Any]:
    findings = findings_of(compiled_trace, [correlate(compiled_trace, by="label", positive="triggered")])
    return json.loads(json.dumps(findings.to_json()))


def save(document: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "f.json"
    path.write_text(json.dumps(document))
    return path


def test_round_trip(document: dict[str, Any], tmp_path: Path) -> None:
    findings = load_findings(save(document, tmp_path))
    assert findings.to_json() == document
    with pytest.raises(OutputError, match="--force"):
        findings.write(tmp_path / "f.json")
    findings.write(tmp_path / "f.json", force=True)
    assert json.loads((tmp_path / "f.json").read_text()) == document


def test_views(document: dict[str, Any], tmp_path: Path) -> None:
    findings = load_findings(save(document, tmp_path))
    rows = findings.rows_of("label:triggered")
    tested = [row["p"] for row in rows if row["p"] is not None]
    assert tested == sorted(tested)
    assert len(findings.frame()) == len(document["rows"]) == 32
    assert "associated" in repr(findings)
    assert "<table>" in findings._repr_html_()
    with pytest.raises(FindingsError, match="no 'other'.*label:triggered"):
        findings.question("other")
    with pytest.raises(FindingsError, match="no question"):
        Findings({}, {}).question()


def test_terminal_hostile_html_is_escaped(document: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(document)
    changed["model"]["id"] = "<img src=x onerror=alert(1)>"
    assert "<img" not in load_findings(save(changed, tmp_path))._repr_html_()


@pytest.mark.parametrize(
    ("association", "necessary", "sufficient", "expected"),
    [
        ("associated", True, True, "necessary and sufficient"),
        ("associated", True, False, "necessary"),
        ("not associated", False, True, "sufficient"),
        ("associated", False, False, "association only"),
        ("not associated", False, False, "neither"),
        ("untestable", False, False, "neither"),
    ],
)
def test_verdicts(association: str, necessary: bool, sufficient: bool, expected: str) -> None:
    effects = {"necessary": necessary, "sufficient": sufficient, "enough_pairs": True}
    assert verdict(association, effects) == expected
    assert verdict(association, {**effects, "enough_pairs": False}) == "underpowered"
    assert verdict(association, None) == association


def set_row(key: str, value: object) -> Any:
    def change(document: dict[str, Any]) -> None:
        document["rows"][0][key] = value

    return change


def drop(*path: str | int) -> Any:
    def change(document: dict[str, Any]) -> None:
        place: Any = document
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


def example_weights(document: dict[str, Any]) -> None:
    example = document["questions"][0]["examples"][0]
    example |= {"tokens": ["a", "b"], "answer_start": 1, "spans": []}
    example["weights"] = {"L1.E1": {"at": [2], "weight": [0.5]}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema="moeprobe.findings/9"), "findings/9"),
        (set_row("p", 1.5), "p is 1.5"),
        (set_row("S1", "much"), "'S1' must be a finite number"),
        (set_row("site", "E5"), "names no expert"),
        (set_row("site", "L9.E9"), "disagrees"),
        (set_row("verdict", "guilty"), "expected one of"),
        (set_row("verdict", "necessary"), "does not follow"),
        (set_row("association", "maybe"), "expected one of"),
        (set_row("probe", "another"), "no question"),
        (set_row("rate_difference_ci", [1]), r"\[low, high\]"),
        (set_row("interchange", {"pairs": 0}), "'pairs'"),
        (drop("rows", 0, "q"), "'q' is missing"),
        (drop("rows", 0, "S1"), "'S1' is missing"),
        (drop("rows", 0, "interchange"), "'interchange' is missing"),
        (lambda d: d["rows"].append(d["rows"][0]), "twice"),
        (lambda d: d["questions"].append(d["questions"][0]), "same name"),
        (lambda d: d["model"].pop("family"), "'family' is missing"),
        (lambda d: d["trace"].update(provenance=3), "'provenance' must be an object"),
        (drop("questions", 0, "definition"), "'definition' is missing"),
        (drop("questions", 0, "design", "sentence"), "'sentence' is missing"),
        (lambda d: d.update(notes=[1]), "list of texts"),
        (lambda d: d.update(interchange=[{"probe": "x"}]), "interchange"),
        (example_weights, "numbers of the 2 tokens"),
    ],
)
def test_broken_documents_are_refused(document: dict[str, Any], tmp_path: Path, change: Any, said: str) -> None:
    changed = copy.deepcopy(document)
    change(changed)
    with pytest.raises(Exception, match=said) as caught:
        load_findings(save(changed, tmp_path))
    assert type(caught.value).__module__ == "moeprobe.errors"


def test_other_files(tmp_path: Path) -> None:
    for text, said in (("[]", "object"), ("{", "not valid JSON"), ('{"schema": NaN}', "NaN"), ("[" * 100_000, "JSON")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(FindingsError, match=said):
            load_findings(tmp_path / "x.json")
    with pytest.raises(FindingsError, match="Could not read"):
        load_findings(tmp_path / "none.json")
