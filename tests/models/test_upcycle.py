"""Upcycling is exact: bit for bit the dense model, in both types, whatever the router chooses."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2MoeForCausalLM

from moeprobe.errors import ModelError
from moeprobe.models.upcycle import upcycle

torch.set_num_threads(1)


def tiny_llama(dtype: torch.dtype = torch.float32, **changes: object) -> LlamaForCausalLM:
    """A random Llama of 4 layers; norms are random too, so that a swapped norm would be seen."""
    values: dict[str, object] = {
        "vocab_size": 97,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    torch.manual_seed(3)
    model = LlamaForCausalLM._from_config(LlamaConfig(**(values | changes)), dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3 + (1.0 if parameter.dim() == 1 else 0.0))
    return model.eval()


@torch.no_grad()
def logits(model: LlamaForCausalLM | Qwen2MoeForCausalLM) -> torch.Tensor:
    """Logits on 2 fixed rows of 11 tokens."""
    ids = torch.arange(22).view(2, 11) * 4 % 97
    return model(ids).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layers", [[2], [0, 1, 3], [0, 1, 2, 3]])
def test_logits_are_bitwise_those_of_the_dense_model(dtype: torch.dtype, layers: list[int]) -> None:
    dense = tiny_llama(dtype)
    assert torch.equal(logits(dense), logits(upcycle(dense, moe_layers=layers, num_experts=5, top_k=2, expert_size=7)))


def test_untied_embeddings_stay_untied_and_exact() -> None:
    dense = tiny_llama(tie_word_embeddings=False)
    model = upcycle(dense, moe_layers=[1], num_experts=4, expert_size=8)
    assert torch.equal(logits(dense), logits(model))
    assert model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()


def test_rotary_buffers_stay_float32_when_built_in_bfloat16() -> None:
    model = upcycle(tiny_llama(), moe_layers=[2], num_experts=4, expert_size=8, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    # Casting afterwards is not the same; a long rotary position would show it in the logits too.
    assert tiny_llama().to(torch.bfloat16).model.rotary_emb.inv_freq.dtype == torch.bfloat16
    assert model.config._experts_implementation == "eager"


def test_shared_expert_is_halved_by_the_gate_and_doubled_by_the_weight() -> None:
    dense = tiny_llama()
    block = upcycle(dense, moe_layers=[2], num_experts=4, expert_size=8).model.layers[2].mlp
    assert torch.equal(block.shared_expert.down_proj.weight, 2 * dense.model.layers[2].mlp.down_proj.weight)
    assert not block.shared_expert_gate.weight.any()
    assert not block.experts.down_proj.any()


def test_an_expert_with_weight_changes_the_logits() -> None:
    """The exactness above is not because routed experts are never reached."""
    dense = tiny_llama()
    model = upcycle(dense, moe_layers=[2], num_experts=4, top_k=2, expert_size=8)
    with torch.no_grad():
        model.model.layers[2].mlp.experts.down_proj += 0.5
        assert not torch.equal(logits(dense), logits(model))


def test_routers_are_seeded_per_layer() -> None:
    dense = tiny_llama()
    first = upcycle(dense, moe_layers=[1, 2], num_experts=4, expert_size=8, seed=9)
    again = upcycle(dense, moe_layers=[1, 2], num_experts=4, expert_size=8, seed=9)
    other = upcycle(dense, moe_layers=[1, 2], num_experts=4, expert_size=8, seed=10)
    gates = [[model.model.layers[layer].mlp.gate.weight for layer in (1, 2)] for model in (first, again, other)]
    assert torch.equal(gates[0][0], gates[1][0])
    assert not torch.equal(gates[0][0], gates[0][1])
    assert not torch.equal(gates[0][0], gates[2][0])
    assert torch.equal(gates[0][1], gates[2][0])  # layer l uses seed + l


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_bias": True}, "attention_bias=True"),
        ({"mlp_bias": True}, "mlp_bias=True"),
        ({"head_dim": 16}, "head_dim=16"),
    ],
)
def test_a_llama_that_qwen_cannot_express_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        upcycle(tiny_llama(**changes), moe_layers=[1])


@pytest.mark.parametrize("layers", [[], [4], [-1]])
def test_layers_out_of_range_are_refused(layers: list[int]) -> None:
    with pytest.raises(ModelError, match="moe_layers must name layers 0 to 3"):
        upcycle(tiny_llama(), moe_layers=layers)


def test_top_k_above_the_number_of_experts_is_refused() -> None:
    with pytest.raises(ModelError, match="top_k must lie between 1 and num_experts=3"):
        upcycle(tiny_llama(), moe_layers=[1], num_experts=3, top_k=4)
