"""From probe scores or labels to two groups of generations. Decided from text and labels alone, never from routing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.designs.said import said
from moeprobe.designs.segments import Segments
from moeprobe.designs.values import is_number, number_of, value_of
from moeprobe.errors import StatsError
from moeprobe.gathering.inputs import GenerationLike
from moeprobe.probes import Passage, Probe, Reading, Span, checked
from moeprobe.probes.attenuation import attenuation
from moeprobe.probes.measured import Measured, measured_on_own
from moeprobe.probes.parameters import Scalar
from moeprobe.probes.probe import THRESHOLD
from moeprobe.prompts import label_text

GUESSING = 0.5
LEFT_OUT, NEGATIVE, POSITIVE = -1, 0, 1
# With two values and no word from the user, these name the positive group, against their opposite only.
_OPPOSITES = (("true", "false"), ("1", "0"), ("positive", "negative"), ("yes", "no"))


@dataclass(frozen=True)
class Groups:
    """Who is in which group, and what the groups are called.

    Attributes:
        member: (generations,) POSITIVE, NEGATIVE or LEFT_OUT.
        scores: probe score or number of each generation; None for labels and where the probe abstained.
        spans: what the probe marked in each generation's text.
        name, kind, version, definition, parameters, positive, negative, quality, attenuation: as in docs/findings.md.
        abstained, unlabelled: how many generations were left out, and why.
        grouping: how the groups were made (by, positive, negative, only) and what a probe said: enough for `regroup`.
        notes: sentences a reader must see.
        numeric: the question is a number, to be compared as one.
        judged: for each generation the stretches [start, end) of its answer that were judged, where only parts were;
            tokens outside them are not compared. None: all of it was.
        asks: the design that fits these groups where none was asked for; "auto" leaves it to `planning.plan`.
        drawn_by: what judged windows were drawn by. An expert among them is not tested: how often it is chosen there is
            how the windows were drawn.
    """

    member: NDArray[np.int64]
    scores: tuple[float | None, ...]
    spans: tuple[tuple[Span, ...], ...]
    name: str
    kind: str
    definition: str
    positive: str
    negative: str
    version: str | None = None
    parameters: dict[str, Scalar] = field(default_factory=dict)
    quality: dict[str, Any] | None = None
    attenuation: dict[str, Any] | None = None
    abstained: int = 0
    unlabelled: int = 0
    notes: tuple[str, ...] = ()
    grouping: dict[str, str | None] = field(default_factory=dict)
    numeric: bool = False
    judged: tuple[tuple[tuple[int, int], ...], ...] | None = None
    asks: str = "auto"
    drawn_by: tuple[str, ...] = ()


def probe_groups(
    generations: Sequence[GenerationLike],
    probe: Probe,
    *,
    only: str | None = None,
    segments: Segments | None = None,
    measured: Measured | None = None,
) -> Groups:
    """Score every generation: positive from 0.5 on; where the probe abstains, left out.

    Args:
        generations: all generations of the trace.
        probe: the judge.
        only: "KEY=VALUE" to use only generations with this label or metadata value; the rest is not even read.
        segments: of each generation's text, as `segments_of` the trace gives them; None where they are not known.
        measured: how good the probe is on a file of labels (`measured_on_labels`); None: it is measured on what it
            brings.

    Raises:
        ProbeError: the probe breaks its contract.
        StatsError: it reads segments and they are not known, it abstained on every generation, or `only` fits none.
    """
    judge = checked(probe)
    asked = admitted(generations, only)
    if judge.reads_segments and segments is None:
        raise StatsError(f"The probe {judge.name} reads thinking or answer apart, and here these are not known.")
    parts = segments or ((),) * len(generations)
    unread = Reading(None)
    readings = [
        judge.read(Passage(one.text, one.prompt_text, part)) if included else unread
        for one, part, included in zip(generations, parts, asked, strict=True)
    ]
    scores = tuple(reading.score for reading in readings)
    abstained = sum(bool(included) and score is None for included, score in zip(asked, scores, strict=True))
    if abstained == sum(asked):
        raise StatsError(
            f"The probe {judge.name} abstained on all {abstained} generations. "
            "Check that it is meant for such text, or choose another probe."
        )
    member = [LEFT_OUT if score is None else POSITIVE if score >= THRESHOLD else NEGATIVE for score in scores]
    measured = measured or measured_on_own(judge)
    return Groups(
        member=np.array(member, dtype=np.int64),
        scores=scores,
        spans=tuple(reading.spans for reading in readings),
        name=judge.name,
        kind="probe",
        version=judge.version,
        parameters=judge.parameters,
        definition=judge.definition,
        positive=f"score >= {THRESHOLD}",
        negative=f"score < {THRESHOLD}",
        quality=None if measured is None else measured.to_json(),
        attenuation=_attenuation(measured, generations, member),
        abstained=abstained,
        notes=_warned(measured),
        grouping={"by": None, "positive": None, "negative": None, "only": only, **said(member, readings)},
    )


def _warned(measured: Measured | None) -> tuple[str, ...]:
    """What a reader must know first: of a probe that is not shown to sort better than a coin, and of labels given."""
    if measured is None:
        return ()
    value, low, high = (getattr(measured.quality.balanced_accuracy, end) for end in ("value", "low", "high"))
    if low is None or high is None:
        return measured.notes
    figure = f"balanced accuracy {value:.2f} [{low:.2f}, {high:.2f}] on {measured.on}"
    if high < GUESSING:
        return (
            f"The probe sorts worse than guessing ({figure}): its sides may be swapped. Nothing below holds then.",
            *measured.notes,
        )
    if low <= GUESSING:
        return (f"The probe is not shown to sort better than guessing ({figure}).", *measured.notes)
    return measured.notes


def _attenuation(
    measured: Measured | None, generations: Sequence[GenerationLike], member: Sequence[int]
) -> dict[str, Any] | None:
    """What the probe's mistakes leave of a difference between the groups it made; None where that is not known."""
    if measured is None:
        return None
    answered = [
        (code == POSITIVE, one.prompt_id) for one, code in zip(generations, member, strict=True) if code != LEFT_OUT
    ]
    called, prompts = [one for one, _ in answered], [prompt for _, prompt in answered]
    found = attenuation(measured.quality, called, prompts, measured.on)
    return None if found is None else found.to_json()


