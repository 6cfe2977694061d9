"""Tiny models, pairs of unequal lengths and a linear metric: what the tests of the screen share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from moeprobe.editing import Write, find_places, layout_of, reading, writing
from moeprobe.interchange.screening import KINDS
from moeprobe.models import LoadedModel
from moeprobe.pairs.batch import Side, forward, pad_left
from moeprobe.pairs.metrics import Forced
from moeprobe.pairs.pairs import TokenPair
from moeprobe.sites import Site
from tests.capture.families.tiny import VOCABULARY, build

FAMILIES = ("qwen2_moe", "mixtral", "olmoe", "qwen3_5_moe", "gpt_oss", "deepseek_v3", "nemotron_h")


def load(family: str) -> LoadedModel:
    """A tiny model of random weights in float64; routers that compute in float32 still do."""
    torch.set_num_threads(1)
    tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=None)
    return LoadedModel(build(family).double(), cast(Any, tokenizer), family, {})


def random_pairs(count: int = 3, seed: int = 3) -> list[TokenPair]:
    """Prompts of 4 to 9 tokens; within each pair the lengths differ."""
    chance = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        lengths = chance.choice(np.arange(4, 10), 2, replace=False)
        one, two = (tuple(int(token) for token in chance.integers(3, 90, size)) for size in lengths)
        pairs.append(TokenPair(f"p{number}", one, two))
    return pairs


@dataclass(frozen=True)
class Linear:
    """A linear function of the logits after the prompt and one forced token: the same for every pair."""

    name: str = "linear"
    unit: str = "logits"
    signed: bool = True
    sentence: str = "a random linear function of the logits"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name}

    def prepare(self, loaded: LoadedModel, pairs: Sequence[TokenPair]) -> Forced:
        del loaded
        shape = (len(pairs), 2)
        return Forced(torch.full(shape, 7), torch.ones(shape, dtype=torch.bool))

    def score(self, logits: Tensor, tokens: Tensor, counted: Tensor) -> Tensor:
        del tokens, counted
        chance = torch.Generator().manual_seed(11)
        weights = torch.randn(logits.shape[1], VOCABULARY, generator=chance, dtype=torch.float64)
        return (logits[..., :VOCABULARY].double() * weights).sum(dim=(1, 2))


class Exact:
    """One pair by itself, without padding: the metric with a part of a swap, by the editing room's own writes."""

    def __init__(self, loaded: LoadedModel, pair: TokenPair, recipient: str, donor: tuple[int, ...] | None = None):
        self.loaded, self.places = loaded, find_places(loaded.model)
        other = donor or (pair.control if recipient == "sensitive" else pair.sensitive)
        own = pair.sensitive if recipient == "sensitive" else pair.control
        self.runs = [pad_left([(*run, 7)], 0) for run in (own, other)]
        # Both end with the prompt's last token and one forced token, so row -1 stands for row -1, and so on.
        lengths = [side.ids.shape[1] for side in self.runs]
        self.rows = torch.arange(lengths[0]) + lengths[1] - lengths[0]
        layout = layout_of(self.places)
        wanted = [(layer, kind) for kind in KINDS for layer in self.places if layout.count(layer, kind)]
        self.seen = []
        for side in self.runs:
            with torch.no_grad(), reading(self.places, wanted) as seen:
                forward(loaded.model, side)
            self.seen.append(seen)

    def _score(self, side: Side) -> float:
        with torch.no_grad():
            return float(Linear().score(forward(self.loaded.model, side, readouts=2), torch.empty(0), torch.empty(0)))

    def metric(self, site: Site | None = None, part: float = 1.0, *, zero: bool = False) -> float:
        """The metric where `part` of the swap (or of the knock-out) was done; without a site, of the unedited run."""
        own = self.runs[0]
        if site is None:
            return self._score(own)
        rows = torch.arange(own.ids.shape[1])
        index = torch.full((len(rows),), site.index or 0)
        with torch.no_grad():
            values = [
                seen.value(site.layer, site.kind, index, at)
                for seen, at in zip(self.seen, (rows, self.rows.clamp(min=-1)), strict=True)
            ]
        difference = part * ((-values[0]) if zero else (values[1] - values[0]))
        touched = index if zero else torch.where(self.rows >= 0, index, -1)
        with writing(self.places, [Write(site.layer, site.kind, touched, "add", difference)]):
            return self._score(own)

    def slopes(self, site: Site, *, zero: bool = False) -> Iterator[float]:
        """Derivative of the metric along the swap, by central differences of several step sizes: a large one may cross
        another choice of experts, in a small one the rounding of routers and mixers shows that compute in float32."""
        for step in (1e-3, 1e-4, 1e-2):
            up, down = (self.metric(site, part, zero=zero) for part in (step, -step))
            yield (up - down) / (2 * step)
