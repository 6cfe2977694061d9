"""Rerouting: scores changed before the router chooses, so that the model itself renormalises as it always does.

Barring an expert before top-k and setting its contribution to zero are different interventions: the first brings in
another expert and new weights, the second leaves a hole. Their logits differ as much as the effect itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moeprobe.capture.wrap import Wrapping, around
from moeprobe.editing.places import Places
from moeprobe.editing.scores import Layer, Scores
from moeprobe.editing.seen import arguments, experts_of
from moeprobe.errors import InterchangeError

# Blocks that choose outside their router's forward.
_CHOOSING = ("DbrxFFN",)
# Routers whose top-k runs over something else than experts.
_NO_SCORES = {"DogeCDMoE": "it chooses among products of two keys, whose places in its top-k are no experts"}


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


class Rerouter:
    """Router scores changed in every forward inside the block; `set` changes how, between forwards.

    Args:
        places: the model's places, by layer.
        layers: whose routers will be changed.

    Raises:
        InterchangeError: a layer without a router that learns, or whose scores cannot be changed.
    """

    def __init__(self, places: Mapping[int, Places], layers: Sequence[int]) -> None:
        self._layers = {layer: Layer(_place(places, layer)) for layer in layers}
        self._wrappings: list[Wrapping] = []

    def set(self, reroutes: Sequence[Reroute]) -> None:
        """How the forwards from here on are rerouted; layers without a `Reroute` choose as they do.

        Raises:
            InterchangeError: a layer that was not named at the start, two biases for one, or one of another shape.
        """
        found: dict[int, Tensor] = {}
        for one in reroutes:
            if one.layer not in self._layers or one.layer in found:
                said = "was not named when rerouting began" if one.layer not in self._layers else "has two biases"
                raise InterchangeError(f"L{one.layer} {said}.")
            experts = self._layers[one.layer].experts
            if one.bias.shape[1] != experts:
                raise InterchangeError(f"L{one.layer} has {experts} experts, the router bias {one.bias.shape[1]}.")
            found[one.layer] = one.bias
        for number, layer in self._layers.items():
            layer.bias = found.get(number)

    def __enter__(self) -> "Rerouter":
        for layer in self._layers.values():
            self._wrappings += _wrapped(layer)
        return self

    def __exit__(self, *exception: object) -> None:
        for wrapping in self._wrappings:
            wrapping.remove()
        self._wrappings = []


@contextmanager
def rerouting(places: Mapping[int, Places], reroutes: Sequence[Reroute]) -> Iterator[None]:
    """Change router scores in every forward inside the block, and check that the choice obeyed.

    Raises:
        InterchangeError: a layer without a router that learns; a bias of another shape; more barred than can be spared,
            more forced than are chosen; or (in the forward) a router that did not do as told.
    """
    rerouter = Rerouter(places, [one.layer for one in reroutes])
    rerouter.set(reroutes)
    with rerouter:
        yield


def _place(places: Mapping[int, Places], layer: int) -> Places:
    """The places of a layer whose router can be changed."""
    if layer not in places:
        raise InterchangeError(f"The model has no layer {layer}; it has {min(places)} to {max(places)}.")
    one = places[layer]
    kind = type(experts_of(one).module).__name__
    reason = _NO_SCORES.get(kind)
    if one.router is None:
        reason = "there is none"
    elif hasattr(one.router, "tid2eid"):
        reason = "its experts are chosen by a hash of the token, not by scores"
    if reason is not None:
        raise InterchangeError(f"The router of L{layer} cannot be biased: {reason}.")
    return one


def _wrapped(layer: Layer) -> list[Wrapping]:
    """Stand around a layer's router (and a block that chooses by itself) and its experts."""
    places = layer.places
    site, router, block = experts_of(places), places.router, places.block
    at_return = site.source is not None and site.source.when == "return"

    def scoring(forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The router: its logits and its choice are edited."""
        if layer.bias is None:
            return forward(*args, **kwargs)
        layer.logits, layer.notes = 0, []
        # Inside a block that chooses by itself its mode is open already; two would add the bias twice.
        with nullcontext() if layer.part == "block" else Scores(layer), layer.at("router"):
            result = forward(*args, **kwargs)
        if at_return:
            layer.check(site.source.read(args, kwargs, result)[0])
        return result

    def choosing(forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A block that chooses outside of its router: the choice alone is edited."""
        if layer.bias is None:
            return forward(*args, **kwargs)
        with Scores(layer), layer.at("block"):
            return forward(*args, **kwargs)

    def chosen(forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The experts: the choice has been made, and their products are no router scores."""
        if layer.bias is not None:
            # Zaya hands a skipped token over as expert 0 with weight 0, which is no choice of expert 0.
            read = None if site.source is None else site.source.read
            layer.check(arguments(args, kwargs)[1] if read is None else read(args, kwargs, None)[0])
        with layer.at(None):
            return forward(*args, **kwargs)

    wrappings = [around(router, scoring)] if router is not None else []
    if block is not None and type(block).__name__ in _CHOOSING:
        wrappings.append(around(block, choosing))
    return wrappings if at_return else [*wrappings, around(site.module, chosen)]


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
