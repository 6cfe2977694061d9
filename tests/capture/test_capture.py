"""Capture: right ids, complete, bitwise silent, loud when something is bypassed."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from moeprobe.capture import Recorder, find_experts
from moeprobe.capture.discover import _REFUSED
from moeprobe.errors import CaptureError, ModelError
from moeprobe.models import LoadedModel, load_model
from moeprobe.models.compiled import FAMILIES


def encode(loaded: LoadedModel, texts: list[str]) -> dict[str, torch.Tensor]:
    return dict(loaded.tokenizer(texts, return_tensors="pt", padding=True))


TEXTS = ["question : please tell me about the quiet garden ? answer :", "question : tell me ? answer :"]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_bitwise_equal_with_and_without_capture(family: str) -> None:
    loaded = load_model(f"compiled:{family}")
    inputs = encode(loaded, TEXTS)
    with torch.inference_mode():
        plain = loaded.model(**inputs).logits
        with Recorder(loaded.model) as recorder:
            hooked = loaded.model(**inputs).logits
    assert torch.equal(plain, hooked)
    routing = recorder.routing()
    assert sorted(routing) == sorted(site.name for site in find_experts(loaded.model))
    assert all((layer.experts >= 0).all() for layer in routing.values())


def test_hooks_are_gone_afterwards(compiled: LoadedModel) -> None:
    with Recorder(compiled.model):
        pass
    assert not compiled.model._forward_pre_hooks
    assert not compiled.model._forward_hooks
    assert not any(site.module._forward_pre_hooks for site in find_experts(compiled.model))


def test_cached_decoding_lands_at_its_absolute_position(compiled: LoadedModel) -> None:
    inputs = encode(compiled, TEXTS)
    with torch.inference_mode(), Recorder(compiled.model) as whole:
        compiled.model(**inputs)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with torch.inference_mode(), Recorder(compiled.model) as pieces:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        first = compiled.model(
            input_ids=ids[:, :5], attention_mask=mask[:, :5], position_ids=positions[:, :5], use_cache=True
        )
        compiled.model(
            input_ids=ids[:, 5:], attention_mask=mask, position_ids=positions[:, 5:], use_cache=True,
            past_key_values=first.past_key_values,
        )  # fmt: skip
    real = mask.bool().numpy()
    for layer, routing in whole.routing().items():
        assert (routing.experts[real] == pieces.routing()[layer].experts[real]).all()


def test_a_bypassed_layer_is_named(compiled: LoadedModel) -> None:
    site = find_experts(compiled.model)[2]
    block = compiled.model.get_submodule(site.path.rpartition(".")[0])
    original = block.forward
    block.forward = lambda hidden, *args, **kwargs: hidden  # a fused kernel that never calls the experts
    try:
        with (
            torch.inference_mode(),
            Recorder(compiled.model),
            pytest.raises(CaptureError, match=r"L2 .*recorded 0 rows"),
        ):
            compiled.model(**encode(compiled, TEXTS))
    finally:
        block.forward = original


def test_a_layer_run_twice_is_named(compiled: LoadedModel) -> None:
    site = find_experts(compiled.model)[1]
    block = compiled.model.get_submodule(site.path.rpartition(".")[0])
    original = block.forward

    def twice(*args: object, **kwargs: object) -> object:
        original(*args, **kwargs)
        return original(*args, **kwargs)

    block.forward = twice
    try:
        with (
            torch.inference_mode(),
            Recorder(compiled.model),
            pytest.raises(CaptureError, match="L1 .*run twice|run\n? *twice"),
        ):
            compiled.model(**encode(compiled, TEXTS))
    finally:
        block.forward = original


def test_compiled_models_are_refused(compiled: LoadedModel) -> None:
    compiled.model._compiled_call_impl = object()
    try:
        with pytest.raises(CaptureError, match=r"without torch\.compile"), Recorder(compiled.model):
            pass
    finally:
        compiled.model._compiled_call_impl = None


def test_nothing_forwarded(compiled: LoadedModel) -> None:
    with Recorder(compiled.model) as recorder:
        pass
    with pytest.raises(CaptureError, match="no forward pass"):
        recorder.routing()


def test_dense_models_are_refused() -> None:
    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=32
    )
    with pytest.raises(ModelError, match="no routed experts"):
        find_experts(LlamaForCausalLM(config))


@pytest.mark.parametrize("family", sorted(_REFUSED))
def test_unsupported_families_are_refused_by_name(compiled: LoadedModel, family: str) -> None:
    original = compiled.model.config.model_type
    type(compiled.model.config).model_type = family
    try:
        with pytest.raises(ModelError, match=f"cannot record {family}"):
            find_experts(compiled.model)
    finally:
        type(compiled.model.config).model_type = original


def test_more_forwards_than_one_flush(compiled: LoadedModel) -> None:
    inputs = encode(compiled, TEXTS)
    with torch.inference_mode(), Recorder(compiled.model) as recorder:
        out = compiled.model.generate(**inputs, max_new_tokens=80, do_sample=False)
    routing = recorder.routing()
    assert routing["L0"].experts.shape == (2, out.shape[1] - 1, 2)
