"""Ending a generation where a text is complete, however the model cuts it into tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase, StoppingCriteria


class StopTexts(StoppingCriteria):
    """Stops each sequence once one of `stops` stands in what it generated.

    transformers' own `stop_strings` also match text that begins in the prompt, and do not tell when they fired.

    Args:
        tokenizer: decodes the tail of each sequence.
        stops: texts.
        first: column of the first generated token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], first: int) -> None:
        self.tokenizer, self.stops, self.first = tokenizer, tuple(stops), first
        # Every token that completes a stop adds at least one byte of it, save special tokens; some are spare.
        self.window = max(len(stop.encode()) for stop in self.stops) + 8
        self._ended: NDArray[np.int64] | None = None
        self._looked = torch.zeros((0, 0), dtype=torch.long)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """(sequences,) bool: which are done."""
        del scores, kwargs
        if self._ended is None:
            self._ended = np.zeros(len(input_ids), np.int64)
        length = input_ids.shape[1] - self.first
        seen = self._same(input_ids[:, self.first :])
        self._ended[self._ended > seen] = 0
        # Assisted decoding adds several tokens at a time: look at each end in turn, so that the earliest one counts.
        for end in range(seen + 1, length + 1):
            tails = input_ids[:, self.first + max(0, end - self.window) : self.first + end]
            texts = self.tokenizer.batch_decode(tails, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            found = np.array([any(stop in text for stop in self.stops) for text in texts])
            self._ended = np.where((self._ended == 0) & found, end, self._ended)
        return torch.from_numpy(self._ended > 0).to(input_ids.device)

    def _same(self, new: torch.Tensor) -> int:
        """How many columns are as they were in the call before: some versions of transformers also show drafted tokens,
        which may be rejected."""
        before, self._looked = self._looked, new
        if len(before) != len(new):
            return 0
        size = min(before.shape[1], new.shape[1])
        other = (before[:, :size] != new[:, :size]).any(dim=0)
        return int(other.int().argmax()) if other.any() else size

    def ended(self, sequences: int) -> NDArray[np.int64]:
        """(sequences,) number of generated tokens when a stop text was complete, 0 where none was."""
        return np.zeros(sequences, np.int64) if self._ended is None else self._ended
