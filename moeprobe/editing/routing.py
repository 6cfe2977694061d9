"""Rerouting: scores changed before the router chooses, so that the model itself renormalises as it always does.

Barring an expert before top-k and setting its contribution to zero are different interventions: the first brings in
another expert and new weights, the second leaves a hole. Their logits differ as much as the effect itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from moeprobe.capture.wrap import Wrapping, around
from moeprobe.editing.places import Places
from moeprobe.editing.seen import arguments, experts_of, place_of
from moeprobe.errors import InterchangeError

_TOP = {torch.topk, Tensor.topk}
_BEST = {torch.max, Tensor.max, torch.argmax, Tensor.argmax}
_SORT = {torch.sort, Tensor.sort, torch.argsort, Tensor.argsort}
_PRODUCTS = {torch.nn.functional.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm}


@dataclass(frozen=True)
class Reroute:
    """A bias on the router scores of one layer.

    Attributes:
        layer: the model's own layer index.
        bias: (rows, experts), or (1, experts) for every row: added to the router's logits. -inf bars an expert; +inf
            forces it among the chosen, with the weight its own score gives it; 0 leaves it alone.
    """

    layer: int
    bias: Tensor

    def __post_init__(self) -> None:
        if self.bias.dim() != 2 or bool(self.bias.isnan().any()):
            raise InterchangeError(f"A router bias is (rows, experts) without NaN, not {tuple(self.bias.shape)}.")

    @property
    def finite(self) -> Tensor:
        """(rows, experts) the bias without the infinite entries."""
        return self.bias.masked_fill(self.bias.isinf(), 0.0)


@dataclass
class _Layer:
    """One layer's rerouting during a forward: whether its router is running, and what was met in it."""

    places: Places
    reroute: Reroute
    inside: bool = False
    logits: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def experts(self) -> int:
        return int(self.reroute.bias.shape[1])

    def spread(self, like: Tensor) -> Tensor:
        """The bias (rows, experts) on the device of `like`, one row for each of its rows."""
        bias = self.reroute.bias.to(like.device)
        rows = like.numel() // like.shape[-1]
        if len(bias) not in (1, rows):
            raise InterchangeError(f"The router bias has {len(bias)} rows, the forward {rows}; align them first.")
        return bias.expand(rows, -1).reshape(*like.shape[:-1], bias.shape[1])


