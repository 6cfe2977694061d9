"""Generations of each group with their tokens, so that a reader can see where an expert was chosen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.shown import ShownRows, shown_rows, shown_tokens, sparse_weights
from moeprobe.designs.design import Design
from moeprobe.designs.groups import NEGATIVE, POSITIVE, Groups
from moeprobe.gathering.inputs import GenerationLike, TraceLike
from moeprobe.sites import Site, expert_site

Ints = NDArray[np.int64]

PER_GROUP = 5
# Experts that a reader can look at: the most significant ones; all experts on all tokens would be unreadable.
SITES = 20
# A long generation is cut for display: the end of its prompt, the beginning of its answer.
PROMPT_TOKENS, ANSWER_TOKENS = 200, 1000


def build_examples(
    trace: TraceLike, groups: Groups, design: Design, rows: Sequence[dict[str, Any]], most: int | None = PER_GROUP
) -> tuple[list[dict[str, Any]], int]:
    """The `examples` of a question, in the form of docs/findings.md, positive group first.

    Args:
        trace: the run.
        groups: who is in which group, with what the probe marked.
        design: who is compared.
        rows: the rows of the question; the weights of the leading experts are shown.
        most: generations of each group; None for all.

    Returns:
        The examples, and how many of them show only a part of a long generation.
    """
    sites = leading_sites(rows)
    chosen = _chosen(trace.generations, groups, design, most)
    built: dict[int, dict[str, Any]] = {}
    cut, wanted = 0, set(chosen)
    for _, shown in shown_rows(trace) if chosen else ():
        here = [index for index in np.unique(shown.generation).tolist() if index in wanted]
        places = []
        for index in here:
            place = np.arange(*shown.of(index).indices(shown.rows.size))
            answer = shown.answer[place]
            kept = np.concatenate([place[~answer][-PROMPT_TOKENS:], place[answer][:ANSWER_TOKENS]])
            cut += kept.size < place.size
            places.append(kept)
            built[index] = _example(shown, kept, trace.generations[index], index, groups, design)
        if not here:
            continue
        rows_here, sizes = shown.rows[np.concatenate(places)], [place.size for place in places]
        for site in sites:
            for index, weights in zip(here, sparse_weights(shown.shard, site, rows_here, sizes), strict=True):
                built[index]["weights"][str(site)] = weights
    return [built[index] for index in chosen if index in built], cut


def leading_sites(rows: Sequence[dict[str, Any]]) -> list[Site]:
    """The most significant experts; where nothing was tested, those whose rates differ most."""
    ranked = sorted(rows, key=lambda row: (1.0 if row["p"] is None else row["p"], -abs(row["rate_difference"] or 0.0)))
    return [expert_site(row["layer"], row["expert"]) for row in ranked[:SITES]]


def _chosen(
    generations: Sequence[GenerationLike], groups: Groups, design: Design, most: int | None
) -> list[int]:  # fmt: skip
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
        picked += sorted(members, key=lambda index: repeats[index])[:most]
    return picked


def _example(
    shown: ShownRows, place: Ints, one: GenerationLike, index: int, groups: Groups, design: Design
) -> dict[str, Any]:
    tokens, spans = shown_tokens(shown, place, one, groups.spans[index])
    return {
        "generation": index,
        "prompt_id": one.prompt_id,
        "group": "positive" if design.side[index] == POSITIVE else "negative",
        "score": groups.scores[index],
        "tokens": tokens,
        "answer_start": int((~shown.answer[place]).sum()),
        "spans": spans,
        "weights": {},
    }
