"""Tokens for a reader's eyes: the texts of rows, what a probe marked of them, and where an expert was chosen."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.gathering.counts import GENERATED, routed_rows, shared_layers, whole_of
from moeprobe.gathering.inputs import GenerationLike, ShardLike, TraceLike
from moeprobe.probes import Span
from moeprobe.sites import Site

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ShownRows:
    """The routed rows of a shard in order of generation and position; arrays are (tokens,).

    Attributes:
        shard: where they stand.
        rows: their indices in the shard.
        generation: their generations.
        answer: whether the model generated them.
    """

    shard: ShardLike
    rows: Ints
    generation: Ints
    answer: NDArray[np.bool_]

    def of(self, index: int) -> slice:
        """Where one generation stands."""
        first, last = np.searchsorted(self.generation, [index, index + 1])
        return slice(int(first), int(last))


def shown_rows(trace: TraceLike, wanted: Container[int] | None = None) -> Iterator[tuple[int, ShownRows]]:
    """All routed rows, shard by shard.

    Args:
        trace: the run.
        wanted: numbers of the shards to read; None for all.
    """
    infos, names = shared_layers(trace), list(trace.manifest.segments)
    codes = np.arange(len(names), dtype=np.int64)
    after_prompt = [code for code, name in enumerate(names) if name in GENERATED]
    for number, shard in enumerate(trace.shards()):
        if wanted is not None and number not in wanted:
            continue
        shard = whole_of(shard)  # tokens of an answer that nobody judged are shown as what they are
        rows = np.flatnonzero(routed_rows(shard, infos, codes))
        generation = np.asarray(shard.generation).astype(np.int64)
        order = np.lexsort((np.asarray(shard.position)[rows], generation[rows]))
        rows = rows[order].astype(np.int64)
        answer = np.isin(np.asarray(shard.segment)[rows], after_prompt)
        yield number, ShownRows(shard, rows, generation[rows], answer)


def shown_tokens(
    shown: ShownRows, place: slice | Ints, one: GenerationLike, spans: Sequence[Span]
) -> tuple[list[str], list[list[int]]]:
    """Texts of some rows of one generation, prompt before answer, and ranges of them that overlap a span.

    Args:
        shown: rows of a shard.
        place: which of them, in order.
        one: their generation.
        spans: ranges of characters of its answer.
    """
    rows, answer = shown.rows[place], shown.answer[place]
    starts = np.asarray(shown.shard.char_start)[rows].astype(np.int64)
    ends = np.asarray(shown.shard.char_end)[rows].astype(np.int64)
    offset = int((~answer).sum())
    before, after = slice(0, offset), slice(offset, None)
    tokens = texts(one.prompt_text, starts[before], ends[before]) + texts(one.text, starts[after], ends[after])
    ranges = (_token_range(span, starts[after], ends[after], offset) for span in spans)
    return tokens, [found for found in ranges if found is not None]


def texts(text: str, starts: Ints, ends: Ints) -> list[str]:
    """Text of each token. Tokens that share a character (one character in several tokens) show it once."""
    if not ends.size:
        return []
    # the first token shows all that is its own, whatever stands before it
    previous = np.concatenate([starts[:1], np.maximum.accumulate(ends)[:-1]])
    return [text[max(start, 0) : end] for start, end in zip(np.maximum(starts, previous), ends, strict=True)]


def _token_range(span: Span, starts: Ints, ends: Ints, offset: int) -> list[int] | None:
    """Tokens that overlap a span of the answer's characters, as [first, last_exclusive]; None if none is shown."""
    inside = np.flatnonzero((starts < span.end) & (ends > span.start))
    return [int(inside[0]) + offset, int(inside[-1]) + 1 + offset] if inside.size else None


def sparse_weights(shard: ShardLike, site: Site, rows: Ints, sizes: Sequence[int]) -> list[dict[str, list[Any]]]:
    """For each piece of the rows, which of its tokens selected the expert, and its gate weight there.

    Args:
        shard: where the rows stand.
        site: the expert.
        rows: (tokens,) indices of all pieces, one piece after the other.
        sizes: tokens of each piece.
    """
    mask = shard.mask(site.layer)
    hit = shard.experts(site.layer)[rows] == site.expert
    if mask is not None:
        hit &= np.asarray(mask[rows], dtype=bool)
    total = np.where(hit, shard.weights(site.layer)[rows], 0).sum(axis=1, dtype=np.float64)
    made: list[dict[str, list[Any]]] = []
    chosen, first = hit.any(axis=1), 0
    for size in sizes:
        at = np.flatnonzero(chosen[first : first + size])
        # four digits are plenty to look at, and keep the findings file small
        made.append({"at": at.tolist(), "weight": [float(f"{weight:.4g}") for weight in total[first + at].tolist()]})
        first += size
    return made
