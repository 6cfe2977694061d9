"""Experiments on the compiled model, whose truth is known, and the inference around them."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

from moeprobe.chat.encode import encode_prompt
from moeprobe.correlate import correlate
from moeprobe.correlate.document import findings_of
from moeprobe.designs.groups import regroup
from moeprobe.errors import InterchangeError
from moeprobe.findings import Findings, load_findings
from moeprobe.interchange import (
    Outcome,
    PairSelection,
    Plan,
    TokenPair,
    choose_nulls,
    enter,
    interchange,
    label_members,
    leading_sites,
    select_pairs,
)
from moeprobe.interchange.experiment import measure
from moeprobe.interchange.from_trace import trace_pairs
from moeprobe.models import LoadedModel, load_model
from moeprobe.models.compiled import FAMILIES
from moeprobe.prompts import Prompt
from moeprobe.sites import ExpertSite, parse_expert
from moeprobe.trace import Trace

CAUSAL, INERT, TOKEN, SILENT = (parse_expert(name) for name in ("L2.E5", "L1.E1", "L3.E6", "L0.E0"))
QUICK = Plan(bootstrap=500, null=3)


def random_model(family: str) -> LoadedModel:
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape["num_key_value_heads"] = 1
    experts = {"num_experts_per_tok": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if family == "mixtral":
        config = MixtralConfig(**shape, **experts, intermediate_size=16, num_local_experts=4)
        model = MixtralForCausalLM._from_config(config, experts_implementation="eager")
    else:
        sizes = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "intermediate_size": 16}
        config = Qwen2MoeConfig(**shape, **experts, **sizes, num_experts=4)
        model = Qwen2MoeForCausalLM._from_config(config, experts_implementation="eager")
    tokenizer = load_model("compiled").tokenizer
    return LoadedModel(model.train(False), tokenizer, family, {"class": family, "dtype": "float32"})


def chosen(pairs: list[TokenPair]) -> PairSelection:
    return PairSelection(tuple(pairs), {})


def pairs_of(loaded: LoadedModel, prompts: list[Prompt]) -> list[TokenPair]:
    ids = [encode_prompt(loaded.tokenizer, prompt) for prompt in prompts]
    return list(select_pairs(label_members(prompts, ids, "triggered")).pairs)


@pytest.mark.parametrize("family", FAMILIES)
def test_truth_of_the_compiled_model(family: str, compiled_prompts: list[Prompt]) -> None:
    loaded = load_model(f"compiled:{family}")
    pairs = pairs_of(loaded, compiled_prompts[20:40])
    assert len({len(pair.sensitive) - len(pair.control) for pair in pairs}) > 1  # lengths differ within pairs
    outcome = interchange(loaded, chosen(pairs), [CAUSAL, INERT, TOKEN, SILENT], QUICK)
    effects = outcome.effects
    for name in ("necessity", "sufficiency", "knockout"):
        assert effects[CAUSAL][name]["percent"] == pytest.approx(100, abs=0.1)
    assert effects[CAUSAL]["necessary"]
    assert effects[CAUSAL]["sufficient"]
    for site in (INERT, TOKEN, SILENT):
        assert effects[site]["exactly_zero"]
        assert not effects[site]["necessary"]
        assert not effects[site]["sufficient"]


def test_skipped_runs_equal_the_runs_themselves(
    compiled: LoadedModel, compiled_prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit that writes what stands there already is not run again; here it is, and gives the same bits."""
    pairs = pairs_of(compiled, compiled_prompts[:8])
    quick = measure(compiled, pairs, [INERT, CAUSAL])
    from moeprobe.interchange import experiment

    def always(self, side, site, expert, own, donor, where):
        with experiment.replacing(site, expert, donor, where):
            return self._metric(side)

    monkeypatch.setattr(experiment._Runs, "_edited", always)
    slow = measure(compiled, pairs, [INERT, CAUSAL])
    for site in (INERT, CAUSAL):
        for name in ("necessity", "sufficiency", "knockout"):
            assert (getattr(quick.sites[site], name) == getattr(slow.sites[site], name)).all()


