"""The report as an object: in a notebook, and saved."""

import html
import json
import re
from pathlib import Path

import pytest
import report_samples

import moeprobe
from moeprobe.errors import OutputError
from moeprobe.findings import Findings, load_findings
from moeprobe.report import render


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    path = tmp_path / "f.json"
    path.write_text(json.dumps(report_samples.smollm()), encoding="utf-8")
    return load_findings(path)


def test_the_frame_holds_the_page_and_nothing_gets_out_of_it(findings: Findings) -> None:
    shown = moeprobe.Report(findings)._repr_html_()
    (inside,) = re.findall(r'srcdoc="([^"]*)"', shown)
    assert html.unescape(inside) == render([findings.to_json()])
    assert shown.count("<") == 2  # the frame opens and closes, and holds no tag of its own
    assert 'sandbox="allow-scripts"' in shown


@pytest.mark.parametrize(
    ("name", "start"), [("r.html", "<!DOCTYPE"), ("r.md", "# "), ("r.json", "{"), ("r.csv", "model,")]
)
def test_save_takes_the_form_from_the_suffix(findings: Findings, tmp_path: Path, name: str, start: str) -> None:
    report = moeprobe.Report([findings], title="Mine")
    path = report.save(tmp_path / name)
    assert path.read_text(encoding="utf-8").startswith(start)
    with pytest.raises(OutputError, match="exists already"):
        report.save(path)
    with pytest.raises(OutputError, match="says no form"):
        report.save(tmp_path / "r.docx")


def test_without_text_no_word_of_a_generation_is_in_the_page(findings: Findings) -> None:
    words = [token for one in findings.questions[0]["examples"] for token in one["tokens"] if len(token) > 8]
    assert words
    assert any(json.dumps(word)[1:-1] in moeprobe.Report(findings).html for word in words)
    assert not any(f'"{word}"' in moeprobe.Report(findings, text=False).html for word in words)


def test_files_are_taken_as_well(findings: Findings, tmp_path: Path) -> None:
    for given in (tmp_path / "f.json", str(tmp_path / "f.json"), [tmp_path / "f.json"]):
        assert moeprobe.Report(given).html == moeprobe.Report(findings).html
