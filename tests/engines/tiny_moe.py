"""A random Qwen2-MoE small enough for tests, as a folder, whose close calls come out otherwise in bfloat16."""

from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from moeprobe.models import LoadedModel
from moeprobe.prompts import Prompt
from tests.chat.chat_templates import CHATML, tokenizer

EXPERTS, CHOICES, LAYERS = 16, 4, 3


def save_model(folder: Path, *, template: str | None = CHATML, seed: int = 0) -> Path:
    """Write a model and its tokenizer."""
    torch.manual_seed(seed)
    words = tokenizer(CHATML)
    config = Qwen2MoeConfig(
        vocab_size=len(words), hidden_size=48, intermediate_size=64, moe_intermediate_size=16,
        shared_expert_intermediate_size=16, num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=2,
        num_experts=EXPERTS, num_experts_per_tok=CHOICES, max_position_embeddings=512, initializer_range=0.15,
        eos_token_id=words.eos_token_id, pad_token_id=words.eos_token_id,
    )  # fmt: skip
    model = Qwen2MoeForCausalLM(config)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    if template != CHATML:
        set_template(folder, template)
    return folder


def set_template(folder: Path, template: str | None) -> None:
    """Change the chat template of a saved tokenizer, or take it away."""
    path = folder / "chat_template.jinja"
    path.unlink(missing_ok=True)
    if template is not None:
        path.write_text(template)


def prompts(count: int) -> list[Prompt]:
    """Prompts of different lengths."""
    rng = np.random.default_rng(3)
    letters = "abcdefghijklmnopqrstuvwxyz    ,."
    sizes = rng.integers(4, 40, count)
    return [Prompt(f"p{n}", "".join(rng.choice(list(letters), size)).strip() or "a") for n, size in enumerate(sizes)]


def routed(loaded: LoadedModel, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Chosen experts (layers, tokens, k) and gate-sensitive flags (layers, tokens) of one forward, computed from what
    the routers return: no code of moeprobe takes part.

    A choice is gate-sensitive where the k-th and the next probability are closer than two logits, each off by one
    rounding step of the token's largest logit, can move them (d p = p d logit, at most d logit / 4).
    """
    seen: list[tuple[torch.Tensor, ...]] = []
    handles = [
        layer.mlp.gate.register_forward_hook(lambda module, args, output: seen.append(output))
        for layer in loaded.model.model.layers
    ]
    with torch.inference_mode():
        loaded.model(input_ids=torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    logits = np.stack([one[0].float().numpy() for one in seen]).astype(np.float64)
    step = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-7}[loaded.model.dtype]
    scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores = np.sort(scores / scores.sum(axis=-1, keepdims=True), axis=-1)[..., ::-1]
    last, out = scores[..., CHOICES - 1], scores[..., CHOICES]
    moved = 2 * step * np.abs(logits).max(axis=-1) * np.minimum(last, 0.25)
    return np.stack([one[2].numpy() for one in seen]), last - out < moved
