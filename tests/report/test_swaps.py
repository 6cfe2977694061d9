"""Sentences about interchange effects: controls, price, comparison, sites that are no single expert."""

import re
from typing import Any

import pytest
import report_samples as samples
from report_hostile import Outline

from moeprobe.findings import judgement, verdict
from moeprobe.report import others, render, swaps
from moeprobe.report.limits import limits
from moeprobe.report.plots import run_view
from moeprobe.report.voice import voice_of
from moeprobe.report.words import doubts, in_short, summary

Json = dict[str, Any]
VOICE = voice_of(samples.toy()["questions"][0])
CAUSAL = re.compile(r"\bcauses?\b|\bneeded for\b|\benough to bring\b|because|leads? to|\bdrives?\b")


def row_of(findings: Json, site: str) -> Json:
    return next(row for row in findings["rows"] if row["site"] == site)


def other_of(findings: Json, site: str) -> Json:
    return next(one for one in findings["interchange"][0]["others"] if one["site"] == site)


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def judged(row: Json) -> Json:
    """The row after its numbers were changed: flags and verdict by the rule."""
    row["interchange"] |= judgement(row["interchange"])
    row["verdict"] = verdict(row["association"], row["interchange"])
    return row


def test_facts_give_the_placebo_contrast_and_the_price() -> None:
    effects = row_of(samples.smollm(), "L18.E5")["interchange"]
    effects["necessity"]["contrasts"]["minus_placebo"] |= {"percent": 91.0, "ci": [80.0, 99.0]}
    facts = dict(swaps.facts(effects, "expert"))
    assert plain(facts["Necessity minus placebo"]) == "91 % [80, 99]"
    assert facts["Price, nats per token"] == "0.0042"
    assert list(facts)[:4] == ["Necessity", "Necessity minus placebo", "Sufficiency", "Sufficiency minus placebo"]
    del effects["sufficiency"]["contrasts"]["minus_placebo"]
    assert dict(swaps.facts(effects, "expert"))["Sufficiency minus placebo"] == "not run"


@pytest.mark.parametrize(
    ("kl", "said"),
    [
        (0.0, "changed nothing the model says"),
        (0.0042, "0.0042 [0.001, 0.01] nats per token (KL divergence). At that rate it takes about 713 tokens"),
        (2.5, "it takes a single token of text"),
        (1e-9, "it takes more than a million tokens"),
        (5e-324, "it takes more than a million tokens"),
    ],
)
def test_price_in_words(kl: float, said: str) -> None:
    """ln(20) / 0.0042 = 713.3 tokens until the likelihood ratio is 20 on average."""
    effects = row_of(samples.smollm(), "L18.E5")["interchange"]
    effects["price"] = {"kl": kl, "ci": [0.001, 0.01], "prompts": 16}
    (sentence,) = swaps.price(effects)
    assert said in plain(sentence)
    assert "16 neutral prompts" in plain(sentence)
    effects["price"] = None
    assert swaps.price(effects) == []


def test_a_price_that_may_be_nothing_gets_no_number_of_tokens() -> None:
    effects = row_of(samples.smollm(), "L18.E5")["interchange"]
    effects["price"] = {"kl": 2.6e-5, "ci": [0, 7e-5], "prompts": 16}
    (sentence,) = swaps.price(effects)
    assert sentence.endswith("which these prompts do not tell apart from nothing.")


def test_a_badge_of_a_part_says_so() -> None:
    page = render([samples.smollm()])
    whole, part = (page[page.index(f">{site}</h3>") :][:600] for site in ("L18.E5", "L18.E8"))
    assert "Necessary and sufficient for most of the gap: 97" in plain(whole)
    assert "Sufficient for part of the gap: 41 % [" in plain(part)


def test_opposing_effects_are_said() -> None:
    row = row_of(samples.smollm(), "L18.E11")
    effects = row["interchange"]
    assert swaps.opposed(effects) == []
    for share in (effects["necessity"], effects["necessity"]["contrasts"]["minus_placebo"]):
        share |= {"percent": -40.0, "ci": [-50.0, -30.0]}
    effects["necessity"]["p_zero"] = 0.001
    judged(row)
    assert effects["opposes"] == ["necessity"]
    (sentence,) = swaps.opposed(effects)
    assert sentence.startswith("Its necessity is reliably below 0")
    assert "further from the control run" in sentence
    assert not CAUSAL.search(sentence)


