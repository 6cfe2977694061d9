"""`moeprobe rerun` as a user meets it: what it says, in which order, and its exit status."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from moeprobe.engines import Decoding, record
from moeprobe.models import load_model
from moeprobe.trace import Trace, load_trace
from tests.cli.conftest import Run
from tests.engines.tiny_moe import prompts, save_model
from tests.rerun.rewriting import rewritten


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    folder = save_model(tmp_path_factory.mktemp("models") / "tiny")
    loaded = load_model(str(folder), device_map="cpu")
    out = tmp_path_factory.mktemp("runs") / "tiny.trace"
    return record(loaded, prompts(12), out, decoding=Decoding(max_new_tokens=24, sample=True, samples=2, batch_size=3))


def test_a_run_that_repeats(run: Run, trace: Trace, tmp_path: Path) -> None:
    code, out, err = run("rerun", trace.path, "--device-map", "cpu", "-o", tmp_path / "again.trace")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "Weights: same (checked: every byte)."
    assert lines[1] == "Setting: nothing that was written down differs."
    assert lines[-1] == "The run repeats exactly."
    assert [line.split()[0] for line in lines[5:9]] == ["L0", "L1", "L2", "all"]
    assert load_trace(tmp_path / "again.trace").manifest.rows == trace.manifest.rows
    code, _, err = run("rerun", trace.path, "-o", tmp_path / "again.trace")
    assert (code, "--force" in err) == (1, True)
    code, _, err = run("rerun", trace.path, "-o", trace.path, "--force")
    assert (code, "what is being read" in err) == (1, True)


def test_a_run_that_does_not(run: Run, trace: Trace) -> None:
    code, out, err = run("rerun", trace.path, "--device-map", "cpu", "--dtype", "bfloat16")
    assert (code, err) == (1, "")
    assert out.index("engine.dtype ") < out.index("choices agree") < out.index("Tokens differ in ")
    assert "bfloat16" in out
    assert "differs from generated token" in out
    assert "had other text before them" in out


def test_json(run: Run, trace: Trace) -> None:
    code, out, err = run(
        "rerun", trace.path, "--device-map", "cpu", "--dtype", "bfloat16", "--teacher-forced", "--limit", 3, "--json"
    )
    assert (code, err) == (1, "")
    body = json.loads(out)
    assert (body["repeats"], body["teacher_forced"], body["generations"]) == (False, True, 3)
    assert body["weights"]["verdict"] == "same"
    layer = body["layers"][2]
    assert layer["flip_rate"] == layer["flips"] / layer["tokens"] > 0
    assert body["all_layers"]["flips"] == sum(one["flips"] for one in body["layers"])
    assert layer["sensitive_share_of_flips"] == layer["sensitive_flips"] / layer["flips"]
    assert [one["field"] for one in body["differences"]] == ["engine.dtype", "engine.dtypes"]


def test_other_weights(run: Run, trace: Trace, tmp_path: Path) -> None:
    first = Path(str(trace.manifest.model["id"]))
    copy = Path(shutil.copytree(first, tmp_path / "other"))
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.2.mlp.gate.weight"] *= -1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    moved = rewritten(trace, tmp_path / "a", model={**trace.manifest.model, "id": str(copy)})
    code, out, err = run("rerun", moved.path, "--device-map", "cpu")
    assert code == 1
    assert out.startswith("Weights: other (model.safetensors has another digest).")
    assert "has other weights" in err
    assert "--allow-other-model" in err
    assert "Traceback" not in err
    for arguments in ((moved.path, "--allow-other-model"), (trace.path, "-m", copy)):
        code, out, _ = run("rerun", *arguments, "--device-map", "cpu", "--teacher-forced")
        assert code == 1
        assert out.splitlines()[-1].startswith("With other weights: ")
        assert "in 1 of 3 layers" in out
    code, out, _ = run("rerun", moved.path, "-m", first, "--device-map", "cpu")  # the right one, elsewhere
    assert (code, out.splitlines()[-1]) == (0, "The run repeats exactly.")


def test_mistakes_cost_no_loading(run: Run, trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moeprobe.models.load_model", lambda *args, **kwargs: pytest.fail("loaded"))
    code, _, err = run("rerun", tmp_path / "nowhere")
    assert (code, "is no trace" in err) == (1, True)
    future = rewritten(trace, tmp_path / "a", decoding={**trace.manifest.decoding, "min_p": 0.1})
    code, _, err = run("rerun", future.path)
    assert (code, "'min_p', which this moeprobe does not know" in err) == (1, True)
    nameless = rewritten(trace, tmp_path / "b", model={})
    code, _, err = run("rerun", nameless.path)
    assert (code, "names no model" in err) == (1, True)
    assert run("rerun")[0] == 2


def test_hostile_names_are_shown_as_codes(run: Run, trace: Trace, tmp_path: Path) -> None:
    engine = {**trace.manifest.engine, "attn_implementation": "\x1b[31msdpa\u202e"}
    _, out, _ = run("rerun", rewritten(trace, tmp_path / "a", engine=engine).path, "--device-map", "cpu")
    assert "engine.attn_implementation" in out
    assert "\x1b" not in out
    assert "\u202e" not in out
