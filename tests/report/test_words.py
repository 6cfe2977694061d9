"""Sentences: what each verdict may say, and what it may not."""

import re
from typing import Any

import pytest
import report_samples as samples

from moeprobe.errors import FindingsError
from moeprobe.report import verdicts, words
from moeprobe.report.voice import voice_of

VOICE = voice_of(samples.toy()["questions"][0])
CAUSAL = re.compile(r"\bcauses?\b|\bneeded for\b|\benough to bring\b|because|leads? to|\bdrives?\b")


def _row(findings: dict[str, Any], site: str) -> dict[str, Any]:
    return next(row for row in findings["rows"] if row["site"] == site)


def _said(findings: dict[str, Any], site: str) -> str:
    run = findings["interchange"][-1] if findings["interchange"] else None
    return words.summary(_row(findings, site), VOICE, run).replace("\u00a0", " ")


def test_necessary_and_sufficient_names_cause_numbers_and_null() -> None:
    findings = samples.toy()
    row = _row(findings, "L2.E5")
    row["interchange"]["necessity"] |= {"percent": 97.0, "ci": [90.0, 104.0]}
    row["interchange"]["sufficiency"] |= {"percent": 95.0, "ci": [88.0, 101.0]}
    assert _said(findings, "L2.E5") == (
        "Expert 5 of layer 2 (L2.E5) goes with refusal, and causes it here: replacing its contribution in a "
        "\u201charmful\u201d run by that of a \u201charmless\u201d run removes 97 % [90, 104] of the effect "
        "(necessity), and putting it into a \u201charmless\u201d run brings 95 % [88, 101] of the effect about "
        "(sufficiency). "
        "None of the 7 other experts that it was compared with changed anything at all."
    )


def test_sides_that_the_probe_made_are_called_by_what_it_looks_for() -> None:
    findings = samples.toy()
    run, question = findings["interchange"][-1], findings["questions"][0]
    assert "\u201charmful\u201d run" in _said(findings, "L2.E5"), "sides of other prompts keep their own names"
    run.update(positive=question["positive"], negative=question["negative"])
    said = _said(findings, "L2.E5")
    assert "in a run with refusal by that of one without removes" in said
    assert "putting it into a run without brings" in said
    assert "score >=" not in said


def test_inert_expert_is_association_only() -> None:
    said = _said(samples.toy(), "L1.E1")
    assert said.endswith("but swapping it or knocking it out changed nothing (exactly 0): association only.")
    assert not CAUSAL.search(said)


def test_small_effect_is_not_called_zero() -> None:
    said = _said(samples.smollm(), "L18.E11")
    assert "exactly 0" not in said
    assert "(minus a placebo donor: " in said
    assert "Reliably more than 10 %, by both counts, and more than experts like it do, was asked for" in said
    assert said.endswith("association only.")
    assert "goes against refusal" in said


@pytest.mark.parametrize("verdict", [one.name for one in verdicts.VERDICTS if one.name not in verdicts.CAUSAL])
def test_no_causal_word_without_a_causal_verdict(verdict: str) -> None:
    findings = samples.toy()
    _row(findings, "L2.E5")["verdict"] = verdict
    assert not CAUSAL.search(_said(findings, "L2.E5"))


def test_untested_says_so() -> None:
    findings = samples.untested()
    said = _said(findings, "L2.E5")
    assert said == "Expert 5 of layer 2 (L2.E5) goes with refusal. What it does has not been tested."
    assert not CAUSAL.search(words.in_short(findings["rows"], VOICE))


@pytest.mark.parametrize(
    ("verdict", "phrase", "never"),
    [("necessary", "is needed for it here", "causes"), ("sufficient", "is enough to bring it about here", "causes")],
)
def test_one_sided_verdicts_claim_one_side(verdict: str, phrase: str, never: str) -> None:
    findings = samples.toy()
    _row(findings, "L2.E5")["verdict"] = verdict
    said = _said(findings, "L2.E5")
    assert phrase in said
    assert never not in said
    assert never not in words.in_short(findings["rows"], VOICE)


