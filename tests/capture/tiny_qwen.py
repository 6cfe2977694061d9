"""A tiny random Qwen2-MoE whose routing depends on context, and its routing read without moeprobe's hooks."""

from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, Qwen2MoeConfig, Qwen2MoeForCausalLM

from moeprobe.capture import Recording, find_experts

VOCABULARY = 64
Routing = dict[str, tuple[np.ndarray, np.ndarray]]


def tiny(seed: int = 0, *, implementation: str = "eager", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = Qwen2MoeConfig(
        hidden_size=32, intermediate_size=32, moe_intermediate_size=16, shared_expert_intermediate_size=16,
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=VOCABULARY, num_experts=8,
        num_experts_per_tok=2, decoder_sparse_step=1, initializer_range=0.4, experts_implementation=implementation,
        max_position_embeddings=512, bos_token_id=None, eos_token_id=None, pad_token_id=0, use_sliding_window=False,
    )  # fmt: skip
    model = Qwen2MoeForCausalLM(config).eval().to(dtype)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    return model


def prompts(*lengths: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Random prompts of these lengths, padded on the left: ids and mask, both (sequences, longest)."""
    chance = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.randint(1, VOCABULARY, (len(lengths), width), generator=chance)
    mask = torch.arange(width)[None] >= width - torch.tensor(lengths)[:, None]
    return ids * mask, mask.long()


@contextmanager
def spying(model: PreTrainedModel) -> Any:
    """What each layer's experts were called with, call by call: {"L1": [(ids, weights), ...]}; no hook is involved."""
    seen: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    sites = find_experts(model)
    for site in sites:
        calls, original = seen.setdefault(site.name, []), site.module.forward

        def spy(hidden, index, weights, *, calls=calls, original=original):
            calls.append((index.numpy().copy(), weights.float().numpy().copy()))
            return original(hidden, index, weights)

        site.module.forward = spy
    try:
        yield seen
    finally:
        for site in sites:
            del site.module.forward


def teacher(model: PreTrainedModel, ids: list[int]) -> Routing:
    """One uncached forward of one unpadded sequence: experts and weights (tokens, k) by site name."""
    with torch.inference_mode(), spying(model) as seen:
        model(input_ids=torch.tensor([ids]), use_cache=False)
    return {name: calls[0] for name, calls in seen.items()}


def differences(model: PreTrainedModel, recording: Recording, tokens: np.ndarray, real: np.ndarray) -> int:
    """Rows at `real` places, (sequences, positions), whose experts or weights are not those of teacher forcing."""
    routing, wrong = recording.routing(), 0
    for place, mask in enumerate(real):
        columns = np.flatnonzero(mask)
        for name, (experts, weights) in teacher(model, tokens[place, columns].tolist()).items():
            mine = routing[name]
            same = (mine.experts[place, columns] == experts).all(1)
            close = np.isclose(mine.weights[place, columns], weights, atol=4e-6).all(1)
            wrong += int((~(same & close)).sum())
    return wrong


def places(tokens: np.ndarray, mask: torch.Tensor) -> np.ndarray:
    """(sequences, positions): the prompt's real tokens and the generated ones, without the last, which has no row."""
    real = np.ones(tokens.shape, bool)
    real[:, : mask.shape[1]] = mask.bool().numpy()
    real[:, -1] = False
    return real
