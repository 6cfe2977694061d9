"""Experiments on the compiled model, whose truth is known, from pairs to verdicts in findings."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from moeprobe.chat.encode import encode_prompt
from moeprobe.correlate import correlate
from moeprobe.correlate.document import findings_of
from moeprobe.designs.regrouping import regroup
from moeprobe.errors import InterchangeError, MoeprobeError
from moeprobe.findings import Findings, load_findings
from moeprobe.interchange import (
    Alignment,
    LogitDifference,
    Outcome,
    PairSelection,
    Plan,
    TokenPair,
    enter,
    interchange,
    label_members,
    leading_sites,
    select_pairs,
)
from moeprobe.models import LoadedModel, load_model
from moeprobe.models.compiled import FAMILIES
from moeprobe.pairs.from_trace import trace_pairs
from moeprobe.prompts import Prompt
from moeprobe.sites import Site, SiteSet, parse_expert
from moeprobe.trace import Trace
from tests.interchange.random_moe import random_model, random_pairs

CAUSAL, INERT, TOKEN, SILENT = "L2.E5", "L1.E1", "L3.E6", "L0.E0"
QUICK = Plan(bootstrap=500, null=3)


def chosen(pairs: list[TokenPair]) -> PairSelection:
    return PairSelection(tuple(pairs), {})


def pairs_of(loaded: LoadedModel, prompts: list[Prompt]) -> list[TokenPair]:
    ids = [encode_prompt(loaded.tokenizer, prompt) for prompt in prompts]
    return list(select_pairs(label_members(prompts, ids, "triggered")).pairs)


def named(outcome: Outcome) -> dict[str, dict]:
    return {str(one): effects for one, effects in outcome.effects.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_truth_of_the_compiled_model(family: str, compiled_prompts: list[Prompt]) -> None:
    loaded = load_model(f"compiled:{family}")
    pairs = pairs_of(loaded, compiled_prompts[20:40])
    assert len({len(pair.sensitive) - len(pair.control) for pair in pairs}) > 1  # lengths differ within pairs
    effects = named(interchange(loaded, chosen(pairs), [CAUSAL, INERT, TOKEN, SILENT], QUICK))
    for name in ("necessity", "sufficiency", "knockout"):
        assert effects[CAUSAL][name]["percent"] == pytest.approx(100, abs=0.1)
    for name in ("necessity", "sufficiency"):
        assert effects[CAUSAL][name]["contrasts"]["minus_placebo"]["percent"] == pytest.approx(100, abs=0.1)
    assert effects[CAUSAL]["necessary"]
    assert effects[CAUSAL]["sufficient"]
    for site in (INERT, TOKEN, SILENT):
        assert effects[site]["exactly_zero"]
        assert not effects[site]["necessary"]
        assert not effects[site]["sufficient"]


def test_blocks_heads_and_sets(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> None:
    pairs = pairs_of(compiled, compiled_prompts[:20])
    plan = Plan(bootstrap=500, null=3, members=True, controls=("placebo", "random", "noise"), knockouts=("bar", "mean"))
    sites = ["L2.moe", "L2.router", Site(0, "head", 0), "L2.E5+L1.E1", "L3.H*"]
    effects = named(interchange(compiled, chosen(pairs), sites, plan))
    assert effects["L2.moe"]["necessary"]
    assert effects["L2.router"]["necessary"]
    assert "knockout" not in effects["L2.router"]
    assert effects["L2.router"]["price"] is None
    together = effects["L1.E1+L2.E5"]
    assert together["necessary"]
    assert together["additivity"]["necessity"]["sum"]["percent"] == pytest.approx(100, abs=0.1)
    assert together["additivity"]["necessity"]["words"] == "not told apart from additive"
    assert together["knockout_bar"]["percent"] == pytest.approx(100, abs=0.1)
    assert "knockout_bar" not in effects["L2.moe"]
    assert effects["L2.moe"]["additivity"] is None
    assert not effects["L3.H0-H3"]["necessary"]


def test_a_set_with_a_block_is_not_compared_with_sets_that_hold_the_block(
    compiled: LoadedModel, compiled_prompts: list[Prompt]
) -> None:
    """They did as much, so the set was "neither" beside its own block, which was both."""
    pairs = pairs_of(compiled, compiled_prompts)[:8]
    found = named(interchange(compiled, chosen(pairs), ["L2.E5+moe"], QUICK))["L2.E5+moe"]
    assert found["necessity"]["rank"] is None
    assert found["necessary"]
    assert found["sufficient"]


def test_placebo_swaps_that_reach_less_are_said(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> None:
    """Equal tokens are found in the pair's own partner, and fewer of them in another pair's prompt."""
    pairs = chosen(pairs_of(compiled, compiled_prompts)[:8])
    told = [
        interchange(compiled, pairs, [CAUSAL], Plan(bootstrap=100, null=1, alignment=Alignment(name))).run["coverage"]
        for name in ("end", "tokens")
    ]
    assert "With placebo donors" in told[0]
    assert "too large" not in told[0]
    assert "its contrast may be too large" in told[1]


def test_a_metric_of_either_sign(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> None:
    """Turned round, the metric falls where it rose, and every effect is told in the direction of the gap."""
    pairs = pairs_of(compiled, compiled_prompts[:20])
    words = [compiled.tokenizer.convert_ids_to_tokens(int(token)) for token in greedy_first(compiled, pairs)]
    found = []
    for positive, negative in (words, words[::-1]):
        metric = LogitDifference(compiled, positive=[positive], negative=[negative])
        outcome = interchange(compiled, chosen(pairs), [CAUSAL], Plan(bootstrap=500, null=3, metric=metric))
        found.append((outcome.run["gap"], named(outcome)[CAUSAL]))
    assert found[0][0]["mean"] == pytest.approx(-found[1][0]["mean"])
    assert {gap["direction"] for gap, _ in found} == {1, -1}
    for name in ("necessity", "sufficiency"):
        assert found[0][1][name]["percent"] == pytest.approx(found[1][1][name]["percent"])
    assert all(effects["necessary"] for _, effects in found)


def greedy_first(loaded: LoadedModel, pairs: list[TokenPair]) -> list[int]:
    """The first greedy token after a sensitive and after a control prompt."""
    with torch.inference_mode():
        runs = (pairs[0].sensitive, pairs[0].control)
        return [int(loaded.model(input_ids=torch.tensor([run])).logits[0, -1].argmax()) for run in runs]


def test_held_out_pairs(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> None:
    pairs = pairs_of(compiled, compiled_prompts)
    plan = Plan(bootstrap=500, null=3, confirm=2)
    outcome = interchange(compiled, chosen(pairs), [CAUSAL, INERT, TOKEN, "L3.E2"], plan)
    confirmation = outcome.run["confirmation"]
    assert len(outcome.effects) == 2
    assert confirmation["chosen"][0] == CAUSAL
    assert not set(confirmation["chosen_on"]) & set(confirmation["tested_on"])
    assert named(outcome)[CAUSAL]["necessary"]
    assert named(outcome)[CAUSAL]["pairs"] == len(confirmation["tested_on"]) == 15


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    loaded, selection = random_model("mixtral"), chosen(random_pairs([(5 + n % 3, 6) for n in range(10)]))
    plan, journal = Plan(bootstrap=200, null=2, batch_size=4, minimum_effect=0), tmp_path / "j.jsonl"
    # Any gap will do here: the two halves of the pairs are told apart by their own continuation.
    whole = interchange(loaded, selection, ["L1.E0"], plan)

    def stop(done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interchange(loaded, selection, ["L1.E0"], plan, journal=journal, progress=stop)
    assert len(journal.read_text().splitlines()) == 9
    with pytest.raises(InterchangeError, match="--resume"):
        interchange(loaded, selection, ["L1.E0"], plan, journal=journal)
    with pytest.raises(InterchangeError, match="another experiment"):
        interchange(loaded, selection, ["L1.E1"], plan, journal=journal, resume=True)
    steps: list[int] = []
    again = interchange(
        loaded,
        selection,
        ["L1.E0"],
        plan,
        journal=journal,
        resume=True,
        progress=lambda done, total: steps.append(done),
    )
    assert steps == [10]
    for name in ("necessity", "sufficiency", "knockout"):
        first, second = (named(one)["L1.E0"][name]["per_pair"] for one in (whole, again))
        np.testing.assert_allclose(first, second, atol=2e-5)


def test_the_gap_must_be_there(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> None:
    pairs = pairs_of(compiled, compiled_prompts[:20])
    mixed = [TokenPair(one.id, *((one.sensitive, one.control) if n % 2 else (one.control, one.sensitive)))
             for n, one in enumerate(pairs)]  # fmt: skip
    metric = LogitDifference(compiled, positive=[5], negative=[6])
    with pytest.raises(InterchangeError, match="nothing to move"):
        interchange(compiled, chosen(mixed), [CAUSAL], Plan(bootstrap=500, null=3, metric=metric))
    swapped = [TokenPair(pair.id, pair.control, pair.sensitive) for pair in pairs]
    # The other way round there is a gap as well (a refusal is unlikely in a plain run), and L2.E5 explains it.
    assert named(interchange(compiled, chosen(swapped), [CAUSAL], QUICK))[CAUSAL]["necessary"]


def test_nan_logits_are_said(compiled_prompts: list[Prompt]) -> None:
    loaded = load_model("compiled")
    pairs = pairs_of(loaded, compiled_prompts[:8])
    with torch.no_grad():
        loaded.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(InterchangeError, match="NaN"):
        interchange(loaded, chosen(pairs), [CAUSAL], QUICK)


def test_impossible_sites_and_pairs(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> None:
    pairs = pairs_of(compiled, compiled_prompts[:8])
    with pytest.raises(MoeprobeError, match=r"no layer L9: it has L0-L3"):
        interchange(compiled, chosen(pairs), ["L9.E1"], QUICK)
    with pytest.raises(MoeprobeError, match=r"no L2\.E8: the last of that layer is L2\.E7"):
        interchange(compiled, chosen(pairs), [parse_expert("L2.E8")], QUICK)
    with pytest.raises(InterchangeError, match="at least 2 pairs"):
        interchange(compiled, chosen(pairs[:1]), [CAUSAL], QUICK)
    with pytest.raises(InterchangeError, match="No sites"):
        interchange(compiled, chosen(pairs), [], QUICK)
    with pytest.raises(InterchangeError, match="missing"):
        interchange(compiled, chosen([pairs[0], TokenPair("b", pairs[0].sensitive, pairs[0].control)]), [CAUSAL], QUICK)
    long = tuple([5] * (compiled.positions or 0))
    with pytest.raises(InterchangeError, match="positions"):
        interchange(compiled, chosen([*pairs, TokenPair("a", long, (5, 6))]), [CAUSAL], QUICK)
    with pytest.raises(InterchangeError, match="at least 1"):
        Plan(null=0)
    with pytest.raises(InterchangeError, match="at least 0"):
        Plan(minimum_effect=-1)
    with pytest.raises(InterchangeError, match="no arm"):
        Plan(knockouts=("half",))
    with pytest.raises(InterchangeError, match="seed is 0 or more"):
        Plan(seed=-1)
    with pytest.raises(InterchangeError, match="none for the swap 'output'"):
        Plan(swap="output", controls=("placebo", "noise"))


def test_too_few_pairs_to_confirm_are_found_before_anything_is_run(compiled: LoadedModel) -> None:
    # These pairs have no gap either, which only a run can tell.
    with pytest.raises(InterchangeError, match="6 pairs cannot be split"):
        interchange(compiled, chosen(random_pairs()), ["L2.E5"], Plan(confirm=1), progress=never)


def never(done: int, total: int) -> None:
    raise AssertionError("pairs were run")


def test_a_site_need_not_stand_in_a_list(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> None:
    pairs = chosen(pairs_of(compiled, compiled_prompts)[:3])
    assert list(named(interchange(compiled, pairs, CAUSAL, QUICK))) == [CAUSAL]


def test_too_few_pairs_for_a_verdict(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> None:
    found = named(interchange(compiled, chosen(pairs_of(compiled, compiled_prompts)[:7]), [CAUSAL], QUICK))[CAUSAL]
    assert not found["enough_pairs"]
    assert found["necessity"]["percent"] == pytest.approx(100, abs=0.1)
    assert not found["necessary"]


def test_pairs_must_split() -> None:
    ids = (1, 2)
    selection = select_pairs([("a", True, ids), ("a", False, ids), ("b", True, ids), (None, True, ids)])
    assert [pair.id for pair in selection.pairs] == ["a"]
    assert list(selection.left_out) == ["b"]
    with pytest.raises(InterchangeError, match='"pair" id'):
        select_pairs([(None, True, ids)])
    asked = select_pairs([("a", True, ids), ("a", False, ids), ("b", None, ids), ("b", None, ids)])
    assert not asked.left_out  # a pair that was never asked about is not "left out"
    with pytest.raises(InterchangeError, match="None of the 1 pairs"):
        select_pairs([("a", True, ids), ("a", True, ids)])


def test_label_members_compare_as_text() -> None:
    prompts = [Prompt("a", "x", label=1), Prompt("b", "y", label=0), Prompt("c", "z")]
    sides = [side for _, side, _ in label_members(prompts, [[1]] * 3, "1")]
    assert sides == [True, False, None]
    assert [side for _, side, _ in label_members(prompts, [[1]] * 3, 1, 0)] == [True, False, None]
    switches = [Prompt("a", "x", label=True), Prompt("b", "y", label=False), Prompt("c", "z")]
    assert [side for _, side, _ in label_members(switches, [[1]] * 3, "true")] == [True, False, None]
    assert [side for _, side, _ in label_members(switches, [[1]] * 3, "None")] == [False, False, None]


@pytest.fixture(scope="module")
def findings(compiled_trace: Trace) -> Findings:
    return findings_of(compiled_trace, [correlate(compiled_trace, by="label", positive="triggered")])


def test_from_trace_to_verdicts(
    compiled: LoadedModel, compiled_trace: Trace, findings: Findings, tmp_path: Path
) -> None:
    document = copy.deepcopy(findings)
    question = document.question()
    selection = trace_pairs(compiled_trace, regroup(compiled_trace.generations, question))
    assert len(selection.pairs) == 30
    assert not selection.left_out
    sites = [str(site) for site in leading_sites(document, question["name"], 12)]
    assert {CAUSAL, INERT} <= set(sites)
    enter(document, question, interchange(compiled, selection, [*sites, "L2.moe"], QUICK))
    found = {row["site"]: row["verdict"] for row in document.rows}
    assert found["L2.E5"] == "necessary and sufficient"
    assert found["L1.E1"] == "association only"
    assert all(found[f"L0.E{expert}"] in ("not associated", "untestable") for expert in range(8))
    assert [row["site"] for row in document.rows if row["verdict"].startswith(("necessary", "sufficient"))] == ["L2.E5"]
    document.write(tmp_path / "f.json")
    again = load_findings(tmp_path / "f.json")
    assert again.rows == document.rows
    assert again.interchange[0]["alignment_options"]["name"] == "end"
    assert [(one["site"], one["verdict"]) for one in again.interchange[0]["others"]] == [
        ("L2.moe", "necessary and sufficient")
    ]
    second = interchange(compiled, selection, [CAUSAL], QUICK)
    with pytest.raises(InterchangeError, match="already .*L1.E1"):
        enter(document, question, second)
    enter(document, question, second, replace=True)
    assert len(document.interchange) == 1
    assert sum(row["interchange"] is not None for row in document.rows) == 1


def test_entering_into_findings_of_another_model(compiled: LoadedModel, findings: Findings) -> None:
    document = copy.deepcopy(findings)
    document.rows = [row for row in document.rows if row["site"] != "L2.E5"]
    with pytest.raises(InterchangeError, match=r"no row for L2\.E5"):
        enter(document, document.question(), Outcome({}, {SiteSet("", (parse_expert(CAUSAL),)): {}}, None))


def test_nothing_associated(findings: Findings) -> None:
    document = copy.deepcopy(findings)
    for row in document.rows:
        row["association"] = "not associated"
    with pytest.raises(InterchangeError, match="--site"):
        leading_sites(document, document.question()["name"], 5)


@pytest.mark.parametrize("seed", range(4))
def test_labels_that_mean_nothing_give_no_verdict(
    compiled: LoadedModel, compiled_prompts: list[Prompt], seed: int
) -> None:
    """Under the NLL of the control's continuation the gap stays positive whichever side is called control; the class
    alone (random minus placebo) must show it. Without that donor L2.E5 "causes" labels drawn by lot."""
    pairs = pairs_of(compiled, compiled_prompts[:40])
    turned = np.random.default_rng(seed).integers(0, 2, len(pairs))
    mixed = [TokenPair(one.id, *((one.control, one.sensitive) if turn else (one.sensitive, one.control)))
             for one, turn in zip(pairs, turned, strict=True)]  # fmt: skip
    with_random, without = (
        named(interchange(compiled, mixed, [CAUSAL], Plan(bootstrap=500, null=3, controls=controls)))[CAUSAL]
        for controls in (("placebo", "random"), ("placebo",))
    )
    assert not with_random["necessary"]
    assert not with_random["sufficient"]
    assert without["necessary"] or without["sufficient"]
