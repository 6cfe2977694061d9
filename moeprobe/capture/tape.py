"""Where recorded tensors wait: references while the model runs, joined now and then, brought over at the end."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moeprobe.capture.rows import to_numpy
from moeprobe.errors import CaptureError

# Joining once per 64 forwards keeps the cost of a decode step near that of an empty hook.
FLUSH_EVERY = 64
# An answer of millions of rows must not fill a GPU: beyond this, joined parts wait in main memory.
_ON_DEVICE_BYTES = 256 << 20


class Tape:
    """Tensors by name, one per forward, each (rows, ...).

    A put keeps a reference and launches nothing: ids and weights are fresh tensors at each call, and a copy would cost
    a kernel per layer and step.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._waiting: dict[str, list[Tensor]] = {name: [] for name in names}
        self._joined: dict[str, list[Tensor]] = {name: [] for name in self._waiting}
        self._bytes = 0

    def put(self, name: str, rows: Tensor) -> None:
        """Keep `rows` of the present forward under `name`."""
        self._waiting[name].append(rows)

    def waiting(self, name: str) -> list[Tensor]:
        """What was put under `name` since the last flush."""
        return self._waiting[name]

    def flush(self) -> None:
        """Join what waits; narrow integers, which are expert ids."""
        for name, parts in self._waiting.items():
            if not parts:
                continue
            shapes = {(part.shape[1:], part.dtype, part.device) for part in parts}
            if len(shapes) > 1:
                # torch would promote one dtype to another without a word.
                raise CaptureError(f"{name} changed its shape, dtype or device during the run: {list(shapes)}.")
            joined = torch.cat(parts)
            if joined.dtype == torch.int64:
                joined = joined.to(torch.int32)
            self._joined[name].append(joined)
            self._bytes += joined.numel() * joined.element_size() if joined.device.type != "cpu" else 0
            parts.clear()
        if self._bytes > _ON_DEVICE_BYTES:
            self._joined = {name: [part.cpu() for part in parts] for name, parts in self._joined.items()}
            self._bytes = 0

    def array(self, name: str) -> NDArray[np.generic]:
        """Everything under `name`, (rows, ...), on the CPU."""
        self.flush()
        # Parts may lie on different devices by now.
        return to_numpy([part.cpu() for part in self._joined[name]])

    def rows(self, name: str) -> int:
        """How many rows were recorded under `name`."""
        return sum(len(part) for part in (*self._waiting[name], *self._joined[name]))

    def clear(self) -> None:
        """Forget everything."""
        for parts in (*self._waiting.values(), *self._joined.values()):
            parts.clear()
        self._bytes = 0