def open_row(findings: Json) -> Json:
    """An expert whose necessity may be large, in enough pairs."""
    row = row_of(findings, "L18.E11")
    for share in (row["interchange"]["necessity"], row["interchange"]["necessity"]["contrasts"]["minus_placebo"]):
        share |= {"percent": 22.0, "ci": [-4.0, 48.0]}
    return judged(row)


def test_underpowered_says_what_would_decide() -> None:
    findings = samples.smollm()
    row, run = open_row(findings), findings["interchange"][0]
    assert row["verdict"] == "underpowered"
    said = plain(summary(row, VOICE, run))
    assert "but swapping it in 24 pairs decided nothing: necessity 22 % [-4, 48]".replace("-", "\u2212") in said
    assert "Its necessity may be as large as 48 %, and less than 30 % must be certain before it is called none" in said
    assert "too few" not in said
    assert not CAUSAL.search(said)
    assert "interchange could not decide whether it does anything" in plain(in_short([row], VOICE))
    row["interchange"] |= {"pairs": 5, "enough_pairs": False}
    assert "swapped in only 5 pairs, too few for a verdict" in plain(summary(judged(row), VOICE, run))


def test_without_a_comparison_site_a_certain_effect_is_open() -> None:
    findings = samples.smollm()
    row, run = row_of(findings, "L18.E5"), findings["interchange"][0]
    row["interchange"]["null"] |= {"sites": [], "necessity": [], "sufficiency": [], "knockout": [], "active": 0}
    for name in ("necessity", "sufficiency"):
        row["interchange"][name]["rank"] |= {"sites": 0, "above": 0}
    said = summary(judged(row), VOICE, run)
    assert "Its necessity is certain, but there is no other expert to compare it with." in said
    assert not CAUSAL.search(said)


def test_comparison_sites_that_do_as_much_are_named() -> None:
    findings = samples.smollm()
    row, run = row_of(findings, "L18.E5"), findings["interchange"][0]
    for name in ("necessity", "sufficiency"):
        row["interchange"][name]["rank"] |= {"above": 3}
    said = plain(summary(judged(row), VOICE, run))
    assert row["verdict"] == "association only"
    assert "experts like it do as much" in said
    assert "Of 8 most like it, 3 have at least its necessity: association only." in said
    assert not CAUSAL.search(said)


def test_sites_in_words() -> None:
    assert [others.noun(name) for name in ("L1.H2", "L1.moe", "L1.residual", "L1.E2+E3", "L1-L3.H0", "\x00")] == [
        "head", "MoE block", "stream", "set", "set", "set",
    ]  # fmt: skip
    assert others.opening("L12.H3") == "Attention head 3 of layer 12"
    assert others.opening("L18.E5+E8") == "The set L18.E5+E8, its members swapped together"


def test_other_sites_have_sentences() -> None:
    findings = samples.smollm()
    run = findings["interchange"][0]
    said = {one["site"]: plain(others.summary(one, VOICE, run)) for one in run["others"]}
    assert said["L18.moe"].startswith("The MoE block of layer 18, all its experts together: it causes refusal here")
    assert "The 5 sets most like it in how much it adds changed the effect by at most" in said["L18.E5+E8"]
    assert said["L12.H3"].endswith("no effect shown.")
    assert "The choice of experts in layer 18: swapping it in 24 pairs decided nothing" in said["L18.router"]
    assert not CAUSAL.search(said["L12.H3"] + said["L18.router"])
    lead = plain(in_short(findings["rows"], VOICE, run["others"]))
    assert "these are necessary and sufficient, in percent of the gap: L18.moe for 100 % [97, 104] and 96 % [" in lead
    assert "; L18.E5+E8 for 98 % [" in lead
    assert "L12.H3" not in in_short(findings["rows"], VOICE, run["others"])


