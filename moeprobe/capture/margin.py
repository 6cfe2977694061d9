"""How close each routing decision was."""

from collections.abc import Callable, Iterator, Sequence
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
from moeprobe.capture.router import are_probabilities, block_of, find_router, router_scores
from moeprobe.capture.rows import Forward
from moeprobe.capture.tap import Removable
from moeprobe.capture.tape import Tape
from moeprobe.capture.taps import LayerTap
from moeprobe.capture.wrap import around
from moeprobe.errors import CaptureError


class MarginTap(LayerTap):
    """The k-th minus the (k+1)-th selection score, (rows,), and whether rounding may flip that choice.

    Selection scores are what the model hands to top-k: after softmax or sigmoid, groups and correction bias, where it
    has those. They are read by watching top-k inside the block, not recomputed. NaN where there was no further
    candidate, or no top-k (layers routed by a hash of the token).

    A choice is gate-sensitive where rounding in the dtype of the router's input may flip it: each of two logits may be
    off by eps times the largest logit of the token, so their difference by twice that. Carried over to the scores, a
    logit counts with the slope of softmax or sigmoid, at most min(score, 1/4). The same holds for a choice of groups
    that came before. What an expert flipped in an earlier layer does to this one is not foreseen.
    """

    kind = "margin"

    def __init__(self, model: PreTrainedModel, site: ExpertsSite) -> None:
        super().__init__(model, site)
        self.names = (f"{site.name}.margin", f"{site.name}.gate_sensitive")
        self._watch = _Selections()
        self._seen = _Seen()
        self._recorder: Any = None
        self._selected = False  # whether any selection was seen; with k = E there is one, but no further candidate

    def attach(self, recorder: Any) -> Sequence[Removable]:
        """Watch top-k and argmax inside the block, the router's logits and the choice handed to the experts."""
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
        logits = find_router(self.model, self.site).register_forward_hook(self._logits)
        return [around(scope, self._watched), logits, read]

    def end(self, forward: Forward, output: object) -> None:
        """Put the margin of each row; NaN where no scores of this choice were seen."""
        del output
        seen, self._seen = self._seen, _Seen()
        ids = seen.ids
        if ids is None:
            return  # the recorder's own check names the layer
        scores = self._watch.scores_of(ids, self.site.experts)
        if scores is None:
            nothing = torch.full((forward.rows,), float("nan"), device=ids.device)
            self._put(nothing, torch.zeros_like(nothing, dtype=torch.bool))
            return
        self._selected = True
        gap, sensitive = margin(scores, ids.shape[1], seen.logits, seen.eps)
        for groups, chosen in self._watch.groups_before(scores):
            # A group's score is mostly the sum of its two best experts'.
            sensitive |= margin(groups, chosen, seen.logits, 2 * seen.eps)[1]
        self._watch.found.clear()
        self._put(gap, sensitive)

    def arrays(self, tape: Tape) -> dict[str, NDArray[np.generic]]:
        """The margins and flags; a layer where no selection was ever seen raises CaptureError."""
        found = super().arrays(tape)
        if not self._selected and not self._hashed():
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

    def _watched(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._recorder.running(self.stack):
            return forward(*args, **kwargs)
        given = (*args, *kwargs.values())
        hidden = next((one for one in given if isinstance(one, Tensor) and one.is_floating_point()), None)
        self._seen.eps = torch.finfo(self.model.dtype if hidden is None else hidden.dtype).eps
        self._watch.found.clear()
        with self._watch:
            return forward(*args, **kwargs)

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

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        if func in (torch.topk, Tensor.topk, torch.argmax, Tensor.argmax):
            scores = args[0] if args else kwargs["input"]
            self.found.append((scores.detach(), result if isinstance(result, Tensor) else result.indices))
        return result

    def scores_of(self, ids: Tensor, experts: int) -> Tensor | None:
        """The scores (tokens, candidates) that the selection of `ids` (tokens, k) was made from, or None.

        Absent choices (a token over the capacity, a skipped one) may have been selected first and dropped later.
        """
        absent = (ids < 0) | (ids >= experts)
        for scores, chosen in reversed(self.found):
            flat = scores.reshape(-1, scores.shape[-1])
            if len(flat) == len(ids) and chosen.numel() == ids.numel():
                among = (chosen.reshape(ids.shape)[:, None, :] == ids[:, :, None]).any(dim=2)
                if bool((among | absent).all()):
                    return flat
        return None

    def groups_before(self, scores: Tensor) -> Iterator[tuple[Tensor, int]]:
        """Choices among fewer candidates for the same tokens, as (scores (tokens, groups), groups chosen)."""
        for groups, chosen in self.found:
            if groups.dim() == chosen.dim() == 2 and len(groups) == len(scores) and groups.shape[1] < scores.shape[1]:
                yield groups, chosen.shape[1]


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
    values = torch.topk(scores.float(), k + 1, dim=1).values
    gap = torch.where(values[:, k].isinf(), float("nan"), values[:, k - 1] - values[:, k])
    return gap, gap < 2 * eps * _step(scores.float(), values[:, k - 1 : k + 1].abs().amax(dim=1), logits)


def _step(scores: Tensor, score: Tensor, logits: Tensor | None) -> Tensor:
    """(tokens,) how far a score moves, in units of eps, `score` being the one that matters."""
    if logits is None or (logits.shape == scores.shape and torch.equal(logits.float(), scores)):
        # A router that returns probabilities hides its logits: they are taken to be about 1.
        hidden = logits is None or are_probabilities(logits)
        return score if hidden else scores.abs().amax(dim=1)
    largest = torch.where(logits.isfinite(), logits.float().abs(), 0.0).amax(dim=1)
    finite = scores[scores.isfinite()]
    # With a correction bias the score does not tell the slope.
    biased = bool(((finite < 0) | (finite > 1)).any())
    return largest * (0.25 if biased else score.clamp(max=0.25))
