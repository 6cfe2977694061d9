"""Finding the router of a layer, and what it returns besides the choice."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprobe.capture.discover import ExpertsSite
from moeprobe.errors import CaptureError

_ROUTER_NAMES = ("gate", "router", "router_gate")


def block_of(model: PreTrainedModel, site: ExpertsSite) -> nn.Module:
    """The module that holds router and experts; in Gemma 4 that is the whole decoder layer."""
    return model.get_submodule(site.path.rpartition(".")[0])


def find_router(model: PreTrainedModel, site: ExpertsSite) -> nn.Module:
    """The router beside the experts of `site`.

    Raises:
        CaptureError: there is none under a known name.
    """
    if site.source is not None and site.source.when == "return":
        return site.source.module
    block = block_of(model, site)
    for name in _ROUTER_NAMES:
        child = getattr(block, name, None)
        if isinstance(child, nn.Module):
            return child
    names = ", ".join(name for name, _ in block.named_children())
    raise CaptureError(f"{site.name}: no router was found beside {site.path} (there are: {names}).")


def router_scores(site: ExpertsSite, output: object) -> Tensor:
    """The scores of all experts that a router returned, (tokens, E or more).

    Most return (scores, weights, ids); those read on return (jetmoe, llama4, switch_transformers) give them last.

    Raises:
        CaptureError: the router returns no scores of all experts.
    """
    parts = [output] if isinstance(output, Tensor) else list(output) if isinstance(output, tuple) else []
    found = [
        part
        for part in parts
        if isinstance(part, Tensor) and part.is_floating_point() and part.dim() >= 2 and part.shape[-1] >= site.experts
    ]
    if not found:
        raise CaptureError(f"{site.name}: its router returns no score for each expert, so logits cannot be recorded.")
    scores = found[-1] if site.source is not None and site.source.when == "return" else found[0]
    return scores.detach().reshape(-1, scores.shape[-1])


def are_probabilities(scores: Tensor) -> bool:
    """Whether every row is non-negative and sums to 1: logits of many tokens never do by chance."""
    sums = scores.float().sum(dim=-1)
    return bool((scores >= 0).all()) and bool(torch.allclose(sums, torch.ones_like(sums), atol=2e-2))
