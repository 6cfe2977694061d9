"""Groups from imported labels: what people, models or other tools said of the generations of a trace."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moeprobe.designs.design import MIN_UNITS
from moeprobe.designs.groups import LEFT_OUT, NEGATIVE, POSITIVE, Groups, admitted, choose_values
from moeprobe.designs.label_matching import Match, match_labels, tokenless_spans
from moeprobe.designs.label_records import LabelRecord, Labels
from moeprobe.designs.values import names_routing
from moeprobe.errors import LabelError
from moeprobe.gathering.inputs import GenerationLike, TraceLike
from moeprobe.probes import Span
from moeprobe.probes.probe import THRESHOLD

IMPORTED = "labels"
"""`grouping["by"]` of a question that was asked with imported labels."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_MIXED = 2  # windows of both kinds in one generation


@dataclass(frozen=True)
class _Sides:
    """Which answers are positive, in values and in words."""

    kind: str
    positive: str
    negative: tuple[str, ...]

    def of(self, record: LabelRecord) -> int:
        """POSITIVE, NEGATIVE, or LEFT_OUT where it abstains or says something else."""
        if record.abstains:
            return LEFT_OUT
        if self.kind == "label":
            return (
                POSITIVE if record.label == self.positive else NEGATIVE if record.label in self.negative else LEFT_OUT
            )
        return POSITIVE if _score(record) >= THRESHOLD else NEGATIVE

    @property
    def words(self) -> tuple[str, str]:
        """The positive and the negative side, as findings call them."""
        if self.kind == "label":
            return f"label = {self.positive}", f"label = {' or '.join(self.negative)}"
        if self.kind == "score":
            return f"score >= {THRESHOLD}", f"score < {THRESHOLD}"
        return "marked somewhere", "marked nowhere"


def imported_groups(
    generations: Sequence[GenerationLike],
    labels: Labels,
    *,
    name: str | None = None,
    positive: str | None = None,
    negative: str | None = None,
    only: str | None = None,
    design: str = "auto",
) -> Groups:
    """Group generations by imported labels.

    A label is positive by its value (`groups.choose_values`), a score or a span from 0.5 on. Where windows were judged,
    a generation is positive when all its windows are, negative when none is. One with both kinds is left out, unless
    the design is "within", or is "auto" and only that one has enough generations.

    Args:
        generations: all generations of the trace.
        labels: of `read_label_records`, `frame_labels` or `read_inspect_log`.
        name: what the question is called; by default after the file.
        positive, negative: values of text labels, as `groups.label_groups`.
        only: "KEY=VALUE" to use only generations with this label or metadata value.
        design: the design that was asked for.

    Raises:
        LabelError: the labels do not fit the trace, or the name cannot be one.
        StatsError: `only` fits none, or it is not clear which value is positive.
    """
    title, let_in = _title(name, labels), admitted(generations, only)
    sides = _sides(labels, positive, negative)
    matches = match_labels(labels, generations)
    found = _by_generation(matches, let_in)
    member = np.array([_member([sides.of(one) for one in records]) for records in found], dtype=np.int64)
    mixed = member == _MIXED
    inside = bool(mixed.any()) and (design == "within" or (design == "auto" and _few(member)))
    member[mixed] = POSITIVE if inside else LEFT_OUT
    abstained = sum(bool(records) and all(one.abstains for one in records) for records in found)
    windows = labels.records[0].window is not None
    chosen = sides.kind == "label" and sides.positive != "1"
    groups = Groups(
        member=member,
        scores=tuple(None if windows or not one or one[0].kind == "label" else _score_or_none(one[0]) for one in found),
        spans=tuple(_spans(records, sides) for records in found),
        name=f"labels:{title}" + (f":{sides.positive}" if chosen else ""),
        kind="label",
        definition=_definition(labels, matches),
        positive=sides.words[0],
        negative=sides.words[1],
        abstained=abstained,
        unlabelled=int((member[let_in] == LEFT_OUT).sum()) - abstained,
        grouping={
            "by": IMPORTED, "positive": sides.positive if sides.kind == "label" else None, "negative": negative,
            "only": only, "name": title, "labels": labels.source, "digest": labels.digest, "scorer": labels.scorer,
        },
        judged=tuple(_judged(records, sides) for records in found) if windows else None,
        asks="within" if inside else "auto",
        drawn_by=tuple(sorted({one.sampled_by for one in labels.records} - {""})),
    )  # fmt: skip
    return replace(groups, notes=_notes(labels, matches, sides, groups.drawn_by, 0 if inside else int(mixed.sum())))


def check_same_labels(labels: Labels, grouping: dict[str, str | None]) -> None:
    """Check that these are the labels a question was asked with.

    Raises:
        LabelError: their digest is another, or they are of another scorer of the same log.
    """
    if labels.digest != grouping.get("digest"):
        raise LabelError(
            f"{labels.source} is not what the question was asked with ({grouping.get('labels')}, "
            f"{str(grouping.get('digest'))[:23]}...): its digest is {labels.digest[:23]}... "
            "Give the file as it was, or ask the question again."
        )
    asked = grouping.get("scorer")
    if labels.scorer != asked:
        raise LabelError(
            f"The question was asked with the scores of {asked} in {labels.source}, but these are those of "
            f"{labels.scorer}. Add --scorer {asked}."
        )