class _Scores(TorchFunctionMode):
    """Edits the router's logits as they are made, and its selection where a bias of logits would not be enough."""

    def __init__(self, layer: _Layer) -> None:
        super().__init__()
        self.layer = layer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        layer = self.layer
        if not layer.inside:
            return func(*args, **kwargs)
        if func in _TOP and _last(args[0], kwargs, 2, args) and args[0].shape[-1] >= layer.experts:
            return self._select(func, args, kwargs)
        if func in _BEST | _SORT and isinstance(args[0], Tensor) and args[0].shape[-1:] == (layer.experts,):
            layer.notes.append(func.__name__)
        result = func(*args, **kwargs)
        if func in _PRODUCTS and isinstance(result, Tensor) and result.shape[-1] >= layer.experts and layer.logits == 0:
            return self._bias(result)
        return result

    def _bias(self, logits: Tensor) -> Tensor:
        """Router logits with the bias. Entries beyond the experts (classes without weights) stay as they are."""
        layer = self.layer
        if logits.shape[-1] != _classes(layer.places):
            return logits
        layer.logits += 1
        bias = layer.spread(logits)
        finite = bias.masked_fill(bias.isinf(), 0.0)
        edited = logits.clone()
        part = edited[..., : layer.experts]
        part += finite.to(part.dtype)
        part.masked_fill_(bias == -torch.inf, -torch.inf)
        return edited

    def _select(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Top-k over edited scores that returns the unedited ones: forced experts keep the weight of their own score,
        and a correction bias cannot bring a barred one back."""
        scores = args[0]
        layer = self.layer
        if scores.shape[-1] not in (layer.experts, _classes(layer.places)):
            return func(*args, **kwargs)
        bias = layer.spread(scores)
        edited = scores.clone()
        part = edited[..., : layer.experts]
        part.masked_fill_(bias == -torch.inf, -torch.inf)
        part.masked_fill_(bias == torch.inf, torch.inf)
        found = func(edited, *args[1:], **kwargs)
        values = scores.gather(-1, found.indices)
        return torch.return_types.topk((values, found.indices))


def _last(scores: Any, kwargs: Mapping[str, Any], place: int, args: Any) -> bool:
    """Whether a selection runs over the last dimension."""
    if not isinstance(scores, Tensor):
        return False
    dim = args[place] if len(args) > place else kwargs.get("dim", -1)
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


@contextmanager
def rerouting(places: Mapping[int, Places], reroutes: Sequence[Reroute]) -> Iterator[None]:
    """Change router scores in every forward inside the block, and check that the choice obeyed.

    Raises:
        InterchangeError: a layer without a router that learns; a bias of another shape; more barred than can be spared,
            more forced than are chosen; or (in the forward) a router that did not do as told.
    """
    with ExitStack() as stack:
        for reroute in reroutes:
            stack.enter_context(_one(places, reroute))
        yield


@contextmanager
def _one(places: Mapping[int, Places], reroute: Reroute) -> Iterator[None]:
    experts = place_of(places, reroute.layer, "router")
    one = places[reroute.layer]
    if reroute.bias.shape[1] != experts_of(one).experts:
        raise InterchangeError(
            f"L{reroute.layer} has {experts_of(one).experts} experts, the router bias {reroute.bias.shape[1]}."
        )
    layer = _Layer(one, reroute)
    # The router alone where its forward chooses; the block where the choice is made outside of it (Dbrx).
    scopes = [module for module in (one.router, one.block) if module is not None]

    def enter(forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Inside the router (or block): scores are edited."""
        if layer.inside:
            return forward(*args, **kwargs)
        layer.inside, layer.logits = True, 0
        try:
            with _Scores(layer):
                return forward(*args, **kwargs)
        finally:
            layer.inside = False

    def leave(forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Inside the experts: their products are no router scores."""
        source = experts_of(one).source
        # Zaya hands a skipped token over as expert 0 with weight 0, which is no choice of expert 0.
        ids = arguments(args, kwargs)[1] if source is None else source.read(args, kwargs, None)[0]
        _obeyed(layer, ids)
        inside, layer.inside = layer.inside, False
        try:
            return forward(*args, **kwargs)
        finally:
            layer.inside = inside

    wrappings: list[Wrapping] = [around(module, enter) for module in scopes] + [around(experts, leave)]
    try:
        yield
    finally:
        for wrapping in wrappings:
            wrapping.remove()


def _obeyed(layer: _Layer, ids: Tensor) -> None:
    """Hold the choice against what was asked.

    Raises:
        InterchangeError: a barred expert was chosen, or a forced one was not.
    """
    bias = layer.spread(ids)
    if not layer.logits and bool(layer.reroute.finite.any()):
        raise InterchangeError(
            f"No scores were met in the router of L{layer.places.layer} that a bias could be added to. Bar or force."
        )
    rows = ids.reshape(-1, ids.shape[-1])
    inside = (rows >= 0) & (rows < layer.experts)
    hit = torch.zeros(len(rows), layer.experts + 1, dtype=torch.bool, device=rows.device)
    hit.scatter_(1, torch.where(inside, rows, torch.full_like(rows, layer.experts)), True)
    chosen, bias = hit[:, : layer.experts], bias.reshape(len(rows), -1)
    forced = bias == torch.inf
    wrong = (chosen & (bias == -torch.inf)).any() | (forced & ~chosen).any()
    if bool(wrong):
        barred, k = int((bias == -torch.inf).sum(dim=1).max()), rows.shape[1]
        where = f"L{layer.places.layer}"
        if int(forced.sum(dim=1).max()) > k:
            raise InterchangeError(f"{where} chooses {k} experts; more cannot be forced.")
        if layer.experts - barred < k:
            raise InterchangeError(f"{where} chooses {k} of {layer.experts} experts; {barred} cannot be barred.")
        how = f" (it selects by {', '.join(sorted(set(layer.notes)))})" if layer.notes else ""
        raise InterchangeError(
            f"The router of {where} did not do as told{how}, so its experts cannot be barred or forced. "
            "Contributions can be swapped and knocked out instead."
        )


def bias_for(
    experts: int, *, bar: Sequence[int] = (), force: Sequence[int] = (), bias: Mapping[int, float] | None = None
) -> Tensor:
    """A (1, experts) bias for all rows from lists of expert indices.

    Raises:
        InterchangeError: an index the layer has not, or an expert both barred and forced.
    """
    result = torch.zeros(1, experts)
    both = set(bar) & set(force)
    if both:
        raise InterchangeError(f"Experts {sorted(both)} are both barred and forced.")
    for group, value in ((bar, -torch.inf), (force, torch.inf)):
        for expert in group:
            result[0, _checked(expert, experts)] = value
    for expert, amount in (bias or {}).items():
        result[0, _checked(expert, experts)] += amount
    return result


def _checked(expert: int, experts: int) -> int:
    if not 0 <= expert < experts:
        raise InterchangeError(f"The layer has experts 0 to {experts - 1}, not {expert}.")
    return expert
