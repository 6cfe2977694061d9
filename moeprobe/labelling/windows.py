"""Windows of answers that could be labelled, and what the key says of each: an expert's weight, or a probe's score."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import LabelError
from moeprobe.gathering.counts import GENERATED
from moeprobe.probes import Passage, Probe, checked
from moeprobe.probes.probe import THRESHOLD
from moeprobe.sites import Site
from moeprobe.trace import Shard, Trace

Ints = NDArray[np.int64]
Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Windows:
    """Candidates; every array is (windows,).

    Attributes:
        generation: which answer.
        first, last: its tokens [first, last) among those of the answer's segment, by position.
        start, end: its characters [start, end) in the answer.
        before, after: where its context begins and ends, in characters.
        token: id of the token in its middle; -1 where windows are not matched by token.
        place: where its middle stands in the answer, from 0 to 1.
        value: mean gate weight of the expert over its tokens (0 where it is not chosen), or the probe's score.
        hit: the expert is chosen at its middle token, or the probe calls it positive.
        touched: the expert is chosen somewhere in it; as `hit` for a probe.
    """

    generation: Ints
    first: Ints
    last: Ints
    start: Ints
    end: Ints
    before: Ints
    after: Ints
    token: Ints
    place: Array
    value: Array
    hit: Flags
    touched: Flags

    @property
    def size(self) -> int:
        return int(self.generation.size)

    def overlaps(self, one: int, other: int) -> bool:
        """Whether two windows share a token."""
        return bool(
            self.generation[one] == self.generation[other]
            and self.first[one] < self.last[other]
            and self.first[other] < self.last[one]
        )


@dataclass(frozen=True, eq=False)
class _Answer:
    """One answer's routed tokens in order: characters [start, end), ids, and the expert's weight, (tokens,) each."""

    generation: int
    start: Ints
    end: Ints
    token: Ints
    weight: Array
    chosen: Flags


def expert_windows(trace: Trace, site: Site, width: int, segment: str = "answer") -> Windows:
    """A window around every token; at the ends of an answer it is shifted inside, and a short answer is one window.

    Args:
        trace: the run.
        site: the expert, for example `parse_expert("L18.E5")`.
        width: tokens of a window.
        segment: "answer" or "thinking".

    Raises:
        LabelError: no such expert or segment, no answer with tokens, or the expert is never chosen.
    """
    _check(trace, site, width, segment)
    windows = _joined([_around(one, width) for one in _answers(trace, segment, site)], segment)
    if not windows.hit.any():
        raise LabelError(f"{site} is never chosen in segment {segment!r} of this trace. Choose another expert.")
    return windows


def probe_windows(trace: Trace, probe: Probe, width: int, segment: str = "answer") -> Windows:
    """Windows side by side, each judged by the probe as the labeller will see it: the text alone, without its prompt.

    A rest of less than half a window is left out, and so are windows on which the probe abstains.

    Args:
        trace, width, segment: as `expert_windows`.
        probe: any probe.

    Raises:
        LabelError: no such segment, no answer with tokens, or the probe never calls a window positive.
        ProbeError: the probe breaks its contract.
    """
    _check(trace, None, width, segment)
    judge = checked(probe)
    if judge.reads_segments:
        raise LabelError(f"{judge.name} reads thinking or answer apart; a window has neither. Choose another probe.")
    texts = [one.text for one in trace.generations]
    made = []
    for one in _answers(trace, segment, None):
        text = texts[one.generation]
        found = _side_by_side(one, width)
        scores = [judge.read(Passage(text[start:end])).score for start, end in zip(found.start, found.end, strict=True)]
        known = np.array([score is not None for score in scores], dtype=np.bool_)
        value = np.array([0.0 if score is None else score for score in scores], dtype=np.float64)
        hit = value >= THRESHOLD
        made.append(_part(_replaced(found, value, hit), known))
    windows = _joined(made, segment)
    if not windows.hit.any():
        raise LabelError(f"{judge.name} calls no window of {width} tokens positive. Choose another probe, or --window.")
    return windows


def _check(trace: Trace, site: Site | None, width: int, segment: str) -> None:
    if width < 1:
        raise LabelError(f"A window of {width} tokens makes no sense; use 40.")
    if segment not in GENERATED:
        raise LabelError(
            f"Windows are of answers; there are none in segment {segment!r}. Use {' or '.join(GENERATED)}."
        )
    if site is None:
        return
    sizes = {info.layer: info.experts for info in trace.manifest.main_layers}
    if site.layer not in sizes or not 0 <= (site.expert or 0) < sizes[site.layer]:
        layers = ", ".join(f"L{layer} ({size})" for layer, size in list(sizes.items())[:6])
        raise LabelError(f"The trace has no expert {site}. Its layers (experts): {layers}{', ...' * (len(sizes) > 6)}.")


def _answers(trace: Trace, segment: str, site: Site | None) -> list[_Answer]:
    code = list(trace.manifest.segments).index(segment)
    made = []
    for shard in trace.shards():
        rows = np.flatnonzero(np.asarray(shard.segment) == code)
        if not rows.size:
            continue
        generation = np.asarray(shard.generation)[rows].astype(np.int64)
        order = np.lexsort((np.asarray(shard.position)[rows], generation))
        rows, generation = rows[order], generation[order]
        weight, chosen = _weights(shard, site, rows)
        columns = [
            np.asarray(column)[rows].astype(np.int64) for column in (shard.char_start, shard.char_end, shard.token_id)
        ]
        cuts = np.flatnonzero(np.diff(generation)) + 1
        for number, *parts in zip(
            generation[[0, *cuts]], *(np.split(one, cuts) for one in (*columns, weight, chosen)), strict=True
        ):
            made.append(_Answer(int(number), *parts))
    return made


def _weights(shard: Shard, site: Site | None, rows: Ints) -> tuple[Array, Flags]:
    """Gate weight of the expert at each row, 0 where it is not chosen, and whether it is."""
    if site is None:
        return np.zeros(rows.size), np.zeros(rows.size, dtype=np.bool_)
    hit = np.asarray(shard.experts(site.layer))[rows] == site.expert
    mask = shard.mask(site.layer)
    if mask is not None:
        hit &= np.asarray(mask)[rows]
    weight = np.where(hit, np.asarray(shard.weights(site.layer))[rows], 0).sum(axis=1, dtype=np.float64)
    return weight, hit.any(axis=1)


def _around(one: _Answer, width: int) -> Windows:
    size = one.start.size
    wide = min(width, size)
    middle = np.arange(size)
    first = np.clip(middle - wide // 2, 0, size - wide)
    last = first + wide
    sums, hits = (np.concatenate([[0.0], np.cumsum(column)]) for column in (one.weight, one.chosen.astype(np.float64)))
    return _cut(one, first, last, middle, (sums[last] - sums[first]) / wide, one.chosen, hits[last] > hits[first])


def _side_by_side(one: _Answer, width: int) -> Windows:
    size = one.start.size
    first = np.arange(0, max(1, size), width)
    last = np.minimum(first + width, size)
    whole = (last - first >= (width + 1) // 2) | (first == 0)
    first, last = first[whole], last[whole]
    nothing = np.zeros(first.size, dtype=np.bool_)
    return _cut(one, first, last, None, np.zeros(first.size), nothing, nothing)


def _cut(
    one: _Answer, first: Ints, last: Ints, middle: Ints | None, value: Array, hit: Flags, touched: Flags
) -> Windows:
    size, wide = one.start.size, int((last - first).max())
    centre = (first + last) // 2 if middle is None else middle
    before, after = np.maximum(first - wide // 2, 0), np.minimum(last + wide // 2, size)
    return Windows(
        generation=np.full(first.size, one.generation, dtype=np.int64),
        first=first,
        last=last,
        start=one.start[first],
        end=one.end[last - 1],
        before=one.start[before],
        after=one.end[after - 1],
        token=np.full(first.size, -1, dtype=np.int64) if middle is None else one.token[middle],
        place=centre / size,
        value=value,
        hit=hit,
        touched=touched,
    )


def _replaced(windows: Windows, value: Array, hit: Flags) -> Windows:
    return Windows(**{**vars(windows), "value": value, "hit": hit, "touched": hit})


def _part(windows: Windows, keep: Flags) -> Windows:
    return Windows(**{name: column[keep] for name, column in vars(windows).items()})


def _joined(parts: list[Windows], segment: str) -> Windows:
    if not any(part.size for part in parts):
        raise LabelError(f"No generation of this trace has a token in segment {segment!r} to make a window of.")
    return Windows(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})
