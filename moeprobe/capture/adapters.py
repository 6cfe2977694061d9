"""The families whose experts are not called as experts(hidden, ids, weights), or whose ids need a second look.

Each adapter says where the routing of one module can be read, as the model itself made it. Nothing is routed again,
with one exception: Doge keeps its choice in local variables, so the same steps are taken on the router logits that its
block returns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from moeprobe.errors import ModelError

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Reader = Callable[[Args, Kwargs, object], tuple[Tensor, Tensor]]

ABSENT = -1


@dataclass(frozen=True)
class Source:
    """How the routing of one layer is seen.

    Attributes:
        module: whose calls are watched.
        when: "call", as its forward is called, or "return", as it returns.
        read: (args, kwargs, output, or None at a call) -> ids (tokens, k) integer, weights (tokens, k). An id below 0,
            or not below the number of experts, is an absent choice.
    """

    module: nn.Module
    when: Literal["call", "return"]
    read: Reader


@dataclass(frozen=True)
class Adapted:
    """One experts module outside the rule.

    Attributes:
        experts: number of experts E.
        source: how its routing is seen.
        shared: whether every token also goes through shared weights; None: look for shared experts as elsewhere.
        regular: whether the module is called as experts(hidden, ids, weights) nevertheless.
    """

    experts: int
    source: Source
    shared: bool | None = None
    regular: bool = False


def adapt(module: nn.Module, parent: nn.Module) -> Adapted | None:
    """The adapter of an experts module, by class name (subclasses too), or None where the rule applies.

    Args:
        module: any module.
        parent: the module it is a child of.

    Raises:
        ModelError: the module is of a known family but not built as this version of moeprobe knows it.
    """
    for base in type(module).__mro__:
        make = _ADAPTERS.get(base.__name__)
        if make is not None:
            try:
                return make(module, parent)
            except (AttributeError, KeyError, IndexError) as problem:
                raise ModelError(
                    f"{type(module).__name__} is not built as in transformers 5.23 ({problem}), so its routing cannot "
                    "be read. Use transformers 5.23."
                ) from problem
    return None


def _child(module: nn.Module, path: str) -> nn.Module:
    return module.get_submodule(path)


def _rows(path: str, module: nn.Module) -> int:
    """Leading dimension of a parameter."""
    return int(module.get_parameter(path).shape[0])


def _jetmoe(module: nn.Module, parent: nn.Module) -> Adapted:
    del parent
    return Adapted(_rows("input_linear.weight", module), Source(_child(module, "router"), "return", read_jetmoe))


def read_jetmoe(args: Args, kwargs: Kwargs, output: Any) -> tuple[Tensor, Tensor]:
    """Undo the router's sort: (choices in order of expert, their tokens, their gates, size of each expert, logits).

    Choice j of the sorted order is choice `order[j] % k` of token `order[j] // k`.
    """
    del args, kwargs
    order, _, gates, sizes, logits = output
    experts = torch.arange(len(sizes), device=order.device)
    # output_size spares the device a wait for the sum of the sizes.
    repeats = torch.as_tensor(sizes, device=order.device)
    sorted_ids = torch.repeat_interleave(experts, repeats, output_size=len(order))
    ids, weights = torch.empty_like(order), torch.empty_like(gates)
    ids[order], weights[order] = sorted_ids, gates
    return ids.reshape(len(logits), -1), weights.reshape(len(logits), -1)


def _llama4(module: nn.Module, parent: nn.Module) -> Adapted:
    router = _child(parent, "router")
    k = int(router.top_k)  # type: ignore[arg-type]  # a plain int attribute
    return Adapted(_rows("gate_up_proj", module), Source(router, "return", lambda *seen: read_llama4(k, seen[2])))


def read_llama4(k: int, output: Any) -> tuple[Tensor, Tensor]:
    """From scores over all experts (tokens, E): sigmoid of -inf is exactly 0 where an expert was not chosen."""
    weights, ids = torch.topk(output[0], k, dim=-1)
    return ids.masked_fill(weights == 0, ABSENT), weights


def _switch(module: nn.Module, parent: nn.Module) -> Adapted:
    del parent
    count = sum(name.startswith("expert_") for name, _ in module.named_children())
    return Adapted(count, Source(module, "call", read_switch))


def read_switch(args: Args, kwargs: Kwargs, output: object) -> tuple[Tensor, Tensor]:
    """From the one-hot mask (tokens, 1, E) and weights (tokens, 1): a token over an expert's capacity has no expert."""
    del output
    mask = args[1] if len(args) > 1 else kwargs["selected_experts"]
    weights = args[2] if len(args) > 2 else kwargs["routing_weights"]
    return mask.argmax(-1).masked_fill(mask.sum(-1) == 0, ABSENT), weights


def _doge(module: nn.Module, parent: nn.Module) -> Adapted:
    del parent
    keys, k, normalise = int(module.num_keys), int(module.top_k), bool(module.norm_topk_prob)  # type: ignore[arg-type]  # plain attributes

    def read(args: Args, kwargs: Kwargs, output: Any) -> tuple[Tensor, Tensor]:
        del args, kwargs
        return read_doge(output[1], keys, k, normalise=normalise)

    return Adapted(_rows("down_embed.weight", module), Source(module, "return", read), shared=True)


def read_doge(logits: Tensor, keys: int, k: int, *, normalise: bool) -> tuple[Tensor, Tensor]:
    """Product-key choice from router logits (2, tokens, keys), step by step as in DogeCDMoE.forward."""
    (scores_x, scores_y), (indices_x, indices_y) = logits.topk(keys, dim=-1)
    scores = (scores_x.unsqueeze(-1) + scores_y.unsqueeze(-2)).flatten(-2)
    indices = (indices_x.unsqueeze(-1) * keys + indices_y.unsqueeze(-2)).flatten(-2)
    best, places = scores.topk(k, dim=-1)
    weights = best.softmax(dim=-1)
    if normalise:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return indices.gather(-1, places), weights


def _zaya(module: nn.Module, parent: nn.Module) -> Adapted:
    del parent
    return Adapted(_rows("down_proj", module), Source(module, "call", read_zaya), regular=True)


def read_zaya(args: Args, kwargs: Kwargs, output: object) -> tuple[Tensor, Tensor]:
    """Zaya's router hands a skipped token over as expert 0 with weight 0: that is no choice of expert 0."""
    del output
    ids = args[1] if len(args) > 1 else kwargs["top_k_index"]
    weights = args[2] if len(args) > 2 else kwargs["top_k_weights"]
    return ids.masked_fill(weights == 0, ABSENT), weights


_ADAPTERS: dict[str, Callable[[nn.Module, nn.Module], Adapted]] = {
    "JetMoeMoE": _jetmoe,
    "JetMoeMoA": _jetmoe,
    "Llama4TextExperts": _llama4,
    "SwitchTransformersExperts": _switch,
    "DogeCDMoE": _doge,
    "ZayaExperts": _zaya,
}
