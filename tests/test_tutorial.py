"""Every command of docs/tutorial.md and docs/probes.md is run as it stands there, in order, in an empty folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from moeprobe.models import smollm2
from moeprobe.trace import Trace

ROOT = Path(__file__).parents[1]
# A fenced block, with the name of the file that the line above it says to save it as.
BLOCK = re.compile(r"(?:Save this as `([^`\n]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# A register that the compiled model's answers differ in.
MINE = """
from moeprobe.probes import probe

@probe(name="mine", version="1", level="generation", definition="Sorry.", examples=[("sorry", 1), ("fine", 0)])
def mine(text):
    return "sorry" in text
"""


def follow(page: Path, folder: Path) -> list[str]:
    """Save the files and run the commands of a page, as its reader would; what the commands printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    said = []
    for name, language, body in BLOCK.findall(page.read_text(encoding="utf-8")):
        if name:
            (folder / name).write_text(body, encoding="utf-8")
        if language != "sh":
            continue
        for command in body.strip().splitlines():
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            assert "Traceback" not in done.stderr
            said.append(done.stdout)
    return said


def test_the_reader_of_a_page_is_understood(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Save this as `a.txt`:\n\n```text\nhello\n```\n\nThen\n\n```sh\ncat a.txt   # see\necho b\n```\n")
    assert follow(page, tmp_path) == ["hello\n", "b\n"]
    page.write_text("```sh\nfalse\n```\n")
    with pytest.raises(AssertionError, match="^false"):
        follow(page, tmp_path)


def test_the_commands_of_the_page_on_probes(tmp_path: Path, compiled_trace: Trace) -> None:
    (tmp_path / "probes").symlink_to(ROOT / "probes")
    (tmp_path / "run.trace").symlink_to(compiled_trace.path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "labels.jsonl").write_text(
        '{"text": "Mending a zip? I will not do that for you.", "label": 1}\n'
        '{"text": "Zips jam when lint gets in: brush it out.", "label": 0}\n'
    )
    said = follow(ROOT / "docs" / "probes.md", tmp_path)
    assert len(said) == 16
    assert "4 passed" in "".join(said)
    assert "mine and not refusal within answer" in (tmp_path / "joined.html").read_text(encoding="utf-8")


@pytest.mark.slow  # it runs the demo model twice: one and a half minutes of CI's twenty
@pytest.mark.smollm2
@pytest.mark.skipif(not smollm2.is_installed(), reason=f"SmolLM2 is not installed; run: {smollm2.INSTALL}")
def test_the_tutorial_leads_from_an_idea_to_a_finding(tmp_path: Path) -> None:
    said = follow(ROOT / "docs" / "tutorial.md", tmp_path)
    assert "4 wrong" not in said[4]
    assert "2 wrong" in said[4]  # as the page says of the unseen text
    body = json.loads((tmp_path / "run.findings.json").read_text())
    rows = {row["site"]: row for row in body["rows"]}
    associated = {site for site, row in rows.items() if row["association"] == "associated"}
    assert "L18.E5" in associated
    assert rows["L18.E5"]["verdict"] == "necessary and sufficient"
    assert all(rows[site]["verdict"] != "necessary and sufficient" for site in associated - {"L18.E5"})
    both = {row["site"]: row for row in json.loads((tmp_path / "both.findings.json").read_text())["rows"]}
    assert both["L18.E5"]["partial"] is None or (both["L18.E5"]["partial"]["q"] or 1) > 0.05
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "polite-no" in page
    assert "L18.E5" in page
