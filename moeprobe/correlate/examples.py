"""A few generations of each group with their tokens, so that a reader can see where an expert was chosen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.designs.design import Design
from moeprobe.designs.groups import NEGATIVE, POSITIVE, Groups
from moeprobe.gathering.counts import GENERATED
from moeprobe.gathering.inputs import GenerationLike, ShardLike, TraceLike
from moeprobe.probes import Span
from moeprobe.sites import Site, expert_site

Ints = NDArray[np.int64]

PER_GROUP = 3
# Experts whose weights are shown: the most significant ones; a report of all experts on all tokens would be unreadable.
SITES = 20
# A long generation is cut for display: the end of its prompt, the beginning of its answer.
PROMPT_TOKENS, ANSWER_TOKENS = 200, 400


def build_examples(
    trace: TraceLike, groups: Groups, design: Design, rows: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], int]:
    """The `examples` of a question, in the form of docs/findings.md, positive group first.

    Returns:
        The examples, and how many of them show only a part of a long generation.
    """
    sites = _shown_sites(rows)
    chosen = _chosen(trace.generations, groups, design)
    after_prompt = [code for code, name in enumerate(trace.manifest.segments) if name in GENERATED]
    built: dict[int, dict[str, Any]] = {}
    cut = 0
    for shard in trace.shards():
        generation = np.asarray(shard.generation).astype(np.int64)
        for index in chosen:
            found = np.flatnonzero(generation == index)
            if found.size:
                answer = np.isin(np.asarray(shard.segment)[found], after_prompt)
                before, after = found[~answer], found[answer]
                shown_rows = np.concatenate([before[-PROMPT_TOKENS:], after[:ANSWER_TOKENS]])
                cut += shown_rows.size < found.size
                start = min(before.size, PROMPT_TOKENS)
                built[index] = _example(
                    shard, trace.generations[index], index, shown_rows, start, sites, groups, design
                )
    return [built[index] for index in chosen], cut


def _chosen(generations: Sequence[GenerationLike], groups: Groups, design: Design) -> list[int]:
    """Generations to show: by score the clearest of each group, else the first; other prompts before repeated ones."""
    picked: list[int] = []
    for code in (POSITIVE, NEGATIVE):
        sign = -1 if code == POSITIVE else 1
        members = [int(index) for index in np.flatnonzero(design.side == code)]
        members.sort(key=lambda index: (sign * (groups.scores[index] or 0.0), index))
        seen: dict[str, int] = {}
        repeats = {}
        for index in members:
            prompt = generations[index].prompt_id
            repeats[index] = seen.get(prompt, 0)
            seen[prompt] = repeats[index] + 1
        picked += sorted(members, key=lambda index: repeats[index])[:PER_GROUP]
    return picked


def _shown_sites(rows: Sequence[dict[str, Any]]) -> list[Site]:
    """The most significant experts; where nothing was tested, those whose rates differ most."""
    ranked = sorted(rows, key=lambda row: (1.0 if row["p"] is None else row["p"], -abs(row["rate_difference"] or 0.0)))
    return [expert_site(row["layer"], row["expert"]) for row in ranked[:SITES]]


def _example(
    shard: ShardLike,
    one: GenerationLike,
    index: int,
    rows: Ints,
    answer_start: int,
    sites: list[Site],
    groups: Groups,
    design: Design,
) -> dict[str, Any]:
    starts = np.asarray(shard.char_start)[rows].astype(np.int64)
    ends = np.asarray(shard.char_end)[rows].astype(np.int64)
    prompt, answer = slice(0, answer_start), slice(answer_start, None)
    tokens = _texts(one.prompt_text, starts[prompt], ends[prompt]) + _texts(one.text, starts[answer], ends[answer])
    spans = [_token_range(span, starts[answer], ends[answer], answer_start) for span in groups.spans[index]]
    return {
        "generation": index,
        "prompt_id": one.prompt_id,
        "group": "positive" if design.side[index] == POSITIVE else "negative",
        "score": groups.scores[index],
        "tokens": tokens,
        "answer_start": answer_start,
        "spans": [span for span in spans if span is not None],
        "weights": {str(site): sparse_weights(shard, site, rows) for site in sites},
    }


def _texts(text: str, starts: Ints, ends: Ints) -> list[str]:
    """Text of each token. Tokens that share a character (one character in several tokens) show it once."""
    previous = np.concatenate([[0], np.maximum.accumulate(ends)[:-1]]) if ends.size else ends
    return [text[max(start, 0) : end] for start, end in zip(np.maximum(starts, previous), ends, strict=True)]


def _token_range(span: Span, starts: Ints, ends: Ints, offset: int) -> list[int] | None:
    """Tokens that overlap a span of the answer's characters, as [first, last_exclusive]; None if none is shown."""
    inside = np.flatnonzero((starts < span.end) & (ends > span.start))
    return [int(inside[0]) + offset, int(inside[-1]) + 1 + offset] if inside.size else None


def sparse_weights(shard: ShardLike, site: Site, rows: Ints) -> dict[str, list[Any]]:
    """Numbers of the rows that selected the expert, and its gate weight there, as docs/findings.md writes them."""
    mask = shard.mask(site.layer)
    hit = shard.experts(site.layer)[rows] == site.expert
    if mask is not None:
        hit &= np.asarray(mask[rows], dtype=bool)
    total = np.where(hit, shard.weights(site.layer)[rows], 0).sum(axis=1, dtype=np.float64)
    at = np.flatnonzero(hit.any(axis=1))
    # four digits are plenty to look at, and keep the findings file small
    return {"at": at.tolist(), "weight": [float(f"{weight:.4g}") for weight in total[at].tolist()]}
