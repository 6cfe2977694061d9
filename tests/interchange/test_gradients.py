"""Taking a gradient leaves the model as it was, and says so where there is none."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprobe.editing import find_places
from moeprobe.errors import InterchangeError
from moeprobe.interchange.gradients import Sensed, sense
from tests.capture.families.tiny import build
from tests.interchange.screened import Linear

IDS = torch.arange(3, 21).reshape(2, 9)
EVERY = [(layer, kind) for layer in range(4) for kind in ("expert", "head", "moe", "residual")]


def scored(model: PreTrainedModel) -> Callable[[], Tensor]:
    def run() -> Tensor:
        logits = model(input_ids=IDS, use_cache=False, logits_to_keep=2).logits
        return Linear().score(logits, torch.empty(0), torch.empty(0))

    return run


def sensed(model: PreTrainedModel, wanted: list[tuple[int, str]] = EVERY) -> Sensed:
    return sense(model, find_places(model), wanted, scored(model))


def hooks(model: PreTrainedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_the_model_is_left_as_it_was(implementation: str) -> None:
    model = build("qwen2_moe")
    model.set_experts_implementation(implementation)
    parameters = list(model.parameters())
    for parameter in parameters[::3]:
        parameter.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in parameters]
    seen: list[str] = []
    experts = model.model.layers[0].mlp.experts
    handle = experts.register_forward_pre_hook(lambda module, args: seen.append(model.config._experts_implementation))
    with torch.no_grad():
        before = model(input_ids=IDS).logits
    installed = hooks(model)
    found = sensed(model)
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, before)
    assert seen == [implementation, "eager", implementation]
    assert [parameter.requires_grad for parameter in parameters] == flags
    assert all(parameter.grad is None for parameter in parameters)
    assert hooks(model) == installed
    assert not found.score.requires_grad
    assert not any(slope.requires_grad for slope in found.slopes.values())
    handle.remove()


def test_the_model_is_left_as_it_was_after_an_error() -> None:
    model = build("qwen2_moe")
    model.set_experts_implementation("grouped_mm")

    def broken() -> Tensor:
        scored(model)()
        raise ValueError("of the caller")

    with pytest.raises(ValueError, match="of the caller"):
        sense(model, find_places(model), EVERY, broken)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.config._experts_implementation == "grouped_mm"
    assert hooks(model) == 0


def test_the_score_and_the_slopes_do_not_depend_on_which_places_are_sensed() -> None:
    """The graph begins at the first place; what is sensed later sees the same gradient."""
    model = build("mixtral").double()
    every, last = sensed(model), sensed(model, [(3, "expert")])
    torch.testing.assert_close(every.score, last.score)
    torch.testing.assert_close(every.slopes[3, "expert"], last.slopes[3, "expert"])
    with torch.no_grad():
        torch.testing.assert_close(every.score, scored(model)().double())


def test_it_works_inside_inference_mode() -> None:
    model = build("mixtral").double()
    outside = sensed(model)
    with torch.inference_mode():
        inside = sensed(model)
    torch.testing.assert_close(inside.slopes[2, "expert"], outside.slopes[2, "expert"])


def test_a_change_in_place_downstream_does_not_change_what_is_differentiated() -> None:
    """The gradient with respect to what the module gave is twice that with respect to what the next one made of it."""
    model = build("mixtral").double()

    def in_place(module: nn.Module, args: tuple[Any, ...]) -> None:
        args[0].mul_(2)

    def anew(module: nn.Module, args: tuple[Any, ...]) -> Any:
        return args[0] * 2, *args[1:]

    slopes = []
    for hook in (in_place, anew):
        handle = model.model.layers[2].register_forward_pre_hook(hook)
        slopes.append(sensed(model, [(0, "residual"), (1, "residual")]).slopes)
        handle.remove()
    for place in slopes[0]:
        torch.testing.assert_close(slopes[0][place], slopes[1][place])
    plain = sensed(model, [(1, "residual")]).slopes[1, "residual"]
    assert not torch.allclose(slopes[0][1, "residual"], plain)


def test_a_model_in_training_mode_is_refused() -> None:
    model = build("mixtral").train()
    with pytest.raises(InterchangeError, match="training mode"):
        sensed(model)


def test_experts_without_a_gradient_are_refused() -> None:
    """A kernel without a backward must not pass as one whose slope is 0."""
    model = build("mixtral")
    experts = model.model.layers[2].mlp.experts
    original = experts.forward
    experts.forward = lambda *args: original(*args).detach()
    with pytest.raises(InterchangeError, match=r"L2\.expert gives no gradient"):
        sensed(model)
    del experts.forward
    sensed(model)


class _NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        del context
        return value.clone()

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> Any:
        del context, slopes
        raise NotImplementedError("the derivative for this kernel is not implemented")


def test_an_operation_without_a_backward_is_explained() -> None:
    model = build("mixtral")
    handle = model.model.norm.register_forward_hook(lambda module, args, result: _NoBackward.apply(result))
    with pytest.raises(InterchangeError, match="MixtralForCausalLM gives no gradient here .the derivative"):
        sensed(model)
    handle.remove()


def test_a_metric_without_a_gradient_is_refused() -> None:
    model = build("mixtral")
    run = scored(model)
    with pytest.raises(InterchangeError, match="metric does not depend"):
        sense(model, find_places(model), EVERY, lambda: run().detach())


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    model = build("mixtral")
    run = scored(model)
    with pytest.raises(InterchangeError, match=r"not finite on these prompts. Try --dtype float32"):
        sense(model, find_places(model), EVERY, lambda: run() * torch.inf)
