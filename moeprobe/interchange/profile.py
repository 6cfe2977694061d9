"""How busy every expert is in the prompts of an experiment: selection rate and size of its contribution."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moeprobe.editing import Seen, reading
from moeprobe.editing.oracle import expert_output
from moeprobe.editing.seen import experts_of
from moeprobe.interchange.lab import Lab
from moeprobe.pairs.batch import forward, pad_left
from moeprobe.pairs.pairs import SIDES, TokenPair

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerProfile:
    """Experts of one layer over all tokens of the prompts of both sides.

    Attributes:
        rate: (experts,) share of tokens that chose it.
        norm: (experts,) mean length of its contribution at those tokens; 0 where there are none.
    """

    rate: Floats
    norm: Floats


def profile(lab: Lab, pairs: Sequence[TokenPair], layers: Iterable[int]) -> dict[int, LayerProfile]:
    """The experts of some layers in the prompts of both sides; padding is not counted.

    Raises:
        InterchangeError: a layer without experts, or whose experts cannot be asked one at a time.
    """
    found = {layer: _Sums(experts_of(lab.places[layer]).experts) for layer in layers}
    for seen, real in _runs(lab, pairs, [(layer, "expert") for layer in found]):
        for layer, sums in found.items():
            sums.add(seen, layer, real)
    return {layer: sums.profile() for layer, sums in found.items()}


def _runs(lab: Lab, pairs: Sequence[TokenPair], wanted: Sequence[tuple[int, str]]) -> Iterable[tuple[Seen, Tensor]]:
    """What was seen in the prompts of both sides, batch by batch, and which rows hold a token."""
    prompts = [pair.side(side) for pair in pairs for side in SIDES]
    with torch.inference_mode():
        for start in range(0, len(prompts), lab.batch_size):
            batch = pad_left(prompts[start : start + lab.batch_size], lab.loaded.pad_token)
            with reading(lab.places, wanted) as seen:
                forward(lab.loaded.model, batch, readouts=1)
            yield seen, batch.real().to(lab.loaded.model.device)


class _Sums:
    """Counts and summed lengths of one layer's experts."""

    def __init__(self, experts: int) -> None:
        self.experts, self.tokens = experts, 0
        self.chosen, self.length = np.zeros(experts), np.zeros(experts)

    def add(self, seen: Seen, layer: int, real: Tensor) -> None:
        """The real rows of one forward, all their choices in one call of the experts."""
        choice = seen.choice(layer)
        inside = (choice.ids >= 0) & (choice.ids < self.experts) & (choice.weights != 0) & real[:, None]
        rows, slots = inside.nonzero(as_tuple=True)
        ids, weights = choice.ids[rows, slots], choice.weights[rows, slots]
        output = expert_output(experts_of(seen.places[layer]), choice.hidden[rows], ids, weights)
        lengths = output.float().norm(dim=1).double().cpu().numpy()
        numbers = ids.cpu().numpy()
        self.tokens += int(real.sum())
        self.chosen += np.bincount(numbers, minlength=self.experts)
        self.length += np.bincount(numbers, weights=lengths, minlength=self.experts)

    def profile(self) -> LayerProfile:
        """Rates and mean lengths."""
        used = np.maximum(self.chosen, 1)
        return LayerProfile(self.chosen / max(self.tokens, 1), self.length / used)
