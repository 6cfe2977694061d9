"""Gradient checkpointing runs each layer twice; the second time is not part of the text."""

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, Qwen3MoeConfig, Qwen3MoeForCausalLM

from moeprobe.capture import Recorder, find_experts
from moeprobe.capture.signals import make_taps

# transformers 5.17, the oldest supported, has only the old name of `activation_checkpointing_enable`.
pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")

IDS = torch.tensor([[5, 9, 3, 7, 22, 31], [8, 4, 60, 11, 2, 17]])


@pytest.fixture
def model() -> PreTrainedModel:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = Qwen3MoeConfig(
        hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, vocab_size=64, num_experts=8, num_experts_per_tok=2, initializer_range=0.5,
    )  # fmt: skip
    return Qwen3MoeForCausalLM(config).eval()


def checkpoint(model: PreTrainedModel, *, reentrant: bool) -> None:
    """Checkpointing without train mode: layers look at their own flag alone, so nothing below them changes."""
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    for layer in model.model.layers:
        layer.training = True


def count_calls(model: PreTrainedModel) -> list[int]:
    """How often each layer's experts are called, filled in as they are."""
    calls = [0, 0, 0]
    for site in find_experts(model):

        def count(module: Any, args: Any, layer: int = site.layer) -> None:
            calls[layer] += 1

        site.module.register_forward_pre_hook(count)
    return calls


def step(model: PreTrainedModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits and gradients of one training step."""
    model.zero_grad()
    output = model(input_ids=IDS, labels=IDS, use_cache=False)
    output.loss.backward()
    gradients = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    return output.logits.detach().clone(), gradients


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_layers_are_recorded_once(model: PreTrainedModel, reentrant: bool) -> None:
    with Recorder(model) as plain:
        step(model)
    expected = plain.routing()
    checkpoint(model, reentrant=reentrant)
    calls = count_calls(model)
    taps = make_taps(model, find_experts(model), ["logits", "router-input", "margin"])
    with Recorder(model, taps=taps) as recorder:
        step(model)
        step(model)
    assert calls == [4, 4, 4], "the backward pass computed the layers again"
    recording = recorder.recording()
    assert all(len(layer.experts) == 2 * IDS.numel() for layer in recording.layers.values())
    assert {len(signal) for signal in recording.signals.values()} == {2 * IDS.numel()}
    for name, layer in recorder.routing().items():
        assert layer.experts.shape == (2, 6, 2)
        assert (layer.experts == expected[name].experts).all()
        assert (layer.weights == expected[name].weights).all()


@pytest.mark.parametrize("reentrant", [True, False])
def test_logits_and_gradients_are_bitwise_equal_with_and_without_recording(
    model: PreTrainedModel, reentrant: bool
) -> None:
    checkpoint(model, reentrant=reentrant)
    logits, gradients = step(model)
    with Recorder(model):
        recorded_logits, recorded_gradients = step(model)
    assert torch.equal(logits, recorded_logits)
    assert gradients.keys() == recorded_gradients.keys()
    assert len(gradients) > 30
    assert all(torch.equal(gradients[name], recorded_gradients[name]) for name in gradients)


def test_a_backward_pass_between_two_forwards_leaves_no_rows(model: PreTrainedModel) -> None:
    checkpoint(model, reentrant=False)
    with Recorder(model) as recorder:
        loss = model(input_ids=IDS[:, :4], labels=IDS[:, :4], use_cache=False).loss
        loss.backward()
        with torch.no_grad():
            model(input_ids=IDS, use_cache=False)
    with torch.no_grad(), Recorder(model) as last:
        model(input_ids=IDS, use_cache=False)
    for name, layer in recorder.routing().items():
        assert (layer.experts == last.routing()[name].experts).all()
