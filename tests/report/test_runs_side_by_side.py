"""Several runs side by side: what holds, what does not, and what agreement does not mean."""

from typing import Any

import report_designs as designs
import report_samples as samples
from report_hostile import Outline

from moeprobe.report import render
from moeprobe.report.comparison import HOLDS, MISSED, NEW, TURNED, UNTESTED, WORDS_ONLY, comparisons, fate

Json = dict[str, Any]


def _row(findings: Json, site: str) -> Json:
    return next(row for row in findings["rows"] if row["site"] == site)


def _two() -> tuple[Json, Json]:
    first, second = samples.toy(), samples.toy()
    second["trace"] |= {"digest": "sha256:" + "fe" * 32, "path": "runs/again.trace"}
    return first, second


def test_fates_follow_the_rows() -> None:
    found = _row(samples.toy(), "L2.E5")
    other = {**found}
    assert fate(found, other) == HOLDS
    assert fate(found, {**other, "t": -other["t"]}) == TURNED
    tokens = {**other, "association": "tokens only", "verdict": "tokens only"}
    assert fate(found, tokens) == WORDS_ONLY
    quiet = {**other, "association": "not associated", "verdict": "not associated"}
    assert fate(found, quiet) == MISSED
    none = {**other, "association": "untestable", "verdict": "untestable", "p": None}
    assert fate(found, none) == UNTESTED
    assert fate(found, None) == UNTESTED
    assert fate(quiet, found) == NEW
    assert fate(quiet, quiet) == ""


def test_findings_that_hold_are_counted() -> None:
    first, second = _two()
    _row(second, "L1.E1").update(association="not associated", verdict="neither")
    (one,) = comparisons([first, second])
    (said,) = one.summary
    said = said.replace("\u00a0", " ")
    total = sum(row["association"] == "associated" for row in first["rows"])
    assert said.startswith(f"Of {total} findings of A, {total - 1} hold")
    assert "not found again: 1" in said
    assert "Of 1 with a causal verdict in A, 1 was swapped in B, and 1 has a causal verdict there." in said
    line = next(line for line in one.lines if line.site == "L1.E1")
    assert [cell.fate for cell in line.cells] == ["", MISSED]
    assert "not found again" in " ".join(one.cautions).lower()


def test_agreement_of_one_trace_confirms_nothing() -> None:
    (one,) = comparisons([samples.toy(), samples.toy()])
    assert any("Agreement between them confirms nothing" in said for said in one.cautions)
    first, second = _two()
    (one,) = comparisons([first, second])
    assert not any("Agreement" in said for said in one.cautions)


def test_other_questions_and_other_models_are_not_compared() -> None:
    assert comparisons([samples.toy()]) == []
    assert comparisons([samples.toy(), samples.nothing()]) == []  # refusal, and hedging
    (one,) = comparisons([samples.toy(), samples.smollm()])
    assert one.lines == []
    assert "nothing is compared by site" in one.cautions[0]


def test_a_changed_probe_is_said() -> None:
    first, second = _two()
    second["questions"][0] |= {"version": "2.0"}
    second["model"]["id"] = "somebody/else"
    cautions = " ".join(comparisons([first, second])[0].cautions)
    assert "The version of the probe is not the same" in cautions
    assert "The models differ" in cautions


def test_other_settings_of_a_probe_are_said_and_shown() -> None:
    first, second = _two()
    first["questions"][0]["parameters"] = {"least": 3, "strict": True}
    second["questions"][0]["parameters"] = {"least": 3, "strict": True}
    assert "not set to the same" not in " ".join(comparisons([first, second])[0].cautions)
    page = Outline(render([first])).words
    assert "set to least = 3, strict = true" in page
    assert "refusal (version" in page
    assert ", set to least = 3, strict = true), which on" in page
    assert "question: refusal: set to least" in page  # the provenance
    second["questions"][0]["parameters"] = {"least": 4}
    said = next(one for one in comparisons([first, second])[0].cautions if "not set to the same" in one)
    assert "(least = 3, strict = true; least = 4)" in said
    del second["questions"][0]["parameters"]  # as good as empty
    said = next(one for one in comparisons([first, second])[0].cautions if "not set to the same" in one)
    assert "(least = 3, strict = true; none)" in said


def test_the_page_shows_the_runs_and_several_pages_do_not() -> None:
    page = Outline(render(list(_two())))
    assert "The runs side by side" in page.words
    assert "A: moeprobe/toy-planted, runs/refusal.trace" in page.words
    assert "refusal in moeprobe/toy-planted, run B" in page.words
    assert "The runs side by side" not in Outline(render([samples.toy()])).words
    assert "The runs side by side" not in Outline(render([samples.toy(), designs.pairs()])).words
