"""Where the gate weight of an expert is largest, and the like of it where the expert was not chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.counted import CountedTokens
from moeprobe.correlate.shown import ShownRows, shown_rows, shown_tokens, sparse_weights
from moeprobe.designs.design import Design
from moeprobe.designs.groups import Groups
from moeprobe.gathering.inputs import TraceLike
from moeprobe.sites import parse_expert

Ints = NDArray[np.int64]
Array = NDArray[np.float64]
Json = dict[str, Any]

WINDOWS = 6
PER_GENERATION = 2
# Tokens on either side of the centre.
REACH = 12


@dataclass(frozen=True)
class Places:
    """A window and its match, as numbers of counted tokens; `match` is None where there is none."""

    centre: int
    match: int | None
    matched_by: str | None


def choose_windows(tokens: CountedTokens, labels: Ints, place: Ints, weight: Array) -> list[Places]:
    """The tokens with the largest gate weights, at most two of a generation and apart from each other; with matches.

    Args:
        tokens: all counted tokens.
        labels: (samples,) 1 or 0.
        place: (chosen,) tokens that chose the expert, increasing.
        weight: (chosen,) its gate weights there.
    """
    found: list[int] = []
    for token in place[np.argsort(-weight, kind="stable")].tolist():
        own = [other for other in found if tokens.generation[other] == tokens.generation[token]]
        near = any(abs(tokens.rank[other] - tokens.rank[token]) <= REACH for other in own)
        if len(own) < PER_GENERATION and not near:
            found.append(token)
        if len(found) == WINDOWS:
            break
    free = np.ones(tokens.rank.size, dtype=np.bool_)
    free[place] = False
    made = []
    for token in found:
        match, by = _match(tokens, labels, free, token)
        if match is not None:
            free[match] = False  # shown once
        made.append(Places(token, match, by))
    return made


def _match(
    tokens: CountedTokens, labels: Ints, free: NDArray[np.bool_], token: int
) -> tuple[int | None, str | None]:  # fmt: skip
    """A token that did not choose the expert: the same one, of the other group if there is one, nearest in position.

    Without such a token any one of the other group at the same position (or next to it).
    """
    side = labels[tokens.sample[token]]
    if tokens.token_id is not None:
        same = np.flatnonzero(free & (tokens.token_id == tokens.token_id[token]))
        other = same[labels[tokens.sample[same]] != side]
        same = other if other.size else same[tokens.generation[same] != tokens.generation[token]]
        if same.size:
            return int(same[np.argmin(np.abs(tokens.rank[same] - tokens.rank[token]))]), "token"
    other = np.flatnonzero(free & (labels[tokens.sample] != side) & (np.abs(tokens.rank - tokens.rank[token]) <= 1))
    if not other.size:
        return None, None
    return int(other[np.argmin(np.abs(tokens.rank[other] - tokens.rank[token]))]), "position"


def fill_windows(
    trace: TraceLike,
    tokens: CountedTokens,
    groups: Groups,
    design: Design,
    windows: Sequence[tuple[str, Places]],
    found: dict[str, Json],
) -> None:
    """Read the text of the chosen windows, and put them into `found` by the name of their site; one pass."""
    made: dict[tuple[str, int], Json] = {}
    wanted = [(site, token) for site, one in windows for token in (one.centre, one.match) if token is not None]
    shards = [int(tokens.shard[token]) for _, token in wanted]
    for number, shown in shown_rows(trace, set(shards)):
        for site, token in (one for one, own in zip(wanted, shards, strict=True) if own == number):
            window = _window(trace, shown, int(tokens.generation[token]), int(tokens.row[token]), groups, site)
            window["position"] = int(tokens.rank[token])
            window["group"] = "positive" if design.labels[tokens.sample[token]] == 1 else "negative"
            made[site, token] = window
    for site, one in windows:
        match = None if one.match is None else made[site, one.match]
        found[site]["windows"].append(
            {"window": made[site, one.centre], "matched": match, "matched_by": one.matched_by}
        )  # fmt: skip


def _window(trace: TraceLike, shown: ShownRows, generation: int, row: int, groups: Groups, site: str) -> Json:
    own = shown.of(generation)
    centre = own.start + int(np.flatnonzero(shown.rows[own] == row)[0])
    place = slice(max(own.start, centre - REACH), min(own.stop, centre + REACH + 1))
    one = trace.generations[generation]
    texts, spans = shown_tokens(shown, place, one, groups.spans[generation])
    rows = shown.rows[place]
    (weights,) = sparse_weights(shown.shard, parse_expert(site), rows, [rows.size])
    return {
        "generation": generation, "prompt_id": one.prompt_id, "centre": centre - place.start, "tokens": texts,
        "spans": spans, "gate": weights,
    }  # fmt: skip
