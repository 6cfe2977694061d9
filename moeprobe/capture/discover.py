"""Finding the experts modules of a model by how they are called, not by class name.

In 67 of the 72 MoE families of transformers 5.23 the experts module is called as
`experts(hidden (tokens, width), ids (tokens, k), weights (tokens, k))`. The same rule finds the FP8, GGUF and MXFP4
replacements. Families outside the rule are refused by name.
"""

import inspect
import re
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from moeprobe.errors import ModelError

_ID_NAMES = {"top_k_index", "topk_index", "router_indices", "selected_experts", "topk_indices", "router_mask"}
_WEIGHT_NAMES = {"top_k_weights", "topk_weights", "routing_weights", "router_weights", "expert_weights"}
# Families whose experts are not called with (hidden, ids, weights), or whose own execution is wrong.
_REFUSED = {
    "jetmoe": "its experts are two linear stages without a common call",
    "llama4": "its experts run densely over all tokens with the scores multiplied in beforehand",
    "doge": "its experts are rows of embeddings, looked up in place",
    "switch_transformers": "its router hands over one-hot masks, not expert ids",
    "nllb_moe": "transformers 5.23 executes only experts 0 and 1 of it, whatever the router says",
}


@dataclass(frozen=True)
class ExpertsSite:
    """One experts module.

    Attributes:
        layer: the model's own layer index.
        path: module path, for example "model.layers.18.mlp.experts".
        module: the module itself.
        experts: number of experts E, read from the weights.
        shared: whether shared experts stand beside it.
    """

    layer: int
    path: str
    module: nn.Module
    experts: int
    shared: bool


def find_experts(model: PreTrainedModel) -> list[ExpertsSite]:
    """All experts modules of `model`, in order of layer.

    Raises:
        ModelError: the family is refused by name, the model has no routed experts, or several stacks share layer
            numbers (for example text and vision towers that are both MoE).
    """
    families = {getattr(config, "model_type", "") for config in (model.config, model.config.get_text_config())}
    for family in sorted(families & set(_REFUSED)):
        raise ModelError(f"moeprobe cannot record {family} yet: {_REFUSED[family]}.")
    found = [
        ExpertsSite(_layer(path), path, module, count_experts(module), _has_shared(model, path))
        for path, module in model.named_modules()
        if is_experts(module)
    ]
    if not found:
        raise ModelError(
            f"{type(model).__name__} has no routed experts: it is not a mixture-of-experts model. "
            "moeprobe needs one, for example Qwen3-30B-A3B, OLMoE, gpt-oss, or the built-in compiled."
        )
    layers = [site.layer for site in found]
    if len(set(layers)) < len(layers):
        paths = ", ".join(site.path for site in found if layers.count(site.layer) > 1)
        raise ModelError(
            f"Several experts modules claim the same layer ({paths}); several stacks are not told apart yet."
        )
    return sorted(found, key=lambda site: site.layer)


def is_experts(module: nn.Module) -> bool:
    """Whether the class's forward takes (hidden, expert ids, weights); decorators are looked through."""
    parameters = list(inspect.signature(type(module).forward).parameters)
    return len(parameters) >= 4 and parameters[2] in _ID_NAMES and parameters[3] in _WEIGHT_NAMES


def count_experts(module: nn.Module) -> int:
    """Number of experts E, from the first dimension that all stacked weights share, never from the config.

    Raises:
        ModelError: the module has neither stacked weights nor `num_experts`.
    """
    leading = {parameter.shape[0] for parameter in module.parameters(recurse=False) if parameter.dim() == 3}
    if len(leading) == 1:
        return int(leading.pop())
    count = getattr(module, "num_experts", None)
    if isinstance(count, int):
        return count
    raise ModelError(
        f"Could not tell how many experts {type(module).__name__} holds (weights lead with {sorted(leading)})."
    )


def _layer(path: str) -> int:
    numbers = re.findall(r"(?:^|\.)(\d+)(?=\.|$)", path)
    if not numbers:
        raise ModelError(f"The module {path} stands in no numbered layer, so its experts cannot be named.")
    return int(numbers[-1])


def _has_shared(model: PreTrainedModel, path: str) -> bool:
    block = model.get_submodule(path.rpartition(".")[0])
    return any(
        "shared" in name and next(child.parameters(), None) is not None for name, child in block.named_children()
    )
