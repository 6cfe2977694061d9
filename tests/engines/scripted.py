"""A tiny byte-level model that writes what it is told, so that stop texts and ends can be put where they hurt."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from moeprobe.models import LoadedModel
from tests.chat.chat_templates import CHATML, tokenizer


def byte_model(template: str | None = None, dtype: torch.dtype = torch.float32, seed: int = 0) -> LoadedModel:
    """Three layers, eight experts, one token per byte; no chat template unless one is given."""
    torch.manual_seed(seed)
    words = tokenizer(template or CHATML)
    if template is None:
        words = type(words)(tokenizer_object=words.backend_tokenizer, eos_token=words.eos_token)
    words.pad_token, words.padding_side = words.eos_token, "left"
    config = Qwen2MoeConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=32, moe_intermediate_size=16,
        shared_expert_intermediate_size=16, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        num_experts=8, num_experts_per_tok=2, max_position_embeddings=512, initializer_range=0.4,
        eos_token_id=words.eos_token_id, pad_token_id=words.eos_token_id, bos_token_id=None,
        experts_implementation="batched_mm",
    )  # fmt: skip
    model = Qwen2MoeForCausalLM(config).eval().to(dtype)
    facts = {"id": "bytes", "family": "qwen2_moe", "class": "Qwen2MoeForCausalLM", "dtype": str(dtype)[6:]}
    return LoadedModel(model, words, "bytes", facts)


def ids_of(loaded: LoadedModel, text: str | bytes) -> list[int]:
    """Token ids of a text, or of bytes that need not be one."""
    if isinstance(text, str):
        return list(loaded.tokenizer(text)["input_ids"])
    table = _bytes_to_letters()
    return [loaded.tokenizer.convert_tokens_to_ids(table[byte]) for byte in text]


def _bytes_to_letters() -> dict[int, str]:
    """GPT-2's table: printable bytes stand for themselves, the others for letters from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}


@contextmanager
def writing(loaded: LoadedModel, texts: Sequence[Sequence[int]], width: int) -> Iterator[None]:
    """Sequence i of a batch, its prompt padded to `width`, goes on with token ids `texts[i]`, then with full stops.

    Only the logits are changed, after the model has computed them: routing is the model's own.
    """
    fill = ids_of(loaded, ".")[0]

    def write(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        cache = kwargs.get("past_key_values")
        if cache is None:
            return output
        end = cache.get_seq_length()
        logits = torch.full_like(output.logits, -50.0)
        count = logits.shape[1]
        for place in range(len(logits)):
            for column in range(count):
                number = int(end) - count + column - (width - 1)
                text = texts[place] if place < len(texts) else ()
                logits[place, column, text[number] if 0 <= number < len(text) else fill] = 50.0
        output.logits = logits
        return output

    handle = loaded.model.register_forward_hook(write, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
