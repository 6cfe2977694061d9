"""Evidence in a findings file is untrusted like all else: what does not fit is refused with a sentence."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from moeprobe.correlate import correlate
from moeprobe.correlate.document import findings_of
from moeprobe.errors import FindingsError, MoeprobeError
from moeprobe.findings import Findings, load_findings
from moeprobe.findings.examples import dense
from moeprobe.trace import Trace


@pytest.fixture(scope="module")
def document(compiled_trace: Trace) -> dict[str, Any]:
    findings = findings_of(compiled_trace, [correlate(compiled_trace, by="label", positive="triggered")])
    return json.loads(json.dumps(findings.to_json()))


def load(document: dict[str, Any], folder: Path) -> Findings:
    path = folder / "findings.json"
    path.write_text(json.dumps(document))
    return load_findings(path)


def place(document: dict[str, Any], path: tuple[Any, ...]) -> Any:
    found: Any = document
    for key in path:
        found = found[key]
    return found


ROW = ("rows", "first", "evidence")
ASKED = ("questions", 0)
HUGE = 10**400
WRONG = [
    ((*ASKED, "grouping"), "mine", "'grouping' must be an object"),
    ((*ASKED, "grouping", "members"), "+-<b>", "'members' must be one of"),
    ((*ASKED, "grouping", "readings"), "sha256:12", "'readings' must be \"sha256:\" and 64"),
    ((*ASKED, "grouping", "readings"), 7, "'readings' must be a text"),
    ((*ASKED, "units"), "none", "'units' must be an object|expected a JSON object"),
    ((*ASKED, "units", "positive", "names", 0), 5, "'names' must be a list of texts"),
    ((*ASKED, "units", "positive", "tokens"), [1], "'tokens' has 1 entries"),
    ((*ASKED, "units", "positive", "tokens", 0), -1, "whole numbers from 0"),
    ((*ASKED, "units", "positive", "scores"), [0.5], "'scores' has 1 entries"),
    ((*ASKED, "units"), None, "does not say of which units"),
    ((*ASKED, "positions"), None, "does not say of which units"),
    ((*ASKED, "positions", "edges"), [0], "'edges' must increase"),
    ((*ASKED, "positions", "edges", 0), 10**9, "'edges' must increase"),
    ((*ASKED, "positions", "edges", 0), 0.5, "whole numbers from 0"),
    ((*ASKED, "positions", "negative", "units"), [], "'units' has 0 entries"),
    ((*ASKED, "confounds", "lengths", "before", "positive"), [1, 2, 3], "five numbers"),
    ((*ASKED, "confounds", "lengths", "after", "negative"), [5, 4, 3, 2, 1], "five numbers"),
    ((*ASKED, "confounds", "tokens", 0, "positive"), 1.5, "no probability"),
    ((*ASKED, "confounds", "tokens", 0, "token"), 7, "'token' must be a text"),
    ((*ASKED, "confounds", "sorting", 0, "sorter"), "colour", "expected one of"),
    ((*ASKED, "confounds", "sorting", 0, "auc"), 2, "no probability"),
    ((*ASKED, "confounds", "sorting", 0, "ci"), [0.9, 0.1], r"\[low, high\]"),
    ((*ASKED, "confounds", "sorting", 0, "ci"), None, "'ci' is missing"),
    ((*ASKED, "confounds", "topics"), [{"word": "x", "z": "much", "positive": 1, "negative": 0}], "'z' must be"),
    ((*ASKED, "examples", 0, "spans"), [[0, 10**9]], "lies outside"),
    ((*ASKED, "examples", 0, "spans"), [[2, 1]], "lies outside"),
    ((*ASKED, "examples", 0, "weights"), {"L1.E1": [0.5]}, "expected a JSON object"),
    ((*ASKED, "examples", 0, "weights"), {"L1.E1": {"at": [0], "weight": []}}, "1 tokens, but 0 weights"),
    ((*ASKED, "examples", 0, "weights"), {"L1.E1": {"at": [1, 0], "weight": [1, 1]}}, "increasing order"),
    ((*ASKED, "examples", 0, "weights"), {"L1.E1": {"at": [True], "weight": [1]}}, "numbers of tokens"),
    ((*ASKED, "examples", 0, "weights"), {"L1.E1": {"at": [0], "weight": [HUGE]}}, "beyond 1e.100"),
    ((*ASKED, "examples", 0, "weights"), {"E1": {"at": [], "weight": []}}, "names no expert"),
    ((*ROW, "rates", "positive", 0), 1.5, "shares from 0 to 1"),
    ((*ROW, "rates", "positive", 0), None, "shares from 0 to 1"),
    ((*ROW, "rates", "negative"), [0.5], "'negative rates' has 1 entries"),
    ((*ROW, "timeline", "positive", "rate"), [0.5], "has .* entries, expected 1"),
    ((*ROW, "timeline", "positive", "low", 0), 1.0, "does not hold its rate"),
    ((*ROW, "timeline", "positive", "high", 0), None, "does not hold its rate"),
    ((*ROW, "timeline"), 3, "'timeline' must be an object"),
    ((*ROW, "windows", 0, "matched_by"), "magic", "expected one of"),
    ((*ROW, "windows", 0, "window", "centre"), 99, "'centre' must be"),
    ((*ROW, "windows", 0, "window", "tokens"), [], "lies outside|must hold a token|numbers of the 0"),
    ((*ROW, "windows", 0, "window", "gate", "at"), [0, 0], "tokens, but|increasing order"),
    ((*ROW, "windows", 0, "window", "group"), "third", "expected one of"),
    (("rows", "first", "evidence"), "much", "expected a JSON object"),
    (("rows", "first", "rate_difference_ci"), [-1e308, 1e308], "beyond 1e.100"),
    (("rows", "first", "rate_difference_ci"), [-1e99, 0.5], "rate_difference_ci is -1e.99, beyond"),
    (("rows", "first", "entry"), 1e13, "entry is 1e.13, beyond"),
    (("rows", "first", "S1"), 1.5, "no probability"),
    (("rows", "first", "dS"), -1.5, "dS is -1.5, beyond 1"),
    (("rows", "first", "t"), None, "t and p stand there together"),
    ((*ASKED, "units", "positive", "names", 0), "another", "must have the same names"),
    ((*ASKED, "grouping"), -7, "'grouping' must be an object"),
    (("trace", "provenance", "decoding"), -7, "'decoding' must be an object"),
]


def first_row(document: dict[str, Any]) -> int:
    return next(index for index, row in enumerate(document["rows"]) if row["evidence"] and row["evidence"]["windows"])


@pytest.mark.parametrize(("path", "value", "said"), WRONG)
def test_wrong_evidence_is_refused(document: dict[str, Any], tmp_path: Path, path: Any, value: Any, said: str) -> None:
    changed = copy.deepcopy(document)
    path = tuple(first_row(changed) if key == "first" else key for key in path)
    place(changed, path[:-1])[path[-1]] = value
    with pytest.raises(MoeprobeError, match=said):
        load(changed, tmp_path)


def test_the_file_is_fine_as_it_is(document: dict[str, Any], tmp_path: Path) -> None:
    assert load(document, tmp_path).to_json()["rows"] == document["rows"]


def test_scores_without_scores_are_refused(document: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(document)
    changed["questions"][0]["design"].update(kind="scores", pairs=None)
    with pytest.raises(FindingsError, match="the design is of scores, but there are none"):
        load(changed, tmp_path)
    changed["questions"][0]["units"]["positive"]["scores"] = [
        0.5 for _ in changed["questions"][0]["units"]["positive"]["names"]
    ]
    with pytest.raises(FindingsError, match="one side has none"):
        load(changed, tmp_path)


def test_scores_of_no_size_are_refused(document: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(document)
    for side in ("positive", "negative"):
        units = changed["questions"][0]["units"][side]
        units["scores"] = [1e13] * len(units["names"])
    with pytest.raises(FindingsError, match="a score is 1e.13, beyond"):
        load(changed, tmp_path)


def test_what_is_nested_without_end_is_refused(document: dict[str, Any], tmp_path: Path) -> None:
    changed, deep = copy.deepcopy(document), {}
    for _ in range(100):
        deep = {"x": deep}
    changed["trace"]["provenance"]["decoding"] = deep
    with pytest.raises(FindingsError, match="nested deeper than 64"):
        load(changed, tmp_path)


@pytest.mark.parametrize("key", ["units", "positions", "confounds"])
def test_missing_parts_are_named(document: dict[str, Any], tmp_path: Path, key: str) -> None:
    changed = copy.deepcopy(document)
    del changed["questions"][0][key]
    with pytest.raises(FindingsError, match=f"'{key}' is missing"):
        load(changed, tmp_path)


def test_rates_that_contradict_the_row_are_refused(document: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(document)
    rates = changed["rows"][first_row(changed)]["evidence"]["rates"]["positive"]
    rates[:] = [1 - rate for rate in rates]
    with pytest.raises(FindingsError, match="but the row says"):
        load(changed, tmp_path)


def test_nan_is_refused(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "findings.json"
    changed = copy.deepcopy(document)
    changed["rows"][first_row(changed)]["evidence"]["rates"]["positive"][0] = float("nan")
    path.write_text(json.dumps(changed))
    with pytest.raises(FindingsError, match="NaN"):
        load_findings(path)


def test_sparse_weights_by_token() -> None:
    assert dense({"at": [1, 3], "weight": [0.5, 0.25]}, 5) == [None, 0.5, None, 0.25, None]


def test_a_line_a_row(compiled_trace: Trace, tmp_path: Path) -> None:
    findings = findings_of(compiled_trace, [correlate(compiled_trace, by="label", positive="triggered")])
    findings.write(tmp_path / "findings.json")
    text = (tmp_path / "findings.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(findings.to_json()))
    assert len([line for line in text.splitlines() if line.startswith('  {"site":')]) == len(findings.rows)
