"""Reading and replacing contributions: exact against hand-written arithmetic."""

import pytest
import torch
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from moeprobe.capture import find_experts
from moeprobe.errors import InterchangeError
from moeprobe.interchange.contribution import Seen, contribution, reading, replacing

IMPLEMENTATIONS = ["eager", "batched_mm", "grouped_mm"]


def random_moe(implementation: str = "eager", dtype: torch.dtype = torch.float32) -> Qwen2MoeForCausalLM:
    torch.manual_seed(0)
    config = Qwen2MoeConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=1, num_experts=6, num_experts_per_tok=3,
        shared_expert_intermediate_size=16, decoder_sparse_step=1,
    )  # fmt: skip
    model = Qwen2MoeForCausalLM._from_config(config, dtype=dtype, experts_implementation=implementation)
    return model.train(False)


IDS = torch.arange(24).reshape(2, 12)


def by_hand(module: torch.nn.Module, expert: int, seen: Seen) -> torch.Tensor:
    """w * E(x) from the raw weights, row by row."""
    result = torch.zeros_like(seen.hidden)
    for row, (x, ids, weights) in enumerate(zip(seen.hidden, seen.ids, seen.weights, strict=True)):
        for index, weight in zip(ids, weights, strict=True):
            if int(index) == expert:
                gate, up = (module.gate_up_proj[expert] @ x).chunk(2)
                result[row] = weight * (module.down_proj[expert] @ (torch.nn.functional.silu(gate) * up))
    return result


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_contribution_equals_hand_arithmetic(implementation: str) -> None:
    model = random_moe(implementation)
    site = find_experts(model)[1]
    outputs = []
    handle = site.module.register_forward_hook(lambda module, args, output: outputs.append(output))
    with torch.inference_mode(), reading([site]) as seen:
        model(input_ids=IDS)
        handle.remove()
        every = [contribution(site, expert, seen[1]) for expert in range(6)]
        for expert, value in enumerate(every):
            torch.testing.assert_close(value, by_hand(site.module, expert, seen[1]), atol=2e-6, rtol=0)
        # The contributions of all experts sum to what the module gave.
        torch.testing.assert_close(sum(every), outputs[0], atol=2e-6, rtol=0)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_replacing_by_ones_own_value_changes_no_bit(implementation: str, dtype: torch.dtype) -> None:
    model = random_moe(implementation, dtype)
    site = find_experts(model)[1]
    everywhere = torch.ones(24, dtype=torch.bool)
    with torch.inference_mode():
        with reading([site]) as seen:
            plain = model(input_ids=IDS).logits
        assert torch.equal(plain, model(input_ids=IDS).logits)
        for expert in range(6):
            own = contribution(site, expert, seen[1])
            with replacing(site, expert, own, everywhere):
                assert torch.equal(model(input_ids=IDS).logits, plain)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_replacing_equals_a_hand_patched_layer(implementation: str) -> None:
    model = random_moe(implementation)
    site = find_experts(model)[1]
    torch.manual_seed(1)
    donor, where = torch.randn(24, 32), torch.rand(24) < 0.5
    with torch.inference_mode():
        with reading([site]) as seen:
            plain = model(input_ids=IDS).logits
        own = by_hand(site.module, 4, seen[1])

        def patch(module: torch.nn.Module, args: tuple[object, ...], output: torch.Tensor) -> torch.Tensor:
            return torch.where(where[:, None], output - own + donor, output)

        handle = site.module.register_forward_hook(patch)
        expected = model(input_ids=IDS).logits
        handle.remove()
        with replacing(site, 4, donor, where):
            got = model(input_ids=IDS).logits
        torch.testing.assert_close(got, expected, atol=2e-6, rtol=0)
        assert not torch.equal(got, plain)
        assert torch.equal(model(input_ids=IDS).logits, plain)  # nothing stays behind


def test_writing_to_an_expert_nobody_chose_removes_nothing() -> None:
    """Zeroing an unchosen expert is no edit at all; every other expert's removal is seen."""
    model = random_moe()
    site = find_experts(model)[0]
    everywhere, zero = torch.ones(24, dtype=torch.bool), torch.zeros(24, 32)
    original = torch.topk

    def without_two(probabilities: torch.Tensor, k: int, dim: int = -1) -> tuple[torch.Tensor, torch.Tensor]:
        barred = probabilities.clone()
        barred[..., 2] = -1
        return original(barred, k, dim=dim)

    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "topk", without_two)
        plain = model(input_ids=IDS).logits
        changed = []
        for expert in range(6):
            with replacing(site, expert, zero, everywhere):
                changed.append(not torch.equal(model(input_ids=IDS).logits, plain))
    assert changed == [True, True, False, True, True, True]


def test_rows_must_match() -> None:
    model = random_moe()
    site = find_experts(model)[0]
    with (
        torch.inference_mode(),
        replacing(site, 0, torch.zeros(5, 32), torch.ones(5, dtype=torch.bool)),
        pytest.raises(InterchangeError, match="5 rows, the forward 24"),
    ):
        model(input_ids=IDS)
    assert not site.module._forward_hooks
