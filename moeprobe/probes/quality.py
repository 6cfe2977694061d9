"""How good a probe is on labelled text: rates with 95 % intervals, and the passages it got wrong.

All intervals are closed formulas, so a perfect record still gets an honest lower end (a bootstrap would say [1, 1]).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from moeprobe.errors import ProbeError
from moeprobe.probes.contract import checked
from moeprobe.probes.probe import Example, Passage, Probe, Reading

THRESHOLD = 0.5
"""A passage is called positive from this score on."""

_Z = 1.959963984540054  # the 0.975 quantile of the standard normal distribution


@dataclass(frozen=True)
class Rate:
    """A figure in [0, 1] with its 95 % interval; all three None where nothing could be counted."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Mistake:
    """A labelled example that the probe got wrong."""

    example: Example
    reading: Reading


@dataclass(frozen=True)
class Quality:
    """How a probe did on labelled examples.

    Attributes:
        examples: how many were given; all rates are over those that the probe answered.
        true_positives, false_positives, true_negatives, false_negatives: counts of answered examples.
        precision, recall, specificity: Wilson (1927) intervals.
        balanced_accuracy: mean of recall and specificity; interval from their Wilson limits by MOVER (Zou & Donner
            2008).
        f1: interval from Wilson limits of TP / (TP + FP + FN), of which F1 is an increasing function.
        mistakes: the wrong ones, in the order given.
        abstentions: the examples on which the probe gave no score.
    """

    examples: int
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    precision: Rate
    recall: Rate
    specificity: Rate
    balanced_accuracy: Rate
    f1: Rate
    mistakes: tuple[Mistake, ...]
    abstentions: tuple[Example, ...]


def check_probe_quality(probe: Probe, examples: Sequence[Example] | None = None) -> Quality:
    """Let `probe` read labelled examples and count how it did.

    Args:
        probe: any probe; it is checked while it reads.
        examples: labelled passages; None: the probe's own.

    Raises:
        ProbeError: no example of one of the two classes (nothing could be said then), or the probe breaks its contract.
    """
    judge = checked(probe)
    given = tuple(judge.examples() if examples is None else examples)
    positives = sum(example.label for example in given)
    if not 0 < positives < len(given):
        raise ProbeError(
            f"Probe {judge.name}: {positives} positive and {len(given) - positives} negative examples. "
            "To say how good it is, there must be some of both kinds."
        )
    readings = [(example, judge.read(Passage(example.text, example.prompt))) for example in given]
    counts = {(label, called): 0 for label in (0, 1) for called in (False, True)}
    mistakes = []
    for example, reading in readings:
        if reading.score is None:
            continue
        called = reading.score >= THRESHOLD
        counts[example.label, called] += 1
        if called != bool(example.label):
            mistakes.append(Mistake(example, reading))
    hits, misses = counts[1, True], counts[1, False]
    alarms, passes = counts[0, True], counts[0, False]
    recall, specificity = wilson(hits, hits + misses), wilson(passes, passes + alarms)
    return Quality(
        examples=len(given),
        true_positives=hits,
        false_positives=alarms,
        true_negatives=passes,
        false_negatives=misses,
        precision=wilson(hits, hits + alarms),
        recall=recall,
        specificity=specificity,
        balanced_accuracy=_mean(recall, specificity),
        f1=_f1(wilson(hits, hits + alarms + misses)),
        mistakes=tuple(mistakes),
        abstentions=tuple(example for example, reading in readings if reading.score is None),
    )


def probe_quality(probe: Probe) -> dict[str, object] | None:
    """A probe's record on its own examples, as `questions[].quality` of findings.json wants it (docs/findings.md).

    None for a probe without examples, such as one composed of others: its quality is not measured.

    Raises:
        ProbeError: as `check_probe_quality`.
    """
    if not checked(probe).examples():
        return None
    quality = check_probe_quality(probe)
    rates = {"precision": quality.precision, "recall": quality.recall, "balanced_accuracy": quality.balanced_accuracy}
    return {"examples": quality.examples} | {
        name: {"value": rate.value, "ci": [rate.low, rate.high]} for name, rate in rates.items()
    }


def wilson(hits: int, trials: int) -> Rate:
    """A share with its 95 % score interval (Wilson 1927, no continuity correction)."""
    if trials == 0:
        return Rate(None, None, None)
    share = hits / trials
    scale = 1 + _Z**2 / trials
    centre = (share + _Z**2 / (2 * trials)) / scale
    half = _Z * math.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2)) / scale
    return Rate(
        share, 0.0 if hits == 0 else max(0.0, centre - half), 1.0 if hits == trials else min(1.0, centre + half)
    )


def _mean(first: Rate, second: Rate) -> Rate:
    """The mean of two independent shares. MOVER: the distances to the limits add as squares."""
    if first.value is None or first.low is None or first.high is None:
        return Rate(None, None, None)
    if second.value is None or second.low is None or second.high is None:
        return Rate(None, None, None)
    value = (first.value + second.value) / 2
    below = math.hypot(first.value - first.low, second.value - second.low) / 2
    above = math.hypot(first.high - first.value, second.high - second.value) / 2
    return Rate(value, value - below, value + above)


def _f1(overlap: Rate) -> Rate:
    """F1 = 2J / (1 + J) with J = TP / (TP + FP + FN), a binomial share given how many are not true negatives."""
    values = [
        None if share is None else 2 * share / (1 + share) for share in (overlap.value, overlap.low, overlap.high)
    ]
    return Rate(*values)
