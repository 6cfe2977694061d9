"""Choosing the next token of edited runs, and forcing it on the runs that are only there to lend their values."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from moeprobe.errors import InterchangeError


class Chooser(LogitsProcessor):
    """Chooses for the first sequences of a batch; donor i, further down, is given the token of sequence i.

    Every sequence draws from its own stream, so what it draws depends neither on the batch it is in nor on donors, and
    is the same chance with an edit as without: the difference of two texts is the edit's doing.

    Args:
        seeds: one for each sequence that chooses.
        donors: whether as many donors follow.
        sample: draw; otherwise take the most likely token.
        temperature, top_p: with `sample`.
    """

    def __init__(self, seeds: Sequence[int], *, donors: bool, sample: bool, temperature: float, top_p: float) -> None:
        self.count, self.donors, self.sample = len(seeds), donors, sample
        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.warp = TemperatureLogitsWarper(float(temperature)) if sample and temperature != 1.0 else None
        self.cut = TopPLogitsWarper(top_p) if sample and top_p < 1.0 else None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (sequences, vocabulary) of which only the chosen token's is finite; greedy without donors: as given.

        Raises:
            InterchangeError: the edited model gave no numbers.
        """
        mine = scores[: self.count]
        if bool(mine.isnan().any()):
            raise InterchangeError("The edited model gives no finite scores any more. Use a smaller scale or bias.")
        if not self.sample and not self.donors:
            return scores
        token = self._drawn(input_ids, mine) if self.sample else mine.argmax(dim=-1)
        token = torch.cat([token, token]) if self.donors else token
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)

    def _drawn(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for warper in (self.warp, self.cut):
            scores = scores if warper is None else warper(input_ids[: self.count], scores)
        # argmax of p / q with exponential q draws from p (the Gumbel trick); one stream of q for each sequence.
        size = scores.shape[-1]
        chance = torch.stack([torch.empty(size).exponential_(generator=stream) for stream in self.streams])
        return (scores.softmax(dim=-1) / chance.to(scores.device).clamp(min=1e-30)).argmax(dim=-1)


def stream_seed(*numbers: int) -> int:
    """The seed of one stream of random numbers, from what names it."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
