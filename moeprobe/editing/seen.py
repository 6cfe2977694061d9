"""Reading: what stood at named places during one unedited forward.

All values are by row: a forward of ids (batch, columns) has batch * columns rows, row = element * columns + column.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moeprobe.capture.wrap import unwatched
from moeprobe.editing.oracle import contribution, weight_of
from moeprobe.editing.places import Heads, Places
from moeprobe.errors import InterchangeError

Place = tuple[int, str]
"""A layer and a kind of site, for example (14, "expert")."""


@dataclass(frozen=True)
class Choice:
    """What an experts module was called with: hidden (rows, width), ids and weights (rows, k)."""

    hidden: Tensor
    ids: Tensor
    weights: Tensor


@dataclass
class Seen:
    """What one forward had at the places that were read.

    Attributes:
        places: the model's places, by layer.
        choices: calls of the experts, by layer.
        values: other values (rows, width), by place; of heads all of them side by side.
    """

    places: Mapping[int, Places]
    choices: dict[int, Choice] = field(default_factory=dict)
    values: dict[Place, Tensor] = field(default_factory=dict)

    def value(self, layer: int, kind: str, index: Tensor, rows: Tensor, how: str = "replace") -> Tensor:
        """Values of this forward, laid out for the rows of another.

        Args:
            layer, kind: the place.
            index: (n,) which expert or head each row wants; below 0: none, the value is 0.
            rows: (n,) row of this forward that each asks; below 0: none, the value is 0.
            how: as in `Write`: "replace" (the site's contribution), for experts also "output" (the expert's input,
                which the recipient runs through it with its own weight) and "routing" (the weight, (n, 1)).

        Returns:
            (n, width).

        Raises:
            InterchangeError: the place was not read, or it has no such value.
        """
        if how not in ("replace", "output", "routing") or (how != "replace" and kind != "expert"):
            raise InterchangeError(f"A {kind} has no value for {how!r}.")
        kept = self.choice(layer).hidden if kind in ("expert", "router") else self._kept(layer, kind)
        if kind == "router":
            raise InterchangeError("A router's choice has ids and weights; take them from `choice`.")
        if len(rows) and int(rows.max()) >= len(kept):
            raise InterchangeError(f"Row {int(rows.max())} was asked of a forward of {len(kept)} rows.")
        check_index(self.places, layer, kind, index)
        rows, index = rows.to(kept.device), index.to(kept.device)
        missing, at = (rows < 0) | (index < 0), rows.clamp(min=0)
        if kind == "expert":
            found = self._expert(layer, index, at, how)
        elif kind == "head":
            found = head_slices(kept, self.places[layer], index.clamp(min=0), at)
        else:
            found = kept[at]
        return found.masked_fill(missing[:, None], 0)

    def choice(self, layer: int) -> Choice:
        """What the experts of a layer were called with.

        Raises:
            InterchangeError: they were not read, or not called.
        """
        if layer not in self.choices:
            raise InterchangeError(f"The experts of layer {layer} were not read in this forward.")
        return self.choices[layer]

    def _kept(self, layer: int, kind: str) -> Tensor:
        if (layer, kind) not in self.values:
            raise InterchangeError(f"L{layer}.{kind} was not read in this forward.")
        return self.values[layer, kind]

    def _expert(self, layer: int, index: Tensor, at: Tensor, how: str) -> Tensor:
        choice = self.choice(layer)
        if how == "output":
            return choice.hidden[at]
        weights = weight_of(index, choice.ids[at], choice.weights[at])
        if how == "routing":
            return weights[:, None]
        return contribution(experts_of(self.places[layer]), choice.hidden[at], index, weights)


@contextmanager
def reading(places: Mapping[int, Places], wanted: Iterable[Place]) -> Iterator[Seen]:
    """Record the asked places during the one forward inside the block. Reading changes no bit.

    Raises:
        InterchangeError: the model has no such place.
    """
    seen = Seen(places)
    handles: list[RemovableHandle] = []
    try:
        for layer, kind in dict.fromkeys(wanted):
            handles.append(_hook(seen, layer, kind))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _hook(seen: Seen, layer: int, kind: str) -> RemovableHandle:
    where = place_of(seen.places, layer, kind)
    if kind in ("expert", "router"):

        def choice(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            del module
            hidden, ids, weights = arguments(args, kwargs)
            seen.choices[layer] = Choice(_kept(flat(hidden)), _kept(ids), _kept(weights))

        return where.register_forward_pre_hook(choice, with_kwargs=True)
    if kind == "head":

        def slices(module: nn.Module, args: tuple[Any, ...]) -> None:
            del module
            seen.values[layer, kind] = _kept(flat(args[0]))

        return where.register_forward_pre_hook(slices)

    def output(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        del module
        value = _kept(flat(first(result)))
        seen.values[layer, kind] = gated(seen.places[layer], flat(args[0]), value) if kind == "shared" else value

    return where.register_forward_hook(output)


def _kept(value: Tensor) -> Tensor:
    """A copy: some models go on in place (Llama 4 adds the routed outputs to what its shared expert gave)."""
    return value.detach().clone()


def place_of(places: Mapping[int, Places], layer: int, kind: str) -> nn.Module:
    """The module at which a kind of site of a layer is read and written.

    Raises:
        InterchangeError: the layer has no such site, or it is refused; the message says why.
    """
    if layer not in places:
        raise InterchangeError(f"The model has no layer {layer}; it has {min(places)} to {max(places)}.")
    one = places[layer]
    module = {
        "expert": None if one.experts is None else one.experts.module,
        "router": None if one.experts is None else one.experts.module,
        "shared": one.shared,
        "moe": one.block,
        "head": None if one.heads is None else one.heads.module,
        "residual": one.decoder,
    }.get(kind)
    reason = one.refused.get(kind)
    if module is None or reason is not None:
        raise InterchangeError(f"L{layer} has no {kind} that could be swapped: {reason or 'there is none'}.")
    return module


def arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """(hidden, ids, weights) of a call of an experts module, however they were passed."""
    given = [*args, *kwargs.values()][:3]
    if len(given) == 3 and all(isinstance(one, Tensor) for one in given):
        hidden, ids, weights = given
        if ids.dim() == 2 and ids.shape == weights.shape and not ids.is_floating_point():
            return hidden, ids, weights
    raise InterchangeError(
        "The experts were not called with hidden states, expert ids (rows, k) and weights (rows, k)."
    )


def check_index(places: Mapping[int, Places], layer: int, kind: str, index: Tensor) -> None:
    """Hold experts and heads against what the layer has.

    Raises:
        InterchangeError: one that the layer has not.
    """
    if kind not in ("expert", "head") or not len(index):
        return
    count = experts_of(places[layer]).experts if kind == "expert" else heads_of(places[layer]).count
    if int(index.max()) >= count:
        raise InterchangeError(f"L{layer} has {kind}s 0 to {count - 1}, not {int(index.max())}.")


def experts_of(places: Places) -> Any:
    """The experts of a layer that has some."""
    if places.experts is None:
        raise InterchangeError(f"Layer {places.layer} has no routed experts.")
    return places.experts


def heads_of(places: Places) -> Heads:
    """The attention heads of a layer that has some."""
    if places.heads is None:
        raise InterchangeError(f"Layer {places.layer} has no attention heads that could be swapped.")
    return places.heads


def first(result: Any) -> Tensor:
    """The hidden states that a module returned, alone or with others."""
    value: Tensor = result[0] if isinstance(result, tuple | list) else result
    return value


def flat(value: Tensor) -> Tensor:
    """(rows, width) from (batch, columns, width) or (rows, width)."""
    return value.reshape(-1, value.shape[-1])


def gated(places: Places, hidden: Tensor, output: Tensor) -> Tensor:
    """What shared experts add to the stream: their output times their sigmoid gate, where they have one."""
    return output if places.shared_gate is None else output * gate_values(places, hidden)


def gate_values(places: Places, hidden: Tensor) -> Tensor:
    """(rows, 1) sigmoid of the shared experts' gate; ones where they have none."""
    if places.shared_gate is None:
        return torch.ones(len(hidden), 1, dtype=hidden.dtype, device=hidden.device)
    return torch.sigmoid(unwatched(places.shared_gate)(hidden))


def head_slices(value: Tensor, places: Places, index: Tensor, rows: Tensor) -> Tensor:
    """The slice (n, head width) of head index[i] at rows[i], from the heads side by side (rows, heads * width)."""
    heads = heads_of(places)
    return value.reshape(len(value), heads.count, heads.width)[rows, index]
