"""A layer taken apart: what each head, each expert and every other part added to the residual stream."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprobe.editing import Places
from moeprobe.editing.oracle import expert_output, refused
from moeprobe.editing.seen import experts_of, heads_of
from moeprobe.errors import InterchangeError
from moeprobe.experiments.stream import Layer

# Largest departure, relative to the larger of sum and whole. Half-precision streams are rounded at every addition.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
_HALF = 3e-2


@dataclass(frozen=True)
class Parts:
    """What one layer added to the stream at the kept rows, in float32.

    Attributes:
        layer: the model's own layer index.
        heads: (n, heads, width), or None where the layer has none that can be told apart.
        ids: (n, k) chosen experts, below 0: none; None in a layer without routed experts.
        slots: (n, k, width) what each chosen expert added.
        others: (n, width) by name: "shared", "attention", "attention.bias", "mlp", "moe.bias" and so on.
    """

    layer: int
    heads: Tensor | None = None
    ids: Tensor | None = None
    slots: Tensor | None = None
    others: Mapping[str, Tensor] = field(default_factory=dict)

    def total(self) -> Tensor:
        """(n, width) the sum of all parts."""
        found = [value.sum(dim=1) for value in (self.heads, self.slots) if value is not None]
        return torch.stack([*found, *self.others.values()]).sum(dim=0)

    def experts(self, count: int) -> Tensor:
        """(n, count, width) what every expert of the layer added; 0 where it was not chosen."""
        if self.ids is None or self.slots is None:
            raise InterchangeError(f"Layer {self.layer} has no routed experts.")
        result = self.slots.new_zeros(len(self.slots), count, self.slots.shape[-1])
        place = self.ids.clamp(min=0)[..., None].expand_as(self.slots)
        return result.scatter_add(1, place, self.slots)


def tolerance(dtype: torch.dtype) -> float:
    """Largest relative departure that counts as rounding."""
    return TOLERANCE.get(dtype, _HALF)


def same(found: Tensor, expected: Tensor, bound: float) -> bool:
    """Whether two (n, width) agree in every row, relative to the larger norm of the row."""
    size = torch.maximum(found.norm(dim=-1), expected.norm(dim=-1))
    return bool(((found - expected).norm(dim=-1) <= bound * size + 1e-12).all())


def multiplier_of(model: PreTrainedModel) -> float:
    """What every branch is multiplied by before it is added to the stream (Granite's residual_multiplier)."""
    return float(getattr(model.config.get_text_config(), "residual_multiplier", 1.0) or 1.0)


def take_apart(one: Places, kept: Layer, rows: Tensor, multiplier: float) -> Parts:
    """The parts of a layer, after checking that they are all there is.

    Args:
        one: the layer's places.
        kept: what `watching` kept of it.
        rows: (n,) the rows that were kept.
        multiplier: from `multiplier_of`.

    Raises:
        InterchangeError: stream before + parts is not the stream after, or attention or experts do not sum to what
            their block gave; the message names the layer and the part.
    """
    where = f"L{one.layer}"
    if kept.before is None or kept.after is None or kept.calls != 1:
        raise InterchangeError(f"{where} ran {kept.calls} times in the forward; its stream cannot be taken apart.")
    if "residual" in one.refused:
        raise InterchangeError(f"The stream of {where} cannot be taken apart: {one.refused['residual']}.")
    if kept.before.shape != kept.after.shape:
        raise InterchangeError(f"{where} changes the stream's width; it cannot be taken apart.")
    bound = tolerance(kept.before.dtype)
    branches = {name: value.float() * multiplier for name, value in kept.branches.items()}
    if not branches:
        raise InterchangeError(f"No part of {where} ({type(one.decoder).__name__}) adds to the stream.")
    added = torch.stack(list(branches.values())).sum(dim=0)
    if not same(kept.before.float() + added, kept.after.float(), bound):
        raise InterchangeError(
            f"The stream departs in {where}: stream before + {' + '.join(branches)} is not the stream after. "
            f"{type(one.decoder).__name__} adds something else (a norm after a branch, a scale, several streams), "
            "which direct attribution does not follow."
        )
    heads: Tensor | None = None
    experts: tuple[Tensor | None, Tensor | None] = (None, None)
    others: dict[str, Tensor] = {}
    for name, value in branches.items():
        child = getattr(one.decoder, name)
        if kept.heads is not None and _holds(child, heads_of(one).module):
            heads, bias = _heads(one, kept.heads, multiplier)
            _sums(where, name, heads.sum(dim=1) + bias, value, bound)
            if bias.any():
                others["attention.bias"] = bias
        elif kept.ids is not None and _holds(child, experts_of(one).module):
            ids, slots, rest = _experts(one, kept, rows, multiplier, holds_shared=_holds(child, one.shared))
            slots, rest = _rescaled(slots, rest, value, bound)
            _sums(where, name, torch.stack([slots.sum(dim=1), *rest.values()]).sum(dim=0), value, bound)
            experts, others = (ids, slots), {**others, **rest}
        else:
            routed = one.experts is not None and _holds(child, one.experts.module)
            others["shared" if child is one.shared else "moe" if routed else _plain(name)] = value
    return Parts(one.layer, heads, *experts, others)


def _plain(name: str) -> str:
    """Name of a branch that is not taken apart further."""
    if any(word in name for word in ("attn", "attention", "mamba", "conv")):
        return "attention"
    return "mlp" if any(word in name for word in ("mlp", "ffn", "feed_forward")) else name


def _holds(outer: nn.Module, inner: nn.Module | None) -> bool:
    return inner is not None and any(module is inner for module in outer.modules())


def _sums(where: str, name: str, found: Tensor, expected: Tensor, bound: float) -> None:
    if not same(found, expected, bound):
        gap = float((found - expected).norm() / expected.norm())
        raise InterchangeError(
            f"The stream departs in {where}.{name}: its parts sum to something else than it gave ({100 * gap:.2g} % "
            "apart). The family scales or norms them afterwards, which direct attribution does not follow."
        )


def _heads(one: Places, value: Tensor, multiplier: float) -> tuple[Tensor, Tensor]:
    """What each head adds (n, heads, width), and the projection's bias (n, width): the projection of one slice alone.

    Asking the module itself knows nothing of how its weights are stored.
    """
    heads = heads_of(one)
    project: Any = heads.module.forward
    rows = len(value)
    alone = torch.zeros(rows, heads.count, heads.count, heads.width, dtype=value.dtype, device=value.device)
    every = torch.arange(heads.count, device=value.device)
    alone[:, every, every] = value.reshape(rows, heads.count, heads.width)
    bias = project(torch.zeros_like(value)).float()
    each = project(alone.reshape(rows * heads.count, -1)).float().reshape(rows, heads.count, -1)
    return (each - bias[:, None]) * multiplier, bias * multiplier


def _experts(
    one: Places, kept: Layer, at: Tensor, multiplier: float, *, holds_shared: bool
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Chosen experts (n, k), what each adds (n, k, width), and the rest of the block by name."""
    site = experts_of(one)
    reason = refused(site)
    if reason is not None or kept.hidden is None or kept.ids is None or kept.weights is None:
        raise InterchangeError(f"{reason or f'The experts of {site.name} were not seen'}; they cannot be told apart.")
    ids, weights = kept.ids[at.to(kept.ids.device)], kept.weights[at.to(kept.ids.device)]
    rows, k = ids.shape
    inside = (ids >= 0) & (ids < site.experts)
    flat_ids = torch.where(inside, ids, torch.zeros_like(ids)).reshape(-1)
    flat_weights = weights.masked_fill(~inside, 0).reshape(-1)
    given = expert_output(site, kept.hidden.repeat_interleave(k, dim=0), flat_ids, flat_weights)
    slots = given.float().masked_fill((flat_weights == 0)[:, None], 0)
    rest = {}
    after = getattr(one.block, "fc2_latent_proj", None)  # Nemotron-H: experts of a narrower width, projected back
    if isinstance(after, nn.Linear):
        bias = after.forward(torch.zeros_like(given[:rows])).float()
        slots = after.forward(slots.to(given.dtype)).float() - bias[:1]
        if bias.any():
            rest["moe.bias"] = bias * multiplier
    if holds_shared and kept.shared is not None:
        rest["shared"] = kept.shared.float() * multiplier
    slots = slots.reshape(rows, k, -1) * multiplier
    return torch.where(inside, ids, -torch.ones_like(ids)), slots, rest


def _rescaled(slots: Tensor, rest: dict[str, Tensor], value: Tensor, bound: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Slots and rest, each times the one number that makes them sum to what the block gave, where they do not anyway.

    Some blocks multiply the routed sum by a constant, or take the mean of it and the shared experts. Two numbers for
    rows * width equations: where they fit to rounding, they are what the block does.
    """
    names = list(rest)
    sums = torch.stack([slots.sum(dim=1), *rest.values()])
    if same(sums.sum(dim=0), value, bound) or value.numel() < 8 * len(sums):
        return slots, rest
    design = sums.reshape(len(sums), -1).T.double()
    try:
        factors = torch.linalg.lstsq(design, value.reshape(-1, 1).double()).solution[:, 0].float()
    except RuntimeError:  # no rank: a part that is 0 everywhere
        return slots, rest
    if not same((sums * factors[:, None, None]).sum(dim=0), value, bound):
        return slots, rest
    return slots * factors[0], {name: rest[name] * factors[1 + place] for place, name in enumerate(names)}
