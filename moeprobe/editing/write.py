"""Writing: what one forward has at chosen places instead of its own values."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moeprobe.editing.oracle import contribution, weight_of
from moeprobe.editing.places import Places
from moeprobe.editing.seen import arguments, experts_of, first, flat, gate_values, head_slices, heads_of, place_of
from moeprobe.errors import InterchangeError

How = Literal["replace", "output", "routing", "scale", "add"]
HOWS = ("replace", "output", "routing", "scale", "add")


@dataclass(frozen=True)
class Write:
    """A change of one kind of site in one layer. Every row may carry another site, or none.

    Attributes:
        layer: the model's own layer index.
        kind: "expert", "head", "shared", "moe" or "residual"; "router" replaces the whole choice of a row.
        index: (rows,) integer: which expert or head in each row, any number >= 0 for the other kinds; below 0: the row
            keeps its own value.
        how: "replace" the contribution by `value`; "output" (experts): the expert is run on the donor's input `value`
            with the row's own weight; "routing" (experts): the row's own input with the donor's weight `value`
            (rows, 1); "scale" the contribution by `value` (rows, 1); "add" `value`.
        value: (rows, width), (rows, 1) as said above; for a router the weights (rows, k). None with `partner`.
        partner: (rows,) integer: take the live value of another row of the same forward instead of `value`.
        ids: (rows, k), for a router only.
    """

    layer: int
    kind: str
    index: Tensor
    how: How = "replace"
    value: Tensor | None = None
    partner: Tensor | None = None
    ids: Tensor | None = None

    def __post_init__(self) -> None:
        if self.how not in HOWS:
            raise InterchangeError(f"{self.how!r} is no way to edit. Choose one of {', '.join(HOWS)}.")
        if (self.value is None) == (self.partner is None):
            raise InterchangeError("A write needs a value or a partner, and not both.")
        if self.how in ("output", "routing") and self.kind != "expert":
            raise InterchangeError(f"Only experts have an output and a routing apart; this is a {self.kind}.")
        given = len(self.given if self.partner is None else self.partner)
        if given != len(self.index):
            raise InterchangeError(f"The donor has {given} rows, the write {len(self.index)}; align them first.")

    @property
    def given(self) -> Tensor:
        """The value of a write without a partner."""
        if self.value is None:
            raise InterchangeError("This write takes a partner's live value; it has none of its own.")
        return self.value


class Editor:
    """Hooks that carry out writes. `writes` may be changed between forwards, within the places named at the start.

    Args:
        places: the model's places, by layer.
        touched: (layer, kind) that writes will name.
    """

    def __init__(self, places: Mapping[int, Places], touched: Sequence[tuple[int, str]]) -> None:
        self.places = places
        self.touched = list(dict.fromkeys(touched))
        self._by_place: dict[tuple[int, str], list[Write]] = {}
        self._handles: list[RemovableHandle] = []
        for layer, kind in self.touched:
            place_of(places, layer, kind)  # raises where there is none

    def set(self, writes: Sequence[Write]) -> None:
        """What the forwards from here on write.

        Raises:
            InterchangeError: a write at a place that was not named at the start.
        """
        self._by_place = {}
        for write in writes:
            if (write.layer, write.kind) not in self.touched:
                raise InterchangeError(f"L{write.layer}.{write.kind} was not named when editing began.")
            self._by_place.setdefault((write.layer, write.kind), []).append(write)

    def __enter__(self) -> "Editor":
        # A router's choice is replaced before contributions are looked at, whatever the order of the names.
        for layer, kind in sorted(self.touched, key=lambda place: place[1] != "router"):
            self._install(layer, kind)
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _install(self, layer: int, kind: str) -> None:
        module, one = place_of(self.places, layer, kind), self.places[layer]

        def writes() -> list[Write]:
            return self._by_place.get((layer, kind), [])

        if kind == "router":
            self._handles.append(module.register_forward_pre_hook(_rerouted(writes), with_kwargs=True))
        elif kind == "expert":
            before, after = _contributions(one, writes)
            self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            self._handles.append(module.register_forward_hook(after))
        elif kind == "head":
            self._handles.append(module.register_forward_pre_hook(_heads(one, writes)))
        else:
            self._handles.append(module.register_forward_hook(_output(one, kind, writes)))


@contextmanager
def writing(places: Mapping[int, Places], writes: Sequence[Write]) -> Iterator[None]:
    """Carry out `writes` in every forward inside the block.

    A row whose own value equals the new one is left alone, so writing a site's own value changes no bit.

    Raises:
        InterchangeError: a place the model has not, or (in the forward) another number of rows.
    """
    editor = Editor(places, [(write.layer, write.kind) for write in writes])
    editor.set(writes)
    with editor:
        yield


def _fits(write: Write, rows: int) -> None:
    if len(write.index) != rows:
        raise InterchangeError(
            f"The donor has {len(write.index)} rows, the forward {rows}; they must be aligned first."
        )


def _rerouted(writes: Any) -> Any:
    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del module
        if not writes():
            return None
        hidden, ids, weights = arguments(args, kwargs)
        for write in writes():
            _fits(write, len(ids))
            rows = (write.index >= 0).to(ids.device)[:, None]
            if write.partner is not None:
                partner = write.partner.clamp(min=0).to(ids.device)
                new_ids, new_weights = ids[partner], weights[partner]
            else:
                if write.ids is None or write.ids.shape != ids.shape:
                    raise InterchangeError("A router's choice is replaced by ids and weights of the same k.")
                new_ids, new_weights = write.ids.to(ids), write.given.to(weights)
            ids, weights = torch.where(rows, new_ids, ids), torch.where(rows, new_weights, weights)
        return _passed(args, kwargs, hidden, ids, weights)

    return before


def _passed(args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor, ids: Tensor, weights: Tensor) -> Any:
    """The call with new ids and weights, passed as before."""
    new = [hidden, ids, weights]
    keys = list(kwargs)
    changed = dict(kwargs)
    for place, key in enumerate(keys[: max(0, 3 - len(args))], start=len(args)):
        changed[key] = new[place]
    return (*new[: min(3, len(args))], *args[3:]), changed


def _contributions(one: Places, writes: Any) -> tuple[Any, Any]:
    """Hooks before and after a layer's experts: the old contribution's weight is set to 0, the new value is added."""
    pending: list[tuple[Tensor, Tensor]] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del module
        pending.clear()
        if not writes():
            return None
        hidden, ids, weights = arguments(args, kwargs)
        without = weights
        for write in writes():
            _fits(write, len(ids))
            index = write.index.to(ids.device)
            own, new = expert_values(one, write, flat(hidden), ids, weights)
            rows = (index >= 0) & (own != new).any(dim=1)
            if rows.any():
                without = without.masked_fill((ids == index[:, None]) & rows[:, None], 0)
                pending.append((rows, new))
        return _passed(args, kwargs, hidden, ids, without) if pending else None

    def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        del module, args
        if not pending:
            return None
        result = flat(output)
        for rows, new in pending:
            result = torch.where(rows[:, None], result + new.to(result.dtype), result)
        pending.clear()
        return result.reshape(output.shape)

    return before, after


def expert_values(one: Places, write: Write, hidden: Tensor, ids: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The contributions (rows, width) that stand there and that a write puts in their place.

    All go through the same call of the experts, so that equal inputs give equal bits.
    """
    site, index = experts_of(one), write.index.to(ids.device)
    mine = weight_of(index, ids, weights)
    own = contribution(site, hidden, index, mine)
    if write.partner is not None:
        partner = write.partner.clamp(min=0).to(ids.device)
        source, theirs = hidden[partner], weight_of(index, ids[partner], weights[partner])
        if write.how in ("scale", "add"):
            raise InterchangeError("A partner's value replaces; it does not scale or add.")
        used = {"replace": (source, theirs), "output": (source, mine), "routing": (hidden, theirs)}[write.how]
        return own, contribution(site, used[0], index, used[1])
    value = write.given.to(device=hidden.device, dtype=hidden.dtype)
    if write.how == "replace":
        return own, value
    if write.how == "add":
        return own, own + value
    if write.how == "output":
        return own, contribution(site, value, index, mine)
    factor = write.given.to(weights)[:, 0]
    return own, contribution(site, hidden, index, factor if write.how == "routing" else mine * factor)


