"""Rates and intervals against hand counts, statsmodels and simulation."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score
from statsmodels.stats.proportion import proportion_confint

from moeprobe.errors import ProbeError
from moeprobe.probes import (
    Example,
    Level,
    Passage,
    Rate,
    Reading,
    check_probe_quality,
    checked,
    load_probe,
    probe_quality,
)
from moeprobe.probes.quality import RATES, check_outputs, trials_of
from moeprobe.probes.rates import wilson


class Parrot:
    """Reads its score from the text; "-" abstains."""

    name = "parrot"
    version = "1"
    level: Level = "generation"
    definition = "Says the number that stands in the text."

    def examples(self) -> list[Example]:
        return made(hits=8, misses=2, alarms=1, passes=9)

    def read(self, passage: Passage) -> Reading:
        return Reading(None if passage.text == "-" else float(passage.text))


def made(hits: int, misses: int, alarms: int, passes: int) -> list[Example]:
    yes, no = "0.5", "0.499999"
    return [Example(yes, 1)] * hits + [Example(no, 1)] * misses + [Example(yes, 0)] * alarms + [Example(no, 0)] * passes


def test_counts_like_scikit_learn() -> None:
    quality = check_probe_quality(Parrot())
    truth = [1] * 10 + [0] * 10
    called = [1] * 8 + [0] * 2 + [1] + [0] * 9
    assert (quality.true_positives, quality.false_negatives, quality.false_positives, quality.true_negatives) == (
        8,
        2,
        1,
        9,
    )
    assert quality.precision.value == pytest.approx(precision_score(truth, called), abs=1e-15)
    assert quality.recall.value == pytest.approx(recall_score(truth, called), abs=1e-15)
    assert quality.f1.value == pytest.approx(f1_score(truth, called), abs=1e-15)
    assert quality.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(truth, called), abs=1e-15)
    assert [(mistake.example.text, mistake.example.label) for mistake in quality.mistakes] == [
        ("0.499999", 1),
        ("0.499999", 1),
        ("0.5", 0),
    ]


@pytest.mark.parametrize(("hits", "trials"), [(0, 5), (5, 5), (8, 10), (1, 1), (37, 40), (999, 1000)])
def test_wilson_is_that_of_statsmodels(hits: int, trials: int) -> None:
    low, high = proportion_confint(hits, trials, method="wilson")
    rate = wilson(hits, trials)
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=1e-12)


def test_balanced_accuracy_interval_by_hand() -> None:
    # Wilson limits by statsmodels: [.490162, .943318] for 8 of 10, [.595850, .982124] for 9 of 10. The squares of
    # the distances from .8 and .9 add up, and the mean halves their root.
    quality = check_probe_quality(Parrot())
    assert quality.balanced_accuracy.low == pytest.approx(0.85 - math.hypot(0.309838, 0.304150) / 2, abs=1e-5)
    assert quality.balanced_accuracy.high == pytest.approx(0.85 + math.hypot(0.143318, 0.082124) / 2, abs=1e-5)


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(5)
    draws = 1500  # standard error of a coverage of .95: .006
    recall, specificity, share = 0.9, 0.8, 0.4
    precision = share * recall / (share * recall + (1 - share) * (1 - specificity))
    truth = {
        "balanced_accuracy": (recall + specificity) / 2,
        "f1": 2 * precision * recall / (precision + recall),
        "precision": precision,
    }
    covered = dict.fromkeys(truth, 0)
    for _ in range(draws):
        hits, misses, alarms, passes = rng.multinomial(
            100, [share * recall, share * (1 - recall), (1 - share) * (1 - specificity), (1 - share) * specificity]
        )
        quality = check_probe_quality(Parrot(), made(hits, misses, alarms, passes))
        for name, value in truth.items():
            rate: Rate = getattr(quality, name)
            covered[name] += rate.low is not None and rate.high is not None and rate.low <= value <= rate.high
    assert all(0.93 <= count / draws <= 0.97 for count in covered.values()), covered


def test_a_perfect_record_is_not_certain() -> None:
    quality = check_probe_quality(Parrot(), made(10, 0, 0, 10))
    assert quality.balanced_accuracy.value == 1.0
    assert quality.balanced_accuracy.high == 1.0
    assert quality.balanced_accuracy.low == pytest.approx(0.8036, abs=1e-3)


def test_abstentions_are_named_not_counted() -> None:
    silent = Example("-", 1)
    quality = check_probe_quality(Parrot(), [*made(3, 0, 0, 3), silent])
    assert quality.abstentions == (silent,)
    assert quality.examples == 7
    assert quality.recall.value == 1.0
    nothing = check_probe_quality(Parrot(), [Example("-", 1), Example("-", 0)])
    assert nothing.recall == nothing.balanced_accuracy == nothing.f1 == Rate(None, None, None)


@pytest.mark.parametrize("examples", [[], made(3, 0, 0, 0), made(0, 0, 2, 2)])
def test_needs_both_kinds(examples: list[Example]) -> None:
    with pytest.raises(ProbeError, match=r"parrot: \d positive and \d negative"):
        check_probe_quality(Parrot(), examples)


def test_quality_for_findings_has_the_documented_form() -> None:
    quality = json.loads(json.dumps(probe_quality(Parrot()), allow_nan=False))
    assert set(quality) == {"on", "examples", *RATES}
    assert quality["on"] == "its own examples"
    assert quality["examples"] == 20
    assert quality["recall"]["value"] == 0.8
    assert quality["recall"]["ci"] == pytest.approx([0.490162, 0.943318], abs=1e-5)


class Held(Parrot):
    """Perfect on its own examples, and not on those held out."""

    outputs = ("mild", "strong", "never-told")

    def examples(self) -> list[Example]:
        return made(5, 0, 0, 5)

    def held_out(self) -> list[Example]:
        return [Example("0.9", 1, outputs={"mild": 1, "strong": 0}), Example("0.9", 0, outputs={"mild": 0})]

    def read(self, passage: Passage) -> Reading:
        score = float(passage.text)
        return Reading(score, outputs={"mild": score, "strong": 1 - score, "never-told": None})


def test_held_out_examples_come_before_its_own() -> None:
    quality = probe_quality(Held())
    assert quality is not None
    assert (quality["on"], quality["examples"]) == ("held-out examples", 2)
    assert [trial.on for trial in trials_of(checked(Held()))] == ["its own examples", "held-out examples"]


def test_held_out_examples_that_were_read_again_are_called_so() -> None:
    class Again(Held):
        held_out_read = "again"

    quality = probe_quality(Again())
    assert quality is not None
    assert quality["on"] == "held-out examples, read again"
    assert trials_of(checked(Again()).output("mild"))[-1].on == "held-out examples, read again"
    assert trials_of(load_probe("technical"))[-1].on == "held-out examples, read again"
    assert trials_of(load_probe("narrative"))[-1].on == "held-out examples"

    class Twice(Held):
        held_out_read = "twice"

    with pytest.raises(ProbeError, match="held_out_read is 'twice'"):
        checked(Twice())


def test_outputs_are_measured_where_both_answers_are_told() -> None:
    found = check_outputs(Held(), Held().held_out(), "held-out examples")
    assert list(found) == ["mild"]
    assert (found["mild"].true_positives, found["mild"].false_positives) == (1, 1)
    assert found["mild"].on == "held-out examples"


def test_a_trained_probe_is_measured_by_its_folds() -> None:
    class Folds(Parrot):
        def read(self, passage: Passage) -> Reading:
            return Reading(1 - float(passage.text))

    class Trained(Parrot):
        def cross_validated(self) -> Folds:
            return Folds()

    quality = probe_quality(Trained())
    assert quality is not None
    assert quality["on"] == "cross-validation"
    assert check_probe_quality(Folds()).recall.value == quality["recall"]["value"]  # type: ignore[index]  # JSON
    assert check_probe_quality(Trained()).recall.value != quality["recall"]["value"]  # type: ignore[index]  # JSON


def test_nothing_is_measured_without_examples() -> None:
    class Mute(Parrot):
        def examples(self) -> list[Example]:
            return []

    assert probe_quality(Mute()) is None
