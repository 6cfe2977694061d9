"""Each design is spoken of in its own words, and what stands beside the decision is shown as just that."""

import json
import re
from typing import Any

import pytest
import report_designs as designs
import report_samples as samples
from report_hostile import Outline

from moeprobe.errors import FindingsError
from moeprobe.report import render, table, words
from moeprobe.report.details import details
from moeprobe.report.layers import beside
from moeprobe.report.limits import limits
from moeprobe.report.maps import map_words, note
from moeprobe.report.voice import voice_of

Json = dict[str, Any]
# Words that are right for two groups of generations only.
GROUPS_ONLY = re.compile(r"\bwithout (?:the label|hedging|first-person)\b|\bWelch\b|the two groups|More often with")


def _page(findings: Json) -> str:
    return Outline(render([findings])).words.replace("\u00a0", " ")


def _limits(findings: Json, number: int = 0) -> dict[str, str]:
    question = findings["questions"][number]
    rows = [row for row in findings["rows"] if row["probe"] == question["name"]]
    return {one.heading: one.reason.replace("\u00a0", " ") for one in limits(findings, question, rows, [])}


def _leader(findings: Json) -> Json:
    return min((row for row in findings["rows"] if row["p"] is not None), key=lambda row: float(row["p"]))


def _lines(findings: Json, row: Json) -> dict[str, str]:
    question = findings["questions"][0]
    groups = details(row, question, voice_of(question))
    return {label: text.replace("\u00a0", " ") for group in groups for label, text in group.lines}


@pytest.mark.parametrize("name", ["scores", "number", "inside", "turned"])
def test_no_sentence_for_two_groups_in_other_designs(name: str) -> None:
    page = _page(designs.ALL[name]())
    assert not GROUPS_ONLY.search(page), GROUPS_ONLY.search(page)
    assert GROUPS_ONLY.search(_page(samples.untested()))


def test_pairs_speak_of_differences_inside_pairs() -> None:
    findings = designs.pairs()
    page = _page(findings)
    assert "inside a pair the mean difference is" in page
    assert "Difference in a pair, points" in page
    assert "moderated t-test of the differences inside pairs" in page
    assert "Welch" not in page
    found = _limits(findings)
    few = found["With so few pairs, differences can have been missed"]
    assert few.startswith("There were 13 pairs. The number that counts is that of pairs")
    assert "exact sign-flip p of 2.4\u00b710\u207b\u2074" in few  # 2 ** (1 - 13)
    assert "times the standard deviation of these differences" in few
    assert (
        "no partner on the other side of the pair: 4" in found["What the generations left out would show is not known"]
    )
    assert (
        "held fixed: level. What both sides of a pair share"
        in found["Whether something else is the reason is not known"]
    )


def test_scores_speak_of_a_change_per_unit() -> None:
    findings = designs.scores()
    page = _page(findings)
    row = _leader(findings)
    assert "goes with the score of hedging: it is chosen more often the higher the score" in page
    assert "in the upper half of the scores" in page
    assert "Change, points per unit of score" in page
    assert f"for one unit of score, {100 * row['rate_difference']:+.1f} points" in page
    assert "score >= 0.5" not in page, "the halves are not made at 0.5"
    found = _limits(findings)
    assert "cut to one window" in found["Whether length plays a part is not known"]
    assert "shorter than the window: 3" in found["What the generations left out would show is not known"]
    assert "How exact the probe\u2019s scores are was not measured" in found


def test_a_tiny_change_per_unit_keeps_its_digits() -> None:
    findings = designs.number()
    row = _leader(findings)
    assert abs(row["rate_difference"]) < 1e-4
    page = _page(findings)
    assert f"for one unit of score, +{100 * row['rate_difference']:.5f} points" in page
    assert "the number \u201ccharacters\u201d" in page
    assert "+0.0 [" not in page


def test_marked_tokens_are_compared_inside_generations() -> None:
    findings = designs.inside()
    page = _page(findings)
    assert "goes with the tokens marked for first-person" in page
    assert "of the other tokens of the same generations" in page
    assert "in these generations" not in page.split("What may not be concluded")[0]
    found = _limits(findings)
    assert "Whether it holds for new prompts was not tested" not in found
    assert "Whether the place in the answer plays a part is not known" in found
    assert "sorts whole texts" in found["How well the probe marks single tokens was not measured"]
    assert "exact sign-flip p of 7.6\u00b710\u207b\u2076" not in found  # 18 units are enough for 37 tests
    assert "tokens of one kind only: 2" in found["What the generations left out would show is not known"]


