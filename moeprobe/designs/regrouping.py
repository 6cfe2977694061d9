"""The groups of a question of a findings file, made again from the same trace."""

from collections.abc import Mapping, Sequence
from typing import Any

from moeprobe.designs.groups import Groups, is_numeric, label_groups, number_groups, probe_groups
from moeprobe.designs.imported import IMPORTED, check_same_labels, imported_groups
from moeprobe.designs.label_records import Labels
from moeprobe.designs.said import check_same_said
from moeprobe.designs.segments import Segments
from moeprobe.errors import FindingsError, LabelError, StatsError
from moeprobe.fields import Fields
from moeprobe.gathering.inputs import GenerationLike
from moeprobe.probes import Probe, checked


def regroup(
    generations: Sequence[GenerationLike],
    question: Mapping[str, Any],
    probe: Probe | None = None,
    *,
    labels: Labels | None = None,
    segments: Segments | None = None,
) -> Groups:
    """The groups of a question of a findings file, made again from the same trace.

    Args:
        generations: all generations of the trace the findings were made from.
        question: an object of the findings' `questions`.
        probe: the probe that was asked, of the same version and parameters; None for a label.
        labels: the imported labels that were asked with; None for another question.
        segments: as for `probe_groups`.

    Raises:
        FindingsError: the question does not say how it was grouped.
        LabelError: the imported labels are missing, or others than those that were asked with.
        StatsError: the probe is missing, is not the one that was asked, or answers otherwise by now; or as
            `probe_groups` and `label_groups`.
    """
    name = str(question.get("name"))
    fields = Fields(question.get("grouping"), f"Question {name!r}, grouping", FindingsError)
    only, by = fields.optional_text("only"), fields.optional_text("by")
    positive, negative = fields.optional_text("positive"), fields.optional_text("negative")
    design = question.get("design")
    kind = design.get("kind") if isinstance(design, Mapping) else None
    if by == IMPORTED:
        return _imported(generations, fields, labels, kind)
    if labels is not None:
        raise LabelError(f"The question {name!r} was not asked with imported labels; leave --labels out.")
    if by is not None:
        if kind == "scores" or (positive is None and negative is None and is_numeric(generations, by, only)):
            return number_groups(generations, by, only=only)
        return label_groups(generations, by, positive, negative, only=only)
    _check_same(probe, question)
    groups = probe_groups(generations, checked(probe), only=only, segments=segments)
    check_same_said(groups.grouping, fields)
    return groups


def _check_same(probe: Probe | None, question: Mapping[str, Any]) -> None:
    """Refuse a probe other than the one that was asked.

    Raises:
        StatsError: another name, version or parameters, or none.
    """
    name, version = question.get("name"), question.get("version")
    given = "none was given" if probe is None else f"{probe.name} {probe.version} was given"
    if probe is None or (probe.name, probe.version) != (name, version):
        raise StatsError(f"The question was asked of the probe {name} {version}, but {given}.")
    asked, now = question.get("parameters") or {}, checked(probe).parameters
    if asked != now:
        different = sorted(key for key in {*asked, *now} if asked.get(key) != now.get(key))
        said = ", ".join(f"{key} was {asked.get(key)!r} and is {now.get(key)!r}" for key in different)
        raise StatsError(
            f"The question was asked of the probe {name} with other parameters: {said}. Set them behind the probe's "
            f"name or file, for example {name}({different[0]}={asked.get(different[0], '...')})."
        )


def _imported(
    generations: Sequence[GenerationLike], fields: Fields, labels: Labels | None, kind: object
) -> Groups:  # fmt: skip
    if labels is None:
        raise LabelError(
            f"{fields.where}: asked with imported labels ({fields.optional_text('labels')}). Give the file again: "
            "--labels FILE."
        )
    recorded = {key: fields.optional_text(key) for key in ("digest", "labels", "scorer")}
    check_same_labels(labels, recorded)
    return imported_groups(
        generations,
        labels,
        name=fields.optional_text("name"),
        positive=fields.optional_text("positive"),
        negative=fields.optional_text("negative"),
        only=fields.optional_text("only"),
        design="within" if kind == "within generations" else "groups",
    )
