"""The command line as a user meets it: outputs, exit codes, one-line errors, nothing half-written."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from moeprobe.cli.main import cli
from moeprobe.cli.terminal import printable, table
from moeprobe.trace import Trace, load_trace
from tests.cli.conftest import Run

PROMPTS = str(Path(__file__).parents[2] / "moeprobe" / "demo" / "prompts" / "compiled.jsonl")


@pytest.fixture(scope="module")
def findings(compiled_trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from moeprobe.correlate import correlate
    from moeprobe.correlate.document import findings_of

    path = tmp_path_factory.mktemp("findings") / "f.json"
    answer = correlate(compiled_trace, by="label", positive="triggered")
    findings_of(compiled_trace, [answer], beside=path).write(path)
    return path


def test_every_command_has_help(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for name in cli.commands:
        assert f"  {name}" in out
        code, text, _ = run(name, "--help")
        assert code == 0
        assert len(text) > 200


def test_module_entry() -> None:
    done = subprocess.run([sys.executable, "-m", "moeprobe", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("moeprobe 0.")


def test_all_four_verbs(run: Run, tmp_path: Path) -> None:
    trace, findings, page = tmp_path / "run.trace", tmp_path / "run.findings.json", tmp_path / "report.html"
    code, out, err = run("trace", PROMPTS, "-m", "compiled", "-o", trace, "--sample", "--max-new-tokens", 20)
    assert code == 0
    # Beside the result, only how large the trace may become.
    assert re.fullmatch(r"\S*run\.trace: about \d+ bytes per token, .*: up to [\d.]+ MB\.", err.strip())
    assert "60 generations" in out
    code, out, _ = run("correlate", trace, "--by", "label", "--positive", "triggered")
    assert code == 0
    assert "L2.E5" in out
    assert findings.exists()
    code, out, _ = run("interchange", findings, "--top", 12, "--bootstrap", 200)
    assert code == 0
    assert "necessary and sufficient" in out
    assert "end of" not in out or "Rule:" in out
    verdicts = {row["site"]: row["verdict"] for row in json.loads(findings.read_text())["rows"]}
    assert verdicts["L2.E5"] == "necessary and sufficient"
    assert verdicts["L1.E1"] == "association only"
    code, out, _ = run("report", findings, "-o", page)
    assert code == 0
    assert "L2.E5" in page.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"run.trace", "run.findings.json", "report.html"}
    code, _, err = run("report", findings, "-o", page)
    assert (code, "--force" in err) == (1, True)


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


def test_info(run: Run, compiled_trace: Trace) -> None:
    code, out, _ = run("info", compiled_trace.path, "--verify")
    assert code == 0
    for part in ("complete", "checksums match", "qwen3_moe", "L3", "triggered 30"):
        assert part in out
    code, out, _ = run("info", compiled_trace.path, "--json")
    body = json.loads(out)
    assert (body["generations"], body["layers"][0]["k"], body["stops"]) == (60, 2, {"length": 60})


def test_json_goes_to_stdout_and_no_file_is_written(run: Run, compiled_trace: Trace, tmp_path: Path) -> None:
    before = sorted(path.name for path in compiled_trace.path.parent.iterdir())
    code, out, _ = run(
        "correlate", compiled_trace.path, "--by", "label", "--positive", "triggered", "--json", "--no-text"
    )
    assert code == 0
    body = json.loads(out)
    assert body["schema"] == "moeprobe.findings/4"
    assert body["questions"][0]["examples"] == []
    assert sorted(path.name for path in compiled_trace.path.parent.iterdir()) == before


def test_probes(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("probes", "list", "--json")
    assert code == 0
    assert {"refusal", "first-person-self-examination"} <= {one["name"] for one in json.loads(out)}
    code, out, _ = run("probes", "list")
    assert "refusal" in out
    code, out, _ = run("probes", "show", "refusal")
    assert (code, "labelled examples" in out) == (0, True)
    assert json.loads(run("probes", "show", "refusal", "--json")[1])["examples"]
    code, out, _ = run("probes", "check", "refusal")
    assert (code, "balanced accuracy" in out) == (0, True)
    labels = tmp_path / "l.jsonl"
    labels.write_text('{"text": "I cannot help with that.", "label": 1}\n{"text": "Boil the eggs.", "label": 0}\n')
    body = json.loads(run("probes", "check", "refusal", "--labels", labels, "--json")[1])
    assert body["balanced_accuracy"]["value"] == 1.0
    labels.write_text('{"text": "x"}\n')
    code, _, err = run("probes", "check", "refusal", "--labels", labels)
    assert (code, "l.jsonl" in err) == (1, True)
    code, _, err = run("probes", "show", "refusl")
    assert (code, "refusal" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["trace", PROMPTS, "-o", "x"], 2, "--model"),
        (["trace", "none.jsonl", "-m", "compiled", "-o", "x"], 1, "Could not read none.jsonl"),
        (["trace", PROMPTS, "-m", "compiled:bert", "-o", "x"], 1, "compiled:FAMILY"),
        (["trace", PROMPTS, "-m", "./nowhere", "-o", "x"], 1, "no folder ./nowhere"),
        (["trace", PROMPTS, "-m", "nobody/no-such-model", "-o", "x"], 1, "Could not load"),
        (["trace", PROMPTS, "-m", "compiled", "-o", "x", "--samples", 3], 1, "--sample"),
        (["trace", PROMPTS, "-m", "compiled", "-o", "no/such/folder/x"], 1, "There is no folder no/such/folder"),
        (["trace", PROMPTS, "-m", "compiled", "-o", "x", "--dtype", "int3"], 2, "int3"),
        (["info", "nowhere"], 1, "is no trace"),
        (["correlate", "nowhere", "--by", "label"], 1, "is no trace"),
        (["correlate", "nowhere"], 2, "--probe"),
        (["correlate", "nowhere", "--by", "label", "--probe", "refusal"], 2, "either"),
        (["interchange", "nowhere.json"], 1, "Could not read nowhere.json"),
        (["report", "nowhere.json", "-o", "x"], 1, "Could not read nowhere.json"),
        (["report", "-o", "x"], 2, "FINDINGS"),
        (["tracee"], 2, "tracee"),
        (["demo", "--model", "gpt"], 2, "gpt"),
    ],
)
def test_mistakes_are_one_clear_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    got, out, err = run(*arguments)
    assert (got, out) == (code, "")
    assert said in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_dense_model_is_refused(run: Run, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from moeprobe.models.compiled import build

    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=200
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "dense")
    build()[1].save_pretrained(tmp_path / "dense")
    code, _, err = run("trace", PROMPTS, "-m", tmp_path / "dense", "-o", tmp_path / "x.trace")
    assert (code, "not a mixture-of-experts" in err) == (1, True)
    assert not (tmp_path / "x.trace").exists()


def test_ctrl_c_in_mid_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moeprobe.engines.session import Session

    calls: list[int] = []
    original = Session.generate

    def interrupt(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "generate", interrupt)
    path = tmp_path / "a.trace"
    code, _, err = run("trace", PROMPTS, "-m", "compiled", "-o", path, "--batch-size", 4, "--max-new-tokens", 4)
    assert code == 1
    assert "Interrupted" in err
    assert "Traceback" not in err
    assert not path.exists()
    assert len(load_trace(tmp_path / "a.trace.partial", incomplete=True).generations) == 8


def test_existing_outputs_are_kept(run: Run, compiled_trace: Trace, findings: Path) -> None:
    code, _, err = run("trace", PROMPTS, "-m", "compiled", "-o", compiled_trace.path)
    assert (code, "--force" in err) == (1, True)
    code, _, err = run("correlate", compiled_trace.path, "--by", "label", "--positive", "triggered", "-o", findings)
    assert (code, "--force" in err) == (1, True)


def test_findings_of_another_trace(run: Run, findings: Path, tmp_path: Path) -> None:
    other = tmp_path / "o.trace"
    run("trace", PROMPTS, "-m", "compiled", "-o", other, "--limit", 4, "--max-new-tokens", 4)
    code, _, err = run("interchange", findings, "--trace", other)
    assert (code, "not the trace these findings were made from" in err) == (1, True)


def test_terminal_escapes_are_shown_not_sent() -> None:
    assert "\x1b" not in printable("\x1b[31mred\x1b]0;title\x07")
    shown = table(("a", "n"), [("x\u202ey", "1.5"), ("longer", "-")])
    assert "\u202e" not in shown
    assert shown.splitlines()[0] == "a                n" or shown.splitlines()[0].startswith("a")


def test_prompts_from_stdin(tmp_path: Path) -> None:
    arguments = ["trace", "-", "-m", "compiled", "--max-new-tokens", "3", "-o", str(tmp_path / "a.trace")]
    done = subprocess.run(
        [sys.executable, "-m", "moeprobe", *arguments],
        input="question : tell me ? answer :\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert load_trace(tmp_path / "a.trace").manifest.prompts["source"] == "standard input"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_a_real_sigint(tmp_path: Path) -> None:
    path, partial = tmp_path / "a.trace", tmp_path / "a.trace.partial"
    arguments = ["trace", PROMPTS, "-m", "compiled", "-o", path, "--batch-size", 1, "--max-new-tokens", 100, "--sample"]
    process = subprocess.Popen(
        [sys.executable, "-m", "moeprobe", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    index = partial / "shards.jsonl"
    while not (index.exists() and index.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.strip().splitlines()[-1].startswith("Error: Interrupted.")
    assert "Traceback" not in err
    assert not path.exists()
    assert load_trace(partial, incomplete=True).generations


@pytest.fixture
def own_findings(findings: Path, compiled_trace: Trace, tmp_path: Path) -> Path:
    body = json.loads(findings.read_text())
    body["trace"]["path"] = str(compiled_trace.path)
    (tmp_path / "f.json").write_text(json.dumps(body))
    return tmp_path / "f.json"


QUICK = ("--bootstrap", 100, "--null", 2)


SORRY = """
from moeprobe.probes import Example, Reading


