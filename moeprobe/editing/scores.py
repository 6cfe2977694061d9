"""Editing what a router computes while its forward runs: its logits, and its top-k."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from moeprobe.editing.places import Places
from moeprobe.editing.seen import experts_of
from moeprobe.errors import InterchangeError

_TOP = {torch.topk, Tensor.topk}
_MASK = {torch.masked_fill, Tensor.masked_fill}
_BEST = {torch.max, Tensor.max, torch.argmax, Tensor.argmax}
_SORT = {torch.sort, Tensor.sort, torch.argsort, Tensor.argsort}
_PRODUCTS = {torch.nn.functional.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm}
Part = Literal["router", "block"]


class Layer:
    """One layer's rerouting.

    Attributes:
        bias: (rows or 1, experts), or None: the router is left alone.
        part: which part of the block is running; only there anything is edited.
        logits: products in the router that look like its logits. There must be exactly one.
        notes: other ways of choosing that were met.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.experts, self.classes = int(experts_of(places).experts), _classes(places)
        self.bias: Tensor | None = None
        self.part: Part | None = None
        self.logits = 0
        self.notes: list[str] = []

    @contextmanager
    def at(self, part: Part | None) -> Iterator[None]:
        """While `part` runs."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def spread(self, like: Tensor) -> Tensor:
        """The bias (..., experts) on the device of `like` (..., any), one row for each of its rows."""
        if self.bias is None:
            raise InterchangeError(f"L{self.places.layer} has no router bias.")
        bias = self.bias.to(like.device)
        rows = like.numel() // like.shape[-1]
        if len(bias) not in (1, rows):
            raise InterchangeError(f"The router bias has {len(bias)} rows, the forward {rows}; align them first.")
        return bias.expand(rows, -1).reshape(*like.shape[:-1], bias.shape[1])

    def check(self, ids: Tensor) -> None:
        """Hold the choice (rows, k) against what was asked.

        Raises:
            InterchangeError: a barred expert was chosen, or a forced one was not, or no logits were found.
        """
        bias, where = self.spread(ids), f"L{self.places.layer}"
        if self.logits != 1 and bool(((bias != 0) & (bias != torch.inf)).any()):
            found = f"{self.logits} products look like" if self.logits else "nothing looks like"
            raise InterchangeError(
                f"In the router of {where} {found} its scores, so none can be biased or barred. "
                "Contributions can be swapped and knocked out instead."
            )
        rows = ids.reshape(-1, ids.shape[-1])
        inside = (rows >= 0) & (rows < self.experts)
        hit = torch.zeros(len(rows), self.experts + 1, dtype=torch.bool, device=rows.device)
        hit.scatter_(1, torch.where(inside, rows, torch.full_like(rows, self.experts)), True)
        chosen, bias = hit[:, : self.experts], bias.reshape(len(rows), -1)
        barred, forced = bias == -torch.inf, bias == torch.inf
        if bool((chosen & barred).any() | (forced & ~chosen).any()):
            self._disobeyed(int(barred.sum(dim=1).max()), int(forced.sum(dim=1).max()), rows.shape[1])

    def _disobeyed(self, barred: int, forced: int, k: int) -> None:
        """Say why a choice could not be as asked."""
        where = f"L{self.places.layer}"
        if forced > k:
            raise InterchangeError(f"{where} chooses {k} experts; {forced} cannot be forced.")
        if self.experts - barred < k:
            raise InterchangeError(f"{where} chooses {k} of {self.experts} experts; {barred} cannot be barred.")
        how = f" (it selects by {', '.join(sorted(set(self.notes)))})" if self.notes else ""
        raise InterchangeError(
            f"The router of {where} did not do as told{how}, so these experts cannot be barred or forced. "
            "Contributions can be swapped and knocked out instead."
        )


class Scores(TorchFunctionMode):
    """Edits the router's logits as they are made, and its selection where a bias of logits would not be enough."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Any call of torch while the router (or its block) runs."""
        kwargs, layer = kwargs or {}, self.layer
        if layer.part is None:
            return func(*args, **kwargs)
        scores = args[0] if args and isinstance(args[0], Tensor) and args[0].dim() else None
        width = 0 if scores is None else scores.shape[-1]
        if func in _TOP and _last(scores, kwargs, args) and width in (layer.experts, layer.classes):
            return self._select(func, args, kwargs)
        if layer.part == "block":
            return func(*args, **kwargs)  # other products are no logits: shared experts may be as wide as these
        if func in _BEST | _SORT and width in (layer.experts, layer.classes):
            layer.notes.append(func.__name__)
        result = func(*args, **kwargs)
        if func in _PRODUCTS and isinstance(result, Tensor) and result.dim() and result.shape[-1] == layer.classes:
            layer.logits += 1
            return self._bias(result) if layer.logits == 1 else result
        if func in _MASK and width == layer.classes and scores is not None and result.shape == scores.shape:
            return self._unmasked(scores, result)
        return result

    def _bias(self, logits: Tensor) -> Tensor:
        """Router logits with the bias. Entries beyond the experts (classes without weights) stay as they are."""
        bias = self.layer.spread(logits)
        edited = logits.clone()
        part = edited[..., : self.layer.experts]
        part += bias.masked_fill(bias.isinf(), 0.0).to(part.dtype)
        part.masked_fill_(bias == -torch.inf, -torch.inf)
        return edited

    def _unmasked(self, scores: Tensor, masked: Tensor) -> Tensor:
        """A mask of groups spares forced experts, which would otherwise keep no score to weigh them by."""
        forced = torch.zeros_like(masked, dtype=torch.bool)
        forced[..., : self.layer.experts] = self.layer.spread(scores) == torch.inf
        return torch.where(forced, scores, masked)

    def _select(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Top-k over edited scores that returns the unedited ones: forced experts keep the weight of their own score,
        and a correction bias cannot bring a barred one back."""
        scores = args[0]
        bias = self.layer.spread(scores)
        edited = scores.clone()
        part = edited[..., : self.layer.experts]
        part.masked_fill_(bias == -torch.inf, -torch.inf)
        part.masked_fill_(bias == torch.inf, torch.inf)
        found = func(edited, *args[1:], **kwargs)
        return torch.return_types.topk((scores.gather(-1, found.indices), found.indices))


def _last(scores: Tensor | None, kwargs: Mapping[str, Any], args: Any) -> bool:
    """Whether a top-k runs over the last dimension."""
    if scores is None:
        return False
    dim = args[2] if len(args) > 2 else kwargs.get("dim", -1)
    return dim in (-1, scores.dim() - 1)


def _classes(places: Places) -> int:
    """Classes a router scores: its experts, and in some families more behind them: experts that hand their input on
    (LongCat), one that skips the layer (Zaya), shared experts (Inkling)."""
    site = experts_of(places)
    for module, name in (
        (site.module, "total_experts"),
        (places.router, "num_router_classes"),
        (places.router, "n_total_experts"),
    ):
        count = getattr(module, name, None)
        if isinstance(count, int):
            return count
    return int(site.experts)
