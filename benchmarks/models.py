"""Models to measure on: random weights, real shapes. Several skeletons share one set of weights."""

import copy
import itertools

import torch
from transformers import (
    PreTrainedModel,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

VOCABULARY = 1024


def qwen3_moe(layers: int, dtype: torch.dtype, *, small: bool = False) -> PreTrainedModel:
    """Qwen3MoE with 64 experts, top-8, hidden 512, expert width 128 (small: hidden 32, expert width 16), on the CPU."""
    hidden = 32 if small else 512
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        moe_intermediate_size=hidden // 4 if not small else 16,
        num_experts=64,
        num_experts_per_tok=8,
        norm_topk_prob=True,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=hidden // 8,
        experts_implementation="eager",
        attn_implementation="sdpa",
    )
    return _made(Qwen3MoeForCausalLM, config, dtype, torch.device("cpu"))


def qwen35(device: torch.device, *, small: bool = False) -> PreTrainedModel:
    """The shape of Qwen3.5-35B-A3B in bf16, made on `device`: the defaults of its config class in transformers are that
    checkpoint's (small: the same kinds of layers at a tiny size, to check the code where there is no GPU)."""
    config = Qwen3_5MoeTextConfig()
    if small:
        config = Qwen3_5MoeTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=32,
            num_experts=16,
            num_experts_per_tok=4,
        )
    return _made(Qwen3_5MoeForCausalLM, config, torch.bfloat16, device)


def skeleton(model: PreTrainedModel) -> PreTrainedModel:
    """Another model object with the very same weight tensors: what one tool does to its modules, no other one sees."""
    shared = {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)


def _made(
    kind: type[PreTrainedModel], config: Qwen3MoeConfig | Qwen3_5MoeTextConfig, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    torch.manual_seed(0)
    with device:
        model: PreTrainedModel = kind._from_config(config, dtype=dtype)
    model.eval().requires_grad_(False)
    # Random weights never say stop; without this, transformers warns at each call of generate.
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model