def label_groups(
    generations: Sequence[GenerationLike],
    by: str,
    positive: str | None = None,
    negative: str | None = None,
    *,
    only: str | None = None,
) -> Groups:
    """Group by the label (`by="label"`) or by a metadata value (`by="metadata.KEY"`).

    Values are compared as text, true and false in lower case. Without `negative`, all other values are the negative
    group. Without `positive`, there must be two values, of which one plainly is the positive one (true, 1, positive,
    yes) and the other its opposite. With `only`, "KEY=VALUE", all else counts as not there.

    Raises:
        StatsError: `only` fits no generation, nothing is labelled, a value does not occur, or it is not clear which
            value is positive.
    """
    asked = admitted(generations, only)
    values = [value_of(one, by) if included else None for one, included in zip(generations, asked, strict=True)]
    found = sorted({value for value in values if value is not None})
    if not found:
        raise StatsError(f"No generation has a value for {by!r}. Label the prompts, or use --probe.")
    chosen, others = choose_values(found, by, positive, negative)
    codes: dict[str | None, int] = {chosen: POSITIVE, **dict.fromkeys(others, NEGATIVE)}
    member = np.array([codes.get(value, LEFT_OUT) for value in values], dtype=np.int64)
    elsewhere = sum(value is not None and value not in codes for value in values)
    shown = " or ".join(others)
    notes: tuple[str, ...] = ()
    if elsewhere:
        names = ", ".join(value for value in found if value not in codes)
        notes = (f"{elsewhere} generations with other values of {by} ({names}) were left out.",)
    return Groups(
        member=member,
        scores=(None,) * len(values),
        spans=((),) * len(values),
        name=f"{by}:{chosen}",
        kind="label",
        definition=f"Generations whose {by} is {chosen}, against those whose {by} is {shown}.",
        positive=f"{by} = {chosen}",
        negative=f"{by} = {shown}",
        unlabelled=int((member[asked] == LEFT_OUT).sum()),
        notes=notes,
        grouping={"by": by, "positive": chosen, "negative": negative, "only": only},
    )