def _changed(write: Write, own: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
    """(rows that change (rows,), new values) of a site that is a plain value. `live`: own values that partners give."""
    if write.partner is not None:
        new = live
    else:
        value = write.given.to(own)
        new = {"replace": lambda: value, "add": lambda: own + value, "scale": lambda: own * value}[write.how]()
    return (write.index.to(own.device) >= 0) & (own != new).any(dim=1), new


def _heads(one: Places, writes: Any) -> Any:
    def before(module: nn.Module, args: tuple[Any, ...]) -> Any:
        del module
        if not writes():
            return None
        value = flat(args[0]).clone()
        rows = torch.arange(len(value), device=value.device)
        for write in writes():
            _fits(write, len(value))
            index = write.index.to(value.device).clamp(min=0)
            own = head_slices(value, one, index, rows)
            live = own if write.partner is None else head_slices(flat(args[0]), one, index, write.partner.to(index))
            changed, new = _changed(write, own, live)
            heads = heads_of(one)
            view = value.view(len(value), heads.count, heads.width)
            view[rows[changed], index[changed]] = new[changed]
        return value.reshape(args[0].shape), *args[1:]

    return before


def _output(one: Places, kind: str, writes: Any) -> Any:
    def after(module: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        del module
        if not writes():
            return None
        output = first(result)
        raw = flat(output)
        gate = gate_values(one, flat(args[0])) if kind == "shared" and one.shared_gate is not None else None
        value = raw if gate is None else raw * gate
        for write in writes():
            _fits(write, len(raw))
            live = value if write.partner is None else value[write.partner.clamp(min=0).to(value.device)]
            changed, new = _changed(write, value, live)
            # The gate multiplies afterwards, so it is divided out; rows that keep their value are not touched.
            raw = torch.where(changed[:, None], new if gate is None else new / gate, raw)
            value = torch.where(changed[:, None], new, value)
        edited = raw.reshape(output.shape)
        return edited if isinstance(result, Tensor) else (edited, *result[1:])

    return after
