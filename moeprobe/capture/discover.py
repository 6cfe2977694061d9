"""Finding the experts modules of a model by how they are called, not by class name.

In 67 of the 72 MoE families of transformers 5.23 the experts module is called as
`experts(hidden (tokens, width), ids (tokens, k), weights (tokens, k))`. The same rule finds the FP8, GGUF and MXFP4
replacements. The other families have adapters, or are refused by name.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from moeprobe.capture.adapters import Adapted, Source, adapt
from moeprobe.capture.stacks import MAIN, anchor, split, stack_of
from moeprobe.errors import ModelError

__all__ = ["ExpertsSite", "Source", "anchors", "count_experts", "find_experts", "is_experts", "refusal"]

# What experts modules call their second and third argument.
ID_NAMES = ("top_k_index", "topk_index", "router_indices", "selected_experts", "topk_indices", "router_mask")
WEIGHT_NAMES = ("top_k_weights", "topk_weights", "routing_weights", "router_weights", "expert_weights")
# Families (model_type) whose own execution is wrong, so that no record of them could be right.
_REFUSED = {
    "nllb-moe": (
        "transformers 5.23 executes only its experts 0 and 1, whatever the router says, because it makes a one-hot "
        "mask of what already is one"
    ),
}
# Experts that are called with ids, but not as rows with any number of choices: Dbrx hands over (sequences, positions,
# width), and LongCat's loop breaks on a single choice per row.
_NO_ORACLE = frozenset({"DbrxExperts", "LongcatFlashExperts"})
# Families that are recorded forward by forward, but whose routing a trace could not give to tokens.
_NO_TRACE = {
    "diffusion_gemma": (
        "it refines a block of tokens in many passes, so a token has many routings and none is the one that made it"
    ),
    "doge": (
        "its router mixes the tokens of one forward pass (transformers keeps the checkpoints' layout), so an expert in "
        "the prompt was chosen for other tokens, also of other prompts in the batch"
    ),
}


@dataclass(frozen=True)
class ExpertsSite:
    """One experts module.

    Attributes:
        layer: the model's own layer index.
        path: module path, for example "model.layers.18.mlp.experts".
        module: the module itself.
        experts: number of experts E that compute something, read from the weights.
        shared: whether shared experts stand beside it.
        stack: "" for the main (text decoder) stack, else "encoder", "vision", "audio", "talker", "mtp", "attention".
        source: how its routing is seen; None: the regular seam, what `module` is called with.
        regular: whether `module` is called as experts(hidden (rows, width), ids, weights), also with a single choice
            per row, so that it is its own oracle.
    """

    layer: int
    path: str
    module: nn.Module
    experts: int
    shared: bool
    stack: str = MAIN
    source: Source | None = None
    regular: bool = True

    @property
    def name(self) -> str:
        """ "L14" in the main stack, "encoder.L14" in another."""
        return f"{self.stack}.L{self.layer}" if self.stack else f"L{self.layer}"


def find_experts(model: PreTrainedModel) -> list[ExpertsSite]:
    """All experts modules of `model`: the main stack first, then by stack, in order of layer.

    Raises:
        ModelError: the family is refused by name, the model has no routed experts, or two modules claim one name.
    """
    for family in sorted(_families(model) & set(_REFUSED)):
        raise ModelError(f"moeprobe cannot record {family}: {_REFUSED[family]}.")
    found = [site for path, module in model.named_modules() if (site := _site(model, path, module)) is not None]
    if not found:
        raise ModelError(
            f"{type(model).__name__} has no routed experts: it is not a mixture-of-experts model. "
            "moeprobe needs one, for example Qwen3-30B-A3B, OLMoE, gpt-oss, or the built-in compiled."
        )
    alone = {site.stack for site in found} == {"encoder"}
    if alone and not getattr(model.config, "is_encoder_decoder", False):
        # The only stack of an encoder is its main one.
        found = [ExpertsSite(**{**vars(site), "stack": MAIN}) for site in found]
    names = [site.name for site in found]
    if len(set(names)) < len(names):
        paths = ", ".join(site.path for site in found if names.count(site.name) > 1)
        raise ModelError(
            f"Several experts modules claim the same layer ({paths}), so their experts cannot be told apart by name. "
            "Please report the model's class."
        )
    return sorted(found, key=lambda site: (site.stack != MAIN, site.stack, site.layer))


def anchors(model: PreTrainedModel, sites: Sequence[ExpertsSite]) -> dict[str, nn.Module | None]:
    """By stack, the module whose forward is one forward pass of that stack; None where text never runs it."""
    paths: dict[str, list[str]] = {}
    for site in sites:
        paths.setdefault(site.stack, []).append(site.path)
    return {stack: anchor(model, stack, places, paths) for stack, places in paths.items()}


def refusal(model: PreTrainedModel) -> str | None:
    """Why runs of `model` cannot be traced although its forwards can be recorded, or None where they can.

    Raises:
        ModelError: as `find_experts`; such a model cannot be recorded at all.
    """
    find_experts(model)
    for family in sorted(_families(model) & set(_NO_TRACE)):
        return f"moeprobe cannot trace {family}: {_NO_TRACE[family]}."
    if not model.can_generate():
        return f"moeprobe cannot trace {type(model).__name__}: it does not generate text."
    return None


def is_experts(module: nn.Module) -> bool:
    """Whether the class's forward takes (hidden, expert ids, weights); decorators are looked through."""
    parameters = list(inspect.signature(type(module).forward).parameters)
    return len(parameters) >= 4 and parameters[2] in ID_NAMES and parameters[3] in WEIGHT_NAMES


