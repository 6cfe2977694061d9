"""Words and hidden states of a simulated world, generation by generation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from moeprobe.stats.simulation.draws import Stream, draw
from moeprobe.stats.simulation.layout import Layout
from moeprobe.stats.simulation.world import MOST, World

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tokens:
    """Tokens of one generation: the prompt's, then the answer's.

    Attributes:
        words: (tokens,) token ids.
        hidden: (tokens, width) hidden states.
        strength: (tokens,) how strongly each token speaks in the register; 0 in the prompt.
        topic: topic of the generation.
    """

    words: NDArray[np.int64]
    hidden: Floats
    strength: Floats
    topic: int


class Speaker:
    """What all generations of a world have in common: the embedding and the topics."""

    def __init__(self, seed: int, world: World, layout: Layout) -> None:
        rng = draw(seed, Stream.EMBEDDING)
        self.seed, self.world, self.layout = seed, world, layout
        self._embedding = self._vector(rng, world.token_sd, world.vocabulary)
        zipf = -np.log(np.arange(1, world.vocabulary + 1))
        weights = np.exp(zipf + rng.normal(0, world.topic_sd, (world.topics, world.vocabulary)))
        self._cumulated = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
        self._first = self._vector(draw(seed, Stream.POSITION), world.position_sd)

    def lengths(self) -> NDArray[np.int64]:
        """Answer tokens of each generation, (generations,)."""
        world = self.world
        normal = np.array([draw(self.seed, Stream.LENGTH, one).normal() for one in range(world.generations)])
        mean = world.mean_length * world.shorter_positives**-self.layout.strength
        drawn = np.rint(mean * np.exp(world.length_sd * normal - world.length_sd**2 / 2))
        return np.clip(drawn, 1, MOST).astype(np.int64)

    def generations(self) -> Iterator[Tokens]:
        """The tokens of one generation after the other."""
        for index, length in enumerate(self.lengths()):
            yield self._speak(index, int(length))

    def _speak(self, index: int, length: int) -> Tokens:
        world, seed = self.world, self.seed
        effect, topic = self._effect(index)
        prompt_words = draw(seed, Stream.PROMPT, int(self.layout.prompt[index])).random(world.prompt_tokens)
        uniform = np.concatenate([prompt_words, draw(seed, Stream.WORDS, index).random(length)])
        words = np.searchsorted(self._cumulated[topic], uniform, side="right").astype(np.int64)
        words = np.minimum(words, world.vocabulary - 1)  # the last cumulated sum may be a rounding below 1
        strength = np.concatenate([np.zeros(world.prompt_tokens), self._register(index, length)])
        if world.register_tokens:
            rng = draw(seed, Stream.REPLACED, index)
            replaced = rng.random(words.size) < world.register_tokens * strength
            words = np.where(replaced, rng.choice(world.register_words, words.size), words)
        noise = draw(seed, Stream.CONTEXT, index).normal(size=(words.size, world.width))
        noise[1:] *= np.sqrt(1 - world.context_ar**2)  # so that the context is stationary from the first token on
        context = lfilter([1], [1, -world.context_ar], noise, axis=0) * (world.context_sd / np.sqrt(world.width))
        hidden = self._embedding[words] + effect + context
        hidden[world.prompt_tokens : world.prompt_tokens + world.position_tokens] += self._first
        return Tokens(words, hidden, strength, topic)

    def _effect(self, index: int) -> tuple[Floats, int]:
        """Generation, prompt and pair effect together, (width,), and the topic."""
        world, layout = self.world, self.layout
        family = draw(self.seed, Stream.FAMILY, int(layout.family[index]))
        topic = int(family.integers(world.topics))
        paired = self._vector(family, world.pair_sd) if layout.pair[index] is not None else 0.0
        common = world.generation_sd * np.sqrt(world.prompt_share)
        own = world.generation_sd * np.sqrt(1 - world.prompt_share)

        prompt = draw(self.seed, Stream.EFFECT, 2 * int(layout.prompt[index]))
        single = draw(self.seed, Stream.EFFECT, 2 * index + 1)
        return paired + self._vector(prompt, common) + self._vector(single, own), topic

    def _register(self, index: int, length: int) -> Floats:
        """Strength of each answer token, (length,)."""
        world = self.world
        if not world.within:
            return np.full(length, self.layout.strength[index])
        rng = draw(self.seed, Stream.REGISTER, index)
        on_first = rng.random() < world.register_share
        on, off = world.register_run, world.register_run * (1 - world.register_share) / world.register_share
        # Stretches are geometric, so the chain has no memory and starts stationary.
        stretches = rng.geometric(1 / on if on_first else 1 / off, size=(length, 1))
        others = rng.geometric(1 / off if on_first else 1 / on, size=(length, 1))
        runs = np.column_stack([stretches, others]).ravel()
        states = np.tile([float(on_first), float(not on_first)], length)
        return np.repeat(states, np.minimum(runs, length))[:length]

    def _vector(self, rng: np.random.Generator, sd: float, rows: int | None = None) -> Any:
        """Vectors that move a logit by `sd`: (width,) or (rows, width)."""
        shape = (self.world.width,) if rows is None else (rows, self.world.width)
        return rng.normal(size=shape) * (sd / np.sqrt(self.world.width))
