"""Checkpoints of other kinds than causal models load by name, and their experts are found."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from moeprobe.capture import find_experts
from moeprobe.errors import ModelError
from moeprobe.models import load_model
from tests.capture.families import tiny
from tests.capture.families.checks import compare, recorded


def _save(model: PreTrainedModel, path: Path) -> str:
    words = {"<pad>": 0, "<s>": 1, **{f"w{number}": number for number in range(2, tiny.VOCABULARY)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="w2"))  # noqa: S106  # a token of text
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>").save_pretrained(path)  # noqa: S106
    model.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize(
    ("saved", "loaded_as", "names"),
    [
        ("SwitchTransformersForConditionalGeneration", "", ["L0", "L1", "L2", "L3", "encoder.L0"]),
        ("Qwen3VLMoeForConditionalGeneration", "", ["L0", "L1", "L2", "L3"]),
        ("DeepseekOcr2ForConditionalGeneration", "", ["L1", "L2", "L3"]),
        ("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM", ["L0", "L1", "L2", "L3"]),
        ("MixtralForCausalLM", "", ["L0", "L1", "L2", "L3"]),
    ],
)
def test_the_class_is_chosen_from_the_config(tmp_path: Path, saved: str, loaded_as: str, names: list[str]) -> None:
    family = next((family for family, name in tiny.CLASSES.items() if name == saved), "")
    model = tiny.build_class(saved, tiny.CHANGES.get(family, {}))
    loaded = load_model(_save(model, tmp_path / "m"), device_map="cpu")
    assert loaded.provenance["class"] == (loaded_as or saved)
    assert loaded.provenance["num_hidden_layers"] == tiny.LAYERS
    assert [site.name for site in find_experts(loaded.model)][: len(names)] == names
    before, after = recorded(model), recorded(loaded.model)
    assert torch.equal(before.tokens, after.tokens)
    # Loaded weights lie elsewhere in memory, which may change the order of additions.
    torch.testing.assert_close(before.logits, after.logits, rtol=1e-4, atol=1e-4)
    assert compare(model, before.routing, after.routing).none


def test_a_model_that_generates_no_text_is_refused(tmp_path: Path) -> None:
    path = _save(tiny.build("openai_privacy_filter"), tmp_path / "m")
    with pytest.raises(ModelError, match="no class that generates text from openai_privacy_filter"):
        load_model(path)