def test_circular_shifts_claim_these_generations_only() -> None:
    findings = designs.turned()
    page = _page(findings)
    assert "the tokens marked for first-person in these generations" in page
    assert "not for new prompts" in page
    assert "not that they would in others" in _limits(findings)["Whether it holds for new prompts was not tested"]
    assert "moderated t-test" not in page.partition("The words of this page")[0]
    assert _lines(findings, _leader(findings))["Test (words held fixed; decides)"].startswith("z ")


def test_the_partial_column_names_the_other_register() -> None:
    findings = designs.scores()
    said = _limits(findings)["Whether it is hedging alone is not known"]
    rows = [row for row in findings["rows"] if row["probe"] == "hedging" and row["association"] == "associated"]
    kept = sum(row["partial"]["q"] is not None and row["partial"]["q"] < 0.05 for row in rows)
    assert 0 < kept < len(rows)
    assert f"Of {len(rows)} associated experts, {kept} still" in said
    assert "The others may go with politeness instead." in said
    lost = next(row for row in rows if row["partial"]["q"] >= 0.05)
    question = findings["questions"][0]
    assert "its own share is not shown" in " ".join(words.doubts(lost, question, voice_of(question), None))
    question["design"]["partial"] |= {"reason": "the registers always come together"}
    assert (
        "could not be held fixed: the registers always" in _limits(findings)["Whether it is hedging alone is not known"]
    )


def test_the_confirmation_is_said_with_its_numbers() -> None:
    findings = designs.prompts()
    halves = findings["questions"][0]["design"]["confirmation"]
    said = _limits(findings)["Only the leading experts were tested a second time"]
    assert f"{halves['confirmed']} of {halves['screened']} were confirmed" in said
    row = _leader(findings)
    assert _lines(findings, row)["On the half of the prompts kept back"].startswith("confirmed: one-sided p")
    row["confirmed"] |= {"confirmed": False}
    assert _lines(findings, row)["On the half of the prompts kept back"].startswith("not confirmed")
    row["confirmed"] = None
    assert "not among the leaders" in _lines(findings, row)["On the half of the prompts kept back"]
    assert (
        "No generations were kept back" in _limits(samples.untested())["Whether it would be found again was not tested"]
    )


def test_another_response_is_named() -> None:
    findings = designs.prompts()
    page = _page(findings)
    assert "its gate weight is larger there" in page
    assert "Of which experts is this larger, or smaller" in page


def _measured() -> tuple[Json, Json]:
    """Findings about the weight of a choice, whose difference has another sign than that of the selection rate."""
    findings = samples.untested()
    findings["questions"][0]["design"]["response"] = (
        "(O - E) / sqrt(V) of the gate weight of a choice, given the choice"
    )
    row = next(row for row in findings["rows"] if row["site"] == "L2.E5")
    row |= {"rate_difference": 0.25, "beyond_difference": -0.0654, "t": -8.0}
    return findings, row


def test_q_stands_beside_the_number_it_belongs_to() -> None:
    findings, row = _measured()
    voice = voice_of(findings["questions"][0])
    said = words.routing(row, voice, "answer").replace("\u00a0", " ")
    rates, tested = said.split("What was tested is another quantity, ")
    assert "(q" not in rates
    assert ", q" not in rates
    assert tested.startswith("the gate weight of a choice, given the choice: its difference per token with the")
    assert "is \u22120.0654 (q " in tested
    assert "q and verdict are of another quantity, the gate weight of a choice" in note(voice, 0.05)
    assert "q and verdict are of another quantity" in map_words(voice)["meaning"]
    heads, line = _columns(findings, row)
    assert line[heads.index("Difference of its gate weight per token")] == "\u22120.0654"
    assert "another quantity" not in note(voice_of(samples.untested()["questions"][0]), 0.05)
    assert _lines(findings, row)["Difference of its gate weight per token beyond the words"] == "\u22120.0654"


def test_the_table_says_when_the_test_points_the_other_way() -> None:
    findings = samples.untested()
    row = next(row for row in findings["rows"] if row["site"] == "L2.E5")
    row |= {"rate_difference": 0.25, "beyond_difference": -0.1, "t": -8.0}
    heads, line = _columns(findings, row)
    assert line[heads.index("Beyond the words, points")] == "\u221210.0"
    assert "with the words held fixed, it is chosen less often there" in _page(findings)
    row |= {"beyond_difference": 0.1, "t": 8.0}
    assert "with the words held fixed, it is chosen" not in _page(findings)


