"""Labels inside generations: tokens that a probe marks against the other tokens of the same generation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprobe.designs.design import MIN_UNITS, WARN_UNITS, Arm, Design
from moeprobe.designs.frame import Fold, Frame
from moeprobe.designs.groups import LEFT_OUT, Groups
from moeprobe.designs.scope import Scope
from moeprobe.errors import StatsError
from moeprobe.gathering.counts import GENERATED
from moeprobe.gathering.inputs import TraceLike
from moeprobe.gathering.selection import Selection, bare_spans
from moeprobe.gathering.strata import Layout, lay_out
from moeprobe.probes.probe import THRESHOLD

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Parts:
    """Units in which both kinds of tokens stand.

    Attributes:
        unit: (generations,) number of each generation's unit, -1 where it is left out.
        names: (units,) their prompts.
        keep: (generations,) tokens counted.
        inside, outside: (units,) marked and other tokens.
        spans: for each generation, characters that are marked, (n, 2).
        one_kind: generations whose unit has tokens of one kind only.
        repeated: whether a unit holds several generations.
        marked, bare: stretches that are marked in the generations in scope, and those of them that hold no counted
            token.
    """

    unit: Ints
    names: tuple[str, ...]
    keep: Ints
    inside: Ints
    outside: Ints
    spans: tuple[Ints, ...]
    one_kind: int
    repeated: bool
    marked: int
    bare: int

    @property
    def units(self) -> int:
        return len(self.names)


def marked_parts(trace: TraceLike, scope: Scope, groups: Groups) -> Parts | None:
    """Where the probe's marks divide generations; None where it marks nothing, or the segment is no answer.

    Only spans with a score from 0.5 on count. Generations of one prompt are one unit.
    """
    spans = tuple(
        np.array([(one.start, one.end) for one in found if one.score >= THRESHOLD], dtype=np.int64).reshape(-1, 2)
        for found in groups.spans
    )
    used, lengths = np.flatnonzero(scope.member != LEFT_OUT), scope.lengths
    if scope.segment not in GENERATED or not any(spans[index].size for index in used.tolist()):
        return None
    own = [scope.names[index] for index in used.tolist()]
    names, (unit, _) = tuple(dict.fromkeys(own)), scope.numbered(used, own)
    keep = np.where(unit >= 0, lengths, 0)
    layout = lay_out(trace, Selection(scope.segment, keep, unit, len(names), spans), None)
    tokens = layout.tokens.reshape(2, -1)
    both = np.asarray((tokens > 0).all(axis=0))
    renumbered = np.where(both, np.cumsum(both) - 1, -1)
    kept = np.where(unit >= 0, renumbered[unit], -1)
    return Parts(
        unit=kept,
        names=tuple(name for name, good in zip(names, both, strict=True) if good),
        keep=np.where(kept >= 0, lengths, 0),
        inside=tokens[1][both],
        outside=tokens[0][both],
        spans=spans,
        one_kind=int(((unit >= 0) & (kept < 0)).sum()),
        repeated=bool((np.bincount(kept[kept >= 0], minlength=1) > 1).any()),
        marked=int(sum(len(spans[index]) for index in used.tolist())),
        bare=int(np.isin(_bare(trace, layout, spans)[:, 0], used).sum()),
    )


def _bare(trace: TraceLike, layout: Layout, spans: tuple[Ints, ...]) -> Ints:
    """(bare, 3) spans that hold no counted token."""
    columns = [
        (
            part.generation,
            *(np.asarray(column)[part.rows].astype(np.int64) for column in (shard.char_start, shard.char_end)),
        )
        for shard, part in zip(trace.shards(), layout.parts, strict=True)
    ]
    generation, first, last = (
        np.concatenate([np.zeros(0, dtype=np.int64), *(one[place] for one in columns)]) for place in range(3)
    )
    return bare_spans(spans, generation, first, last)


def within(trace: TraceLike, scope: Scope, groups: Groups) -> Design:
    """Marked against other tokens of each generation; every generation is its own control, so lengths need no match.

    With 5 to 14 units the label is turned in circles inside each generation (STATISTICS 2c): too few units for a t-test
    between them. The claim is then about these generations only.

    Args:
        trace: the run.
        scope: who could be compared.
        groups: its spans mark the tokens.

    Raises:
        StatsError: nothing is marked, no generation has tokens of both kinds, or something should be held fixed.
    """
    parts = _usable_parts(trace, scope, groups)
    count, few = int((parts.unit >= 0).sum()), parts.units < MIN_UNITS
    one, zero = (
        Arm(count, parts.units, int(tokens.sum()), int(tokens.sum()), float(np.median(tokens)))
        for tokens in (parts.inside, parts.outside)
    )
    unit = "prompt" if parts.repeated else "generation"
    return Design(
        kind="within generations",
        segment=scope.segment,
        keep=parts.keep,
        unit=parts.unit,
        labels=np.repeat(np.array([0, 1], dtype=np.int64), parts.units),
        side=np.where(parts.unit >= 0, 1, -1),
        names=parts.names,
        unit_name=unit,
        positive=one,
        negative=zero,
        frame=Frame(Fold.PARTS, None, np.zeros((parts.units, 0))),
        matching="none needed: both kinds of tokens stand in every generation that is used",
        left_out=scope.leaving(one_kind=parts.one_kind),
        shortage=f"fewer than {MIN_UNITS} {unit}s with tokens of both kinds ({parts.units})" if few else None,
        spans=parts.spans,
        # turned inside a generation, so both kinds must stand in one; of several samples of a prompt that is not sure
        shifts=MIN_UNITS <= parts.units < WARN_UNITS and not parts.repeated,
        notes=tuple(_bare_words(parts, scope.segment)),
    )


def _bare_words(parts: Parts, segment: str) -> list[str]:
    """What a reader must know of marks that no token shows; no sentence where there are none."""
    if not parts.bare:
        return []
    return [
        f"{parts.bare} of {parts.marked} marked stretches hold no routed token of segment {segment!r} and count for "
        "nothing: they lie in another segment, or on the last token, which is never fed in."
    ]


def _usable_parts(trace: TraceLike, scope: Scope, groups: Groups) -> Parts:
    """The parts, or a sentence that says why there are none to compare."""
    if scope.fixed:
        raise StatsError(
            "Labels inside a generation are compared within it: what belongs to the whole generation "
            f"({scope.fixed}) is held fixed already. Leave out --block and --covariate."
        )
    parts = marked_parts(trace, scope, groups)
    if parts is None:
        raise StatsError(
            f"{groups.name} marks no part of a text in segment {scope.segment!r} (a probe does with spans of score 0.5 "
            "or more). Compare whole generations (--design groups), or choose the segment answer or thinking."
        )
    if not parts.units:
        why = (
            f"No generation has both tokens that {groups.name} marks and others: each is marked as a whole or not at "
            "all. Compare whole generations (--design groups)."
        )
        raise StatsError(" ".join([why, *_bare_words(parts, scope.segment)]))
    return parts
