"""The block's output from the record: sum over the chosen experts of w * E(x), and what else the block adds.

E(x) comes from the experts module itself, called with a single expert and weight 1; for the modules that are not called
with ids, from their raw weights by hand. Nothing here reads ids or weights from the model.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers import PreTrainedModel

from moeprobe.capture import ExpertsSite, LayerRouting


@dataclass
class Parts:
    """What one forward brought through a layer: inputs of the experts, output of the block, and of its other parts.

    Attributes:
        hidden: (rows, width) input of the experts module.
        whole: (rows, width) output of the block.
        others: outputs of the block's other parts, by name, (rows, ...).
        raw: raw inputs or outputs of some parts.
    """

    hidden: Tensor = field(default_factory=lambda: torch.empty(0))
    whole: Tensor = field(default_factory=lambda: torch.empty(0))
    others: dict[str, Tensor] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)


@contextmanager
def watching(model: PreTrainedModel, sites: list[ExpertsSite]) -> Any:
    """The parts of each site's block during the one forward inside, by site name."""
    parts = {site.name: Parts() for site in sites}
    with ExitStack() as stack:
        for site in sites:
            for handle in _hooks(model, site, parts[site.name]):
                stack.callback(handle.remove)
        yield parts


def block_output(model: PreTrainedModel, site: ExpertsSite, routing: LayerRouting, parts: Parts) -> Tensor:
    """What the block's output must be according to the record, (rows, width)."""
    ids, weights = (torch.from_numpy(np.ascontiguousarray(part)).flatten(0, -2) for part in vars(routing).values())
    kind = type(site.module).__name__
    if kind == "JetMoeMoA":
        return _mixture_of_attention(site.module, ids, weights, parts)
    oracle = _ORACLES.get(kind, _itself)
    routed = torch.zeros(len(parts.hidden), parts.hidden.shape[-1])
    for expert in range(site.experts):
        weight = torch.where(ids == expert, weights, 0).sum(1, keepdim=True)
        routed += oracle(site.module, expert, parts.hidden, weight)
    block = _block(model, site)
    return _COMBINE.get(type(block).__name__, _sum)(block, routed, parts)


def _block(model: PreTrainedModel, site: ExpertsSite) -> nn.Module:
    alone = type(site.module).__name__ in ("JetMoeMoE", "JetMoeMoA", "DogeCDMoE")
    return site.module if alone else model.get_submodule(site.path.rpartition(".")[0])


def _flat(value: Any) -> Tensor:
    first = value[0] if isinstance(value, tuple) else value
    # A copy: Llama 4 adds the routed outputs to the shared one in place.
    return first.detach().reshape(-1, first.shape[-1]).clone()


def _hooks(model: PreTrainedModel, site: ExpertsSite, parts: Parts) -> list[Any]:
    block, kind = _block(model, site), type(site.module).__name__

    def keep(name: str) -> Callable[..., None]:
        return lambda module, args, output: parts.others.update({name: _flat(output)})

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        parts.hidden = _flat(args[0])

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        whole = _flat(output)
        # ERNIE's text experts hand over one long row.
        parts.whole = whole.reshape(-1, parts.hidden.shape[-1]) if whole.shape[0] == 1 < len(parts.hidden) else whole

    if kind == "JetMoeMoA":
        return [
            block.router.register_forward_hook(lambda m, a, out: parts.raw.update(rows=out[1], sizes=out[3])),
            block.output_linear.register_forward_hook(lambda m, a, out: parts.raw.update(slots=a[0])),
            model.get_submodule(site.path.rpartition(".")[0]).register_forward_hook(leave),
        ]
    if hasattr(block, "post_feedforward_layernorm_2"):  # Gemma 4 has no block; its parts meet before this norm
        final = block.post_feedforward_layernorm.register_forward_pre_hook(lambda m, args: leave(m, args, args[0]))
        mlp = block.post_feedforward_layernorm_1.register_forward_hook(keep("mlp"))
        return [site.module.register_forward_pre_hook(enter), final, mlp]
    # Llama 4 multiplies the scores in before its experts: x is the input of the block.
    outer = block if kind == "Llama4TextExperts" else site.module
    handles = [outer.register_forward_pre_hook(enter), block.register_forward_hook(leave)]
    names = [name for name, _ in block.named_children() if "shared" in name or name == "down_proj"]
    return [*handles, *(block.get_submodule(name).register_forward_hook(keep(name)) for name in names)]


# Oracles: (module, expert, x (rows, width), weight (rows, 1)) -> w * E(x), (rows, width)


def _itself(module: nn.Module, expert: int, x: Tensor, weight: Tensor) -> Tensor:
    ids = torch.full((len(x), 1), expert)
    return weight * module.forward(x, ids, torch.ones(len(x), 1)).reshape(x.shape)


