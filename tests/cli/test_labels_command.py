"""`moeprobe labels`, `correlate --labels`, and every command and program of docs/labels.md, run as they stand there."""

import csv
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from moeprobe.trace import Trace
from tests.cli.conftest import Run

PAGE = (Path(__file__).parents[2] / "docs" / "labels.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, flags=re.DOTALL)


def commands(kind: str = "console") -> list[list[str]]:
    return [shlex.split(line.removeprefix("$ moeprobe ")) for block in blocks(kind) for line in block.splitlines()]


@pytest.fixture
def folder(compiled_trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the page's commands run: the trace, and the files that the page shows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.trace").symlink_to(compiled_trace.path)
    for name, block in zip(("said.jsonl", "marked.jsonl"), blocks("jsonl"), strict=True):
        (tmp_path / name).write_text(block)
    return tmp_path


def fill(sheet: Path, out: Path, say) -> None:
    """What a labeller does."""
    rows = list(csv.DictReader(io.StringIO(sheet.read_text(encoding="utf-8-sig"), newline="")))
    with out.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows({**row, "label": say(row["text"])} for row in rows)


def test_every_command_of_the_page_runs(run: Run, folder: Path) -> None:
    asked = commands()
    assert len(asked) == 9
    printed = {}
    for words in asked:
        if words[:2] == ["labels", "read"]:
            fill(folder / "sheet.csv", folder / "anna.csv", lambda text: "yes" if "sorry" in text else "no")
            fill(folder / "sheet.csv", folder / "ben.csv", lambda text: "" if "river" in text else int("sorry" in text))
        code, out, err = run(*words)
        assert (code, err) == (0, ""), words
        printed[" ".join(words[:2]) + words[-1]] = out
    assert "The page saves labels-by-me.jsonl; rename it" in printed["labels sheetform.html"]
    assert "Then: moeprobe labels read labels-by-me.jsonl --key form.key.json" in printed["labels sheetform.html"]
    assert "Then: moeprobe labels read sheet.csv --key sheet.key.json" in printed["labels sheetsheet.csv"]
    read = printed["labels readlabels.jsonl"]
    assert re.search(r"anna +ben +1\.000", read)
    assert re.search(r"matched negatives +30 +0 +0\.000", read)
    assert "Labels against the weight of L2.E5: AUC 1.000" in read
    sheets = {json.loads((folder / name).read_text())["sheet"] for name in ("sheet.key.json", "form.key.json")}
    assert len(sheets) == 1, "one key fits all three"
    found = json.loads((folder / "sorry.findings.json").read_text())
    assert found["questions"][0]["name"] == "labels:sorry"
    assert found["questions"][0]["grouping"]["labels"] == "labels.jsonl"
    drawn_by = next(row for row in found["rows"] if row["site"] == "L2.E5")
    assert drawn_by["reason"] == "the labelled windows were drawn by this expert"
    assert drawn_by["association"] == "untestable"
    assert "L1.E1" in {row["site"] for row in found["rows"] if row["association"] == "associated"}
    assert found["interchange"][0]["probe"] == "labels:sorry"


def test_the_program_of_the_page_runs(folder: Path) -> None:
    (program,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(program, "labels.md", "exec"), names)  # noqa: S102 - our own page
    question = names["question"]
    assert isinstance(question, dict)
    assert question["name"] == "labels:by-hand"
    assert question["design"]["left_out"]["abstained"] == 1


def test_the_command_with_a_log_of_inspect_ai_runs(run: Run, folder: Path, compiled_trace: Trace) -> None:
    from tests.designs.test_inspect_labels import log_file

    texts = [one.text for one in compiled_trace.generations[:8]]
    where = [{"generation": index} for index in range(8)]
    log_file(folder / "graded.json", values=["C", "I"] * 4, metadata=where, texts=texts)
    (words,) = commands("inspect")
    code, _, err = run(*words)
    assert (code, err) == (0, "")
    assert json.loads((folder / "graded.findings.json").read_text())["questions"][0]["name"] == "labels:graded"


def test_json_is_all_that_is_printed(run: Run, folder: Path) -> None:
    code, out, err = run("labels", "sheet", "run.trace", "--by", "L2.E5", "--question", "Sorry?", "-n", 20,
                         "--window", 4, "-o", "s.csv", "--json")  # fmt: skip
    assert (code, err) == (0, "")
    assert json.loads(out)["windows"] == 20
    fill(folder / "s.csv", folder / "anna.csv", lambda text: int("sorry" in text))
    code, out, err = run("labels", "read", "anna.csv", "--key", "s.key.json", "--draws", 50, "--json")
    assert (code, err) == (0, "")
    body = json.loads(out)
    assert body["labellers"] == [{"name": "anna", "labelled": 20, "positive": 10}]
    assert body["association"]["auc"]["value"] == 1.0
    assert next(one["decile"] for one in body["deciles"]) == 0


def test_what_exists_is_not_written_over(run: Run, folder: Path) -> None:
    words = ("labels", "sheet", "run.trace", "--by", "L2.E5", "--question", "Sorry?", "--window", 4, "-o", "s.csv")
    (folder / "s.key.json").write_text("precious")
    code, _, err = run(*words)
    assert code == 1
    assert "s.key.json exists already" in err
    assert not (folder / "s.csv").exists()
    assert run(*words, "--force")[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("--labels", "said.jsonl", "--by", "label"), 2, "Give one of --probe NAME"),
        (("--name", "x", "--by", "label"), 2, "--scorer and --name go with --labels FILE"),
        ((), 2, "Give one of --probe NAME"),
        (("--labels", "nothing.jsonl"), 1, "Could not read nothing.jsonl"),
        (("--labels", "said.jsonl", "--scorer", "me"), 1, "so it has no scorer"),
        (("--labels", "said.jsonl", "--name", "L2.E5"), 1, "cannot be called 'L2.E5'"),
        (("--labels", "bad.jsonl"), 1, "bad.jsonl:1: no prompt of this trace has the id 'x'"),
    ],
)
def test_wrong_usage_of_correlate(run: Run, folder: Path, words: tuple[str, ...], code: int, complaint: str) -> None:
    (folder / "bad.jsonl").write_text('{"prompt_id": "x", "label": 1}\n{"prompt_id": "y", "label": 0}\n')
    status, out, err = run("correlate", "run.trace", *words, "-o", "f.json")
    assert (status, out) == (code, "")
    assert complaint in err
    assert "Traceback" not in err


