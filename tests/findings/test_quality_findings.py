"""What a findings file may say of a probe's quality, and what it may not."""

import copy
from typing import Any

import pytest

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.quality import check_quality
from moeprobe.probes import Example, Level, Passage, Reading, checked
from moeprobe.probes.attenuation import attenuation
from moeprobe.probes.quality import best_quality, quality_json


class Odd:
    name, version, definition = "odd", "1", "Odd numbers."
    level: Level = "generation"

    def examples(self) -> list[Example]:
        return [Example(str(number), number % 2) for number in range(40)] + [Example("7", 0)]

    def read(self, passage: Passage) -> Reading:
        return Reading(float(int(passage.text) % 2))


def question() -> dict[str, Any]:
    measured = best_quality(checked(Odd()))
    assert measured is not None
    left = attenuation(measured, [True, False] * 20)
    assert left is not None
    return {
        "kind": "probe",
        "quality": quality_json(measured),
        "attenuation": left.to_json(),
        "design": {"kind": "two groups"},
    }


def check(body: dict[str, Any]) -> None:
    check_quality(Fields(copy.deepcopy(body), "question", FindingsError))


def test_what_is_measured_is_accepted() -> None:
    check(question())
    check(question() | {"attenuation": None})
    check(question() | {"quality": None, "attenuation": None})
    check(question() | {"kind": "label", "quality": None, "attenuation": None})
    empty = {"value": None, "ci": None}
    silent = dict.fromkeys(("balanced_accuracy", "precision", "recall", "specificity", "f1", "auc"), empty)
    check(question() | {"quality": {"on": "its own examples", "examples": 2, **silent}, "attenuation": None})


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("quality", "on"), "the moon", "'on' is 'the moon'"),
        (("quality", "examples"), -1, "examples"),
        (("quality", "balanced_accuracy", "value"), 0.99, "not the mean of recall and specificity"),
        (("quality", "recall", "value"), 0.5, "does not lie in its interval"),
        (("quality", "auc", "ci"), [0.9, 0.1], r"\[low, high\]"),
        (("quality", "f1"), {"value": None, "ci": [0.0, 1.0]}, "value"),
        (("quality", "auc", "value"), 1.5, "no probability"),
        (("attenuation", "factor", "value"), 1.2, "no probability"),
        (("attenuation", "share", "ci"), [0.6, 0.7], "does not lie in its interval"),
        (("attenuation", "basis"), 3, "basis"),
        (("design", "kind"), "pairs", "two groups"),
        (("quality",), None, "needs the measured quality"),
        (("kind",), "label", "labels were given"),
    ],
)
def test_what_does_not_hold_together_is_refused(path: tuple[str, ...], value: object, said: str) -> None:
    body = question()
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(FindingsError, match=said):
        check(body)


SOURCE = {"labels": "said.jsonl", "digest": "sha256:" + "0" * 64, "left_out": 2}


def test_the_file_of_labels_stands_with_labels_given() -> None:
    body = question()
    body["quality"] |= {"on": "the labels given"}
    check(body)  # findings made before the file was recorded
    body["quality"] |= SOURCE
    check(body)
    for key in SOURCE:
        lacking = copy.deepcopy(body)
        del lacking["quality"][key]
        with pytest.raises(FindingsError, match="stand together"):
            check(lacking)
    for key, value, said in (
        ("labels", 3, "labels"), ("digest", "sha256:12", "64 hexadecimal digits"), ("left_out", -1, "left_out"),
        ("on", "its own examples", "stand together"),
    ):  # fmt: skip
        wrong = copy.deepcopy(body)
        wrong["quality"][key] = value
        with pytest.raises(FindingsError, match=said):
            check(wrong)


@pytest.mark.parametrize("key", ["quality", "attenuation"])
def test_nothing_is_left_out(key: str) -> None:
    body = question()
    del body[key]
    with pytest.raises(FindingsError, match=f"'{key}' is missing"):
        check(body)
