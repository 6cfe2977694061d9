"""Weights elsewhere than the device that computes: recording and results are those of the plain model."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from moeprobe.capture import Recorder, find_experts
from moeprobe.errors import CaptureError

accelerate = pytest.importorskip("accelerate", reason="needs accelerate (pip install accelerate)")

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 64, "num_experts_per_tok": 2, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.5,
}  # fmt: skip
FAMILIES = {
    "qwen2_moe": lambda: Qwen2MoeForCausalLM(
        Qwen2MoeConfig(**SIZES, num_experts=8, moe_intermediate_size=16, shared_expert_intermediate_size=16)
    ),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=8)),
    "gpt_oss": lambda: GptOssForCausalLM(GptOssConfig(**SIZES, num_local_experts=8, sliding_window=8)),
}
INPUTS = {
    "input_ids": torch.tensor([[0, 0, 5, 9, 3, 7], [8, 4, 60, 11, 22, 17]]),
    "attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]),
}
LAYERS = ("model.layers.0", "model.layers.1", "model.layers.2")


def build(family: str, implementation: str = "eager") -> PreTrainedModel:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model: PreTrainedModel = FAMILIES[family]()
    model.set_experts_implementation(implementation)
    return model.eval()


def whole(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    del folder
    return model


def disk(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    offloaded: PreTrainedModel = accelerate.disk_offload(model, str(folder), execution_device=torch.device("cpu"))
    return offloaded


def memory(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    del folder
    offloaded: PreTrainedModel = accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    return offloaded


def mapped(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """What `from_pretrained(..., device_map=...)` gives when the model does not fit: some layers on disk."""
    model.save_pretrained(folder / "model")
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {LAYERS[0]: "disk", LAYERS[1]: "cpu", LAYERS[2]: "disk"}
    loaded: PreTrainedModel = type(model).from_pretrained(
        folder / "model", device_map=places, offload_folder=str(folder / "offload"), dtype=torch.float32
    )
    loaded.set_experts_implementation(model.get_experts_implementation())
    return loaded.eval()


def generate(model: PreTrainedModel) -> Any:
    with torch.inference_mode():
        return model.generate(
            **INPUTS, max_new_tokens=5, do_sample=False, eos_token_id=None, return_dict_in_generate=True,
            output_logits=True,
        )  # fmt: skip


def same(logits: tuple[torch.Tensor, ...], others: tuple[torch.Tensor, ...]) -> list[bool]:
    """Whether logits are bitwise equal, step by step."""
    return [torch.equal(mine, theirs) for mine, theirs in zip(logits, others, strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("place", [disk, memory, mapped])
def test_recording_is_that_of_the_plain_model(family: str, place: Any, tmp_path: Path) -> None:
    """Up to rounding: a matrix product may round differently for equal weights at another address (seen with the
    memory-mapped lm_head of disk_offload, 1e-6 in its logits, recorded or not)."""
    model = build(family)
    with Recorder(model) as plain:
        expected = generate(model)
    offloaded = place(copy.deepcopy(model), tmp_path)
    experts = find_experts(offloaded)
    assert [site.experts for site in experts] == [8, 8, 8], "counted though weights are not there"
    assert any(parameter.device.type == "meta" for site in experts for parameter in site.module.parameters())
    unrecorded = generate(offloaded)
    with Recorder(offloaded) as recorder:
        recorded = generate(offloaded)
    assert same(unrecorded.logits, recorded.logits) == [True] * 5
    assert torch.equal(expected.sequences, recorded.sequences)
    assert max((a - b).abs().max() for a, b in zip(expected.logits, recorded.logits, strict=True)) < 2e-5
    routing = recorder.routing()
    assert sorted(routing) == ["L0", "L1", "L2"]
    for name, layer in plain.routing().items():
        assert layer.experts.shape == (2, 10, 2)
        assert (layer.experts == routing[name].experts).all()
        assert abs(layer.weights - routing[name].weights).max() < 2e-6


@pytest.mark.parametrize("place", [disk, memory])
def test_generate_changes_the_kernel_of_a_fully_offloaded_model(place: Any, tmp_path: Path) -> None:
    """Its device is "meta", so generate takes it for a GPU and decodes with batched_mm instead of grouped_mm.

    The routing is the same, weights differ by rounding: the model's own doing, with and without recording.
    """
    model = build("qwen2_moe", "grouped_mm")
    with Recorder(model) as plain:
        expected = generate(model)
    offloaded = place(copy.deepcopy(model), tmp_path)
    called = []
    for site in find_experts(offloaded):
        site.module.register_forward_pre_hook(
            lambda module, args: called.append((len(args[1]), module.config._experts_implementation))
        )
    unrecorded = generate(offloaded)
    with Recorder(offloaded) as recorder:
        recorded = generate(offloaded)
    assert set(called) == {(12, "grouped_mm"), (2, "batched_mm")}
    assert same(unrecorded.logits, recorded.logits) == [True] * 5
    assert not all(same(expected.logits, recorded.logits))
    for name, layer in plain.routing().items():
        assert (layer.experts == recorder.routing()[name].experts).all()
        assert abs(layer.weights - recorder.routing()[name].weights).max() < 2e-5


@pytest.mark.parametrize("place", [disk, memory, mapped])
def test_logits_are_bitwise_equal_with_and_without_recording(place: Any, tmp_path: Path) -> None:
    model = place(build("qwen2_moe"), tmp_path)
    with torch.inference_mode():
        plain = model(**INPUTS).logits
        with Recorder(model):
            recorded = model(**INPUTS).logits
    assert torch.equal(plain, recorded)


@pytest.mark.parametrize("place", [whole, disk, memory, mapped])
def test_a_bypassed_layer_is_named(place: Any, tmp_path: Path) -> None:
    model = place(build("mixtral"), tmp_path)
    # On the instance, as accelerate does itself: its own replacement of `forward` must not hide ours.
    model.model.layers[1].mlp.forward = lambda hidden: hidden
    with torch.inference_mode(), Recorder(model), pytest.raises(CaptureError, match="L1 .*recorded 0 rows of 12"):
        model(**INPUTS)


def test_hooks_of_accelerate_stay(tmp_path: Path) -> None:
    model = disk(build("mixtral"), tmp_path)
    with torch.inference_mode(), Recorder(model):
        model(**INPUTS)
    assert all(hasattr(site.module, "_hf_hook") for site in find_experts(model))
    assert not any(site.module._forward_pre_hooks for site in find_experts(model))