def test_batches_do_not_change_results(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> None:
    pairs = pairs_of(compiled, compiled_prompts[:10])
    whole, single = (measure(compiled, pairs, [CAUSAL], batch_size=size) for size in (8, 1))
    np.testing.assert_allclose(whole.sites[CAUSAL].necessity, single.sites[CAUSAL].necessity, rtol=1e-5)
    np.testing.assert_allclose(whole.gap, single.gap, rtol=1e-5)


def test_the_gap_must_be_there(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> None:
    pairs = [TokenPair(pair.id, pair.control, pair.control) for pair in pairs_of(compiled, compiled_prompts[:8])]
    with pytest.raises(InterchangeError, match="nothing to move"):
        interchange(compiled, chosen(pairs), [CAUSAL], QUICK)
    swapped = [TokenPair(pair.id, pair.control, pair.sensitive) for pair in pairs_of(compiled, compiled_prompts[:20])]
    # The other way round there is a gap as well (a refusal is unlikely in a plain run), and L2.E5 explains it.
    assert interchange(compiled, chosen(swapped), [CAUSAL], QUICK).effects[CAUSAL]["necessary"]


@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral"])
def test_batches_do_not_change_results_on_random_models(family: str) -> None:
    """Random weights, where every expert writes and lengths differ: one pair at a time against all together."""
    loaded = random_model(family)
    generator = np.random.default_rng(0)
    lengths = [(9, 4), (3, 8), (6, 6), (12, 5), (4, 11)]
    drawn = [[tuple(generator.integers(3, 60, length).tolist()) for length in both] for both in lengths]
    pairs = [TokenPair(str(number), *both) for number, both in enumerate(drawn)]
    sites = [ExpertSite(1, expert) for expert in range(4)]
    whole, single = (measure(loaded, pairs, sites, tokens=3, batch_size=size) for size in (5, 1))
    assert any(abs(whole.sites[site].necessity).max() > 1e-3 for site in sites)
    for site in sites:
        for name in ("necessity", "sufficiency", "knockout"):
            np.testing.assert_allclose(getattr(whole.sites[site], name), getattr(single.sites[site], name), atol=2e-5)


def test_nan_logits_are_said(compiled_prompts: list[Prompt]) -> None:
    loaded = load_model("compiled")
    pairs = pairs_of(loaded, compiled_prompts[:8])
    with torch.no_grad():
        loaded.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(InterchangeError, match="NaN"):
        measure(loaded, pairs, [CAUSAL])


def test_prompts_must_fit(compiled: LoadedModel) -> None:
    long = tuple([5] * (compiled.positions or 0))
    with pytest.raises(InterchangeError, match="positions"):
        measure(compiled, [TokenPair("a", long, (5, 6))], [CAUSAL])


def test_impossible_sites_and_pairs(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> None:
    pairs = pairs_of(compiled, compiled_prompts[:8])
    with pytest.raises(InterchangeError, match=r"no experts in layer 9 .*L0, L1, L2, L3"):
        interchange(compiled, chosen(pairs), [parse_expert("L9.E1")], QUICK)
    with pytest.raises(InterchangeError, match=r"no L2\.E8: the last expert of that layer is L2\.E7"):
        interchange(compiled, chosen(pairs), [parse_expert("L2.E8")], QUICK)
    with pytest.raises(InterchangeError, match="at least 2 pairs"):
        interchange(compiled, chosen(pairs[:1]), [CAUSAL], QUICK)
    with pytest.raises(InterchangeError, match="no pairs"):
        measure(compiled, [], [CAUSAL])
    with pytest.raises(InterchangeError, match="at least one token"):
        measure(compiled, pairs, [CAUSAL], tokens=0)
    with pytest.raises(InterchangeError, match="at least 1"):
        Plan(null=0)
    with pytest.raises(InterchangeError, match="negative"):
        Plan(minimum_effect=-1)


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


def test_nulls_are_other_experts_that_ran() -> None:
    usage = {2: np.array([5, 5, 0, 5, 0, 9, 5, 5]), 3: np.array([1, 1])}
    last = [parse_expert("L3.E0"), parse_expert("L3.E1")]
    nulls = choose_nulls(usage, [CAUSAL, *last], Plan(null=4))
    assert len(nulls[CAUSAL]) == 4
    assert not {CAUSAL, parse_expert("L2.E2"), parse_expert("L2.E4")} & set(nulls[CAUSAL])
    assert nulls == choose_nulls(usage, [CAUSAL, *last], Plan(null=4))
    assert nulls[last[0]] == [last[1]]  # no other is left over, and never the site itself
    assert nulls[last[1]] == [last[0]]
    everyone = choose_nulls(usage, [CAUSAL], Plan(null=7))[CAUSAL]
    assert len(everyone) == 7  # unused ones fill up
    with pytest.raises(InterchangeError, match="single expert"):
        choose_nulls({0: np.array([3])}, [parse_expert("L0.E0")], Plan())


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
    sites = leading_sites(document, question["name"], 12)
    assert {CAUSAL, INERT} <= set(sites)
    enter(document, question, interchange(compiled, selection, sites, QUICK))
    found = {row["site"]: row["verdict"] for row in document.rows}
    assert found["L2.E5"] == "necessary and sufficient"
    assert found["L1.E1"] == "association only"
    assert all(found[f"L0.E{expert}"] in ("not associated", "untestable") for expert in range(8))
    assert [row["site"] for row in document.rows if row["verdict"].startswith(("necessary", "sufficient"))] == ["L2.E5"]
    document.write(tmp_path / "f.json")
    again = load_findings(tmp_path / "f.json")
    assert again.rows == document.rows
    assert again.interchange[0]["alignment"] == "end of prompt"
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
        enter(document, document.question(), Outcome({}, {CAUSAL: {}}))


def test_nothing_associated(findings: Findings) -> None:
    document = copy.deepcopy(findings)
    for row in document.rows:
        row["association"] = "not associated"
    with pytest.raises(InterchangeError, match="--site"):
        leading_sites(document, document.question()["name"], 5)
