"""Which register a comparison asks about, and what `correlate` says of it on each run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.compare.joined import Joined, Part
from moeprobe.compare.matching import Matched
from moeprobe.correlate import correlate
from moeprobe.designs.groups import NEGATIVE, POSITIVE, Groups, label_groups, probe_groups
from moeprobe.designs.imported import imported_groups
from moeprobe.designs.label_matching import match_labels
from moeprobe.designs.label_records import Labels, checked_records
from moeprobe.designs.segments import segments_of
from moeprobe.errors import LabelError, StatsError
from moeprobe.gathering.counts import segment_lengths
from moeprobe.gathering.inputs import GenerationLike
from moeprobe.probes import Probe

Ints = NDArray[np.int64]
Json = dict[str, Any]
Answer = tuple[Json, list[Json], list[str]]


@dataclass(frozen=True)
class Asked:
    """What is asked of both runs: a probe, a label, imported labels, or nothing; see `compare` for each."""

    probe: Probe | None
    by: str | None
    labels: tuple[Labels, Labels] | None
    name: str | None
    positive: str | None
    negative: str | None
    only: str | None
    segment: str
    alpha: float

    def __post_init__(self) -> None:
        given = [self.probe is not None, self.by is not None, self.labels is not None].count(True)
        if given > 1:
            raise StatsError(
                "Ask about one register: a probe (--probe), a label (--by label) or imported labels (--labels-a and "
                "--labels-b)."
            )
        if self.by is None and self.labels is None and (self.positive is not None or self.negative is not None):
            raise StatsError("--positive and --negative name values of a label; give --by or --labels-a as well.")
        if self.labels is None and self.name is not None:
            raise StatsError("--name is what imported labels are called; give --labels-a and --labels-b as well.")
        if not given and self.only is not None:
            raise StatsError("--only chooses prompts for a register; give --probe or --by as well.")

    @property
    def something(self) -> bool:
        """Whether there is a register at all."""
        return self.probe is not None or self.by is not None or self.labels is not None

    def of_matched(self, matched: Matched, whole: Sequence[Sequence[GenerationLike]]) -> "Asked":
        """The same of the generations that both runs have: labels get their numbers.

        Args:
            matched: the runs.
            whole: all generations of run A and of run B, which the labels must fit.

        Raises:
            LabelError: as `match_labels`; labels of windows; or the two files say different kinds of things.
        """
        if self.labels is None:
            return self
        parts = zip(self.labels, whole, (matched.first, matched.second), strict=True)
        one, two = (_renumbered(own, generations, part) for own, generations, part in parts)
        return replace(self, labels=(one, two))

    def groups(self, matched: Matched) -> Groups:
        """The groups of both runs at once, so that a value means the same in both."""
        joined = Joined(matched.first, matched.second)
        if self.probe is not None:
            return probe_groups(joined.generations, self.probe, only=self.only, segments=segments_of(joined))
        if self.labels is None:
            return label_groups(joined.generations, str(self.by), self.positive, self.negative, only=self.only)
        one, two = self.labels
        moved = (replace(own, generation=joined.offset + (own.generation or 0)) for own in two.records)
        both = f"{one.source} and {two.source}"
        labels = replace(one, records=checked_records([*one.records, *moved], both))
        named: Json = {"positive": self.positive, "negative": self.negative, "only": self.only}
        made = imported_groups(joined.generations, labels, name=self.name, **named, design="groups")
        said = "; ".join(
            f"run {run}: {own.source} ({own.digest[:23]})" for own, run in zip((one, two), "AB", strict=True)
        )
        grouping = {**made.grouping, "labels_b": two.source, "digest_b": two.digest}
        return replace(
            made, definition=f"Imported labels of either run. {said[0].upper()}{said[1:]}.", grouping=grouping
        )

    def of_run(self, run: Part, number: int, member: Ints, groups: Groups) -> tuple[Answer | None, str | None]:
        """The default pipeline of `correlate` on one run, or why it cannot be asked: one of the groups is empty there.

        Args:
            run: the matched generations of run A (number 0) or B (number 1).
            number: which.
            member: (generations,) their groups.
            groups: those of both runs.
        """
        lengths = segment_lengths(run, self.segment)
        for code, words in ((POSITIVE, groups.positive), (NEGATIVE, groups.negative)):
            if not ((member == code) & (lengths > 0)).any():
                return None, f"no generation there with {self.segment} tokens is of the group {words}."
        names: Json = {"probe": self.probe, "by": self.by}
        if self.probe is None:
            names |= {"positive": groups.grouping["positive"], "negative": self.negative}
        if self.labels is not None:
            names |= {"labels": self.labels[number], "name": groups.grouping["name"]}
        options: Json = {"only": self.only, "segment": self.segment, "alpha": self.alpha}
        return correlate(run, **names, **options, text=False, draws=0, design="groups"), None


def _renumbered(labels: Labels, generations: Sequence[GenerationLike], part: Part) -> Labels:
    """The labels of those generations that `part` holds, by their numbers there."""
    drawn = next((one for one in labels.records if one.window is not None or one.sampled_by), None)
    if drawn is not None:
        raise LabelError(
            f"{drawn.where}: a label of a window. Runs are compared on whole answers; give labels of these."
        )
    records = [
        replace(match.record, generation=int(part.numbers[index]))
        for match in match_labels(labels, generations)
        for index in match.generations
        if part.numbers[index] >= 0
    ]
    return replace(labels, records=tuple(records))
