"""Loading by name: built-in models, folders, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moeprobe.errors import ModelError
from moeprobe.models import load_model
from moeprobe.models.compiled import save


def test_built_in_names_and_dtypes() -> None:
    loaded = load_model("compiled:mixtral", dtype="bfloat16", device_map="cpu")
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.provenance["family"] == "mixtral"
    assert loaded.provenance["class"] == "MixtralForCausalLM"
    assert loaded.tokenizer.padding_side == "left"
    assert not loaded.model.training
    strict = load_model("compiled:qwen3_moe:strict").provenance
    assert strict["config_digest"].startswith("sha256:")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("compiled:gpt", {}, "FAMILY one of"),
        ("compiled:olmoe:loose", {}, "compiled:FAMILY"),
        ("smollm2:large", {}, "smollm2:base"),
        ("compiled", {"revision": "main"}, "no revisions"),
        ("compiled", {"dtype": "int8"}, "Unknown dtype 'int8'"),
        ("./nowhere", {}, "no folder"),
    ],
)
def test_unknown_names(name: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_model(name, **options)


def test_a_folder_is_loaded_with_eager_experts_and_hashed(tmp_path: Path) -> None:
    save(tmp_path / "m", "olmoe")
    loaded = load_model(str(tmp_path / "m"))
    assert loaded.provenance["files"]["model.safetensors"].startswith("sha256:")
    if not torch.cuda.is_available():
        assert loaded.model.config._experts_implementation == "eager"
    assert loaded.end_tokens == {loaded.tokenizer.eos_token_id}
    assert loaded.pad_token == loaded.tokenizer.pad_token_id


def test_large_files_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "m")
    monkeypatch.setattr("moeprobe.models.fingerprints.HASHED_BYTES", 10)
    assert load_model(str(tmp_path / "m")).provenance["files"]["model.safetensors"].startswith("sampled:")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Could not load"):
        load_model(str(tmp_path))


def test_code_from_a_folder_is_never_run(tmp_path: Path) -> None:
    """A config that asks for its own code is refused, and the code is not executed."""
    save(tmp_path / "m")
    canary = tmp_path / "ran"
    (tmp_path / "m" / "evil.py").write_text(f"open({str(canary)!r}, 'w').write('x')\nclass Evil: pass\n")
    config = (tmp_path / "m" / "config.json").read_text()
    config = config.replace('"model_type": "qwen3_moe"', '"model_type": "evil"')
    config = config.replace("{", '{"auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"},', 1)
    (tmp_path / "m" / "config.json").write_text(config)
    with pytest.raises(ModelError, match="Could not load"):
        load_model(str(tmp_path / "m"))
    assert not canary.exists()


def test_a_checkpoint_with_missing_tensors_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    tensors = load_file(path)
    kept = {name: tensor for name, tensor in tensors.items() if "layers.2.mlp.experts" not in name}
    assert len(kept) < len(tensors)
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"not whole: .*layers\.2"):
        load_model(str(tmp_path / "m"))


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match="Could not load"):
        load_model(str(tmp_path / "m"))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    torch.save(load_file(path), tmp_path / "m" / "pytorch_model.bin")
    path.unlink()
    with pytest.raises(ModelError, match="Could not load"):
        load_model(str(tmp_path / "m"))


def test_names_too_long_for_a_path_and_reprs() -> None:
    with pytest.raises(ModelError, match="Could not load"):
        load_model("a" * 400)
    assert "\n" not in repr(load_model("compiled"))
    assert len(repr(load_model("compiled"))) < 200


def test_a_config_that_asks_for_too_much_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"num_hidden_layers": 20_000}))
    with pytest.raises(ModelError, match="num_hidden_layers = 20000; at most 1,000"):
        load_model(str(folder))
    path.write_text(json.dumps(whole))
    load_model(str(folder))
    monkeypatch.setattr("moeprobe.models.limits.MOST_MODULES", 20)
    with pytest.raises(ModelError, match="more than 20 modules"):
        load_model(str(folder))


@pytest.mark.parametrize("change", [{"num_experts": "many"}, {"num_attention_heads": 0}, {"hidden_size": -5}])
def test_a_damaged_config_is_one_sentence(tmp_path: Path, change: dict[str, object]) -> None:
    folder = save(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match="Could not load") as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)


def test_the_class_of_a_config_is_chosen_in_one_place() -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, BertConfig, Qwen3MoeConfig, ViTConfig
    from transformers import SwitchTransformersConfig as Switch

    from moeprobe.models.load import auto_class, text_class

    assert auto_class(Qwen3MoeConfig()) is text_class(Qwen3MoeConfig()) is AutoModelForCausalLM
    assert auto_class(Switch()) is text_class(Switch()) is AutoModelForSeq2SeqLM
    assert text_class(BertConfig()) is AutoModelForCausalLM
    assert auto_class(ViTConfig()) is None
    with pytest.raises(ModelError, match="no class that generates text from vit"):
        text_class(ViTConfig())