def _longcat(module: nn.Module, expert: int, x: Tensor, weight: Tensor) -> Tensor:
    """Its loop breaks on a single choice per token."""
    ids, ones = torch.full((len(x), 2), expert), torch.tensor([[1.0, 0.0]]).expand(len(x), 2)
    return weight * module.forward(x, ids, ones)


def _llama4(module: nn.Module, expert: int, x: Tensor, weight: Tensor) -> Tensor:
    gate, up = ((x * weight) @ module.gate_up_proj[expert]).chunk(2, dim=-1)
    return (up * silu(gate)) @ module.down_proj[expert]


def _jetmoe(module: nn.Module, expert: int, x: Tensor, weight: Tensor) -> Tensor:
    gate, up = (x @ module.input_linear.weight[expert].T).chunk(2, dim=-1)
    return weight * ((silu(gate) * up) @ module.output_linear.weight[expert].T)


def _switch(module: nn.Module, expert: int, x: Tensor, weight: Tensor) -> Tensor:
    one = module[f"expert_{expert}"]
    return weight * (torch.relu(x @ one.wi.weight.T) @ one.wo.weight.T)


def _doge(module: nn.Module, expert: int, x: Tensor, weight: Tensor) -> Tensor:
    key = x @ module.down_embed.weight[expert][:, None]
    return weight * silu(key) * module.up_embed.weight[expert]


_ORACLES = {
    "LongcatFlashExperts": _longcat,
    "Llama4TextExperts": _llama4,
    "JetMoeMoE": _jetmoe,
    "SwitchTransformersExperts": _switch,
    "DogeCDMoE": _doge,
}


def _mixture_of_attention(module: nn.Module, ids: Tensor, weights: Tensor, parts: Parts) -> Tensor:
    """Its slots come sorted by expert: slot s belongs to token rows[s]."""
    total = torch.zeros(len(ids), module.input_size)
    sorted_experts = np.repeat(np.arange(len(parts.raw["sizes"])), parts.raw["sizes"])
    for expert in range(module.num_experts):
        slots = torch.from_numpy(sorted_experts == expert)
        rows = parts.raw["rows"][slots]
        weight = torch.where(ids[rows] == expert, weights[rows], 0).sum(1, keepdim=True)
        total.index_add_(0, rows, weight * (parts.raw["slots"][slots] @ module.output_linear.weight[expert].T))
    return total + module.bias


# How blocks put routed and shared outputs together: (block, routed (rows, width), parts) -> (rows, width)


def _shared(parts: Parts) -> Tensor:
    gates = [torch.sigmoid(out) for name, out in parts.others.items() if name.endswith("gate")]
    outs = [out for name, out in parts.others.items() if not name.endswith("gate")]
    total = sum(outs, torch.zeros(1))
    return total * gates[0] if gates else total


def _sum(block: nn.Module, routed: Tensor, parts: Parts) -> Tensor:
    return routed + _shared(parts)


def _scaled(block: nn.Module, routed: Tensor, parts: Parts) -> Tensor:
    return routed * block.routed_scaling_factor + _shared(parts)


def _longcat_block(block: nn.Module, routed: Tensor, parts: Parts) -> Tensor:
    """Zero-computation experts hand their input on; their weights come from the router by a plain hook."""
    return routed + parts.raw["absent weight"] * parts.hidden


_COMBINE: dict[str, Callable[[nn.Module, Tensor, Parts], Tensor]] = {
    "AXK1MoE": lambda block, routed, parts: block.post_mlp_layernorm(_sum(block, routed, parts)),
    "BeamMoE": _scaled,
    "Cohere2MoeSparseMoeBlock": lambda block, routed, parts: _sum(block, routed, parts) / 2,
    "DiffusionGemmaDecoderTextLayer": lambda block, routed, parts: _gemma(block, routed, parts),
    "DiffusionGemmaEncoderTextLayer": lambda block, routed, parts: _gemma(block, routed, parts),
    "Gemma4TextDecoderLayer": lambda block, routed, parts: _gemma(block, routed, parts),
    "JetMoeMoE": lambda block, routed, parts: routed + block.bias,
    "LagunaSparseMoeBlock": _scaled,
    "LongcatFlashMoE": _longcat_block,
    "MiniMaxM3VLSparseMoeBlock": _scaled,
    "MuseSparkMoE": lambda block, routed, parts: block.post_expert_proj(routed),
    "OpenAIPrivacyFilterMLP": lambda block, routed, parts: routed * block.router.top_k,
    "Step3p7SparseMoeBlock": _scaled,
}


def _gemma(block: nn.Module, routed: Tensor, parts: Parts) -> Tensor:
    return parts.others["mlp"] + block.post_feedforward_layernorm_2(routed)
