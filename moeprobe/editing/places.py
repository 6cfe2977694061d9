"""Where the sites of a model live: experts, router, block, shared experts, heads and stream of each layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn
from transformers import PreTrainedModel

from moeprobe.capture import ExpertsSite, find_experts
from moeprobe.capture.router import find_router
from moeprobe.errors import InterchangeError


@dataclass(frozen=True)
class Heads:
    """Attention heads of a layer: slices of the output projection's input, `count` of `width`."""

    module: nn.Module
    count: int
    width: int


@dataclass(frozen=True)
class Places:
    """The modules of one layer at which sites are read and written; None where there is none."""

    layer: int
    experts: ExpertsSite | None
    router: nn.Module | None
    block: nn.Module | None
    shared: nn.Module | None
    shared_gate: nn.Module | None
    heads: Heads | None
    decoder: nn.Module
    refused: Mapping[str, str] = field(default_factory=dict)


def find_places(model: PreTrainedModel) -> dict[int, Places]:
    """The places of every layer of the main stack, by layer."""
    experts = {site.layer: site for site in find_experts(model) if site.stack == ""}
    stacks = [
        module
        for path, module in model.named_modules()
        if path.endswith("layers") and isinstance(module, nn.ModuleList)
    ]
    if not stacks:
        raise InterchangeError("The layers of this model were not found.")
    return {layer: _places(model, layer, module, experts.get(layer)) for layer, module in enumerate(stacks[0])}


def _places(model: PreTrainedModel, layer: int, decoder: nn.Module, site: ExpertsSite | None) -> Places:
    heads = None
    attention = getattr(decoder, "self_attn", None)
    if attention is not None and isinstance(getattr(attention, "o_proj", None), nn.Linear):
        count = int(model.config.get_text_config().num_attention_heads)
        heads = Heads(attention.o_proj, count, attention.o_proj.in_features // count)
    if site is None:
        return Places(layer, None, None, None, None, None, heads, decoder)
    block = model.get_submodule(site.path.rpartition(".")[0])
    names = ("shared_expert", "shared_experts", "shared_mlp")
    shared = next((child for name, child in block.named_children() if name in names), None)
    gate = getattr(block, "shared_expert_gate", None)
    return Places(layer, site, find_router(model, site), block, shared, gate, heads, decoder)
