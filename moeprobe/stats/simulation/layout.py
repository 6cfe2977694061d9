"""Who is who in a simulated world: prompts, pairs, labels and how strongly each generation speaks in the register."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from moeprobe.stats.simulation.draws import Stream, draw
from moeprobe.stats.simulation.world import Label, World

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """One entry for each generation.

    Attributes:
        prompt: (generations,) number of the prompt.
        prompt_id: its name.
        sample: (generations,) which sample of its prompt, from 0.
        family: (generations,) number of the pair, or of the prompt where there is none; one topic each.
        pair: name of the pair, or None.
        label: what the trace says.
        strength: (generations,) how strongly it speaks in the register; 0 where that changes inside the generation.
        metadata: what the scores are.
    """

    prompt: Ints
    prompt_id: tuple[str, ...]
    sample: Ints
    family: Ints
    pair: tuple[str | None, ...]
    label: tuple[Label, ...]
    strength: Floats
    metadata: tuple[dict[str, Any], ...]


def lay_out(seed: int, world: World) -> Layout:
    """Decide for every generation which prompt it answers and how it is labelled."""
    names = world.prompts or tuple(f"p{index // world.samples}" for index in range(world.generations))
    prompt = _numbered(names)
    pair = _pairs(world, prompt)
    family = _numbered([(False, own) if two is None else (True, two) for two, own in zip(pair, names, strict=True)])
    label, strength, metadata = _labels(seed, world, prompt)
    return Layout(prompt, names, _repeats(prompt), family, pair, label, strength, metadata)


def _numbered(names: Sequence[Hashable]) -> Ints:
    """Numbers in order of first appearance."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def _repeats(prompt: Ints) -> Ints:
    """How often the same prompt came before, (generations,)."""
    order = np.argsort(prompt, kind="stable")
    ordered = prompt[order]
    repeats = np.empty_like(prompt)
    repeats[order] = np.arange(prompt.size) - np.searchsorted(ordered, ordered)
    return repeats


def _pairs(world: World, prompt: Ints) -> tuple[str | None, ...]:
    if isinstance(world.pairs, tuple):
        return world.pairs
    return tuple(f"pair{number // 2}" if world.pairs else None for number in prompt.tolist())


def _labels(seed: int, world: World, prompt: Ints) -> tuple[tuple[Label, ...], Floats, tuple[dict[str, Any], ...]]:
    size = world.generations
    nothing: tuple[dict[str, Any], ...] = tuple({} for _ in range(size))
    if world.within:
        return (None,) * size, np.zeros(size), nothing
    if world.scores:
        return _scores(seed, world)
    labels = world.labels or tuple(int(number % 2 == 0) for number in prompt)
    if world.strengths is not None:
        return labels, np.array(world.strengths, dtype=np.float64), nothing
    # Texts were refused without `strengths`; a generation without a label does not speak in the register.
    numbers = [0.0 if one is None or isinstance(one, str) else float(one) for one in labels]
    return labels, np.array(numbers, dtype=np.float64), nothing


def _scores(seed: int, world: World) -> tuple[tuple[Label, ...], Floats, tuple[dict[str, Any], ...]]:
    normal = np.array([draw(seed, Stream.SCORE, index).normal(size=2) for index in range(world.generations)])
    score: Floats = ndtr(normal[:, 0])
    metadata = [{"score": float(one)} for one in score]
    if world.bystander is not None:
        mixed = world.bystander * normal[:, 0] + np.sqrt(1 - world.bystander**2) * normal[:, 1]
        for entry, other in zip(metadata, ndtr(mixed), strict=True):
            entry["bystander"] = float(other)
    return tuple(int(one >= 0.5) for one in score), score, tuple(metadata)
