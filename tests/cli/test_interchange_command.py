"""`moeprobe interchange` as a user meets it: verdicts, mistakes, interruptions."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from moeprobe.cli.interchange.source import asked_question, judge_of
from moeprobe.findings import load_findings
from moeprobe.interchange.journal import Journal
from moeprobe.prompts import read_prompts
from moeprobe.trace import Trace
from tests.cli.conftest import Run

PROMPTS = str(Path(__file__).parents[2] / "moeprobe" / "demo" / "prompts" / "compiled.jsonl")
QUICK = ("--bootstrap", 100, "--null", 2)


def test_pairs_from_a_file(run: Run, findings: Path, tmp_path: Path) -> None:
    out_path = tmp_path / "g.json"
    code, out, err = run(
        "interchange", findings, "-m", "compiled", "--pairs", PROMPTS, "--positive", "triggered", "--site", "L2.E5",
        "--bootstrap", 100, "-o", out_path, "--json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads(out_path.read_text())
    assert json.loads(findings.read_text())["interchange"] == []  # the original is untouched
    code, _, err = run("interchange", findings, "--pairs", PROMPTS, "--site", "L2.E5")
    assert (code, "--positive" in err) == (2, True)


def test_findings_of_another_trace(run: Run, findings: Path, tmp_path: Path) -> None:
    other = tmp_path / "o.trace"
    run("trace", PROMPTS, "-m", "compiled", "-o", other, "--limit", 4, "--max-new-tokens", 4)
    code, _, err = run("interchange", findings, "--trace", other)
    assert (code, "not the trace these findings were made from" in err) == (1, True)


def test_a_probe_file_runs_only_when_named(run: Run, compiled_trace: Trace, sorry: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.json"
    assert run("correlate", compiled_trace.path, "--probe", sorry, "-o", out)[0] == 0
    code, _, err = run("interchange", out, "--site", "L2.E5", *QUICK)
    assert (code, "--probe PATH" in err) == (1, True)
    code, text, err = run("interchange", out, "--probe", sorry, "--site", "L2.E5", *QUICK)
    assert (code, err) == (0, "")
    assert "necessary and sufficient" in text


def test_a_built_in_probe_needs_no_second_naming(own_findings: Path) -> None:
    """`correlate --probe refusal`, then `interchange FINDINGS`, as in the README."""
    document = load_findings(own_findings)
    document.questions[0] |= {"name": "refusal", "kind": "probe"}
    question = asked_question(document, None)
    assert (question["name"], getattr(judge_of(question, None), "name", None)) == ("refusal", "refusal")


def test_verdicts_belong_to_the_model_of_the_findings(run: Run, own_findings: Path) -> None:
    for other in ("compiled:mixtral", "compiled:qwen3_moe:strict"):
        code, _, err = run("interchange", own_findings, "-m", other, "--site", "L2.E5", *QUICK)
        assert (code, "not the model these findings were made with" in err) == (1, True)
    assert json.loads(own_findings.read_text())["interchange"] == []


def test_former_verdicts_are_not_dropped_unasked(run: Run, own_findings: Path) -> None:
    assert run("interchange", own_findings, "--site", "L2.E5", *QUICK)[0] == 0
    code, _, err = run("interchange", own_findings, "--site", "L1.E1", *QUICK)
    assert (code, "already (tested: L2.E5)" in err) == (1, True)
    assert run("interchange", own_findings, "--site", "L1.E1", *QUICK, "--force")[0] == 0


def test_an_altered_trace_gives_no_verdict(run: Run, own_findings: Path, compiled_trace: Trace, tmp_path: Path) -> None:
    copy = tmp_path / "copy.trace"
    shutil.copytree(compiled_trace.path, copy)
    text = (copy / "generations.jsonl").read_text()
    swapped = text.replace('"triggered"', '"X"').replace('"plain"', '"triggered"').replace('"X"', '"plain"')
    (copy / "generations.jsonl").write_text(swapped)
    code, _, err = run("interchange", own_findings, "--trace", copy, "--site", "L2.E5", *QUICK)
    assert (code, "altered" in err) == (1, True)
    code, _, err = run("info", copy, "--verify")
    assert (code, "altered" in err) == (1, True)


def test_pairs_of_a_file_are_recorded(run: Run, own_findings: Path) -> None:
    code, _, _ = run("interchange", own_findings, "--pairs", PROMPTS, "--positive", "plain", "--site", "L2.E5", *QUICK)
    assert code == 0
    body = json.loads(own_findings.read_text())["interchange"][0]
    assert body["pairs_from"]["kind"] == "file"
    assert body["pairs_from"]["digest"].startswith("sha256:")
    assert body["positive"] == "label = plain"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--site", "L9.E1"], 1, "has no layer L9: it has L0-L3"),
        (["--site", "L2.H9"], 1, "the last of that layer is L2.H3"),
        (["--site", "E5"], 1, "names no layer"),
        (["--site", "L2.shared"], 1, "L2.shared"),
        (["--positive", "x"], 2, "--positive LABEL goes with --pairs FILE"),
        (["--pairs", PROMPTS, "--positive", "x", "--trace", "y"], 2, "not from both"),
        (["--pairs", "none.jsonl", "--positive", "x"], 1, "Could not read none.jsonl"),
        (["--pairs", PROMPTS, "--positive", "x"], 1, "None of the 30 pairs"),
        (["--probe", "label:other"], 1, "label:other"),
        (["--metric", "loss"], 2, "'loss' is not one of"),
        (["--metric", "logit-difference", "--toward", "tell"], 2, "needs --toward WORD and --away WORD"),
        (["--metric", "logit-difference", "--toward", "xyzzy", "--away", "tell"], 1, "'xyzzy' of the positive set"),
        (["--metric", "refusal-log-odds", "--tokens", 3], 2, "option of --metric control-nll"),
        (["--metric", "continuation-log-prob"], 1, "bring no continuation"),
        (["--align", "equal"], 1, "needs prompts of the same length within each pair; 15 of 30"),
        (["--align", "span"], 1, "needs a span in both prompts"),
        (["--span", "the"], 2, "--span TEXT goes with --align span"),
        (["--positions", "few"], 2, "--positions is all, last, or a number"),
        (["--neutral", "none.jsonl"], 1, "Could not read none.jsonl"),
        (["--confirm", 0], 2, "--confirm"),
        (["--swap", "everything"], 2, "'everything' is not one of"),
    ],
)
def test_interchange_mistakes(run: Run, own_findings: Path, arguments: list[object], code: int, said: str) -> None:
    before = own_findings.read_text()
    got, _, err = run("interchange", own_findings, *arguments)
    assert (got, "Traceback" in err) == (code, False)
    assert said in err
    assert own_findings.read_text() == before


PAIRS = ("test", "-m", "compiled", "--positive", "triggered", *QUICK)


def pair_file(path: Path, pairs: int, *, same: bool = False) -> Path:
    """The first so many pairs of the demo's prompts; `same`: all their triggered prompts are one and the same."""
    prompts = read_prompts(Path(PROMPTS))[: 2 * pairs]
    text = next(prompt.prompt for prompt in prompts if prompt.label == "triggered")
    lines = [
        {"id": one.id, "pair": one.pair, "label": one.label,
         "prompt": text if same and one.label == "triggered" else one.prompt}
        for one in prompts
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_interchange_is_interchange_test(run: Run, own_findings: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    assert run("interchange", own_findings, "--site", "L2.E5", *QUICK, "-o", one)[0] == 0
    assert run("interchange", "test", own_findings, "--site", "L2.E5", *QUICK, "-o", two)[0] == 0
    found, again = (json.loads(path.read_text()) for path in (one, two))
    assert found["interchange"] == again["interchange"]
    assert found["rows"] == again["rows"]


def test_json_without_findings_leaves_no_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("interchange", *PAIRS, "--pairs", PROMPTS, "--site", "L2.E5", "--site", "L2.moe", "--json")
    assert (code, err) == (0, "")
    sites = json.loads(out)["sites"]
    assert sites["L2.E5"]["necessary"]
    assert sites["L2.moe"]["null"]["asked"] is False
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--pairs", PROMPTS, "--json"], 2, "name what to test"),
        (["--pairs", PROMPTS, "--site", "L2.E5"], 2, "-o OUT.json, or --json"),
        (["--site", "L2.E5", "--json"], 2, "--model MODEL with --pairs FILE"),
        (["--pairs", PROMPTS, "--site", "L2.E5", "--probe", "refusal", "--json"], 2, "go with a findings file"),
        (["--pairs", "one.jsonl", "--site", "L2.E5", "--json"], 1, "at least 2 pairs for an interval, and 1"),
        (["--pairs", "same.jsonl", "--site", "L2.E5", "--json"], 1, "Donors of the recipient's own class are missing"),
        (["--pairs", "four.jsonl", "--site", "L2.E5", "--confirm", 1, "--json"], 1, "4 pairs cannot be split"),
        (["--pairs", "four.jsonl", "--site", "L2.E5", "-o", "four.jsonl", "--force"], 1, "being read"),
        (["--pairs", PROMPTS, "--site", "L2.E5", "-o", "there.json"], 1, "there.json exists already"),
        (["--pairs", PROMPTS, "--site", "L2.E5", "-o", "no/such/x.json"], 1, "There is no folder no/such"),
    ],
)
def test_mistakes_without_findings(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pair_file(tmp_path / "one.jsonl", 1)
    pair_file(tmp_path / "four.jsonl", 4)
    pair_file(tmp_path / "same.jsonl", 4, same=True)
    (tmp_path / "there.json").write_text("mine")
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    got, out, err = run("interchange", *PAIRS, *arguments)
    assert (got, out, "Traceback" in err) == (code, "", False)
    assert said in err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_few_pairs_get_effects_and_no_verdict(run: Run, tmp_path: Path) -> None:
    pairs, out_path = pair_file(tmp_path / "four.jsonl", 4), tmp_path / "o.json"
    code, out, _ = run("interchange", *PAIRS, "--pairs", pairs, "--site", "L2.E5", "-o", out_path)
    assert code == 0
    assert "too few pairs for a verdict" in out
    effects = json.loads(out_path.read_text())["sites"]["L2.E5"]
    assert effects["necessity"]["percent"] == pytest.approx(100, abs=0.1)
    assert not effects["necessary"]


def test_an_expert_nobody_chose_does_exactly_nothing(run: Run, own_findings: Path) -> None:
    code, out, _ = run("interchange", own_findings, "--site", "L0.E0", *QUICK)
    assert code == 0
    assert "nothing changed at all" in out
    row = next(row for row in json.loads(own_findings.read_text())["rows"] if row["site"] == "L0.E0")
    assert row["interchange"]["exactly_zero"]
    assert row["verdict"] == "neither"


SLOWLY = ("--batch-size", 5, *QUICK)


@pytest.fixture
def interrupted(run: Run, own_findings: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The journal of a run that was interrupted after three batches of five pairs."""
    keep, calls = Journal.keep, [0]

    def interrupt(self: Journal, measured: Any) -> None:
        keep(self, measured)
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "keep", interrupt)
        before = own_findings.read_text()
        code, _, err = run("interchange", own_findings, "--site", "L2.E5", *SLOWLY)
    assert (code, "Interrupted" in err, "Traceback" in err) == (1, True, False)
    assert own_findings.read_text() == before
    return own_findings.with_name("f.json.partial.jsonl")


def test_an_interrupted_run_goes_on(
    run: Run, own_findings: Path, interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(interrupted.read_text().splitlines()) == 1 + 15
    whole = tmp_path / "whole.json"
    assert run("interchange", own_findings, "--site", "L2.E5", *SLOWLY, "-o", whole)[0] == 0
    code, _, err = run("interchange", own_findings, "--site", "L2.E5", *SLOWLY)
    assert (code, "Add --resume" in err) == (1, True)
    keep, again = Journal.keep, []

    def counted(self: Journal, measured: Any) -> None:
        again.extend(one.pair for one in measured)
        keep(self, measured)

    monkeypatch.setattr(Journal, "keep", counted)
    assert run("interchange", own_findings, "--site", "L2.E5", *SLOWLY, "--resume")[0] == 0
    assert len(again) == 15
    assert not interrupted.exists()
    found, other = json.loads(own_findings.read_text()), json.loads(whole.read_text())
    assert found["interchange"] == other["interchange"]
    assert found["rows"] == other["rows"]


@pytest.mark.parametrize("changed", [("--site", "L1.E1"), ("--tokens", 3), ("--align", "tokens"), ("--seed", 1)])
def test_another_question_does_not_go_on(
    run: Run, own_findings: Path, interrupted: Path, changed: tuple[object, ...]
) -> None:
    before = interrupted.read_text()
    code, _, err = run("interchange", own_findings, "--site", "L2.E5", *SLOWLY, "--resume", *changed)
    assert (code, "is of another experiment" in err) == (1, True)
    assert interrupted.read_text() == before


def test_a_journal_that_is_none_is_refused(run: Run, own_findings: Path, interrupted: Path) -> None:
    interrupted.write_text("my notes\n")
    code, _, err = run("interchange", own_findings, "--site", "L2.E5", *SLOWLY, "--resume")
    assert (code, "is no journal" in err) == (1, True)
    assert interrupted.read_text() == "my notes\n"
