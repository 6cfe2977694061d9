"""Experiments on the compiled model, whose truth is known, and the inference around them."""

import copy
from pathlib import Path

import numpy as np
import pytest

from moeprobe.correlate import correlate
from moeprobe.correlate.document import findings_of
from moeprobe.correlate.groups import regroup
from moeprobe.engines.encode import encode_prompt
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
    measure,
    select_pairs,
)
from moeprobe.interchange.from_trace import trace_pairs
from moeprobe.interchange.inference import passes, ratio_of_means, resamples
from moeprobe.models import LoadedModel, load_model
from moeprobe.models.compiled import FAMILIES
from moeprobe.prompts import Prompt
from moeprobe.sites import parse_expert
from moeprobe.trace import Trace

CAUSAL, INERT, TOKEN, SILENT = (parse_expert(name) for name in ("L2.E5", "L1.E1", "L3.E6", "L0.E0"))
QUICK = Plan(bootstrap=500, null=3)


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
    swapped = [TokenPair(pair.id, pair.control, pair.sensitive) for pair in pairs_of(compiled, compiled_prompts[:8])]
    # The other way round there is a gap as well (a refusal is unlikely in a plain run), and L2.E5 explains it.
    assert interchange(compiled, chosen(swapped), [CAUSAL], QUICK).effects[CAUSAL]["necessary"]


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
    with pytest.raises(InterchangeError, match="None of the 1 pairs"):
        select_pairs([("a", True, ids), ("a", True, ids)])


def test_label_members_compare_as_text() -> None:
    prompts = [Prompt("a", "x", label=1), Prompt("b", "y", label=0), Prompt("c", "z")]
    sides = [side for _, side, _ in label_members(prompts, [[1]] * 3, "1")]
    assert sides == [True, False, None]
    assert [side for _, side, _ in label_members(prompts, [[1]] * 3, 1, 0)] == [True, False, None]


def test_ratio_of_means_by_hand() -> None:
    values, gap = np.array([1.0, 3.0, 2.0]), np.array([2.0, 4.0, 6.0])
    result = ratio_of_means(values, gap, resamples(3, 2000, 0))
    assert result["percent"] == pytest.approx(50)  # (1 + 3 + 2) / (2 + 4 + 6), not the mean of 1/2, 3/4, 1/3
    assert result["ci"][0] == pytest.approx(100 / 3)  # all draws pair three
    assert result["ci"][1] == pytest.approx(75)  # all draws pair two
    noisy = ratio_of_means(np.array([1.0, -1.0]), np.array([3.0, -1.0]), resamples(2, 500, 0))
    assert all(np.isfinite(noisy["ci"]))


def test_bootstrap_interval_covers() -> None:
    """95 % interval of a ratio of means over 40 pairs: coverage near nominal in 400 draws of data."""
    generator = np.random.default_rng(3)
    hits = 0
    for trial in range(400):
        gap = generator.gamma(4.0, 1.0, size=40)
        values = 0.5 * gap + generator.normal(0, 1, size=40)
        low, high = ratio_of_means(values, gap, resamples(40, 400, trial))["ci"]
        hits += low <= 50 <= high
    assert 0.91 <= hits / 400 <= 0.98


def test_the_rule_needs_interval_and_null() -> None:
    clear = {"percent": 50.0, "ci": [40.0, 60.0]}
    assert passes(clear, [0.0, 5.0], 10)
    assert not passes(clear, [0.0, 55.0], 10)  # a random other expert does as much
    assert not passes({"percent": 50.0, "ci": [9.0, 90.0]}, [], 10)  # uncertain
    assert not passes({"percent": -80.0, "ci": [-90.0, -70.0]}, [], 10)  # the wrong way


def test_nulls_are_other_experts() -> None:
    nulls = choose_nulls({2: 8, 3: 2}, [CAUSAL, parse_expert("L3.E0"), parse_expert("L3.E1")], Plan(null=4))
    assert len(nulls[2]) == 4
    assert CAUSAL not in nulls[2]
    assert nulls == choose_nulls({2: 8, 3: 2}, [CAUSAL, parse_expert("L3.E0"), parse_expert("L3.E1")], Plan(null=4))
    assert {str(site) for site in nulls[3]} == {"L3.E0", "L3.E1"}  # none is left over
    with pytest.raises(InterchangeError, match="single expert"):
        choose_nulls({0: 1}, [parse_expert("L0.E0")], Plan())


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
    verdicts = {row["site"]: row["verdict"] for row in document.rows}
    assert verdicts["L2.E5"] == "necessary and sufficient"
    assert verdicts["L1.E1"] == "association only"
    assert all(verdicts[f"L0.E{expert}"] in ("not associated", "untestable") for expert in range(8))
    assert [row["site"] for row in document.rows if row["verdict"].startswith(("necessary", "sufficient"))] == ["L2.E5"]
    document.write(tmp_path / "f.json")
    again = load_findings(tmp_path / "f.json")
    assert again.rows == document.rows
    assert again.interchange[0]["alignment"] == "end of prompt"
    enter(document, question, interchange(compiled, selection, [CAUSAL], QUICK))
    assert len(document.interchange) == 1  # a new run replaces the old one
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