class Sorry:
    name = "sorry"
    version = "1"
    level = "generation"
    definition = "Says sorry."

    def examples(self):
        return [Example("sorry", 1), Example("fine", 0)]

    def read(self, passage):
        return Reading(1.0 if "sorry" in passage.text else 0.0)
"""


@pytest.fixture
def sorry(tmp_path: Path) -> Path:
    """A probe of one's own that fits the compiled model's answers."""
    path = tmp_path / "sorry.py"
    path.write_text(SORRY)
    return path


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
    from moeprobe.cli.interchange import _question
    from moeprobe.findings import load_findings

    document = load_findings(own_findings)
    document.questions[0] |= {"name": "refusal", "kind": "probe"}
    question, judge = _question(document, None)
    assert (question["name"], getattr(judge, "name", None)) == ("refusal", "refusal")


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
        (["--site", "L9.E1"], 1, "has no L9.E1"),
        (["--site", "E5"], 1, "names no expert"),
        (["--positive", "x"], 2, "go together"),
        (["--pairs", PROMPTS, "--positive", "x", "--trace", "y"], 2, "not from both"),
        (["--pairs", "none.jsonl", "--positive", "x"], 1, "Could not read none.jsonl"),
        (["--pairs", PROMPTS, "--positive", "x"], 1, "None of the 30 pairs"),
        (["--probe", "label:other"], 1, "label:other"),
    ],
)
def test_interchange_mistakes(run: Run, own_findings: Path, arguments: list[str], code: int, said: str) -> None:
    before = own_findings.read_text()
    got, _, err = run("interchange", own_findings, *arguments)
    assert (got, "Traceback" in err) == (code, False)
    assert said in err
    assert own_findings.read_text() == before


def test_report_does_not_overwrite_findings(run: Run, own_findings: Path) -> None:
    code, _, err = run("report", own_findings, "-o", own_findings, "--force")
    assert (code, "being read" in err) == (1, True)


def test_a_dot_is_a_trace_too(run: Run, compiled_trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(compiled_trace.path, tmp_path / "dot.trace")
    monkeypatch.chdir(tmp_path / "dot.trace")
    code, _, err = run("correlate", ".", "--by", "label", "--positive", "triggered")
    assert (code, err) == (0, "")
    assert (tmp_path / "dot.findings.json").exists()


def test_the_readme_example_runs(sorry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's Python block as it stands, but for the model, the probe and the number of tokens."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    for old, new in (
        ("Qwen/Qwen3-30B-A3B", "compiled"), ('load_probe("refusal")', f"load_probe({str(sorry)!r})"),
        ('"refusal", 5', '"sorry", 5'), ("layers=[14]", "layers=[2]"),
        ("max_new_tokens=128", "max_new_tokens=16, sample=True"),
    ):  # fmt: skip
        assert old in code
        code = code.replace(old, new)
    monkeypatch.chdir(tmp_path)
    shutil.copy(PROMPTS, "prompts.jsonl")
    scope: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), scope)  # noqa: S102  # our own README
    assert "L2.E5" in Path("report.html").read_text()
    assert any(row["verdict"] == "necessary and sufficient" for row in scope["findings"].rows)