def coverage_notes(trace: TraceLike, groups: Groups) -> tuple[str, ...]:
    """Say which marks of whole answers fall on no recorded token. Designs within answers say it of what they count."""
    ranges = [
        np.array([(one.start, one.end) for one in spans], dtype=np.int64).reshape(-1, 2) for spans in groups.spans
    ]
    empty = tokenless_spans(trace, ranges)
    if not empty:
        return ()
    shown = ", ".join(f"[{start}, {end}] of generation {index}" for index, start, end in empty[:3])
    more = ", ..." if len(empty) > 3 else ""
    verb = "covers" if len(empty) == 1 else "cover"
    return (
        f"{len(empty)} of {sum(map(len, ranges))} marked stretches {verb} no recorded token: {shown}{more}. Answers "
        "keep their labels all the same.",
    )


def _by_generation(matches: Sequence[Match], let_in: NDArray[np.bool_]) -> list[list[LabelRecord]]:
    """The records of each generation that is let in, (generations,)."""
    found: list[list[LabelRecord]] = [[] for _ in let_in]
    for index, record in ((index, one.record) for one in matches for index in one.generations if let_in[index]):
        found[index].append(record)
    return found


def _title(name: str | None, labels: Labels) -> str:
    title = name if name is not None else re.sub(r"[^A-Za-z0-9._-]+", "-", labels.source.partition(".")[0]).strip("-.")
    if not _NAME.fullmatch(title) or names_routing(title):
        raise LabelError(
            f"The labels cannot be called {title[:80]!r}: a name is letters, digits, points and hyphens, and says what "
            "was judged, not an expert. Give one with --name."
        )
    return title


def _sides(labels: Labels, positive: str | None, negative: str | None) -> _Sides:
    kind = labels.records[0].kind
    if kind != "label":
        if positive is not None or negative is not None:
            raise LabelError(f"--positive and --negative name values of labels, but {labels.source} gives a {kind}.")
        return _Sides(kind, "", ())
    found = sorted({one.label for one in labels.records if one.label is not None})
    chosen, others = choose_values(found, f"the labels in {labels.source}", positive, negative)
    return _Sides(kind, chosen, tuple(others))


def _member(codes: Sequence[int]) -> int:
    known = set(codes) - {LEFT_OUT}
    return _MIXED if len(known) > 1 else known.pop() if known else LEFT_OUT


def _few(member: NDArray[np.int64]) -> bool:
    """Whether only the comparison inside generations has enough of them."""
    pure = min(int((member == code).sum()) for code in (POSITIVE, NEGATIVE))
    return pure < MIN_UNITS <= int((member == _MIXED).sum())


def _score(record: LabelRecord) -> float:
    if record.score is not None:
        return record.score
    return max((span.score for span in record.spans or ()), default=0.0)


def _score_or_none(record: LabelRecord) -> float | None:
    return None if record.abstains else _score(record)


def _spans(records: Sequence[LabelRecord], sides: _Sides) -> tuple[Span, ...]:
    made = [span for record in records for span in record.spans or ()]
    made += [Span(*one.window, 1.0, "") for one in records if one.window is not None and sides.of(one) == POSITIVE]
    return tuple(sorted(made, key=lambda span: (span.start, span.end)))


def _judged(records: Sequence[LabelRecord], sides: _Sides) -> tuple[tuple[int, int], ...]:
    return tuple(
        sorted(one.window for one in records if one.window is not None and sides.of(one) != LEFT_OUT)
    )  # fmt: skip


def _definition(labels: Labels, matches: Sequence[Match]) -> str:
    about = len({index for one in matches for index in one.generations})
    scorer = f", scorer {labels.scorer}" if labels.scorer else ""
    silent = sum(one.abstains for one in labels.records)
    return (
        f"Imported labels: {labels.source}{scorer} ({labels.digest[:23]}), {len(labels.records)} labels of {about} "
        f"generations, {silent} of them abstentions."
    )


def _notes(
    labels: Labels, matches: Sequence[Match], sides: _Sides, drawn_by: Sequence[str], mixed: int
) -> tuple[str, ...]:
    notes = []
    elsewhere = sum(not one.abstains and sides.of(one) == LEFT_OUT for one in labels.records)
    if elsewhere:
        notes.append(f"{elsewhere} labels have other values than {sides.positive} and {', '.join(sides.negative)}.")
    several = [one for one in matches if len(one.generations) > 1]
    if several:
        number = sum(len(one.generations) for one in several)
        words = "1 labelled text stands" if len(several) == 1 else f"{len(several)} labelled texts stand"
        notes.append(f"{words} in several generations ({number}); its label counts for each of them.")
    if mixed:
        notes.append(
            f"{mixed} generations with windows of both kinds are left out of the groups. --design within compares them."
        )
    if drawn_by:
        notes.append(
            f"The labelled windows were drawn by {', '.join(drawn_by)}. Rates are those of the sample, not of the run. "
            "An expert that windows were drawn by is not tested here; `moeprobe labels read` has its test."
        )
    if labels.records[0].window is not None:
        notes.append("Only tokens of labelled windows are compared.")
    return tuple(notes)
