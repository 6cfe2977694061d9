"""Tiny models with random weights, where every expert writes."""

import torch
from transformers import MixtralConfig, MixtralForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

from moeprobe.models import LoadedModel, load_model


def random_model(family: str) -> LoadedModel:
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape["num_key_value_heads"] = 1
    experts = {"num_experts_per_tok": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if family == "mixtral":
        config = MixtralConfig(**shape, **experts, intermediate_size=16, num_local_experts=4)
        model = MixtralForCausalLM._from_config(config, experts_implementation="eager")
    else:
        sizes = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "intermediate_size": 16}
        config = Qwen2MoeConfig(**shape, **experts, **sizes, num_experts=4)
        model = Qwen2MoeForCausalLM._from_config(config, experts_implementation="eager")
    tokenizer = load_model("compiled").tokenizer
    return LoadedModel(model.train(False), tokenizer, family, {"class": family, "dtype": "float32"})