def test_sets_say_whether_they_are_redundant() -> None:
    effects = other_of(samples.smollm(), "L18.E5+E8")["interchange"]
    first, second, *_ = (plain(note) for note in swaps.notes(effects, "set"))
    assert "less than its members add up to, so they do some of the same work (redundant): 98 % [93, 101]" in first
    assert "4.0 % [1.0, 9.0] of the sum is done twice." in first
    assert "not told apart from what its members add up to" in second
    effects["additivity"]["necessity"]["words"] = "more than its members"
    assert "Necessity of the set is more than its members add up to" in swaps.notes(effects, "set")[0]


def test_what_is_alone_of_its_kind_says_so() -> None:
    findings = samples.smollm()
    notes = swaps.notes(other_of(findings, "L18.moe")["interchange"], "MoE block")
    assert notes[0] == "It is alone of its kind: there is no other MoE block to compare it with."
    question = findings["questions"][0]
    rows = [row for row in findings["rows"] if row["probe"] == question["name"]]
    found = {one.heading: plain(one.reason) for one in limits(findings, question, rows, findings["interchange"])}
    assert (
        "compared with nothing: L18.moe, L18.router."
        in found["Whether a whole block or stream is special is not known"]
    )
    assert "at most 8 others of its kind" in found["Whether other sites do the same was tested for few of them"]
    assert (
        "That does not exclude that a site carries what else differs"
        in (found["What else was swapped along with the behaviour is not known"])
    )
    assert "in the sets named here only" in found["What inert experts do together with others was not tested"]
    assert "Whether a whole block or stream is special is not known" not in {
        one.heading for one in limits(samples.toy(), question, samples.toy()["rows"], samples.toy()["interchange"])
    }


def test_without_a_placebo_the_page_says_so() -> None:
    findings = samples.toy()
    row, run = row_of(findings, "L2.E5"), findings["interchange"][0]
    for name in ("necessity", "sufficiency"):
        row["interchange"][name]["contrasts"] = {}
    run["arms"] = ["necessity", "sufficiency", "knockout"]
    assert any("no placebo donor" in doubt for doubt in doubts(row, findings["questions"][0], VOICE, run))
    words = Outline(render([findings])).words
    assert "No placebo donor was run for every site." in words
    assert "beside it none: no placebo was run" in words


def test_confirmation_knockouts_and_units_stand_in_the_facts() -> None:
    findings = samples.toy()
    row, run = row_of(findings, "L2.E5"), findings["interchange"][0]
    ids = run["pair_ids"]
    run |= {"unit": "logits", "swap": "routing"}
    run["confirmation"] = {
        "screened": ["L2.E5", "L1.E1", "L0.E0"], "chosen": ["L2.E5"], "chosen_on": ids[:7], "tested_on": ids[7:],
    }  # fmt: skip
    row["interchange"]["knockout_bar"] = row["interchange"]["knockout"]
    row["interchange"]["adjustment"] = "held out"
    view = run_view(run, [row], VOICE)
    facts = {key: plain(value) for key, value in view.facts}
    assert facts["Chosen on one half"].startswith("Of 3 sites, the 1 leading on 7 pairs were chosen, and judged on the")
    assert facts["Gap that counts as 100 %"].startswith("4.200 logits [3.900, 4.600]")
    assert facts["Positions"] == run["coverage"]
    assert facts["What was swapped"].startswith("routing: the other run\u2019s gate weight")
    assert [strip.label for strip in view.sites[0].strips][-1] == "Knock-out, barred before the choice"
    assert "q over the sites chosen" in " ".join(label for label, _ in view.sites[0].more)


def test_a_router_has_no_knock_out() -> None:
    findings = samples.smollm()
    view = run_view(findings["interchange"][0], [], VOICE)
    router = next(one for one in view.others if one.site == "L18.router")
    assert router.effects[-1] == "\u2013"
    assert [strip.label for strip in router.strips] == ["Necessity", "Sufficiency"]
    words = Outline(render([findings])).words
    assert "Other sites tested" in words
    assert "All 4 tested other sites as a table" in words
