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
    assert body["schema"] == "moeprobe.findings/5"
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
    assert [one["on"] for one in body["measured"]][-1] == "the labels given"
    assert body["measured"][-1]["balanced_accuracy"]["value"] == 1.0
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
        (["correlate", "nowhere", "--by", "label", "--probe", "refusal"], 2, "Give one of"),
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
