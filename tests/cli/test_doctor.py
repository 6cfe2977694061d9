"""`moeprobe doctor` as a user meets it."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import GptOssConfig, LlamaConfig, LlamaForCausalLM, Qwen3_5MoeTextConfig, Qwen3MoeConfig
from transformers.utils.quantization_config import QuantizationMethod

from moeprobe.models.compiled import save
from tests.cli.conftest import Run


def test_a_folder_with_nothing_but_a_config(run: Run, tmp_path: Path) -> None:
    Qwen3_5MoeTextConfig(dtype="bfloat16").save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    code, out, err = run("doctor", tmp_path)
    assert (code, err) == (0, "")
    line = next(line for line in out.splitlines() if line.startswith("L0 to L39"))
    assert line.split()[3:] == ["(40)", "256", "8", "yes", "softmax", "mlp.gate", "bfloat16"]
    assert "982 bytes" in out
    assert "Everything would be recorded. (The self-test needs the weights; they are not on this machine.)" in out
    code, out, _ = run("doctor", tmp_path, "--json")
    body = json.loads(out)
    assert (code, body["verdict"], body["bytes_per_token"], body["self_test"]) == (0, "recorded", 982, None)
    assert (len(body["sites"]), body["sites"][14]["name"], body["sites"][14]["k"]) == (40, "L14", 8)


def test_with_weights_the_self_test_runs(run: Run, tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    code, out, err = run("doctor", folder)
    assert (code, err) == (0, "")
    assert out.rstrip().endswith("Everything would be recorded.")
    assert "logits are bitwise equal" in out
    code, out, _ = run("doctor", folder, "--json")
    test = json.loads(out)["self_test"]
    assert test["passed"]
    assert {check["result"] for check in test["checks"]} == {"ok"}
    assert test["sites"][2]["router"] == "model.layers.2.mlp.gate"
    code, out, _ = run("doctor", folder, "--no-weights")
    assert (code, "they were left out" in out, "bitwise" in out) == (0, True, False)


def test_built_in_models(run: Run) -> None:
    code, out, _ = run("doctor", "compiled:olmoe")
    assert (code, "Everything would be recorded." in out) == (0, True)
    code, _, err = run("doctor", "compiled:bert")
    assert (code, "compiled:FAMILY" in err) == (1, True)


def test_a_failed_self_test_is_said_and_exits_1(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moeprobe.capture import recorder
    from moeprobe.errors import CaptureError

    def refuse(self: object) -> None:
        raise CaptureError("L2 recorded 0 rows of 12 forwarded.")

    monkeypatch.setattr(recorder.Recorder, "__enter__", refuse)
    code, out, err = run("doctor", save(tmp_path / "model"))
    assert (code, err) == (1, "")
    assert "Not everything would be recorded." in out
    assert "L2 recorded 0 rows of 12 forwarded" in out
    assert json.loads(run("doctor", tmp_path / "model", "--json")[1])["verdict"] == "not recorded"


def test_a_dense_model(run: Run, tmp_path: Path) -> None:
    LlamaConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=1).save_pretrained(tmp_path)
    code, out, _ = run("doctor", tmp_path)
    assert (code, "not a mixture-of-experts" in out, "Not everything" in out) == (1, True, True)
    assert json.loads(run("doctor", tmp_path, "--json")[1])["bytes_per_token"] is None


def test_a_dense_model_with_weights_is_not_loaded(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1, vocab_size=20
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    monkeypatch.setattr("moeprobe.models.load_model", lambda *_, **__: pytest.fail("it was loaded"))
    assert run("doctor", tmp_path)[0] == 1


def test_an_unsure_answer_says_so_and_does_not_pass_for_a_yes(run: Run, tmp_path: Path) -> None:
    from transformers import JetMoeConfig

    JetMoeConfig(
        num_hidden_layers=2, hidden_size=32, intermediate_size=16, kv_channels=8, num_key_value_heads=2,
        num_local_experts=4, num_experts_per_tok=2, vocab_size=50,
    ).save_pretrained(tmp_path)  # fmt: skip
    code, out, _ = run("doctor", tmp_path)
    assert code == 0
    assert "Everything would be recorded" not in out
    assert "only a run can tell" in out
    assert json.loads(run("doctor", tmp_path, "--json")[1])["verdict"] == "unsure"


class Quantizer:
    """What transformers makes for an MXFP4 checkpoint on a machine that has its kernels."""

    class quantization_config:  # noqa: N801  # an attribute
        quant_method = QuantizationMethod.MXFP4
        dequantize = False


def gpt_oss(folder: Path) -> Path:
    GptOssConfig(
        num_hidden_layers=2, num_local_experts=4, hidden_size=32, intermediate_size=16, vocab_size=50,
        quantization_config={"quant_method": "mxfp4"},
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_mxfp4_kernels(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.quantizers.auto.get_hf_quantizer", lambda *_: (Quantizer, None, None))
    code, out, _ = run("doctor", gpt_oss(tmp_path))
    assert code == 1
    assert "Mxfp4GptOssMLP" in out
    assert "Mxfp4Config(dequantize=True)" in out


def test_a_quantisation_that_this_machine_cannot_load(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("No GPU or XPU found.\nMore.")

    monkeypatch.setattr("transformers.quantizers.auto.get_hf_quantizer", fail)
    code, out, err = run("doctor", gpt_oss(tmp_path))
    assert (code, err) == (1, "")
    assert "quantised (mxfp4) and cannot be loaded on this machine: No GPU or XPU found." in out


def test_the_modules_of_a_quantised_checkpoint_are_looked_at(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine with a GPU, where FP8 weights are kept as they are."""
    pytest.importorskip("accelerate")
    quantizer = "transformers.quantizers.quantizer_finegrained_fp8.FineGrainedFP8HfQuantizer"
    monkeypatch.setattr(f"{quantizer}.validate_environment", lambda *_, **__: None)
    config(tmp_path, quantization_config={"quant_method": "fp8", "weight_block_size": [16, 16]})
    code, out, _ = run("doctor", tmp_path)
    assert code == 0
    assert "quantised (fp8); its experts are of class FP8Experts" in out
    assert "L0 to L1 (2)" in out


