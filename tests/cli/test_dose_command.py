"""`interchange dose` and `interchange cascade`, called as commands."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from moeprobe.cli.interchange.cascade import cascade
from moeprobe.cli.interchange.dose import dose
from moeprobe.correlate import correlate
from moeprobe.correlate.document import findings_of
from moeprobe.errors import MoeprobeError
from moeprobe.trace import Trace
from tests.conftest import COMPILED_PROMPTS

MODEL = ("-m", "compiled")
LABELLED = (*MODEL, "--pairs", COMPILED_PROMPTS, "--positive", "triggered")
QUICK = ("--bootstrap", 100, "--batch-size", 16, "--shams", 2)


def call(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_dose_on_labelled_pairs(tmp_path: Path) -> None:
    out = tmp_path / "dose.json"
    done = call(dose, *LABELLED, "--site", "L2.E5", *QUICK, "--bias", "bar,-2,0,2", "-o", out)
    assert done.exit_code == 0, done.output
    assert "30 prompts; outcome: mean negative log-likelihood" in done.output
    assert "L2.E5, scale: slope" in done.output
    record = json.loads(out.read_text())
    assert record["schema"] == "moeprobe.dose/1"
    assert record["series"]["L2.E5"]["bias"]["doses"] == ["bar", -2.0, 0.0, 2.0]
    assert record["against_shams"]["scale"]["rank"] == 1
    assert record["model"]["family"]
    done = call(dose, *LABELLED, "--site", "L2.E5", "-o", out)
    assert isinstance(done.exception, MoeprobeError)
    assert "exists already" in str(done.exception)


def test_dose_on_single_prompts_and_pair_files(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("tell me about the crimson garden ?\nplease describe the crimson river ?\n")
    done = call(
        dose, *MODEL, "--prompts", prompts, "--site", "L2.E5", "--sham", "L2.E0", "--metric", "logit-difference",
        "--toward", "sorry", "--away", "the", "--bias", "", "--bootstrap", 100, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["shams"] == ["L2.E0"]
    assert list(record["series"]["L2.E5"]) == ["scale"]
    assert record["series"]["L2.E5"]["scale"]["monotone"] == 2
    pairs = tmp_path / "pairs.jsonl"
    sides = [("the crimson river ?", "the narrow river ?"), ("a crimson garden ?", "a quiet garden ?")]
    lines = [{"id": str(place), "sensitive": one, "control": other} for place, (one, other) in enumerate(sides)]
    pairs.write_text("\n".join(json.dumps(line) for line in lines))
    done = call(dose, *MODEL, "--pairs", pairs, "--side", "control", "--site", "L2.E5", "--bias", "", *QUICK)
    assert done.exit_code == 0, done.output
    assert "L2.E5 is never chosen in these prompts" in done.output


def test_cascade(tmp_path: Path) -> None:
    out = tmp_path / "cascade.json"
    words = ("--toward", "sorry", "--away", "the")
    done = call(cascade, *LABELLED, "--site", "L2.E5", *words, *QUICK, "-o", out)
    assert done.exit_code == 0, done.output
    assert "L2.E5, its contribution set to zero: mean logit of 'sorry'" in done.output
    assert "L3.E2" in done.output
    record = json.loads(out.read_text())
    assert record["schema"] == "moeprobe.cascade/1"
    assert set(record["edits"]) == {"zero", "bar"}
    assert record["edits"]["zero"]["direct"]["mean"] < -100
    assert len(record["edits"]["zero"]["total"]["per_prompt"]) == 30
    done = call(cascade, *LABELLED, "--site", "L3.E6", *words, *QUICK, "--edit", "zero", "--json")
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)["edits"]) == {"zero"}


def test_the_model_and_pairs_of_findings(compiled_trace: Trace, tmp_path: Path) -> None:
    path = tmp_path / "findings.json"
    findings_of(compiled_trace, [correlate(compiled_trace, by="label", positive="triggered")], beside=path).write(path)
    before = path.read_bytes()
    done = call(dose, path, "--site", "L2.E5", "--bias", "", *QUICK, "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["series"]["L2.E5"]["scale"]["monotone"] == len(record["prompts"]) > 10
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (dose, ["--site", "L2.E5"], "Name a findings file"),
        (dose, [*MODEL, "--pairs", COMPILED_PROMPTS, "--site", "L2.E5"], "Add --positive LABEL"),
        (dose, ["--prompts", COMPILED_PROMPTS, "--site", "L2.E5"], "--prompts FILE goes with --model"),
        (dose, [*LABELLED, "--prompts", COMPILED_PROMPTS, "--site", "L2.E5"], "without --pairs"),
        (dose, [*LABELLED, "--site", "E5"], "E5"),
        (dose, [*LABELLED, "--site", "L2.E5", "--bias", "1,many"], "many is no dose"),
        (dose, [*LABELLED, "--site", "L2.E5", "--bias", "inf,0,1"], "inf is no dose"),
        (dose, [*LABELLED, "--site", "L2.E5", "--scale", "0,2,4"], "with 1 among them"),
        (dose, [*LABELLED, "--site", "L2.E5", "--toward", "the"], "An option of --metric logit-difference"),
        (dose, [*LABELLED, "--site", "L2.H1"], "L2.H1"),
        (dose, [*LABELLED, "--site", "L2.E9"], "E0 to E7"),
        (dose, [*MODEL, "--pairs", "nowhere.jsonl", "--positive", "x", "--site", "L2.E5"], "nowhere.jsonl"),
        (cascade, [*LABELLED, "--site", "L2.E5"], "--toward"),
        (cascade, [*LABELLED, "--site", "L2.E5", "--toward", "xylophone"], "vocabulary"),
        (cascade, [*LABELLED, "--site", "L2.E5", "--toward", "the", "--away", "the"], "share 1 token"),
        (cascade, [*LABELLED, "--site", "L9.E5", "--toward", "the"], "no layer 9"),
    ],
)
def test_mistakes_are_named(command: click.Command, arguments: list[object], message: str) -> None:
    done = call(command, *arguments)
    assert done.exit_code != 0
    assert isinstance(done.exception, MoeprobeError | SystemExit)
    assert message in f"{done.output}{done.exception}"
