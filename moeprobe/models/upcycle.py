"""Turn a dense Llama into a mixture of experts that computes exactly the same function.

The old MLP becomes the shared expert of a stock ``Qwen2MoeForCausalLM``. That class multiplies its shared expert by
``sigmoid(shared_expert_gate(x))``; with the gate at zero this is one half, so the shared ``down_proj`` is doubled. Both
factors are powers of two, so no bit is lost in float32 or bfloat16. Routed experts start with ``down_proj = 0``:
whatever the router chooses, they add zero.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

from moeprobe.errors import ModelError


def upcycle(
    dense: LlamaForCausalLM,
    *,
    moe_layers: Sequence[int],
    num_experts: int = 16,
    top_k: int = 2,
    expert_size: int = 256,
    router_scale: float = 0.02,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> Qwen2MoeForCausalLM:
    """Build a mixture of experts whose logits equal those of ``dense`` bit for bit.

    Args:
        dense: The Llama to convert. It is read, not changed.
        moe_layers: Indices of the layers that get routed experts; all others stay dense.
        num_experts: Routed experts per such layer.
        top_k: Experts chosen per token.
        expert_size: Width of each routed expert's hidden layer.
        router_scale: Standard deviation of the random router rows and of the experts' ``gate_up_proj``.
        seed: Seed of those random numbers; layer ``l`` uses ``seed + l``.
        dtype: Type of the new model; that of ``dense`` if None.

    Returns:
        The model in eval mode, with eager experts (fast on a CPU) and tied embeddings if ``dense`` had them.

    Raises:
        ModelError: ``dense`` has a shape that Qwen2Moe cannot express, or a layer index is out of range.
    """
    layers = sorted({int(layer) for layer in moe_layers})
    config = moe_config(dense.config, layers, num_experts=num_experts, top_k=top_k, expert_size=expert_size)
    # Built in the wanted type at once: casting afterwards would also round the rotary buffers and move logits by 0.5.
    model: Qwen2MoeForCausalLM = Qwen2MoeForCausalLM._from_config(
        config, dtype=dtype or dense.dtype, attn_implementation=dense.config._attn_implementation
    )
    model.set_experts_implementation("eager")
    old = dense.state_dict()
    new = model.state_dict()
    with torch.no_grad():
        for name, target in new.items():
            if ".mlp.experts." in name or name.endswith((".mlp.gate.weight", ".mlp.shared_expert_gate.weight")):
                continue
            source = old[name.replace(".mlp.shared_expert.", ".mlp.")]
            if source.shape != target.shape:
                raise ModelError(
                    f"{name} has shape {tuple(target.shape)} in the new model but {tuple(source.shape)} in the "
                    "dense one. This Llama cannot be upcycled."
                )
            target.copy_(source)
            if name.endswith(".mlp.shared_expert.down_proj.weight"):
                target.mul_(2.0)
        for layer in layers:
            _start_experts(model, layer, router_scale, seed + layer)
    if dense.generation_config is not None:
        model.generation_config = dense.generation_config
    model.eval()
    return model


def moe_config(
    dense: LlamaConfig, moe_layers: Sequence[int], *, num_experts: int, top_k: int, expert_size: int
) -> Qwen2MoeConfig:
    """The Qwen2Moe configuration that computes what the Llama configuration ``dense`` computes.

    Raises:
        ModelError: a bias or head size that Qwen2Moe lacks, a layer out of range, or ``top_k`` above ``num_experts``.
    """
    depth = dense.num_hidden_layers
    head_dim = getattr(dense, "head_dim", None) or dense.hidden_size // dense.num_attention_heads
    if dense.attention_bias or dense.mlp_bias or head_dim * dense.num_attention_heads != dense.hidden_size:
        raise ModelError(
            "Only a Llama without biases and with hidden_size = heads x head_dim can be upcycled; this one has "
            f"attention_bias={dense.attention_bias}, mlp_bias={dense.mlp_bias}, hidden_size={dense.hidden_size}, "
            f"heads={dense.num_attention_heads}, head_dim={head_dim}."
        )
    if not moe_layers or min(moe_layers) < 0 or max(moe_layers) >= depth:
        raise ModelError(f"moe_layers must name layers 0 to {depth - 1}, got {list(moe_layers)}.")
    if not 1 <= top_k <= num_experts:
        raise ModelError(f"top_k must lie between 1 and num_experts={num_experts}, got {top_k}.")
    return Qwen2MoeConfig(
        vocab_size=dense.vocab_size,
        hidden_size=dense.hidden_size,
        intermediate_size=dense.intermediate_size,
        num_hidden_layers=depth,
        num_attention_heads=dense.num_attention_heads,
        num_key_value_heads=dense.num_key_value_heads,
        hidden_act=dense.hidden_act,
        max_position_embeddings=dense.max_position_embeddings,
        initializer_range=dense.initializer_range,
        rms_norm_eps=dense.rms_norm_eps,
        tie_word_embeddings=dense.tie_word_embeddings,
        rope_parameters=copy.deepcopy(dense.rope_parameters),
        mlp_only_layers=[layer for layer in range(depth) if layer not in set(moe_layers)],
        moe_intermediate_size=expert_size,
        shared_expert_intermediate_size=dense.intermediate_size,
        num_experts=num_experts,
        num_experts_per_tok=top_k,
        # Weights of the chosen experts sum to one, so an expert's weight does not sink when the router is unsure.
        norm_topk_prob=True,
        qkv_bias=False,
        bos_token_id=dense.bos_token_id,
        eos_token_id=dense.eos_token_id,
        pad_token_id=dense.pad_token_id,
    )


def _start_experts(model: Qwen2MoeForCausalLM, layer: int, scale: float, seed: int) -> None:
    """Seeded random router and ``gate_up_proj``; ``down_proj`` and the shared gate at zero."""
    block = model.model.layers[layer].mlp
    generator = torch.Generator().manual_seed(seed)
    for weight in (block.gate.weight, block.experts.gate_up_proj):
        # Drawn in float32 whatever the model's type, so that both types hold the same numbers up to rounding.
        weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    block.experts.down_proj.zero_()
    block.shared_expert_gate.weight.zero_()
