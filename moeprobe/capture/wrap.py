"""Standing around a module's forward: at the cost of one Python call, and even when it is broken off."""

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

Forward = Callable[..., Any]
Seen = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]


class Wrapping:
    """A wrapped `forward` on the instance of a module, until `remove`; several may leave in any order.

    Args:
        module: whose forward is wrapped.
        wrap: makes the new forward from the one that is there.
    """

    def __init__(self, module: nn.Module, wrap: Callable[["Wrapping", Forward], Forward]) -> None:
        self.module, self.own, self.active = module, module.__dict__.get("forward"), True
        self.forward: Forward = module.forward
        wrapped = functools.wraps(self.forward)(wrap(self, self.forward))
        wrapped.wrapping = self  # type: ignore[attr-defined]  # how `remove` knows its own kind
        module.forward = wrapped

    def remove(self) -> None:
        """Stop, and put the module's own forward back; below somebody else's wrapper, once that is gone."""
        self.active = False
        while True:
            top = _top(self.module)
            if top is None or top.active:
                return
            if top.own is None:
                del self.module.__dict__["forward"]
            else:
                self.module.forward = top.own


def before(module: nn.Module, seen: Seen) -> Wrapping:
    """Call `seen` (module, args, kwargs) before each forward, as a forward pre-hook would, at a third of the cost.

    torch takes about 10 us more for a call of a module that has hooks, in each layer and step (benchmarks/capture.py).
    It sees what pre-hooks made of the arguments, so what the module really uses.
    """

    def wrap(self: Wrapping, forward: Forward) -> Forward:
        """The forward, seen while the wrapping is active."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self.active:
                seen(module, args, kwargs)
            return forward(*args, **kwargs)

        return wrapped

    return Wrapping(module, wrap)


def around(module: nn.Module, run: Callable[[Forward, tuple[Any, ...], dict[str, Any]], Any]) -> Wrapping:
    """Run each forward through `run` (forward, args, kwargs).

    Not a pair of hooks: after KeyboardInterrupt torch calls no hook at all, and what was opened would stay open.
    """

    def wrap(self: Wrapping, forward: Forward) -> Forward:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return run(forward, args, kwargs) if self.active else forward(*args, **kwargs)

        return wrapped

    return Wrapping(module, wrap)


def unwatched(module: nn.Module) -> Forward:
    """The forward of `module` below all wrappings of this kind, for calls that are no part of the text. What offloading
    or a parallel layout put in its place stays."""
    forward: Forward = module.forward
    while isinstance(getattr(forward, "wrapping", None), Wrapping):
        forward = forward.wrapping.forward  # type: ignore[attr-defined]  # checked in the line above
    return forward


def _top(module: nn.Module) -> Wrapping | None:
    found = getattr(module.__dict__.get("forward"), "wrapping", None)
    return found if isinstance(found, Wrapping) else None
