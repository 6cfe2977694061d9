"""Tiny mixtures of experts with random weights, where every expert writes, and random pairs of unequal lengths."""

import numpy as np
import torch
from transformers import MixtralConfig, MixtralForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

from moeprobe.models import LoadedModel, load_model
from moeprobe.pairs.pairs import TokenPair

LENGTHS = [(9, 4), (3, 8), (6, 6), (12, 5), (4, 11), (7, 7)]


def random_model(family: str, layers: int = 3) -> LoadedModel:
    """Mixtral, or Qwen2Moe with a gated shared expert; 4 experts, top 2, 4 heads."""
    torch.manual_seed(0)
    shape = {"vocab_size": 512, "hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 4}
    shape["num_key_value_heads"] = 2
    experts = {"num_experts_per_tok": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if family == "mixtral":
        config = MixtralConfig(**shape, **experts, intermediate_size=16, num_local_experts=4, initializer_range=0.3)
        model = MixtralForCausalLM._from_config(config, experts_implementation="eager")
    else:
        sizes = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "intermediate_size": 16}
        config = Qwen2MoeConfig(**shape, **experts, **sizes, num_experts=4, initializer_range=0.3)
        model = Qwen2MoeForCausalLM._from_config(config, experts_implementation="eager")
    tokenizer = load_model("compiled").tokenizer
    return LoadedModel(model.train(False), tokenizer, family, {"class": family, "dtype": "float32"})


def random_pairs(lengths: list[tuple[int, int]] = LENGTHS) -> list[TokenPair]:
    """Pairs of random token ids, (sensitive, control) lengths as given."""
    generator = np.random.default_rng(0)
    drawn = [[tuple(generator.integers(3, 60, length).tolist()) for length in both] for both in lengths]
    return [TokenPair(str(number), *both) for number, both in enumerate(drawn)]
