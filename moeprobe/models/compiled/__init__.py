"""The compiled model: a tiny mixture of experts whose weights are written down, so that the truth about it is known.

See docs/models/compiled.md for the construction and the table of what is true.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from moeprobe.errors import OutputError
from moeprobe.models.compiled.construction import write_weights
from moeprobe.models.compiled.families import FAMILIES, empty_model, family_named
from moeprobe.models.compiled.truth import TRUTH, Truth
from moeprobe.models.compiled.vocabulary import build_tokenizer

__all__ = ["FAMILIES", "TRUTH", "Truth", "build", "save"]


def build(
    family: str = "qwen3_moe", *, strict: bool = False, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Build the compiled model and its tokenizer on the CPU, in eval mode, without any download.

    Args:
        family: one of `FAMILIES`; decides which of transformers' classes the model is.
        strict: use the variant in which, of all experts, only the planted ones and one idle mirror each differ.
        seed: varies words, background routing and which expert serves which word; never what `TRUTH` says.
        dtype: type of the weights.

    Returns:
        The model (4 layers, 8 experts, 2 per token) and a word-level tokenizer that pads on the left.

    Raises:
        ModelError: `family` is none of `FAMILIES`.
    """
    shape = family_named(family)
    model = empty_model(shape)
    write_weights(shape, model, strict=strict, seed=seed)
    cast: Any = model  # `to` and `eval` have no usable annotations
    return cast.to(dtype).eval(), build_tokenizer(shield=shape.own_tokenizer)


def save(
    path: str | Path,
    family: str = "qwen3_moe",
    *,
    strict: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Build the model and write it to a new directory that `AutoModelForCausalLM.from_pretrained` loads.

    Arguments as for `build`.

    Returns:
        The directory.

    Raises:
        ModelError: `family` is none of `FAMILIES`.
        OutputError: `path` exists and is not an empty directory, or could not be written.
    """
    target = Path(path)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise OutputError(f"{target} exists already. Choose a new directory for the compiled model.")
    model, tokenizer = build(family, strict=strict, seed=seed, dtype=dtype)
    try:
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    except OSError as error:
        raise OutputError(f"The compiled model could not be written to {target}: {error}.") from error
    return target