def count_experts(module: nn.Module) -> int:
    """Number of experts E, from the first dimension that all stacked weights share, never from the config.

    Raises:
        ModelError: the module has neither stacked weights nor `num_experts`.
    """
    leading = {parameter.shape[0] for parameter in module.parameters(recurse=False) if parameter.dim() == 3}
    if len(leading) == 1:
        return int(leading.pop())
    # LongCat: more ids than experts. Those beyond are experts without weights that hand their input on.
    routed = getattr(module, "num_routed_experts", None)
    if isinstance(routed, int) and leading and routed == min(leading):
        return routed
    count = getattr(module, "num_experts", None)
    if isinstance(count, int) and not leading:
        return count
    raise ModelError(
        f"Could not tell how many experts {type(module).__name__} holds (weights lead with {sorted(leading)})."
    )


def _site(model: PreTrainedModel, path: str, module: nn.Module) -> ExpertsSite | None:
    adapted: Adapted | None = None
    if path:
        adapted = adapt(module, model.get_submodule(path.rpartition(".")[0]))
    if adapted is None:
        if not is_experts(module):
            return None
        regular = type(module).__name__ not in _NO_ORACLE
        return ExpertsSite(
            split(path)[1], path, module, count_experts(module), _has_shared(model, path), stack_of(path), None, regular
        )
    shared = _has_shared(model, path) if adapted.shared is None else adapted.shared
    return ExpertsSite(
        split(path)[1], path, module, adapted.experts, shared, stack_of(path), adapted.source, adapted.regular
    )


def _families(model: PreTrainedModel) -> set[str]:
    return {str(getattr(config, "model_type", "")) for config in (model.config, model.config.get_text_config())}


def _has_shared(model: PreTrainedModel, path: str) -> bool:
    """Whether experts that every token goes through stand beside these, anywhere inside the layer."""
    before, layer, after = split(path)
    outer = [*before, str(layer)]
    places = [".".join([*outer, *after[:depth]]) for depth in range(len(after))]
    return any(
        "shared" in name and next(child.parameters(), None) is not None
        for place in places
        for name, child in model.get_submodule(place).named_children()
    )
