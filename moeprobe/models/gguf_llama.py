"""Read a Llama from a GGUF file, dequantised, with one pass over the file.

``transformers`` reads the same file with ``from_pretrained(..., gguf_file=...)``, but parses its 100,000 strings twice
(12 s for SmolLM2-135M against 6 s here) and asks for ``accelerate``. A test holds that both give the same bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from moeprobe.errors import ModelError

if TYPE_CHECKING:
    import gguf

#: llama.cpp's name of a block's tensor -> the name in transformers.
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def load_gguf_llama(path: Path, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """Load a dense Llama from ``path`` and dequantise it.

    Args:
        path: A GGUF file of architecture ``llama``.
        dtype: Type of the model; weights are dequantised in float32 and rounded once.

    Returns:
        The model in eval mode.

    Raises:
        ModelError: ``gguf`` is not installed, or the file is not a Llama that this reader knows.
    """
    try:
        import gguf
    except ImportError as error:
        raise ModelError(f"Reading {path.name} needs the package gguf. Run: pip install gguf") from error
    try:
        reader = _reader(path)
    except (OSError, ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is no readable GGUF file ({error}). Install it again.") from error
    config = _config(reader, path)
    model: LlamaForCausalLM = LlamaForCausalLM._from_config(config, dtype=dtype)
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    targets = model.state_dict()
    missing = set(targets) - ({"lm_head.weight"} if config.tie_word_embeddings else set())
    with torch.no_grad():
        for tensor in reader.tensors:
            name = _name(tensor.name)
            if name is None or name not in targets:
                raise ModelError(f"{path} holds a tensor {tensor.name!r} that a Llama of this shape does not have.")
            weight = gguf.dequantize(tensor.data, tensor.tensor_type)
            if name.endswith("q_proj.weight"):
                weight = _unpermute(weight, config.num_attention_heads)
            elif name.endswith("k_proj.weight"):
                weight = _unpermute(weight, config.num_key_value_heads)
            if tuple(weight.shape) != tuple(targets[name].shape):
                raise ModelError(
                    f"{tensor.name} in {path} has shape {weight.shape}, expected {tuple(targets[name].shape)}."
                )
            targets[name].copy_(torch.from_numpy(np.array(weight, dtype=np.float32)))
            missing.discard(name)
    if missing:
        raise ModelError(f"{path} lacks {len(missing)} tensors, for example {sorted(missing)[0]}. Install it again.")
    model.eval()
    return model


def _reader(path: Path) -> gguf.GGUFReader:
    """As `gguf.GGUFReader(path)`, 3 times as fast: half a million slices of a memory map cost far more than those of an
    array on the same memory."""
    import gguf

    class Reader(gguf.GGUFReader):
        def _get(self, *args: Any, **kwargs: Any) -> Any:
            if isinstance(self.data, np.memmap):
                self.data = self.data.view(np.ndarray)  # type: ignore[assignment]  # all it does is slice it
            return super()._get(*args, **kwargs)

    return Reader(path)


def _name(gguf_name: str) -> str | None:
    """The transformers name of a llama.cpp tensor, or None if unknown."""
    if gguf_name in _TOP_NAMES:
        return _TOP_NAMES[gguf_name]
    parts = gguf_name.split(".")
    if len(parts) != 4 or parts[0] != "blk" or parts[3] != "weight" or parts[2] not in _BLOCK_NAMES:
        return None
    return f"model.layers.{parts[1]}.{_BLOCK_NAMES[parts[2]]}.weight"


def _unpermute(weight: np.ndarray[Any, Any], heads: int | None) -> np.ndarray[Any, Any]:
    """Undo llama.cpp's interleaving of the rotary halves; ``weight`` is (heads * head_dim, hidden)."""
    if heads is None:  # only a configuration made by hand can lack it
        raise ModelError("the number of key-value heads is unknown")
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _config(reader: gguf.GGUFReader, path: Path) -> LlamaConfig:
    """The Llama configuration written in the file's fields."""

    def field(key: str) -> Any:
        found = reader.get_field(key)
        if found is None:
            raise ModelError(f"{path} has no field {key}; it is not a Llama that moeprobe can read.")
        return found.contents()

    if field("general.architecture") != "llama":
        raise ModelError(f"{path} holds architecture {field('general.architecture')!r}; only 'llama' is read here.")
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    return LlamaConfig(
        vocab_size=int(field("llama.vocab_size")),
        hidden_size=int(field("llama.embedding_length")),
        intermediate_size=int(field("llama.feed_forward_length")),
        num_hidden_layers=int(field("llama.block_count")),
        num_attention_heads=int(field("llama.attention.head_count")),
        num_key_value_heads=int(field("llama.attention.head_count_kv")),
        max_position_embeddings=int(field("llama.context_length")),
        rms_norm_eps=float(field("llama.attention.layer_norm_rms_epsilon")),
        rope_parameters={"rope_type": "default", "rope_theta": float(field("llama.rope.freq_base"))},
        tie_word_embeddings=tied,
        bos_token_id=int(field("tokenizer.ggml.bos_token_id")),
        eos_token_id=int(field("tokenizer.ggml.eos_token_id")),
        pad_token_id=int(field("tokenizer.ggml.padding_token_id")),
    )
