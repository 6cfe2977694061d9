"""What the findings file says of a probe's quality: checks when it is read."""

import re

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.checks import check_choice, check_ends, check_unit

GIVEN = "the labels given"
ON = ("its own examples", "held-out examples", "held-out examples, read again", "cross-validation", GIVEN)
RATES = ("balanced_accuracy", "precision", "recall", "specificity", "f1", "auc")
_SOURCE = ("labels", "digest", "left_out")
_ROUNDING = 1e-9


def check_quality(question: Fields) -> None:
    """`quality` and `attenuation` of a question, each of which may be null.

    Raises:
        FindingsError: one is missing or malformed, a rate lies outside its interval or [0, 1], the balanced accuracy is
            not the mean of recall and specificity, or a label's question has either.
    """
    found = {}
    for key in ("quality", "attenuation"):
        if key not in question.data:
            raise FindingsError(f"{question.where}: the field {key!r} is missing.")
        if question.data[key] is not None:
            found[key] = Fields(question.section(key), f"{question.where}, {key}", FindingsError)
    if found and question.data["kind"] == "label":
        raise FindingsError(f"{question.where}: labels were given, so there is no {' and no '.join(found)} of a probe.")
    if "quality" in found:
        _check_rates(found["quality"])
    if "attenuation" not in found:
        return
    found["attenuation"].text("basis")
    for key in ("factor", "share"):
        _check_rate(found["attenuation"], key)
    if "quality" not in found or question.section("design").get("kind") != "two groups":
        raise FindingsError(f"{question.where}: 'attenuation' needs the measured quality of a probe and two groups.")


def _check_rates(quality: Fields) -> None:
    check_choice(quality, "on", ON)
    quality.integer("examples")
    _check_source(quality)
    values = {key: _check_rate(quality, key, empty=True) for key in RATES}
    balanced, recall, specificity = (values[key] for key in ("balanced_accuracy", "recall", "specificity"))
    if recall is None or specificity is None:
        agrees = balanced is None
    else:
        agrees = balanced is not None and abs(balanced - (recall + specificity) / 2) <= _ROUNDING
    if not agrees:
        raise FindingsError(f"{quality.where}: balanced_accuracy is not the mean of recall and specificity.")


def _check_source(quality: Fields) -> None:
    """Which file the labels were given in; findings made before this was recorded do not say."""
    there = [key for key in _SOURCE if key in quality.data]
    if not there:
        return
    if len(there) < len(_SOURCE) or quality.data["on"] != GIVEN:
        raise FindingsError(
            f"{quality.where}: 'labels', 'digest' and 'left_out' stand together, where 'on' is {GIVEN!r}."
        )
    quality.text("labels")
    quality.integer("left_out")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", quality.text("digest")):
        raise FindingsError(f"{quality.where}: 'digest' must be \"sha256:\" and 64 hexadecimal digits.")


def _check_rate(fields: Fields, key: str, *, empty: bool = False) -> float | None:
    """`{value, ci}` with 0 <= low <= value <= high <= 1; with `empty` both may be null."""
    rate = Fields(fields.section(key), f"{fields.where}, {key}", FindingsError)
    if empty and rate.data.get("value", 0) is None and rate.data.get("ci", 0) is None:
        return None
    check_unit(rate, "value")
    check_ends(rate, "ci")
    low, high = rate.data["ci"]
    value = rate.number("value")
    if not -_ROUNDING <= low <= value + _ROUNDING <= high + 2 * _ROUNDING <= 1 + 3 * _ROUNDING:
        raise FindingsError(f"{rate.where}: the value {value} does not lie in its interval [{low}, {high}].")
    return value
