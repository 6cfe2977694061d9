"""The forward passes of one stack: when they begin and end, and that every layer recorded each of their rows."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from torch import Tensor, nn

from moeprobe.capture.rows import Forward
from moeprobe.capture.tape import Tape
from moeprobe.errors import CaptureError

_DECODER_INPUTS = ("decoder_input_ids", "decoder_inputs_embeds")
_INPUTS = ("input_ids", "inputs_embeds")


class Forwards:
    """The log of one stack's forward passes.

    Args:
        stack: its name; "" is the main one.
        anchor: the module whose call is one forward pass of the stack.
        names: what is recorded of the stack, as name on the tape -> place for messages.
        tape: where it is recorded.
        decoder: whether the anchor is an encoder-decoder model, whose rows are those of the decoder.
    """

    def __init__(self, stack: str, anchor: nn.Module, names: Mapping[str, str], tape: Tape, *, decoder: bool) -> None:
        self.stack, self.anchor, self.tape = stack, anchor, tape
        self.names = dict(names)
        # The lists themselves, which the tape never replaces: looked at after every forward.
        self._waiting = [tape.waiting(name) for name in self.names]
        self.inputs = _DECODER_INPUTS if decoder else _INPUTS
        self.done: list[Forward] = []
        self.current: Forward | None = None
        self.on_end: Callable[[Forward, object], None] | None = None
        self.on_begin: Callable[[Forward], None] | None = None
        self._flushed = 0

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the anchor."""
        self.drop_unfinished()
        if module.training:
            raise CaptureError("The model is in train mode, where routers may add noise. Call model.eval() first.")
        if args:
            kwargs = {**kwargs, **_named(module, args)}
        inputs = next((kwargs[name] for name in self.inputs if kwargs.get(name) is not None), None)
        if inputs is None:
            raise CaptureError(
                f"{self.stack or 'The model'} was called without {' or '.join(self.inputs)}; rows have no place."
            )
        ids = _own(inputs.detach()) if inputs.dim() == 2 else None
        self.current = Forward(cached(kwargs.get("past_key_values")), int(inputs.shape[0]), int(inputs.shape[1]), ids)
        if self.on_begin is not None:
            self.on_begin(self.current)

    def end(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """Forward hook of the anchor: each layer must have recorded exactly the rows that were forwarded."""
        del module, args
        forward = self.current
        if forward is None:
            raise CaptureError("A forward pass ended that never began. This is a bug in moeprobe.")
        if self.on_end is not None:
            self.on_end(forward, output)
        count, rows = self.unflushed + 1, forward.rows
        for waiting in self._waiting:
            if len(waiting) != count or waiting[-1].shape[0] != rows:
                self._incomplete(count, rows)
        self.done.append(forward)
        self.current = None

    def _incomplete(self, count: int, rows: int) -> NoReturn:
        for name, place in self.names.items():
            waiting = self.tape.waiting(name)
            got = sum(len(part) for part in waiting[count - 1 :])
            if len(waiting) != count or got != rows:
                raise CaptureError(
                    f"{place} recorded {got} rows of {rows} forwarded: bypassed or run twice (a fused kernel, "
                    "torch.compile, a quantised block that does not call its experts); turn that off and run again."
                )
        raise CaptureError("A layer recorded too few or too many rows. This is a bug in moeprobe.")

    def drop_unfinished(self) -> None:
        """Forget a forward that broke off with an error that somebody caught: its rows are no rows of the text."""
        if self.current is not None:
            for name in self.names:
                del self.tape.waiting(name)[self.unflushed :]
            self.current = None

    def flushed(self) -> None:
        """The tape was flushed; `begin` and `end` count from here."""
        self._flushed = len(self.done)

    @property
    def unflushed(self) -> int:
        """Forwards whose tensors still wait."""
        return len(self.done) - self._flushed

    def clear(self) -> None:
        """Forget everything."""
        self.done.clear()
        self.current, self._flushed = None, 0


def cached(cache: Any) -> int | Tensor:
    """Tokens in the cache. Static caches count on the device: the count is copied there, since reading it here would
    make a GPU wait at each step."""
    if cache is None:
        return 0
    length = cache.get_seq_length()
    return length.detach().clone() if isinstance(length, Tensor) else int(length)


def _named(module: nn.Module, args: tuple[Any, ...]) -> dict[str, Any]:
    """Positional arguments by name: a cache must be seen however it is handed over."""
    names = inspect.signature(module.forward).parameters.values()
    positional = [one.name for one in names if one.kind is one.POSITIONAL_OR_KEYWORD]
    return dict(zip(positional, args, strict=False))


def _own(ids: Tensor) -> Tensor:
    """A copy of `ids`: the caller may write the next token into the same tensor, and a window into a larger one would
    keep all of it in memory. Once per forward, it costs nothing that can be measured."""
    return ids.clone()