def test_interchange_wants_the_labels_that_were_asked_with(run: Run, folder: Path) -> None:
    assert run("correlate", "run.trace", "--labels", "said.jsonl", "--draws", 0, "-o", "f.json")[0] == 0
    code, _, err = run("interchange", "f.json", "--site", "L2.E5")
    assert code == 1
    assert "asked with imported labels (said.jsonl). Give the file again: --labels FILE" in err
    (folder / "said.jsonl").write_text(blocks("jsonl")[0].replace('"label": 1', '"label": true', 1))
    code, _, err = run("interchange", "f.json", "--site", "L2.E5", "--labels", "said.jsonl")
    assert code == 1
    assert "said.jsonl is not what the question was asked with" in err
    code, _, err = run("interchange", "f.json", "--labels", "said.jsonl", "--pairs", "p.jsonl", "--site", "L2.E5")
    assert code == 2
    assert "--labels FILE goes with a findings file" in err


def test_hostile_text_reaches_no_terminal(run: Run, folder: Path) -> None:
    (folder / "bad.jsonl").write_text(json.dumps({"text": "\x1b[31m\u202eboo", "label": 1}) + "\n")
    code, _, err = run("correlate", "run.trace", "--labels", "bad.jsonl", "-o", "f.json")
    assert code == 1
    assert "\x1b" not in err
    assert "\u202e" not in err
