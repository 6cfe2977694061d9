"""Which stretches of a generated text are thinking and which answer, for probes that look at one of them."""

from collections.abc import Iterable

import numpy as np

from moeprobe.gathering.inputs import TraceLike
from moeprobe.probes.expressions import PLACES
from moeprobe.probes.probe import Segment

Segments = tuple[tuple[Segment, ...], ...]
"""Of each generation of a trace, in order."""


def segments_of(trace: TraceLike) -> Segments:
    """The segments of every generation's text, in characters, without gaps: (name, start, end) in order.

    A segment begins with its first token and lasts to the next one; the last lasts to the end of the text, since the
    last token of a generation is never routed and has no row. Empty for a generation without routed answer tokens.
    """
    found: list[list[tuple[str, int]]] = [[] for _ in trace.generations]
    names = list(trace.manifest.segments)
    codes = [names.index(name) for name in PLACES if name in names]
    for shard in trace.shards():
        rows = np.flatnonzero(np.isin(shard.segment, codes))
        if not len(rows):
            continue
        generation, segment = np.asarray(shard.generation)[rows], np.asarray(shard.segment)[rows]
        turns = np.flatnonzero((np.diff(generation) != 0) | (np.diff(segment) != 0)) + 1
        first = rows[np.concatenate([[0], turns])]
        columns = (shard.generation[first], shard.segment[first], shard.char_start[first])
        for number, code, start in zip(*(np.asarray(column).tolist() for column in columns), strict=True):
            found[number].append((names[code], start))
    return tuple(stretches(ones, len(one.text)) for ones, one in zip(found, trace.generations, strict=True))


def stretches(tokens: Iterable[tuple[str, int]], length: int) -> tuple[Segment, ...]:
    """Segments of one text, without gaps: each lasts to where the next one begins.

    Args:
        tokens: (segment, first character) of routed answer tokens in order, of all or of those where a segment begins.
        length: characters of the text.
    """
    begun: list[tuple[str, int]] = []
    for name, start in tokens:
        if not begun or begun[-1][0] != name:
            begun.append((name, start))
    starts = [0, *(start for _, start in begun[1:]), length]
    closed = [(name, starts[number], starts[number + 1]) for number, (name, _) in enumerate(begun)]
    return tuple(one for one in closed if one[1] < one[2])
