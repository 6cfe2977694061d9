"""Where in a text something holds: scores along the characters, and how they combine."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from moeprobe.probes.probe import Reading, Span

Value = float | None
Steps = list[tuple[int, Value]]
"""A score for every character: (where it begins to hold, score) in order, the first at 0."""


@dataclass(frozen=True)
class Heard:
    """What a probe says of a text, and where.

    Attributes:
        reading: its answer.
        steps: its score at every character; None where it says nothing. They tell "holds as a whole" from "holds at no
            place", both of which are a reading without spans.
        marked: whether the probe, or one of those it is made of, marked spans, so that places are known.
    """

    reading: Reading
    steps: Steps
    marked: bool


def steps_of(reading: Reading, length: int) -> Steps:
    """A reading along the text.

    Where the probe marked spans: the best span's score inside them, 0 outside. Where it marked none: its score
    everywhere, since then it speaks of the text as a whole. None everywhere where it abstained.
    """
    if reading.score is None or not reading.spans or not length:
        return [(0, reading.score)]
    ends = sorted({0, *(end for span in reading.spans for end in (span.start, span.end))})
    waiting = sorted(reading.spans, key=lambda span: span.start)
    open_spans: list[tuple[float, int]] = []  # best score first, with its end
    steps: Steps = []
    taken = 0
    for start in ends:
        while taken < len(waiting) and waiting[taken].start <= start:
            heapq.heappush(open_spans, (-waiting[taken].score, waiting[taken].end))
            taken += 1
        while open_spans and open_spans[0][1] <= start:
            heapq.heappop(open_spans)
        if start < length:
            steps.append((start, -open_spans[0][0] if open_spans else 0.0))
    return steps


def combined(parts: Sequence[Steps], rule: Callable[[list[Value]], Value]) -> Steps:
    """`rule` of all parts' scores at each character."""
    places = [0] * len(parts)
    result: Steps = []
    for start in sorted({start for part in parts for start, _ in part}):
        for number, part in enumerate(parts):
            while places[number] + 1 < len(part) and part[places[number] + 1][0] <= start:
                places[number] += 1
        value = rule([part[place][1] for part, place in zip(parts, places, strict=True)])
        if not result or result[-1][1] != value:
            result.append((start, value))
    return result


def placed(pieces: Sequence[tuple[int, int, Steps]], length: int) -> Steps:
    """The scores of pieces of a text, each with its start and end, along the whole; nothing is said outside them."""
    steps: dict[int, Value] = {0: None}
    for begin, end, inside in pieces:
        steps |= {begin + start: value for start, value in inside}
        if end < length:
            steps[end] = None
    return sorted(steps.items(), key=lambda step: step[0])


def spans_of(steps: Steps, length: int, label: str, threshold: float) -> tuple[Span, ...]:
    """The stretches whose score is at least `threshold`."""
    return tuple(
        Span(start, end, value, label)
        for (start, value), (end, _) in pairwise([*steps, (length, None)])
        if value is not None and value >= threshold and start < end
    )


def joined(spans: Sequence[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Stretches in order, those that overlap or have only white space between them made one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and (start <= found[-1][1] or not text[found[-1][1] : start].strip()):
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found
