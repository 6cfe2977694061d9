"""Seeing a module's arguments at the cost of one Python call."""

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

Seen = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]


class Before:
    """Calls `seen` before a module's forward, as a forward pre-hook would, at a third of the cost: torch takes about
    10 us more for a call of a module that has hooks, in each layer and step (benchmarks/capture.py). It sees what
    pre-hooks made of the arguments, so what the module really uses.

    Args:
        module: whose `forward` is wrapped, on the instance, until `remove`.
        seen: called with (module, args, kwargs); what it raises ends the forward.
    """

    def __init__(self, module: nn.Module, seen: Seen) -> None:
        self.module, self.own, self.active = module, module.__dict__.get("forward"), True
        forward = module.forward

        @functools.wraps(forward)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self.active:
                seen(module, args, kwargs)
            return forward(*args, **kwargs)

        wrapped.before = self  # type: ignore[attr-defined]  # how `remove` knows its own kind
        module.forward = wrapped  # calling a module looks it up on the instance

    def remove(self) -> None:
        """Stop, and put the module's own forward back; below somebody else's wrapper, once that is gone."""
        self.active = False
        while True:
            top = getattr(self.module.__dict__.get("forward"), "before", None)
            if not isinstance(top, Before) or top.active:
                return
            if top.own is None:
                del self.module.__dict__["forward"]
            else:
                self.module.forward = top.own
