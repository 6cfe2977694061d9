"""Whether a probe answers alike whatever it read before, and how fast it reads."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from moeprobe.probes.contract import CheckedProbe
from moeprobe.probes.probe import Example, Passage, Reading

TOKENS_A_WORD = 1.3
"""Tokens are not counted but estimated: a probe knows no tokenizer. English prose has about 1.3 a word."""

_PASSES = 5
_ENOUGH_SECONDS = 2.0


@dataclass(frozen=True)
class Unsteady:
    """A passage that got two answers, and how both were come by."""

    example: Example
    first: Reading
    other: Reading
    how: str


@dataclass(frozen=True)
class Speed:
    """How fast a probe reads.

    Attributes:
        ms_per_1000_tokens: median over the passes; tokens are words x `TOKENS_A_WORD`.
        passes: how often all texts were read.
        texts, words: how many there were.
    """

    ms_per_1000_tokens: float
    passes: int
    texts: int
    words: int


def unsteady(fresh: Callable[[], CheckedProbe], examples: Sequence[Example]) -> tuple[Unsteady, ...]:
    """The passages on which a probe contradicts itself.

    A first instance reads all passages, then once more from the end; a second, fresh instance reads them from the end.
    All must say the same: a probe that remembers what it read, counts, or draws at random is caught by one of them.

    Args:
        fresh: makes a new instance of the probe.
        examples: the passages; their labels do not matter.
    """
    passages = [Passage(one.text, one.prompt) for one in examples]
    one, two = fresh(), fresh()
    first = [one.read_once(passage) for passage in passages]
    again = [one.read_once(passage) for passage in reversed(passages)][::-1]
    other = [two.read_once(passage) for passage in reversed(passages)][::-1]
    found = []
    for example, *readings in zip(examples, first, again, other, strict=True):
        for reading, how in ((readings[1], "read again, from the end"), (readings[2], "by a fresh instance")):
            if reading != readings[0]:
                found.append(Unsteady(example, readings[0], reading, how))
                break
    return tuple(found)


def speed(probe: CheckedProbe, examples: Sequence[Example]) -> Speed | None:
    """Read all passages 5 times, fewer where that takes over 2 seconds; None where they hold no word."""
    passages = [Passage(one.text, one.prompt) for one in examples]
    words = sum(len(passage.text.split()) for passage in passages)
    if not words:
        return None
    taken: list[float] = []
    while len(taken) < _PASSES and sum(taken) < _ENOUGH_SECONDS:
        start = time.perf_counter()
        for passage in passages:
            probe.read_once(passage)
        taken.append(time.perf_counter() - start)
    milliseconds = 1000 * median(taken) / (words * TOKENS_A_WORD / 1000)
    return Speed(milliseconds, len(taken), len(passages), words)
