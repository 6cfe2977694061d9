"""Which generation each imported label is about."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprobe.designs.label_records import LabelRecord, Labels
from moeprobe.errors import LabelError
from moeprobe.gathering.counts import GENERATED
from moeprobe.gathering.inputs import GenerationLike, TraceLike
from moeprobe.gathering.selection import bare_spans


@dataclass(frozen=True)
class Match:
    """A record and the generations it is about: one, or all that have its text."""

    record: LabelRecord
    generations: tuple[int, ...]


def match_labels(labels: Labels, generations: Sequence[GenerationLike]) -> tuple[Match, ...]:
    """Find the generations of every record. All keys that a record gives must fit.

    Args:
        labels: the records.
        generations: all generations of the trace.

    Raises:
        LabelError: a record fits no generation, a prompt has several answers and the record does not say which, two
            records are about one generation (or overlapping windows of it), or a span lies outside the text.
    """
    by_prompt: dict[str, list[int]] = {}
    by_text: dict[str, list[int]] = {}
    for index, one in enumerate(generations):
        by_prompt.setdefault(one.prompt_id, []).append(index)
        by_text.setdefault(one.text, []).append(index)
    matches = []
    for record in labels.records:
        found = _found(record, generations, by_prompt, by_text)
        for index in found:
            _check_inside(record, generations[index], index)
        matches.append(Match(record, found))
    _check_once(matches)
    return tuple(matches)


def tokenless_spans(trace: TraceLike, spans: Sequence[NDArray[np.int64]]) -> list[tuple[int, int, int]]:
    """Spans that cover no routed token of the answer, as (generation, start, end).

    Args:
        trace: the run.
        spans: for each generation ranges of characters of its answer, (n, 2).
    """
    codes = [code for code, name in enumerate(trace.manifest.segments) if name in GENERATED]
    columns: list[list[NDArray[np.int64]]] = [[], [], []]
    for shard in trace.shards():
        rows = np.flatnonzero(np.isin(np.asarray(shard.segment), codes))
        for column, name in zip(columns, ("generation", "char_start", "char_end"), strict=True):
            column.append(np.asarray(getattr(shard, name))[rows].astype(np.int64))
    found = bare_spans(spans, *(np.concatenate([np.zeros(0, dtype=np.int64), *column]) for column in columns))
    return [(index, start, end) for index, start, end in found.tolist()]


def _found(
    record: LabelRecord,
    generations: Sequence[GenerationLike],
    by_prompt: dict[str, list[int]],
    by_text: dict[str, list[int]],
) -> tuple[int, ...]:
    where = record.where
    if record.generation is not None:
        if record.generation >= len(generations):
            raise LabelError(f"{where}: there is no generation {record.generation}; the trace has {len(generations)}.")
        found = [record.generation]
    elif record.prompt_id is not None:
        found = by_prompt.get(record.prompt_id, [])
        if not found:
            raise LabelError(f"{where}: no prompt of this trace has the id {record.prompt_id[:80]!r}.")
    else:
        found = by_text.get(str(record.text), [])
        if not found:
            raise LabelError(
                f"{where}: no generation has this text, character by character: {str(record.text)[:60]!r}."
            )
    named = [index for index in found if _fits(record, generations[index])]
    if not named:
        raise LabelError(f"{where}: {_misfit(record, generations[found[0]], found)}")
    if len(named) > 1 and record.prompt_id is not None and record.text is None:
        raise LabelError(
            f'{where}: prompt {record.prompt_id[:80]!r} has {len(named)} answers. Say which one: "sample", from 0, or '
            '"generation".'
        )
    return tuple(named)


def _fits(record: LabelRecord, one: GenerationLike) -> bool:
    text = one.text if record.window is None else one.text[slice(*record.window)]
    return (
        (record.prompt_id is None or record.prompt_id == one.prompt_id)
        and (record.sample is None or record.sample == getattr(one, "sample", 0))
        and (record.text is None or record.text == text)
    )


def _misfit(record: LabelRecord, one: GenerationLike, found: Sequence[int]) -> str:
    if record.prompt_id is not None and record.prompt_id != one.prompt_id:
        return f"generation {found[0]} is of prompt {one.prompt_id[:80]!r}, not of {record.prompt_id[:80]!r}."
    if record.sample is not None and len(found) >= 1 and record.generation is None:
        return f"prompt {one.prompt_id[:80]!r} has no sample {record.sample} that fits; it has {len(found)} answers."
    if record.text is None:
        return f"generation {found[0]} is not sample {record.sample} of its prompt."
    part = "" if record.window is None else f" at the window {list(record.window)}"
    return (
        f"the text of generation {found[0]}{part} is another than the label's. Was it labelled in another run? "
        f"The label is of {record.text[:60]!r}."
    )


def _check_inside(record: LabelRecord, one: GenerationLike, index: int) -> None:
    ranges = [(span.start, span.end) for span in record.spans or ()]
    for start, end in [*ranges, *([] if record.window is None else [record.window])]:
        if end > len(one.text):
            raise LabelError(
                f"{record.where}: the span [{start}, {end}] lies outside the answer of generation {index}, which has "
                f"{len(one.text)} characters."
            )


def _check_once(matches: Sequence[Match]) -> None:
    """One label for each generation, or for each window."""
    seen: dict[int, list[LabelRecord]] = {}
    for match in matches:
        for index in match.generations:
            for other in seen.setdefault(index, []):
                if other.window is None or match.record.window is None or _overlap(other.window, match.record.window):
                    what = "generation" if other.window is None else "overlapping windows of generation"
                    raise LabelError(
                        f"{match.record.where}: {what} {index} has a label already, from {other.where}. Keep one."
                    )
            seen[index].append(match.record)


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]
