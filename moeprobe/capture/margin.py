"""How close each routing decision was."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from moeprobe.capture.attach import read_routing, seam
from moeprobe.capture.discover import ExpertsSite
from moeprobe.capture.router import block_of, find_router, router_scores
from moeprobe.capture.rows import Forward
from moeprobe.capture.tape import Tape
from moeprobe.capture.taps import LayerTap
from moeprobe.errors import CaptureError


class MarginTap(LayerTap):
    """The k-th minus the (k+1)-th selection score, (rows,), and whether rounding may flip that choice.

    Selection scores are what the model hands to top-k: after softmax or sigmoid, groups and correction bias, where it
    has those. They are read by watching top-k inside the block, not recomputed. NaN where there was no further
    candidate, or no top-k (layers routed by a hash of the token).

    A choice is gate-sensitive where the margin is below eps * |logit| * |score|: one rounding step of the larger of the
    two logits in the dtype of the router's input, carried over to the scores (softmax, sigmoid and the like change by
    at most score * change of the logit). Where scores are the logits, or no logits are seen, it is eps * |score|.
    """

    kind = "margin"

    def __init__(self, model: PreTrainedModel, site: ExpertsSite) -> None:
        super().__init__(model, site)
        self.names = (f"{site.name}.margin", f"{site.name}.gate_sensitive")
        self._watch = _Selections()
        self._seen = _Seen()
        self._recorder: Any = None

    def attach(self, recorder: Any) -> list[RemovableHandle]:
        self._recorder = recorder
        block = block_of(self.model, self.site)
        # Without a block of its own the router stands in the decoder layer, where attention may use top-k as well.
        alone = any("attn" in name or "attention" in name for name, _ in block.named_children())
        scope = find_router(self.model, self.site) if alone else block
        module, at_call = seam(self.site)
        read: RemovableHandle = (
            module.register_forward_pre_hook(self._routing, with_kwargs=True)
            if at_call
            else module.register_forward_hook(self._routing, with_kwargs=True)
        )
        return [
            scope.register_forward_pre_hook(self._enter),
            scope.register_forward_hook(self._leave, always_call=True),
            find_router(self.model, self.site).register_forward_hook(self._logits),
            read,
        ]

    def end(self, forward: Forward, output: object) -> None:
        del output
        seen, self._seen = self._seen, _Seen()
        ids = seen.ids
        if ids is None:
            return  # the recorder's own check names the layer
        scores = self._watch.scores_of(ids)
        if scores is None:
            nothing = torch.full((forward.rows,), float("nan"), device=ids.device)
            self._put(nothing, torch.zeros_like(nothing, dtype=torch.bool))
            return
        self._put(*margin(scores, ids.shape[1], seen.logits, seen.eps))

    def arrays(self, tape: Tape) -> dict[str, NDArray[np.generic]]:
        found = super().arrays(tape)
        if not np.isfinite(found[self.names[0]]).any() and not self._hashed():
            raise CaptureError(
                f"{self.site.name}: no top-k was seen in its block, so margins cannot be recorded. Leave 'margin' out."
            )
        return found

    def clear(self) -> None:
        self._watch.found.clear()
        self._seen = _Seen()

    def _hashed(self) -> bool:
        return "Hash" in type(find_router(self.model, self.site)).__name__ or hasattr(
            find_router(self.model, self.site), "tid2eid"
        )

    def _put(self, values: Tensor, sensitive: Tensor) -> None:
        self._recorder.tape.put(self.names[0], values)
        self._recorder.tape.put(self.names[1], sensitive)

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        del module
        if self._recorder.running(self.stack):
            self._watch.found.clear()
            hidden = next((one for one in args if isinstance(one, Tensor) and one.is_floating_point()), None)
            self._seen.eps = torch.finfo(self.model.dtype if hidden is None else hidden.dtype).eps
            self._watch.open()

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        del module, args, output
        self._watch.close()

    def _logits(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        del module, args
        if self._recorder.running(self.stack):
            try:
                self._seen.logits = router_scores(self.site, output)
            except CaptureError:
                self._seen.logits = None

    def _routing(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object = None) -> None:
        del module
        if self._recorder.running(self.stack):
            self._seen.ids, _ = read_routing(self.site, args, kwargs, output)


class _Seen:
    """What one forward showed."""

    def __init__(self) -> None:
        self.ids: Tensor | None = None
        self.logits: Tensor | None = None
        self.eps = 0.0


class _Selections(TorchFunctionMode):
    """Notes every top-k and argmax that runs while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Tensor, Tensor]] = []
        self._open = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        if func in (torch.topk, Tensor.topk):
            self.found.append((args[0].detach(), result.indices))
        elif func in (torch.argmax, Tensor.argmax):
            self.found.append((args[0].detach(), result))
        return result

    def open(self) -> None:
        """Start watching."""
        self.__enter__()
        self._open = True

    def close(self) -> None:
        """Stop watching; does nothing when it was not open."""
        if self._open:
            self._open = False
            self.__exit__(None, None, None)

    def scores_of(self, ids: Tensor) -> Tensor | None:
        """The scores (tokens, candidates) that the selection of `ids` (tokens, k) was made from, or None."""
        for scores, chosen in reversed(self.found):
            flat = scores.reshape(-1, scores.shape[-1])
            if len(flat) == len(ids) and chosen.numel() == ids.numel():
                same = torch.sort(chosen.reshape(ids.shape), dim=1).values == torch.sort(ids, dim=1).values
                if bool(same.all()):
                    return flat
        return None


def margin(scores: Tensor, k: int, logits: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Margin and flag of each decision.

    Args:
        scores: (tokens, candidates) what top-k chose from.
        k: number of choices.
        logits: (tokens, E or more) router logits, or None.
        eps: machine epsilon of the dtype the router's input has.

    Returns:
        (tokens,) float32 margin, NaN without a further candidate; (tokens,) bool gate-sensitive.
    """
    if scores.shape[1] <= k:
        nothing = torch.full((len(scores),), float("nan"), device=scores.device)
        return nothing, torch.zeros_like(nothing, dtype=torch.bool)
    top = torch.topk(scores.float(), k + 1, dim=1)
    last, first_out = top.values[:, k - 1], top.values[:, k]
    gap = torch.where(first_out.isinf(), float("nan"), last - first_out)
    size = top.values[:, k - 1 : k + 1].abs().amax(dim=1)
    if logits is not None and logits.shape[1] >= scores.shape[1] and not torch.equal(logits.float(), scores.float()):
        size = size * logits.float().gather(1, top.indices[:, k - 1 : k + 1]).abs().amax(dim=1)
    return gap, gap < eps * size
