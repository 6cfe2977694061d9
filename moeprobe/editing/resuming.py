"""Forwards that start in the middle: layers before the first edit hand on what they gave in the unedited run.

All layers before the start return the recorded result of the last of them, so nothing is computed there. Whether a
family allows that (some carry keys or router states past the residual stream) is tried, not assumed: `Resuming.holds`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from moeprobe.capture.wrap import around
from moeprobe.editing.places import Places


class Resuming:
    """Recorded results of the layers before those in `starts`, for one batch of runs.

    Args:
        places: the model's places, by layer.
        starts: layers at which edited forwards may begin.
        runs: number of runs in the batch.
    """

    def __init__(self, places: Mapping[int, Places], starts: set[int], runs: int) -> None:
        self.places, self.runs = places, runs
        order = sorted(places)
        self.before = {start: order[: order.index(start)] for start in starts if order.index(start) > 0}
        self.results: dict[int, Any] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep the results of the one unedited forward inside the block."""
        with ExitStack() as stack:
            for start, earlier in self.before.items():
                stack.callback(self._keep(start, self.places[earlier[-1]].decoder).remove)
            yield

    @contextmanager
    def starting(self, start: int, elements: Tensor) -> Iterator[None]:
        """Begin forwards at layer `start`, with run elements[i] of the recorded batch as run i.

        Where nothing was recorded for that layer the forward is a whole one.
        """
        if start not in self.results:
            yield
            return
        result = select(self.results[start], elements, self.runs)

        def skip(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            del forward, args, kwargs
            return result

        with ExitStack() as stack:
            for layer in self.before[start]:
                stack.callback(around(self.places[layer].decoder, skip).remove)
            yield

    def forget(self, start: int) -> None:
        """Forwards that would begin at this layer are whole ones from here on."""
        self.results.pop(start, None)

    def _keep(self, start: int, decoder: nn.Module) -> Any:
        def keep(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
            del module, args
            self.results[start] = result

        return decoder.register_forward_hook(keep)


def holds(resuming: Resuming, start: int, logits: Tensor, forward: Callable[[], Tensor]) -> bool:
    """Whether an unedited forward that begins at `start` gives the whole forward's logits, bit for bit.

    Args:
        resuming: after `recording`.
        start: the layer.
        logits: of the whole forward.
        forward: the same forward again.
    """
    if start not in resuming.results:
        return False
    try:
        with resuming.starting(start, torch.arange(resuming.runs)):
            again = forward()
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError):
        # Whatever a family's later layers miss from the earlier ones: it is then run whole.
        return False
    return torch.equal(again, logits)


def select(result: Any, elements: Tensor, runs: int) -> Any:
    """The results of some runs of a batch: of every tensor whose first dimension is the batch, those runs."""
    if isinstance(result, Tensor):
        batched = result.dim() > 1 and result.shape[0] == runs
        return result.index_select(0, elements.to(result.device)) if batched else result
    if isinstance(result, tuple):
        return tuple(select(part, elements, runs) for part in result)
    return result