def _columns(findings: Json, row: Json) -> tuple[list[str], list[str]]:
    question = findings["questions"][0]
    voice = voice_of(question)
    heads = [column.plain for column in table.columns(voice)]
    (line,) = table.table("m0q0", [row], question, voice).lines
    assert len(heads) == len(line.cells)
    return heads, line.cells


def test_no_prior_is_not_an_infinite_one() -> None:
    findings = samples.untested()
    findings["questions"][0]["design"]["prior_df"] = None
    assert "prior degrees of freedom: none" in _page(findings)


def test_details_hold_what_the_row_holds() -> None:
    findings = designs.pairs()
    row = _leader(findings)
    lines = _lines(findings, row)
    assert row["leave_one_out"]["unit"] in lines["Worst p without one pair"]
    assert row["leave_token_out"]["token"] in lines["Worst p without one kind of token"]
    assert lines["SteerMoE risk difference"] == f"{row['peers']['risk_difference']:+.3f}".replace("-", "\u2212")
    low = f"{row['dW_ci'][0]:.4f}".replace("-", "\u2212")
    assert f"[{low}, " in lines["Change in mean weight, \u0394W"]
    assert "family-wise p" in lines["Test (words held fixed; decides)"]
    assert "No family-wise p: sign flips do not hold numbers fixed." in _page(findings)


def test_an_expert_that_hangs_on_one_unit_is_doubted() -> None:
    findings = designs.pairs()
    row, question = _leader(findings), findings["questions"][0]
    row["leave_one_out"] = {"unit": "pair7", "p": 0.2}
    said = " ".join(words.doubts(row, question, voice_of(question), None))
    assert "It hangs on one pair: without pair7, p is 0.200." in said


def test_the_direction_is_that_of_the_deciding_test() -> None:
    findings = samples.untested()
    row = next(row for row in findings["rows"] if row["site"] == "L2.E5")
    row["t"] = -5.0
    said = words.summary(row, voice_of(findings["questions"][0]), None)
    assert "goes against refusal once the words are held fixed, although in all it is chosen more often there" in said


def test_only_what_a_layer_has_is_a_column() -> None:
    question = designs.scores()["questions"][0]
    layers = beside(question, voice_of(question))[0]
    assert "Divergence, bits" not in layers.heads, "scores have no groups to diverge"
    question = designs.prompts()["questions"][0]
    tables = beside(question, voice_of(question))
    assert [len(line) for table in tables for line in table.lines] == [len(t.heads) for t in tables for _ in t.lines]
    assert {"Divergence, bits", "q", "Entropy, with", "Always busy"} <= set(tables[0].heads)
    assert tables[1].lines[0][0] == "linear_attention"
    assert tables[2].lines[0][0] == "L0.E1, L0.E4"
    bare = {key: value for key, value in question.items() if key not in ("families", "coalitions", "coalitions_found")}
    assert len(beside(bare, voice_of(question))) == 1


def test_experts_that_only_words_explain_get_their_q_explained() -> None:
    findings = designs.turned()
    said = _limits(findings)["Whether it is the behaviour or its words is not known"]
    assert "called \u201cperhaps only words\u201d differs only as long as words are not held fixed" in said
    assert "q without holding the words fixed" in _page(findings)


def test_previous_tokens_alone_are_not_words() -> None:
    findings = samples.untested()
    design = findings["questions"][0]["design"]
    design["strata"] = "previous token id"
    assert "not the token itself" in _limits(findings)["Whether it is the behaviour or its words is not known"]
    design["strata"] = "none"
    assert "Tokens were not held fixed" in _limits(findings)["Whether it is the behaviour or its words is not known"]


def test_an_unknown_design_stops_the_report() -> None:
    findings = samples.untested()
    findings["questions"][0]["design"]["kind"] = "triples"
    with pytest.raises(FindingsError, match="triples"):
        render([findings])


def test_a_side_without_tokens_has_no_ratio() -> None:
    findings = json.loads(json.dumps(samples.untested()))
    findings["questions"][0]["design"] |= {"length_ratio_before": None, "length_ratio_after": None}
    assert "no length ratio" in _limits(findings)["Whether length plays a part is not known"]
    render([findings])
