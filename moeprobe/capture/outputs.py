"""Taps on the model's next-token distribution."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from moeprobe.capture.rows import Forward
from moeprobe.capture.tap import Tap
from moeprobe.errors import CaptureError


class _OutputTap(Tap):
    """Base: finds the logits of a forward. generate asks for those of the last position only in prefill; rows without
    logits get NaN."""

    def __init__(self, model: PreTrainedModel) -> None:
        del model
        self.recorder: Any = None

    def attach(self, recorder: Any) -> list[Any]:
        self.recorder = recorder
        return []

    def put(self, rows: Tensor) -> None:
        """Put (sequences, tokens) values on the tape, flat."""
        self.recorder.tape.put(self.names[0], rows.reshape(-1))


class EntropyTap(_OutputTap):
    """Entropy of the next-token distribution in nats, before temperature and the like, (rows,)."""

    names = ("entropy",)

    def end(self, forward: Forward, output: object) -> None:
        logits = _logits(output, "entropy")
        logs = torch.log_softmax(logits.float(), dim=-1)
        values = -(logs.exp() * torch.where(logs.isinf(), 0.0, logs)).sum(-1)
        self.put(_blank(forward, values))


class LogprobTap(_OutputTap):
    """Natural log-probability of the token that came next, in the model's own distribution, (rows,).

    The next token is known once it is fed in; the one of the very last row comes from the finished sequences.
    """

    names = ("logprob",)

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._before: tuple[Forward, Tensor, Tensor] | None = None  # forward, its log-probabilities, its values

    def begin(self, forward: Forward) -> None:
        """The first token fed in now completes the last row of the forward before."""
        if self._before is None or forward.ids is None:
            return
        before, logs, values = self._before
        # The row whose successor is the first token fed in now: not the last one where drafted tokens were rejected.
        row = int(forward.past) - 1 - int(before.past)
        column = row - (before.tokens - logs.shape[1])
        if 0 <= column < logs.shape[1] and forward.sequences == before.sequences:
            values[:, row] = logs[:, column].gather(-1, forward.ids[:, :1].to(logs.device))[:, 0]
        self._before = None

    def end(self, forward: Forward, output: object) -> None:
        """Put the log-probability of every token whose successor is known; the last one waits for the next forward."""
        if forward.ids is None:
            raise CaptureError("logprob needs token ids, but the model was fed embeddings. Leave 'logprob' out.")
        logs = torch.log_softmax(_logits(output, "logprob").float(), dim=-1)
        first = forward.tokens - logs.shape[1]
        following = forward.ids[:, first + 1 :].to(logs.device)
        values = _blank(forward, torch.full(logs.shape[:2], float("nan"), device=logs.device))
        values[:, first : forward.tokens - 1] = logs[:, :-1].gather(-1, following[..., None])[..., 0]
        self.put(values)
        self._before = (forward, logs, self.recorder.tape.waiting(self.names[0])[-1].view(values.shape))

    @torch.inference_mode()  # the rows were made in it, and are written to here
    def finish(self, tokens: NDArray[np.int64]) -> None:
        """Complete the last rows from the finished sequences, (sequences, positions) token ids."""
        if self._before is None:
            return
        before, logs, values = self._before
        start = int(before.past) + before.tokens - logs.shape[1]
        width = min(logs.shape[1], tokens.shape[1] - start - 1)
        if width > 0 and len(tokens) == before.sequences:
            following = torch.from_numpy(tokens[:, start + 1 : start + 1 + width]).to(logs.device)
            first = before.tokens - logs.shape[1]
            values[:, first : first + width] = logs[:, :width].gather(-1, following[..., None])[..., 0]
        self._before = None

    def clear(self) -> None:
        self._before = None


def _logits(output: object, name: str) -> Tensor:
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.dim() != 3:
        raise CaptureError(f"The model returns no logits of shape (sequences, tokens, vocabulary). Leave {name!r} out.")
    return logits.detach()


def _blank(forward: Forward, values: Tensor) -> Tensor:
    """`values` (sequences, last tokens) widened to all tokens of the forward with NaN on the left."""
    full = torch.full((forward.sequences, forward.tokens), float("nan"), device=values.device)
    full[:, forward.tokens - values.shape[1] :] = values
    return full