def number_groups(generations: Sequence[GenerationLike], by: str, *, only: str | None = None) -> Groups:
    """A number of each generation's label or metadata; for display, the groups are above the median and the rest.

    Args:
        generations, only: as `label_groups`.
        by: "label", or "metadata.KEY" of numbers.

    Raises:
        StatsError: a value is no finite number, or nobody has one; or as `label_groups`.
    """
    asked = admitted(generations, only)
    numbers = np.array(
        [number_of(one, by) if let_in else np.nan for one, let_in in zip(generations, asked, strict=True)]
    )
    known = np.isfinite(numbers)
    if not known.any():
        raise StatsError(f"No generation has a value for {by!r}. Label the prompts, or use --probe.")
    middle = float(np.median(numbers[known]))
    upper, above, below = numbers > middle, "above", "at most"
    if not upper.any():  # more than half share the largest number
        upper, above, below = numbers == middle, "at least", "below"
    member = np.where(known, np.where(upper, POSITIVE, NEGATIVE), LEFT_OUT)
    name = by.removeprefix("metadata.")
    return Groups(
        member=member.astype(np.int64),
        scores=tuple(float(number) if there else None for number, there in zip(numbers, known, strict=True)),
        spans=((),) * len(numbers),
        name=by,
        kind="label",
        definition=f"The number {name} of each generation.",
        positive=f"{name} {above} {middle:g} (the median)",
        negative=f"{name} {below} {middle:g}",
        unlabelled=int((~known[asked]).sum()),
        grouping={"by": by, "positive": None, "negative": None, "only": only},
        numeric=True,
    )


def is_numeric(generations: Sequence[GenerationLike], by: str, only: str | None = None) -> bool:
    """Whether all values are numbers, and more than two: then they are scores, not names of groups."""
    asked = zip(generations, admitted(generations, only), strict=True)
    values = [one for one, included in asked if included and value_of(one, by) is not None]
    return all(is_number(one, by) for one in values) and len({value_of(one, by) for one in values}) > 2


def admitted(generations: Sequence[GenerationLike], only: str | None) -> NDArray[np.bool_]:
    """(generations,) which of them `only` ("KEY=VALUE") lets in; all of them without it.

    Raises:
        StatsError: it fits no generation, or is no KEY=VALUE.
    """
    if only is None:
        return np.ones(len(generations), dtype=bool)
    key, equals, wanted = only.partition("=")
    if not equals or not key:
        raise StatsError(f"--only {only}: write KEY=VALUE, for example set=refusal or label=harmful.")
    by = key if key == "label" or key.startswith("metadata.") else f"metadata.{key}"
    values = [value_of(one, by) for one in generations]
    asked = np.array([value == label_text(wanted) for value in values], dtype=bool)
    if not asked.any():
        found = ", ".join(sorted({value for value in values if value is not None})) or "no values at all"
        raise StatsError(f"--only {only} fits no generation. Found for {by}: {found}.")
    return asked


def choose_values(found: list[str], by: str, positive: str | None, negative: str | None) -> tuple[str, list[str]]:
    """The value that makes the positive group, and those of the negative one.

    Args:
        found: values that occur, sorted.
        by: what they are values of, for messages.
        positive, negative: what the user named.

    Raises:
        StatsError: a named value does not occur, or it is not clear which one is positive.
    """
    listed = ", ".join(found)
    wanted = {"--positive": positive, "--negative": negative}
    for option, given in wanted.items():
        if given is not None and label_text(given) not in found:
            raise StatsError(f"{option} {given}: no generation has this value of {by}. Found: {listed}.")
    high, low = (None if given is None else label_text(given) for given in (positive, negative))
    if high is not None and high == low:
        raise StatsError(f"--positive and --negative both name {high}. Found: {listed}.")
    if len(found) == 1:
        raise StatsError(f"All labelled generations have one value of {by} ({listed}); there is nothing to compare.")
    if high is None and low is not None and len(found) == 2:
        high = found[1 - found.index(low)]
    if high is None and len(found) == 2:
        plain = [first for first, second in _OPPOSITES if {first, second} == {value.lower() for value in found}]
        high = next((value for value in found if value.lower() in plain), None)
    if high is None:
        raise StatsError(
            f"Which value of {by} is the positive one? Found: {listed}. Say so, for example --positive {found[0]}."
        )
    return high, [low] if low is not None else [value for value in found if value != high]