def test_an_unknown_quantisation_is_noted(run: Run, tmp_path: Path) -> None:
    config(tmp_path, quantization_config={"quant_method": "\x1b[31mnone"})
    code, out, _ = run("doctor", tmp_path)
    assert (code, "does not know: ??31mnone" in out, "\x1b" in out) == (0, True, False)


def test_a_model_of_several_parts_is_told_from_its_text_part(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_omni_moe"}')
    code, out, err = run("doctor", tmp_path)
    assert (code, out) == (1, "")
    assert "text part" in err


def config(folder: Path, **changes: Any) -> Path:
    body = Qwen3MoeConfig(num_hidden_layers=2, hidden_size=32, num_attention_heads=2, head_dim=16).to_dict() | changes
    (folder / "config.json").write_text(json.dumps(body))
    return folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "config.json"),
        ("[1, 2]", "no JSON object"),
        ("", "config.json"),
        ("{}", '"model_type"'),
        ('{"model_type": "qwen3_mo"}', "Did you mean 'qwen3_moe'?"),
        ('{"model_type": 7}', "does not know the model type"),
        ('{"model_type": ["a"]}', "does not know the model type"),
        ('{"model_type": "own", "auto_map": {"AutoConfig": "x.Y"}}', "its own code"),
        ('{"model_type": "qwen3_moe", "num_experts": "many"}', "num_experts"),
        ('{"model_type": "qwen3_moe", "num_hidden_layers": 1000000000}', "num_hidden_layers = 1000000000"),
        ('{"model_type": "gpt2", "n_layer": 20000, "n_embd": 8, "n_head": 2, "vocab_size": 10}', "n_layer = 20000"),
        ('{"model_type": "switch_transformers", "num_layers": 2000, "num_experts": 60000}', "num_layers = 2000"),
        ('{"model_type": "qwen3_moe", "hidden_size": -5}', "cannot"),
        ('{"model_type": "qwen3_moe", "num_attention_heads": 0, "head_dim": null}', "cannot"),
    ],
)
def test_a_bad_config_is_one_clear_line(run: Run, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.json").write_text(text)
    code, out, err = run("doctor", tmp_path)
    assert (code, out) == (1, "")
    assert said in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


def test_layers_times_experts_that_are_modules_each(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moeprobe.models.limits.MOST_MODULES", 5_000)
    body = {"model_type": "switch_transformers", "num_layers": 900, "num_experts": 30_000, "d_model": 8, "d_ff": 8}
    (tmp_path / "config.json").write_text(json.dumps(body))
    code, out, err = run("doctor", tmp_path)
    assert (code, out) == (1, "")
    assert "asks for more than 5,000 modules (layers times experts)" in err
    # One tensor holds all experts of a layer here, so as many are built at once.
    code, out, _ = run("doctor", config(tmp_path, num_local_experts=30_000), "--json")
    assert (code, json.loads(out)["sites"][0]["experts"]) == (0, 30_000)


@pytest.mark.parametrize("field", ["model_type", "hidden_act", "_name_or_path", "architectures"])
def test_hostile_text_does_not_reach_the_terminal(run: Run, tmp_path: Path, field: str) -> None:
    value: Any = "\x1b]0;pwned\x07\x1b[2J\u202eevil"
    code, out, err = run("doctor", config(tmp_path, **{field: [value] if field == "architectures" else value}))
    assert code in (0, 1)
    assert not {"\x1b", "\x07", "\u202e"} & set(out + err)
    assert "Traceback" not in err
    assert out + err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["./nowhere"], 1, "There is no folder ./nowhere"),
        (["a/b/c"], 1, "There is no folder a/b/c"),
        (["nobody/no-such-model"], 1, "nobody/no-such-model"),
        (["."], 1, "holds no config.json"),
        (["\x1b[31m/x"], 1, "Error"),
        ([], 2, "MODEL"),
        (["compiled", "--dtype", "int3"], 2, "int3"),
        (["compiled", "--revision", "main"], 1, "no revisions"),
        (["compiled", "--weights"], 2, "--weights"),
    ],
)
def test_mistakes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    got, out, err = run("doctor", *arguments)
    assert (got, out) == (code, "")
    assert said in err
    assert "Traceback" not in err
    assert "\x1b" not in err


def test_missing_shards_are_no_weights(run: Run, tmp_path: Path) -> None:
    config(tmp_path)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "../../etc/passwd"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    code, out, _ = run("doctor", tmp_path)
    assert (code, "not on this machine" in out) == (0, True)


def test_hash_routing_and_silent_stacks_are_mentioned(run: Run, tmp_path: Path) -> None:
    from tests.capture.families.tiny import build

    build("deepseek_v4").config.save_pretrained(tmp_path)
    code, out, _ = run("doctor", tmp_path)
    assert code == 0
    assert "the token alone decides" in out
    assert "square root of softplus, correction bias" in out
