"""What the page says of a probe's quality, in words."""

from typing import Any

import pytest
import report_samples as samples

from moeprobe.report.limits import measured_on
from moeprobe.report.methods import _recording
from moeprobe.report.provenance import origin
from moeprobe.report.render import render
from moeprobe.report.view import _quality, _settings
from moeprobe.report.voice import voice_of


def asked(**changes: Any) -> dict[str, Any]:
    rate = {"value": 0.9, "ci": [0.8, 0.95]}
    rates = dict.fromkeys(("balanced_accuracy", "precision", "recall", "specificity", "f1", "auc"), rate)
    left = {
        "factor": {"value": 0.84, "ci": [0.71, 0.93]},
        "share": {"value": 0.4, "ci": [0.3, 0.5]},
        "basis": "40 <b>texts</b>",
    }
    return {
        "kind": "probe",
        "quality": {"on": "held-out examples", "examples": 40, **rates},
        "attenuation": left,
    } | changes


def test_says_what_would_show() -> None:
    said = _quality(asked()).replace("\xa0", " ")  # figures never part from their unit
    assert "On 40 labelled examples that it was not made on: precision 0.90 [0.80, 0.95]" in said
    assert "as measured, about 84 % [71, 93] of a true difference would show" in said
    assert "40 % [30, 50] of the generations truly belong on the positive side" in said
    assert "No p value is changed" in said
    assert "would show" not in _quality(asked(attenuation=None))
    assert _quality(asked(quality=None, attenuation=None)) == "Not measured."


def test_settings_stand_there_where_there_are_some() -> None:
    assert _settings(asked()) == []
    assert _settings(asked(parameters={})) == []
    said = _settings(asked(parameters={"window": 3, "word": "<b>"}))
    assert said == [("Its settings", "set to window = 3, word = <b>")]


@pytest.mark.parametrize(
    ("on", "said"),
    [
        ("its own examples", "1 labelled example of its own"),
        ("held-out examples", "1 labelled example that it was not made on"),
        (
            "held-out examples, read again",
            "1 labelled example written before its rule, which was changed after they were read",
        ),
        ("cross-validation", "1 labelled example (cross-validation)"),
    ],
)
def test_says_on_what(on: str, said: str) -> None:
    assert measured_on({"on": on, "examples": 1}).replace("\xa0", " ") == said


def checked_on(left_out: int) -> dict[str, Any]:
    source = {"labels": "<b>said.jsonl", "digest": f"sha256:{'12' * 32}", "left_out": left_out}
    return asked()["quality"] | {"on": "the labels given", **source}


def test_says_in_which_file_the_labels_were_given() -> None:
    said = _quality(asked(quality=checked_on(0))).replace("\xa0", " ")
    assert "On 40 texts labelled in <b>said.jsonl: precision" in said
    said = measured_on(checked_on(1)).replace("\xa0", " ")
    assert said == "40 texts labelled in <b>said.jsonl, without 1 text that it brings itself"
    assert measured_on(asked()["quality"] | {"on": "the labels given"}).endswith("(the labels given)")


def test_methods_and_provenance_name_the_file() -> None:
    findings = samples.toy()
    question = findings["questions"][0]
    question["quality"] = checked_on(2)
    made = " ".join(one.text for one in _recording(findings, question, voice_of(question))).replace("\xa0", " ")
    assert "which on 40 texts labelled in <b>said.jsonl, without 2 texts that it brings itself has" in made
    assert "SHA-256 of the file 121212121212..." in made
    lines = dict(origin(findings))
    assert lines[f"question: {question['name']}: checked on.labels"] == "<b>said.jsonl"
    assert lines[f"question: {question['name']}: checked on.digest"].startswith("sha256:1212")
    page = render([findings])
    assert "&lt;b&gt;said.jsonl" in page
    assert "<b>said" not in page
    question["quality"] = asked()["quality"]
    assert "SHA-256" not in " ".join(one.text for one in _recording(findings, question, voice_of(question)))
    assert not [key for key in dict(origin(findings)) if "checked on" in key]
