"""Asking an experts module for one expert at a time.

The experts module is its own oracle: called with a single choice per row it gives that expert's output for any rows,
chosen or not, in any layout, quantisation or parallel arrangement. Nothing here knows how weights are stored.
"""

import torch
from torch import Tensor, nn

from moeprobe.capture import ExpertsSite
from moeprobe.capture.wrap import unwatched
from moeprobe.errors import InterchangeError

# How a module that is no plain experts(hidden (rows, width), ids, weights) wants to be asked.
_DOUBLED = "LongcatFlashExperts"  # its loop breaks on a single choice per row
_BATCHED = "DbrxExperts"  # takes and gives (sequences, positions, width)


def refused(site: ExpertsSite) -> str | None:
    """Why the experts of `site` cannot be asked one at a time, or None where they can."""
    if site.regular or _is(site.module, _DOUBLED) or _is(site.module, _BATCHED):
        return None
    return f"the experts of {site.name} ({type(site.module).__name__}) cannot be called one at a time"


def expert_output(site: ExpertsSite, hidden: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
    """w * E(x) of one expert for each row.

    The module multiplies by the weight itself, so the product is rounded as in the model's own forward.

    Args:
        site: the experts module.
        hidden: (rows, width), what the experts are given.
        experts: (rows,) integer, which expert each row asks for.
        weights: (rows,), what multiplies its output.

    Returns:
        (rows, width).

    Raises:
        InterchangeError: the family's experts cannot be asked one at a time.
    """
    reason = refused(site)
    if reason is not None:
        raise InterchangeError(f"Nothing can be swapped here: {reason}. Its routing can be traced and correlated.")
    if not len(hidden):
        return torch.zeros_like(hidden)
    ids, scale = experts[:, None], weights[:, None]
    # Neither our own hooks nor a recorder may see this call; what offloading put in place of .forward stays.
    ask = unwatched(site.module)
    if _is(site.module, _BATCHED):
        found: Tensor = ask(hidden[None], ids, scale)[0]
    elif _is(site.module, _DOUBLED):
        found = ask(hidden, torch.cat([ids, ids], dim=1), torch.cat([scale, torch.zeros_like(scale)], dim=1))
    else:
        found = ask(hidden, ids, scale)
    return found


def weight_of(experts: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """The weight (rows,) that each row gave the expert named for it, 0 where it was not chosen.

    Args:
        experts: (rows,) integer; below 0: none.
        ids, weights: (rows, k), the choice.
    """
    chosen = (ids == experts[:, None]) & (experts >= 0)[:, None]
    return torch.where(chosen, weights, torch.zeros_like(weights)).sum(dim=1)


def contribution(site: ExpertsSite, hidden: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
    """w * E(x) (rows, width), computed only where the weight is not 0, exactly 0 elsewhere.

    Args:
        site: the experts module.
        hidden: (rows, width).
        experts: (rows,) integer.
        weights: (rows,), from `weight_of`.
    """
    rows = (weights != 0).nonzero(as_tuple=True)[0]
    if not len(rows):
        return torch.zeros_like(hidden)
    found = expert_output(site, hidden[rows], experts[rows], weights[rows])
    # In the dtype of the module's own output: Nemotron-H sums in float32 whatever its hidden states are.
    result = torch.zeros(hidden.shape, dtype=found.dtype, device=found.device)
    result[rows] = found
    return result


def _is(module: nn.Module, name: str) -> bool:
    return any(base.__name__ == name for base in type(module).__mro__)
