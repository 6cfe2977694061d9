"""Traces that no model made: routing with the dependence real routing has, and with a truth that is known.

Follows STATISTICS.md 2: logits = h . W_l + b_e with h = token embedding (Zipf, reweighed by a topic of each generation)
+ generation effect + AR(1) context (0.9); top-k; log-normal lengths. Planted experts of layer 0 get +-delta on their
logit in positive generations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Array = NDArray[Any]
SEGMENTS = ("prompt", "answer", "system", "user", "thinking")


@dataclass(frozen=True)
class FakeLayer:
    layer: int
    experts: int
    k: int


@dataclass(frozen=True)
class FakeGeneration:
    index: int
    prompt_id: str
    label: Any
    prompt_text: str
    text: str
    pair: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FakeShard:
    columns: dict[str, Array]
    routing: dict[int, tuple[Array, Array, Array | None]]

    def __getattr__(self, name: str) -> Array:
        try:
            return self.columns[name]
        except KeyError:
            raise AttributeError(name) from None

    def experts(self, layer: int) -> Array:
        return self.routing[layer][0]

    def weights(self, layer: int) -> Array:
        return self.routing[layer][1]

    def mask(self, layer: int) -> Array | None:
        return self.routing[layer][2]


@dataclass(frozen=True)
class FakeManifest:
    layers: tuple[FakeLayer, ...]
    segments: tuple[str, ...] = SEGMENTS

    @property
    def main_layers(self) -> tuple[FakeLayer, ...]:
        return self.layers


@dataclass(frozen=True)
class FakeTrace:
    manifest: FakeManifest
    generations: list[FakeGeneration]
    pieces: tuple[FakeShard, ...]

    def shards(self) -> Iterator[FakeShard]:
        yield from self.pieces

    def resharded(self, order: Sequence[Sequence[int]]) -> "FakeTrace":
        """The same rows in other shards: `order` lists the generations of each new shard."""
        names = self.pieces[0].columns
        columns = {name: np.concatenate([piece.columns[name] for piece in self.pieces]) for name in names}
        routing = {
            info.layer: (
                np.concatenate([piece.experts(info.layer) for piece in self.pieces]),
                np.concatenate([piece.weights(info.layer) for piece in self.pieces]),
            )
            for info in self.manifest.layers
        }
        made = []
        for members in order:
            rows = np.concatenate([np.flatnonzero(columns["generation"] == member) for member in members])
            made.append(
                FakeShard(
                    {name: values[rows] for name, values in columns.items()},
                    {layer: (ids[rows], weights[rows], None) for layer, (ids, weights) in routing.items()},
                )
            )
        return FakeTrace(self.manifest, self.generations, tuple(made))


@dataclass(frozen=True)
class World:
    """Settings of a simulation. `planted` experts of layer 0 (the odd ones downwards) carry the label."""

    generations: int = 30
    layers: int = 4
    experts: int = 128
    k: int = 8
    mean_length: int = 100
    delta: float = 0.0
    planted: int = 10
    shorter_positives: float = 1.0
    prompt_tokens: int = 3
    positives: int | None = None  # the first so many prompts are positive; None: every other one
    samples: int = 1  # generations of each prompt; they share topic and generation effect


def simulate(seed: int, world: World | None = None) -> FakeTrace:
    """A trace with labels 1 and 0 in turn (or as `positives` says); one shard for every ten generations."""
    world = world or World()
    rng = np.random.default_rng(seed)
    numbers = np.arange(world.generations) // world.samples
    labels = (numbers + 1) % 2 if world.positives is None else (numbers < world.positives).astype(int)
    mean = np.where(labels == 1, world.mean_length / world.shorter_positives, world.mean_length)
    lengths = np.maximum(rng.lognormal(np.log(mean) - 0.08, 0.4).astype(int), 4) + world.prompt_tokens
    hidden, words = _hidden(rng, lengths, world.samples)
    generation = np.repeat(np.arange(world.generations), lengths)
    routing = {}
    for layer in range(world.layers):
        bias = rng.normal(0, 0.8, world.experts)
        if layer == 0:
            bias[: world.planted] = 0.0  # so that the planted experts are neither rare nor everywhere
        logits = hidden @ rng.normal(0, 1.0, (hidden.shape[1], world.experts)) + bias
        if layer == 0 and world.delta:
            signs = np.where(np.arange(world.planted) % 2 == 0, world.delta, -world.delta)
            logits[:, : world.planted] += labels[generation][:, None] * signs
        routing[layer] = _top_k(logits, world.k)
    return _as_trace(world, lengths, generation, words, labels, routing)


def _hidden(
    rng: np.random.Generator, lengths: Array, samples: int, vocabulary: int = 600, width: int = 16
) -> tuple[Array, Array]:
    """Hidden states (tokens, width) and token numbers (tokens,)."""
    embedding = rng.normal(0, 1, (vocabulary, width)) / np.sqrt(width)
    topics = rng.normal(0, 0.7, (8, vocabulary))
    zipf = -np.log(np.arange(1, vocabulary + 1))
    hidden, words = [], []
    for index, length in enumerate(lengths):
        if index % samples == 0:
            weights = np.exp(zipf + topics[rng.integers(8)])
            effect = rng.normal(0, 0.3, width) / np.sqrt(width)
        chosen = rng.choice(vocabulary, size=int(length), p=weights / weights.sum())
        noise = rng.normal(0, 0.5 * np.sqrt((1 - 0.9**2) / width), (int(length), width))
        hidden.append(embedding[chosen] + effect + lfilter([1], [1, -0.9], noise, axis=0))
        words.append(chosen)
    return np.concatenate(hidden), np.concatenate(words)


def _top_k(logits: Array, k: int) -> tuple[Array, Array]:
    ids = np.argpartition(-logits, k - 1, axis=1)[:, :k]
    top = np.take_along_axis(logits, ids, axis=1)
    weights = np.exp(top - top.max(axis=1, keepdims=True))
    return ids.astype(np.uint8), (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _as_trace(
    world: World,
    lengths: Array,
    generation: Array,
    words: Array,
    labels: Array,
    routing: dict[int, tuple[Array, Array]],
) -> FakeTrace:
    position = np.concatenate([np.arange(length) for length in lengths])
    answer = position >= world.prompt_tokens
    # every token is "w123 ": five characters
    start = 5 * np.where(answer, position - world.prompt_tokens, position)
    columns = {
        "token_id": words.astype(np.int32),
        "generation": generation.astype(np.int32),
        "position": position.astype(np.int32),
        "phase": answer.astype(np.uint8),
        "segment": answer.astype(np.uint8),
        "char_start": start.astype(np.int32),
        "char_end": (start + 5).astype(np.int32),
    }
    generations = []
    for index in range(world.generations):
        texts = [f"w{word:03d} " for word in words[generation == index]]
        prompt, text = "".join(texts[: world.prompt_tokens]), "".join(texts[world.prompt_tokens :])
        generations.append(FakeGeneration(index, f"p{index // world.samples}", int(labels[index]), prompt, text))
    info = tuple(FakeLayer(layer, world.experts, world.k) for layer in range(world.layers))
    whole = FakeShard(columns, {layer: (ids, weights, None) for layer, (ids, weights) in routing.items()})
    trace = FakeTrace(FakeManifest(info), generations, (whole,))
    last = world.generations
    return trace.resharded([range(first, min(first + 10, last)) for first in range(0, last, 10)])


def planted_cells(world: World) -> set[str]:
    """Names of the experts that carry the label."""
    return {f"L0.E{expert}" for expert in range(world.planted)}
