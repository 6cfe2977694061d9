"""`moeprobe compare` as a user meets it, on real traces."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from moeprobe.engines import Decoding, record
from moeprobe.models import LoadedModel
from moeprobe.prompts import Prompt
from moeprobe.trace import Trace
from tests.cli.conftest import Run
from tests.compare.two_runs import WORLD, same_text, two_runs
from tests.rerun.rewriting import rewritten


@pytest.fixture(scope="module")
def other(compiled: LoadedModel, compiled_prompts: list[Prompt], tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """The prompts of `compiled_trace` again, drawn with another seed."""
    out = tmp_path_factory.mktemp("runs") / "other.trace"
    return record(
        compiled, compiled_prompts, out, decoding=Decoding(max_new_tokens=24, sample=True, seed=7, batch_size=16)
    )


def test_two_settings_of_one_model(run: Run, compiled_trace: Trace, other: Trace, tmp_path: Path) -> None:
    out = tmp_path / "compare.json"
    code, text, err = run(
        "compare", compiled_trace.path, other.path, "--by", "label", "--positive", "triggered", "-o", out
    )
    assert (code, err) == (0, "")
    table = text[text.index("label:triggered") :].splitlines()
    assert {table[6].split()[0], table[7].split()[0]} == {"L1.E1", "L2.E5"}  # the clearest of those that are kept
    for part in ("decoding.seed", "60 prompts answered by both runs", "L2.E5", "kept", "Written to"):
        assert part in text
    body = json.loads(out.read_text())
    assert body["schema"] == "moeprobe.compare/1"
    assert [one["digest"] for one in body["runs"]] == [compiled_trace.digest, other.digest]
    assert {"field": "decoding.seed", "a": "0", "b": "7"} in body["setting"]
    assert body["commands"][0].startswith("moeprobe compare ")
    verdicts = {row["site"]: row["verdict"] for row in body["register"]["rows"]}
    assert verdicts["L2.E5"] == "kept"
    assert set(verdicts.values()) <= {"kept", "neither", "unclear", "untestable"}
    # one model, other words: it treats the same word in the same way
    assert not [row["site"] for row in body["usage"] if row["change"] == "changed"]
    assert {path.name for path in tmp_path.iterdir()} == {"compare.json"}


def test_json_is_the_document(run: Run, compiled_trace: Trace, other: Trace, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    code, text, _ = run("compare", compiled_trace.path, other.path, "--json", "-o", out, "--draws", 0)
    assert code == 0
    assert json.loads(text) == json.loads(out.read_text())
    assert json.loads(text)["register"] is None
    code, _, err = run("compare", compiled_trace.path, other.path, "-o", out)
    assert (code, "--force" in err) == (1, True)
    code, _, err = run("compare", compiled_trace.path, other.path, "-o", other.path, "--force")
    assert (code, "what is being read" in err) == (1, True)
    assert run("compare", compiled_trace.path, other.path, "-o", out, "--force", "--draws", 0)[0] == 0


def test_a_run_with_itself(run: Run, compiled_trace: Trace) -> None:
    code, text, _ = run("compare", compiled_trace.path, compiled_trace.path, "--draws", 0)
    assert code == 0
    assert "nothing that was written down differs" in text
    assert "60 generations are the same from end to end" in text
    assert " changed," not in text.replace("not changed", "")
    assert "FWER" not in text


def test_saved_simulated_runs(run: Run, tmp_path: Path) -> None:
    a, b = two_runs(0, replace(WORLD, generations=32), second={"usage": {"L0.E3": 3.0}})
    a.save(tmp_path / "a.trace")
    b.save(tmp_path / "b.trace")
    code, text, err = run("compare", tmp_path / "a.trace", tmp_path / "b.trace", "--by", "label", "--top", 3)
    assert (code, err) == (0, "")
    rows = [line for line in text.splitlines() if line.startswith("L0.E3 ")]
    assert rows
    assert rows[0].endswith("changed")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--probe", "refusal", "--by", "label"], 2, "Give one of"),
        (["--probe", "refusal", "--probe", "hedging"], 2, "--probe once"),
        (["--seed", -3], 2, "-3 is not in the range"),
        (["--positive", "x"], 1, "--by"),
        (["--only", "a=b"], 1, "--only"),
        (["--by", "label", "--positive", "nobody"], 1, "no generation has this value"),
        (["--segment", "thinking"], 1, "No prompt has thinking tokens"),
        (["-o", "no/such/folder/c.json"], 1, "There is no folder"),
        (["--alpha", 2], 1, "alpha"),
    ],
)
def test_mistakes_are_one_clear_line(
    run: Run, compiled_trace: Trace, arguments: list[object], code: int, said: str
) -> None:
    got, out, err = run("compare", compiled_trace.path, compiled_trace.path, *arguments)
    assert (got, out) == (code, "")
    assert said in err
    assert "Traceback" not in err


def test_runs_that_cannot_be_compared(run: Run, compiled_trace: Trace, tmp_path: Path) -> None:
    tokenizer = {**compiled_trace.manifest.tokenizer, "digest": "sha256:" + "0" * 64}
    foreign = rewritten(compiled_trace, tmp_path / "t", tokenizer=tokenizer)
    code, _, err = run("compare", compiled_trace.path, foreign.path)
    assert (code, "other tokenizers" in err) == (1, True)
    same_text(0, replace(WORLD, generations=16))[0].save(tmp_path / "s")
    code, _, err = run("compare", compiled_trace.path, tmp_path / "s")
    assert (code, "other architectures" in err) == (1, True)
    code, _, err = run("compare", compiled_trace.path, tmp_path / "nowhere")
    assert (code, "is no trace" in err) == (1, True)


def test_hostile_text_is_shown_as_codes(run: Run, tmp_path: Path) -> None:
    evil = "\x1b[31mp\u202e"
    a, b = two_runs(0, replace(WORLD, generations=24))
    named = [replace(one, prompt_id=evil + one.prompt_id, label=evil if one.label else "x") for one in a.generations]
    altered = [replace(one, prompt_text=evil if one.index == 3 else one.prompt_text) for one in named]
    for name, trace, generations in (("a", a, named), ("b", b, altered)):
        twins = zip(generations, trace.generations, strict=True)
        kept = [replace(one, text=own.text, answer_rows=own.answer_rows, metadata={}) for one, own in twins]
        replace(trace, generations=kept).save(tmp_path / name)
    code, out, _ = run("compare", tmp_path / "a", tmp_path / "b", "--by", "label", "--positive", evil)
    assert code == 0
    assert "\\x1b" in out or "\\u" in out or "<" in out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_labels_of_both_runs(run: Run, compiled_trace: Trace, other: Trace, tmp_path: Path) -> None:
    a, b = compiled_trace.path, other.path
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for one, path in zip((compiled_trace, other), files, strict=True):
        lines = [{"generation": n, "label": int(g.label == "triggered")} for n, g in enumerate(one.generations)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = ("--labels-a", files[0], "--labels-b", files[1])
    code, out, err = run("compare", a, b, *given, "--name", "said", "--draws", 0)
    assert (code, err) == (0, "")
    assert "labels:said" in out
    code, _, err = run("compare", a, b, *given, "-o", files[1], "--force")
    assert (code, "what is being read" in err) == (1, True)
    for wrong, said in (
        (("--labels-a", files[0]), "labels of both runs"),
        ((*given, "--by", "label"), "Give one of --probe NAME"),
        (("--by", "label", "--name", "x"), "--scorer and --name go with"),
    ):
        code, _, err = run("compare", a, b, *wrong)
        assert code == 2
        assert said in err