def test_an_unknown_verdict_is_refused() -> None:
    with pytest.raises(FindingsError, match="proven beyond doubt"):
        verdicts.badge("proven beyond doubt", None)


def test_doubts_follow_what_was_run() -> None:
    findings = samples.toy()
    question, run = findings["questions"][0], findings["interchange"][0]
    tested = " ".join(words.doubts(_row(findings, "L2.E5"), question, VOICE, run))
    assert "The metric is not the behaviour" in tested
    assert "1 in 8" in tested
    untested = " ".join(words.doubts(_row(samples.untested(), "L2.E5"), question, VOICE, None))
    assert "Run moeprobe interchange" in untested
    assert "metric" not in untested


def test_nothing_found_is_no_proof_of_absence() -> None:
    findings = samples.nothing()
    said = words.nothing(findings["questions"][0], voice_of(findings["questions"][0])).replace("\u00a0", " ")
    assert said.startswith("Nothing was found. Of 31 experts tested")
    assert "does not show that there is none" in said
    findings["questions"][0]["design"]["tested"] = 0
    assert words.nothing(findings["questions"][0], voice_of(findings["questions"][0])).startswith(
        "Nothing could be tested"
    )


def test_without_association_and_without_null_the_sentence_says_so() -> None:
    findings = samples.toy()
    row = _row(findings, "L2.E5")
    row["association"] = "not associated"
    row["interchange"]["null"] = {"sites": [], "necessity": [], "sufficiency": [], "asked": True}
    said = _said(findings, "L2.E5")
    assert "is not chosen measurably more or less often with refusal, but causes it here" in said
    assert said.endswith("There was no expert like it to compare it with.")


def test_an_expert_does_not_cause_a_label() -> None:
    findings = samples.toy()
    run, row = findings["interchange"][0], _row(findings, "L2.E5")
    about = voice_of(samples.several()["questions"][1])
    assert "and causes the measured difference here: replacing" in words.summary(row, about, run)
    short = words.in_short(findings["rows"], about)
    assert short.startswith("L2.E5 causes the measured difference that goes with the label \u201charmful\u201d")


def test_a_small_effect_is_called_a_part() -> None:
    findings = samples.toy()
    row = _row(findings, "L2.E5")
    for name in ("necessity", "sufficiency"):
        row["interchange"][name] |= {"percent": 13.8, "ci": [11.0, 17.4]}
    assert "causes part of it here: replacing" in _said(findings, "L2.E5")
    assert "14 %" in _said(findings, "L2.E5")
    assert words.in_short([row], VOICE).replace("\u00a0", " ") == (
        "L2.E5 causes part of refusal in the prompts tested (14 % [11, 17] and 14 % [11, 17] of the gap)."
    )
    row["verdict"] = "necessary"
    assert "is needed for part of it here" in _said(findings, "L2.E5")
    row["interchange"]["necessity"]["ci"] = [60.0, 70.0]
    assert "is needed for it here" in _said(findings, "L2.E5")


def test_nothing_tested_is_not_nothing_found() -> None:
    findings = samples.nothing()
    assert words.in_short(findings["rows"], VOICE) == "No expert was found that goes with refusal."
    for row in findings["rows"]:
        row |= {"t": None, "p": None, "q": None, "association": "untestable", "verdict": "untestable"}
    said = words.in_short(findings["rows"], VOICE)
    assert said == "Nothing could be tested for refusal, so this says neither yes nor no."
    findings["rows"][0] |= {"association": "tokens only", "verdict": "tokens only"}
    said = words.in_short(findings["rows"], VOICE)
    assert said.startswith("Nothing could be tested for refusal")
    assert "1\u00a0expert differs with refusal" in said
