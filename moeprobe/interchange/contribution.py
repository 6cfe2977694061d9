"""Reading and replacing one expert's contribution w * E(x), at chosen rows, through hooks on the experts module.

The experts module is its own oracle: called with a single expert it gives that expert's output for any rows, in any
layout or quantisation. Nothing here knows how weights are stored.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from moeprobe.capture import ExpertsSite
from moeprobe.capture.wrap import unwatched
from moeprobe.errors import InterchangeError


@dataclass(frozen=True)
class Seen:
    """What an experts module was called with: hidden (rows, width), ids and weights (rows, k)."""

    hidden: Tensor
    ids: Tensor
    weights: Tensor


@contextmanager
def reading(sites: list[ExpertsSite]) -> Iterator[dict[int, Seen]]:
    """Record the arguments of each site's experts during the one forward inside the block, by layer."""
    seen: dict[int, Seen] = {}

    def hook(site: ExpertsSite) -> Any:
        def read(module: nn.Module, args: tuple[Any, ...]) -> None:
            del module
            seen[site.layer] = Seen(args[0].detach(), args[1].detach(), args[2].detach())

        return read

    handles = [site.module.register_forward_pre_hook(hook(site)) for site in sites]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def contribution(site: ExpertsSite, expert: int, seen: Seen) -> Tensor:
    """w * E(x) of one expert for every row, (rows, width); exactly 0 where it was not selected.

    The module multiplies by the weight itself, so the product is rounded as in the model's own forward.
    """
    chosen = seen.ids == expert
    rows = chosen.any(dim=1).nonzero(as_tuple=True)[0]
    result = torch.zeros_like(seen.hidden)
    if len(rows):
        weight = torch.where(chosen, seen.weights, torch.zeros_like(seen.weights)).sum(dim=1)[rows, None]
        alone = torch.full((len(rows), 1), expert, dtype=seen.ids.dtype, device=seen.ids.device)
        # Neither our own hooks nor a recorder may see this call; what offloading put in place of .forward stays.
        result[rows] = unwatched(site.module)(seen.hidden[rows], alone, weight).to(result.dtype)
    return result


@contextmanager
def replacing(site: ExpertsSite, expert: int, donor: Tensor, where: Tensor) -> Iterator[None]:
    """Replace the expert's contribution by `donor` (rows, width) at the rows where `where` (rows,) is True.

    Rows whose own contribution already equals the donor's are left alone, so replacing a site by its own value changes
    no bit. At the others the expert's weight is set to 0 before the experts run, and the donor's value is added after.

    Raises:
        InterchangeError: the forward has another number of rows than `donor`.
    """
    edited: list[Tensor] = []

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        del module
        hidden, ids, weights = args[:3]
        if len(hidden) != len(donor):
            raise InterchangeError(
                f"The donor has {len(donor)} rows, the forward {len(hidden)}; they must be aligned first."
            )
        own = contribution(site, expert, Seen(hidden, ids, weights))
        rows = where & (own != donor).any(dim=1)
        edited.append(rows)
        if not rows.any():
            return None
        without = weights.masked_fill((ids == expert) & rows[:, None], 0)
        return hidden, ids, without, *args[3:]

    def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        del module, args
        rows = edited.pop()
        if not rows.any():
            return None
        return torch.where(rows[:, None], output + donor.to(output.dtype), output)

    handles = [site.module.register_forward_pre_hook(before), site.module.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
