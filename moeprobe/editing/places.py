"""Where the sites of a model live: experts, router, block, shared experts, heads and stream of each layer.

Found by structure, in the main (text decoder) stack. What a family computes in a way that a hook cannot read or change
is refused by name, with the reason.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn
from transformers import PreTrainedModel

from moeprobe.capture import ExpertsSite, find_experts
from moeprobe.capture.router import find_router
from moeprobe.capture.stacks import MAIN, split
from moeprobe.editing import oracle
from moeprobe.editing.heads import Heads, find_heads
from moeprobe.errors import ModelError
from moeprobe.sites import LayerSites, Layout

__all__ = ["Heads", "Places", "find_places", "layout_of"]


@dataclass(frozen=True)
class Places:
    """The modules of one layer at which sites are read and written; None where there is none.

    Attributes:
        layer: the model's own layer index.
        experts: the routed experts.
        router: the module that scores the experts.
        block: whose output is the MoE block's: routed experts, and shared ones that stand inside it.
        shared: whose output, times sigmoid of `shared_gate` where there is one, is the shared experts' contribution.
        shared_gate: maps the block's input to one number per token.
        heads: slices of the input of the attention's output projection.
        decoder: the layer; its output (alone, or first of a tuple) is the residual stream after it.
        refused: for a kind of site that cannot be read and edited although the layer has such a thing, why, in words.
            A refused kind stays refused where its module is known.
    """

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
    """The places of every layer of the main stack, by layer.

    Raises:
        ModelError: as `find_experts`, or the layers of the main stack stand in several lists.
    """
    sites = find_experts(model)
    main = {site.layer: site for site in sites if site.stack == MAIN}
    lists = sorted({".".join(split(site.path)[0]) for site in main.values()})
    if len(lists) != 1:
        raise ModelError(
            f"The layers of {type(model).__name__} that have experts stand in {len(lists)} lists ({', '.join(lists)}), "
            "so it cannot be told which layers follow one another."
        )
    layers = model.get_submodule(lists[0]).named_children()
    return {int(name): _places(model, int(name), decoder, main.get(int(name)), sites) for name, decoder in layers}


def layout_of(places: Mapping[int, Places]) -> Layout:
    """What can be named in a model with these places."""
    return Layout({layer: _sites(one) for layer, one in places.items()})


def _sites(places: Places) -> LayerSites:
    def there(kind: str, place: object) -> bool:
        return place is not None and kind not in places.refused

    experts, heads = places.experts, places.heads
    return LayerSites(
        experts=experts.experts if experts is not None and there("expert", experts) else None,
        heads=heads.count if heads is not None and there("head", heads) else None,
        router=there("router", places.router),
        shared=there("shared", places.shared),
        moe=there("moe", places.block),
        residual=there("residual", places.decoder),
        refused=dict(places.refused),
    )


def _places(
    model: PreTrainedModel, layer: int, decoder: nn.Module, site: ExpertsSite | None, sites: Sequence[ExpertsSite]
) -> Places:
    refused: dict[str, str] = {}
    router, block, shared, gate = None, None, None, None
    if site is not None:
        block = _block(model, decoder, site, sites)
        router = _router(model, site, block)
        shared, gate = _shared(model, decoder, site)
        refused |= _refused(site, block, shared)
    heads = find_heads(decoder, but=[module for module in (block, shared) if module is not None])
    if any(other.stack == "attention" and other.layer == layer for other in sites):
        heads = "its heads are routed experts themselves (a mixture of attention), not slices of one projection"
    if isinstance(heads, str):
        refused["head"], heads = heads, None
    streams = _several_streams(decoder)
    if streams is not None:
        refused["residual"] = streams
    return Places(layer, site, router, block, shared, gate, heads, decoder, refused)


def _above(model: PreTrainedModel, decoder: nn.Module, site: ExpertsSite) -> list[nn.Module]:
    """The modules around the experts, from their parent outward, the decoder layer excluded."""
    parts, found = site.path.split("."), []
    for end in range(len(parts) - 1, 0, -1):
        module = model.get_submodule(".".join(parts[:end]))
        if module is decoder:
            break
        found.append(module)
    return found


def _block(
    model: PreTrainedModel, decoder: nn.Module, site: ExpertsSite, sites: Sequence[ExpertsSite]
) -> nn.Module | None:
    """The module whose output is the MoE block's, or None where the decoder layer itself adds the parts up."""
    above = _above(model, decoder, site)
    if not above:
        # JetMoe and Doge: the module that holds the experts' weights is called with the hidden states alone.
        alone = len([one for one in inspect.signature(type(site.module).forward).parameters.values() if _needed(one)])
        return site.module if alone == 2 else None
    block = above[0]
    for outer in above[1:]:
        # ERNIE 4.5 VL: text and image experts stand side by side, and shared experts around both.
        others = {id(other.module) for other in sites if other is not site}
        if _shared_child(outer) is None and not any(id(inner) in others for inner in outer.modules()):
            break
        block = outer
    return block


def _needed(parameter: inspect.Parameter) -> bool:
    return parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.default is parameter.empty


def _router(model: PreTrainedModel, site: ExpertsSite, block: nn.Module | None) -> nn.Module:
    """The router; where the choice is read off the block itself (Doge), the module in it that makes the scores."""
    router = find_router(model, site)
    return getattr(router, "router_gate", router) if router is block else router


def _shared(model: PreTrainedModel, decoder: nn.Module, site: ExpertsSite) -> tuple[nn.Module | None, nn.Module | None]:
    """Shared experts and their gate: inside the block, or beside it in the decoder layer (Granite)."""
    for module in [*_above(model, decoder, site), decoder]:
        shared = _shared_child(module)
        if shared is not None:
            gate = next((child for name, child in module.named_children() if _is_gate(name, child)), None)
            return shared, gate
    return None, None


def _shared_child(module: nn.Module) -> nn.Module | None:
    for name, child in module.named_children():
        if "shared" in name and not _is_gate(name, child) and next(child.parameters(), None) is not None:
            return child
    return None


def _is_gate(name: str, module: nn.Module) -> bool:
    return "shared" in name and getattr(module, "out_features", None) == 1


def _refused(site: ExpertsSite, block: nn.Module | None, shared: nn.Module | None) -> dict[str, str]:
    """What cannot be read and edited of a layer's experts, and why."""
    refused: dict[str, str] = {}
    called = oracle.refused(site)
    if called is not None:
        refused["expert"] = called
        refused["router"] = f"its choice is not handed to the experts as ids and weights ({type(site.module).__name__})"
    if block is None:
        refused["moe"] = (
            "its router and experts stand in the decoder layer itself, so no module returns a block's output"
        )
        refused["shared"] = "the dense feed-forward beside its experts is normed apart and is no expert"
    elif site.shared and shared is None:
        refused["shared"] = f"{type(block).__name__} computes it inline, in no module of its own"
    return refused


def _several_streams(decoder: nn.Module) -> str | None:
    """Why the output of a layer is not the residual stream, or None where it is."""
    for name, child in decoder.named_children():
        for fact, count in vars(child).items():
            # hc_mult, hc_count: the number of streams of hyper-connections.
            if fact in ("hc_mult", "hc_count") and isinstance(count, int) and count > 1:
                return f"{count} residual streams run side by side ({name}: {type(child).__name__})"
    if "block_states" in inspect.signature(type(decoder).forward).parameters:
        return "later layers also read the streams of earlier blocks (block_states), so no single one carries all"
    return None
