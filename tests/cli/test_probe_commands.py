"""`moeprobe probes list, show, new`, and probes with parameters or made of others from `correlate` to `interchange`."""

import json
import sys
from pathlib import Path

import pytest

from moeprobe.cli.interchange.source import judge_of
from moeprobe.errors import MoeprobeError
from moeprobe.trace import Trace
from tests.cli.conftest import Run

QUICK = ("--tokens", 2, "--bootstrap", 200, "--null", 2)
WORDS = """
from moeprobe.probes import probe

@probe(name="sorry", version="1", level="token", definition="Says sorry.", outputs=(),
       examples=[("sorry sorry", 1), ("fine", 0)])
def sorry(text, *, least: int = 2):
    return [(0, 5)] if text.count("sorry") >= least else []
"""


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "sorry words.py"
    path.write_text(WORDS)
    return path


def test_parameters_go_with_the_findings(run: Run, compiled_trace: Trace, words: Path, tmp_path: Path) -> None:
    out, spec = tmp_path / "f.json", f"'{words}'(least=3)"
    code, text, err = run("correlate", compiled_trace.path, "--probe", spec, "-o", out, "--draws", 0)
    assert (code, err) == (0, "")
    question = json.loads(out.read_text())["questions"][0]
    assert (question["name"], question["parameters"]) == ("sorry", {"least": 3})
    assert "(least=3)" in text.splitlines()[-1]
    # the file alone is enough: the parameters are those that were asked with
    code, text, err = run("interchange", out, "--probe", words, "--site", "L2.E5", *QUICK)
    assert (code, err) == (0, "")
    code, _, err = run("interchange", out, "--probe", f"'{words}'(least=4)", "--site", "L2.E5", *QUICK, "--force")
    assert (code, "least was 3 and is 4" in err) == (1, True)


def test_a_combination_of_names_is_found_again_by_its_name() -> None:
    spec = "not (refusal or first-person-self-examination)"
    question = {"name": spec, "kind": "probe", "version": "x", "parameters": {}}
    judge = judge_of(question, None)
    assert judge is not None
    assert judge.name == spec


def test_a_combination_with_a_file_needs_the_file(run: Run, compiled_trace: Trace, words: Path, tmp_path: Path) -> None:
    out, spec = tmp_path / "f.json", f"'{words}' and not first-person-self-examination"
    code, _, err = run("correlate", compiled_trace.path, "--probe", spec, "-o", out, "--draws", 0)
    assert (code, err) == (0, "")
    question = json.loads(out.read_text())["questions"][0]
    assert question["name"] == "sorry and not first-person-self-examination"
    assert question["quality"] is None
    assert question["parameters"] == {"sorry.least": 2}
    with pytest.raises(MoeprobeError, match="--probe PATH"):
        judge_of(question, None)
    code, _, err = run("interchange", out, "--probe", spec, "--site", "L2.E5", *QUICK)
    assert (code, err) == (0, "")


def test_new_list_show(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, text, err = run("probes", "new", "my-own", "--level", "token", "--kind", "function")
    assert (code, err) == (0, "")
    assert "Next: moeprobe probes check my_own.py" in text
    assert run("probes", "check", "my_own.py")[0] == 0
    code, text, _ = run("probes", "show", "my_own.py(least=2)")
    assert (code, "Parameters: least=2" in text) == (0, True)
    shown = json.loads(run("probes", "show", "my_own.py", "--json")[1])
    assert (shown["parameters"], shown["outputs"], shown["held_out"]) == ({"least": 1}, [], [])
    code, text, _ = run("probes", "show", "not refusal")
    assert (code, "No examples of its own, so its quality is not measured." in text) == (0, True)
    code, _, err = run("probes", "new", "my-own")
    assert (code, "my_own.py exists already" in err) == (1, True)
    assert run("probes", "new", "x", "--level", "word")[0] == 2


def test_the_list_runs_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tuned.py").write_text(
        WORDS.replace("sorry", "tuned").replace("outputs=()", "outputs=('mild',)")
        + "raise SystemExit('a list ran me')\n"
    )
    (tmp_path / "tuned.heldout.jsonl").write_text('{"text": "a", "label": 1}\n\n{"text": "b", "label": 0}\n')
    info = tmp_path / "tunedpack-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tunedpack\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[moeprobe.probes]\ntuned = tuned\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    code, text, err = run("probes", "list")
    assert (code, err) == (0, "")
    line = next(line for line in text.splitlines() if line.startswith("tuned "))
    assert line.split()[:7] == ["tuned", "1", "token", "2", "mild", "least=2", "package"]
    listed = {one["name"]: one for one in json.loads(run("probes", "list", "--json")[1])}
    assert (listed["tuned"]["outputs"], listed["tuned"]["held_out"]) == (["mild"], 2)
    assert "tuned" not in sys.modules


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("refusal and", "the text ends"),
        ("refusl or refusal", "Did you mean 'refusal'"),
        ("refusal.mildd", "has no output 'mildd'"),
        ("refusal(x=1)", "x"),
    ],
)
def test_a_wrong_spec_is_one_line(run: Run, spec: str, complaint: str) -> None:
    code, out, err = run("probes", "show", spec)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert complaint in err
