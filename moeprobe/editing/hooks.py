"""Hooks that carry out writes at one place of one layer.

Each takes `writes`, a function that gives the writes of the forward that comes by, and does nothing where there are
none. A row whose own value equals the new one is left alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from moeprobe.editing.edit import Write
from moeprobe.editing.oracle import contribution, weight_of
from moeprobe.editing.places import Places
from moeprobe.editing.seen import arguments, experts_of, first, flat, gate_values, head_slices, heads_of
from moeprobe.errors import InterchangeError

Writes = Callable[[], Sequence[Write]]


def _fits(write: Write, rows: int) -> None:
    if len(write.index) != rows:
        raise InterchangeError(
            f"The donor has {len(write.index)} rows, the forward {rows}; they must be aligned first."
        )
    if write.partner is not None and rows and int(write.partner.max()) >= rows:
        raise InterchangeError(f"Partner {int(write.partner.max())} is no row of a forward of {rows}.")


def choices(writes: Writes) -> Any:
    """Before a layer's experts: the choice of some rows is another one."""

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call with the choices of all writes."""
        del module
        if not writes():
            return None
        hidden, ids, weights = arguments(args, kwargs)
        own_ids, own_weights = ids, weights
        for write in writes():
            _fits(write, len(ids))
            rows = (write.index >= 0).to(ids.device)[:, None]
            if write.partner is not None:
                partner = write.partner.clamp(min=0).to(ids.device)
                new_ids, new_weights = own_ids[partner], own_weights[partner]
            else:
                if write.ids is None or write.ids.shape != ids.shape or write.given.shape != ids.shape:
                    raise InterchangeError("A router's choice is replaced by ids and weights (rows, k) of the same k.")
                new_ids, new_weights = write.ids.to(ids), write.given.to(weights)
            ids, weights = torch.where(rows, new_ids, ids), torch.where(rows, new_weights, weights)
        return passed(args, kwargs, hidden, ids, weights)

    return before


def passed(args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor, ids: Tensor, weights: Tensor) -> Any:
    """The call with new ids and weights, passed as before."""
    new = [hidden, ids, weights]
    keys = list(kwargs)
    changed = dict(kwargs)
    for place, key in enumerate(keys[: max(0, 3 - len(args))], start=len(args)):
        changed[key] = new[place]
    return (*new[: min(3, len(args))], *args[3:]), changed


def contributions(one: Places, writes: Writes) -> tuple[Any, Any]:
    """Hooks before and after a layer's experts: the old contribution's weight is set to 0, the new value is added."""
    pending: list[tuple[Tensor, Tensor]] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call with the weights of changed slots at 0; what is to be added is left in `pending`."""
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
        return passed(args, kwargs, hidden, ids, without) if pending else None

    def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """The output with what is pending added."""
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
        used = {"replace": (source, theirs), "output": (source, mine), "routing": (hidden, theirs)}[write.how]
        return own, contribution(site, used[0], index, used[1])
    value = write.wide(hidden.shape[1]).to(hidden.device)
    if write.how == "replace":
        return own, value
    if write.how == "add":
        return own, own + value.to(own.dtype)
    if write.how == "output":
        return own, contribution(site, value.to(hidden.dtype), index, mine)
    factor = value.to(weights.dtype)[:, 0]
    return own, contribution(site, hidden, index, factor if write.how == "routing" else mine * factor)


def _changed(write: Write, own: Tensor, live: Tensor | None) -> tuple[Tensor, Tensor]:
    """(rows that change (rows,), new values) of a site that is a plain value. `live`: the values that partners give."""
    if live is not None:
        new = live
    else:
        value = write.wide(own.shape[1]).to(own)
        new = {"replace": lambda: value, "add": lambda: own + value, "scale": lambda: own * value}[write.how]()
    return (write.index.to(own.device) >= 0) & (own != new).any(dim=1), new


def heads(one: Places, writes: Writes) -> Any:
    """Before the output projection of a layer's attention: slices of its input are others."""

    def before(module: nn.Module, args: tuple[Any, ...]) -> Any:
        """The projection's input with the slices of all writes."""
        del module
        if not writes():
            return None
        value = flat(args[0]).clone()
        rows, layout = torch.arange(len(value), device=value.device), heads_of(one)
        for write in writes():
            _fits(write, len(value))
            index, live = write.index.to(value.device).clamp(min=0), None
            if write.partner is not None:
                live = head_slices(flat(args[0]), one, index, write.partner.to(index).clamp(min=0))
            changed, new = _changed(write, head_slices(value, one, index, rows), live)
            view = value.view(len(value), layout.count, layout.width)
            view[rows[changed], index[changed]] = new[changed]
        return value.reshape(args[0].shape), *args[1:]

    return before


def _edited(value: Tensor, writes: Sequence[Write]) -> tuple[Tensor, Tensor]:
    """(values (rows, width) after `writes`, rows that changed (rows,))."""
    own, touched = value, torch.zeros(len(value), dtype=torch.bool, device=value.device)
    for write in writes:
        _fits(write, len(own))
        live = None if write.partner is None else own[write.partner.clamp(min=0).to(own.device)]
        changed, new = _changed(write, value, live)
        value, touched = torch.where(changed[:, None], new, value), touched | changed
    return value, touched


def outputs(writes: Writes) -> Any:
    """After a module: its output is another one in some rows."""

    def after(module: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        """What the module returned, with the hidden states of all writes; None, as it is, where nothing is written."""
        del module, args
        if not writes():
            return None
        output = first(result)
        return _with(result, _edited(flat(output), writes())[0].reshape(output.shape))

    return after


def _with(result: Any, edited: Tensor) -> Any:
    """What a module returned, with other hidden states."""
    return edited if isinstance(result, Tensor) else (edited, *result[1:])


class Gated:
    """Shared experts whose output the block multiplies by a sigmoid: rows that change get the new value and a gate of
    infinity, whose sigmoid is exactly 1. Dividing by the gate instead would fail where it is 0."""

    def __init__(self, places: Places, writes: Writes) -> None:
        self.places, self.writes = places, writes
        self.pending: Tensor | None = None

    def after(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        """The shared experts gave their output."""
        del module
        self.pending = None
        if not self.writes():
            return None
        output = first(result)
        raw = flat(output)
        value, changed = _edited(raw * gate_values(self.places, flat(args[0])), self.writes())
        self.pending = changed
        return _with(result, torch.where(changed[:, None], value, raw).reshape(output.shape))

    def open(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """The gate gave its number for each row."""
        del module, args
        changed, self.pending = self.pending, None
        return None if changed is None else output.masked_fill(changed.reshape(*output.shape[:-1], 1), torch.inf)

    def check(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        """The layer is done.

        Raises:
            InterchangeError: the gate had come before the shared experts.
        """
        del module, args, result
        if self.pending is not None:
            raise InterchangeError(
                f"The gate of the shared experts of L{self.places.layer} does not follow them, "
                "so they cannot be written."
            )
