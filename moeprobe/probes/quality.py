"""How good a probe is on labelled text: rates with 95 % intervals, and the passages it got wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from moeprobe.errors import ProbeError
from moeprobe.probes.auc import area
from moeprobe.probes.clusters import cluster_numbers
from moeprobe.probes.contract import CheckedProbe, checked
from moeprobe.probes.probe import THRESHOLD, Example, Passage, Probe, Reading
from moeprobe.probes.rates import Rate, balanced, f1_of, share

On = Literal[
    "its own examples", "held-out examples", "held-out examples, read again", "cross-validation", "the labels given"
]
"""On which text a figure was measured."""

RATES = ("balanced_accuracy", "precision", "recall", "specificity", "f1", "auc")


@dataclass(frozen=True)
class Trial:
    """Text to measure a probe on, and what then stands for it: in cross-validation, its folds do."""

    on: On
    judge: CheckedProbe
    examples: Sequence[Example]


@dataclass(frozen=True)
class Mistake:
    """A labelled example that the probe got wrong."""

    example: Example
    reading: Reading


@dataclass(frozen=True)
class Quality:
    """How a probe did on labelled examples.

    Attributes:
        on: which text this was.
        examples: how many were given; all rates are over those that the probe answered.
        prompts: how many different prompts they answer (`Example.cluster`); a text without one stands alone. Where this
            is less than `examples`, the intervals are wider for it (`clusters.shrinkage`).
        true_positives, false_positives, true_negatives, false_negatives: counts of answered examples.
        precision, recall, specificity: Wilson (1927) intervals.
        balanced_accuracy: mean of recall and specificity; interval from their Wilson limits by MOVER (Zou & Donner
            2008).
        negative_predictive_value: the share of right answers among its negatives; a Wilson interval.
        f1: interval from Wilson limits of TP / (TP + FP + FN), of which F1 is an increasing function.
        auc: of the scores (`auc.area`).
        mistakes: the wrong ones, in the order given.
        abstentions: the examples on which the probe gave no score.
    """

    on: str
    examples: int
    prompts: int
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    balanced_accuracy: Rate
    precision: Rate
    recall: Rate
    specificity: Rate
    f1: Rate
    auc: Rate
    negative_predictive_value: Rate
    mistakes: tuple[Mistake, ...]
    abstentions: tuple[Example, ...]


def check_probe_quality(
    probe: Probe, examples: Sequence[Example] | None = None, on: On = "its own examples"
) -> Quality:
    """Let `probe` read labelled examples and count how it did.

    Args:
        probe: any probe; it is checked while it reads.
        examples: labelled passages; None: the probe's own.
        on: what these examples are, in words.

    Raises:
        ProbeError: no example of one of the two classes (nothing could be said then), or the probe breaks its contract.
    """
    judge = checked(probe)
    given = tuple(judge.examples() if examples is None else examples)
    _check_kinds(judge.name, given)
    return measure(judge.name, given, [judge.read(Passage(one.text, one.prompt)) for one in given], on)


def check_outputs(probe: Probe, examples: Sequence[Example], on: On = "its own examples") -> dict[str, Quality]:
    """The same for each further output of a probe, over the examples whose `outputs` say what is right.

    Returns:
        Name of the output -> its quality. An output with right answers of one kind only, or none, is left out.

    Raises:
        ProbeError: the probe breaks its contract.
    """
    judge = checked(probe)
    used = [one for one in examples if one.outputs]
    readings = [judge.read(Passage(one.text, one.prompt)) for one in used]
    found = {}
    for name in judge.outputs:
        told = [(one, reading) for one, reading in zip(used, readings, strict=True) if name in one.outputs]
        right = [replace(one, label=one.outputs[name], outputs={}) for one, _ in told]
        if 0 < sum(one.label for one in right) < len(right):
            scores = [Reading(reading.outputs[name]) for _, reading in told]
            found[name] = measure(f"{judge.name}.{name}", right, scores, on)
    return found


def measure(name: str, examples: Sequence[Example], readings: Sequence[Reading], on: str) -> Quality:
    """Count readings that were made already, for example by the folds of a cross-validation.

    Args:
        name: of the probe, for messages.
        examples, readings: (examples,) in the same order.
        on: which text this is.

    Raises:
        ProbeError: no example of one of the two classes.
    """
    _check_kinds(name, examples)
    numbers = cluster_numbers([one.cluster for one in examples])
    answered = [
        (example, reading, reading.score, number)
        for example, reading, number in zip(examples, readings, numbers, strict=True)
        if reading.score is not None
    ]
    labels = [example.label for example, *_ in answered]
    scores = [score for _, _, score, _ in answered]
    right = [(score >= THRESHOLD) == bool(label) for score, label in zip(scores, labels, strict=True)]
    cells = Counter((score >= THRESHOLD, label) for score, label in zip(scores, labels, strict=True))
    rates = _rates(scores, labels, right, [number for *_, number in answered])
    return Quality(
        on=on,
        examples=len(examples),
        prompts=len(set(numbers)),
        true_positives=cells[True, 1],
        false_positives=cells[True, 0],
        true_negatives=cells[False, 0],
        false_negatives=cells[False, 1],
        balanced_accuracy=rates["balanced_accuracy"],
        precision=rates["precision"],
        recall=rates["recall"],
        specificity=rates["specificity"],
        f1=rates["f1"],
        auc=rates["auc"],
        negative_predictive_value=rates["negative_predictive_value"],
        mistakes=tuple(
            Mistake(example, reading) for (example, reading, *_), good in zip(answered, right, strict=True) if not good
        ),
        abstentions=tuple(one for one, reading in zip(examples, readings, strict=True) if reading.score is None),
    )


def _rates(
    scores: Sequence[float], labels: Sequence[int], right: Sequence[bool], prompts: Sequence[int]
) -> dict[str, Rate]:
    """All arguments are (answered texts,); `prompts` numbers their prompts."""

    def over(chosen: Sequence[bool]) -> Rate:
        """The share of right answers among the chosen ones."""
        kept = [index for index, one in enumerate(chosen) if one]
        return share([right[index] for index in kept], [prompts[index] for index in kept])

    called = [score >= THRESHOLD for score in scores]
    recall, specificity = over([label == 1 for label in labels]), over([label == 0 for label in labels])
    return {
        "balanced_accuracy": balanced(recall, specificity, right, labels, prompts),
        "precision": over(called),
        "negative_predictive_value": over([not call for call in called]),
        "recall": recall,
        "specificity": specificity,
        "f1": f1_of(over([call or label == 1 for call, label in zip(called, labels, strict=True)])),
        "auc": area(scores, labels, prompts),
    }


def trials_of(judge: CheckedProbe) -> list[Trial]:
    """What a probe brings to be measured on, the most trustworthy last.

    A trained probe knows its own examples by heart. Where it has a method `cross_validated`, that gives a probe which
    answers each of them as the model did that had not seen it, and this is measured instead.
    """
    folds = getattr(judge.inner, "cross_validated", None)
    if callable(folds):
        unseen = checked(folds())
        found = [Trial("cross-validation", unseen, unseen.examples())]
    else:
        found = [Trial("its own examples", judge, judge.examples())]
    again = judge.held_out_read == "again"
    found.append(Trial("held-out examples, read again" if again else "held-out examples", judge, judge.held_out()))
    return [trial for trial in found if trial.examples]


def best_quality(probe: Probe) -> Quality | None:
    """A probe's record on text that its rule was not made on where it has some, else on its own examples.

    None for a probe without examples, such as one composed of others: its quality is not measured.

    Raises:
        ProbeError: as `check_probe_quality`.
    """
    judge = checked(probe)
    trials = trials_of(judge)
    return check_probe_quality(trials[-1].judge, trials[-1].examples, trials[-1].on) if trials else None


def probe_quality(probe: Probe) -> dict[str, object] | None:
    """`best_quality` as `questions[].quality` of findings.json wants it (docs/findings.md).

    Raises:
        ProbeError: as `check_probe_quality`.
    """
    found = best_quality(probe)
    return None if found is None else quality_json(found)


def quality_json(quality: Quality) -> dict[str, object]:
    """The figures without the texts: `{on, examples, ...}`, each rate `{value, ci}`."""
    rates: Mapping[str, Rate] = {name: getattr(quality, name) for name in RATES}
    return {"on": quality.on, "examples": quality.examples} | {
        name: {"value": rate.value, "ci": None if rate.low is None else [rate.low, rate.high]}
        for name, rate in rates.items()
    }


def _check_kinds(name: str, examples: Sequence[Example]) -> None:
    positives = sum(one.label for one in examples)
    if not 0 < positives < len(examples):
        raise ProbeError(
            f"Probe {name}: {positives} positive and {len(examples) - positives} negative examples. "
            "To say how good it is, there must be some of both kinds."
        )
