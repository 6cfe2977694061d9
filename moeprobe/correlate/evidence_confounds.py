"""What else tells the sides of a comparison apart: lengths, kinds of token, words of the prompts. Never routing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.counted import CountedTokens
from moeprobe.correlate.evidence_sorting import sort_by_length, sort_by_position
from moeprobe.correlate.evidence_topics import Prompt, sort_by_words, topics
from moeprobe.correlate.leave_token import token_words
from moeprobe.designs.design import Design
from moeprobe.gathering.inputs import TraceLike
from moeprobe.gathering.strata import Layout

Ints = NDArray[np.int64]
Json = dict[str, Any]

KINDS = 6
SIDES = (("positive", 1), ("negative", 0))


def confounds_of(
    trace: TraceLike, layout: Layout, tokens: CountedTokens, design: Design, lengths: Ints, seed: int, *, text: bool
) -> Json | None:
    """The `confounds` of a question, in the form of docs/findings.md; None where no token is counted.

    Args:
        trace: the run.
        layout, tokens: its counted tokens.
        design: who is compared.
        lengths: (generations,) tokens of each generation before matching.
        seed: of the folds of cross-validation.
        text: whether words may be shown.
    """
    if not tokens.rank.size:
        return None
    inside = design.spans is not None
    prompts = [] if inside else _prompts(trace, design)
    return {
        "lengths": _lengths(layout, design, lengths),
        "tokens": _tokens(trace, layout, tokens, design) if text else [],
        "topics": topics(prompts) if text else [],
        "sorting": [_by_position(tokens, design)] if inside
        else [_by_length(design, lengths), sort_by_words(prompts, seed)],
    }  # fmt: skip


def _lengths(layout: Layout, design: Design, lengths: Ints) -> Json:
    """Five numbers of the tokens per generation (of parts of generations: per unit) of either side."""
    made: Json = {"before": {}, "after": {}}
    for side, code in SIDES:
        if design.spans is not None:
            before = after = layout.tokens[design.labels == code]
        else:
            before, after = lengths[design.side == code], design.keep[design.side == code]
        for when, values in (("before", before), ("after", after)):
            made[when][side] = [float(value) for value in np.quantile(values, [0, 0.25, 0.5, 0.75, 1])]
    return made


def _tokens(trace: TraceLike, layout: Layout, tokens: CountedTokens, design: Design) -> list[Json]:
    """The types of token whose share differs most, at most KINDS in either direction, largest first."""
    if tokens.token_id is None:
        return []
    kinds, number = np.unique(tokens.token_id, return_inverse=True)
    positive = design.labels[tokens.sample] == 1
    one, zero = (
        np.bincount(number[own], minlength=kinds.size) / max(int(own.sum()), 1) for own in (positive, ~positive)
    )
    difference = one - zero
    order = np.argsort(-np.abs(difference), kind="stable")
    chosen = [*order[difference[order] > 0][:KINDS].tolist(), *order[difference[order] < 0][:KINDS].tolist()]
    words = token_words(trace, design.selection, layout, {int(kinds[kind]) for kind in chosen})
    return [
        {"token_id": int(kinds[kind]), "token": words.get(int(kinds[kind]), ""),
         "positive": round(float(one[kind]), 6), "negative": round(float(zero[kind]), 6)}
        for kind in chosen
    ]  # fmt: skip


def _prompts(trace: TraceLike, design: Design) -> list[Prompt]:
    """The distinct prompts of either side; prompts of one pair belong together."""
    found: dict[tuple[int, str], Prompt] = {}
    for index in np.flatnonzero(design.side >= 0).tolist():
        one = trace.generations[index]
        unit = one.pair if design.kind == "pairs" and one.pair is not None else one.prompt_text
        side = int(design.side[index])
        found.setdefault((side, one.prompt_text), Prompt(one.prompt_text, side, unit))
    return list(found.values())


def _by_length(design: Design, lengths: Ints) -> Json:
    """Mean length of each sample before matching."""
    members = np.flatnonzero(design.unit >= 0)
    number = np.bincount(design.unit[members], minlength=design.labels.size)
    mean = np.bincount(design.unit[members], lengths[members], design.labels.size) / np.maximum(number, 1)
    one, zero = (mean[(design.labels == code) & (number > 0)] for code in (1, 0))
    return sort_by_length(one, zero, paired=design.kind == "pairs")


def _by_position(tokens: CountedTokens, design: Design) -> Json:
    return sort_by_position(
        tokens.sample % design.units, design.labels[tokens.sample] == 1, tokens.rank, design.units
    )  # fmt: skip


def without_text(rows: Sequence[Json]) -> None:
    """Take the text of tokens out of rows that name one."""
    for row in rows:
        if row["leave_token_out"] is not None:
            row["leave_token_out"]["token"] = ""
