"""Interchange runs in findings: what a run writes is read back, and what does not hold together is refused."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moeprobe.correlate import correlate
from moeprobe.correlate.document import findings_of
from moeprobe.designs.regrouping import regroup
from moeprobe.errors import FindingsError
from moeprobe.findings import load_findings
from moeprobe.findings.row import check_row
from moeprobe.findings.run import check_flags, check_run
from moeprobe.interchange import LogitDifference, Plan, enter, interchange
from moeprobe.models import LoadedModel
from moeprobe.pairs.from_trace import trace_pairs
from moeprobe.trace import Trace

Json = dict[str, Any]
SITES = ["L2.E5", "L1.E1", "L2.router", "L0.H0", "L2.E5+L1.E1"]


def judged(compiled: LoadedModel, trace: Trace, plan: Plan) -> Json:
    findings = findings_of(trace, [correlate(trace, by="label", positive="triggered")])
    question = findings.questions[0]
    selection = trace_pairs(trace, regroup(trace.generations, question, None))
    enter(findings, question, interchange(compiled, selection, SITES, plan))
    return dict(json.loads(json.dumps(findings.to_json())))


@pytest.fixture(scope="module")
def document(compiled: LoadedModel, compiled_trace: Trace) -> Json:
    plan = Plan(bootstrap=200, null=3, controls=("placebo", "random", "noise"), knockouts=("bar", "mean"), members=True)
    return judged(compiled, compiled_trace, plan)


@pytest.fixture(scope="module")
def confirmed(compiled: LoadedModel, compiled_trace: Trace) -> Json:
    return judged(compiled, compiled_trace, Plan(bootstrap=200, null=3, confirm=2))


@pytest.fixture(scope="module")
def downward(compiled: LoadedModel, compiled_trace: Trace) -> Json:
    """A metric that is lower on the sensitive side, with further knock-outs."""
    words = (["sorry"], ["the"])
    metric = LogitDifference(compiled, *words)
    probe = judged(compiled, compiled_trace, Plan(metric=metric, bootstrap=200, null=3, knockouts=("mean",)))
    if probe["interchange"][0]["gap"]["mean"] > 0:
        metric = LogitDifference(compiled, *reversed(words))
        probe = judged(compiled, compiled_trace, Plan(metric=metric, bootstrap=200, null=3, knockouts=("mean",)))
    return probe


def save(document: Json, tmp_path: Path) -> Path:
    path = tmp_path / "f.json"
    path.write_text(json.dumps(document))
    return path


def row_of(document: Json, site: str = "L2.E5") -> Json:
    return next(row for row in document["rows"] if row["site"] == site)


@pytest.mark.parametrize("name", ["document", "confirmed", "downward"])
def test_what_a_run_writes_is_read_back(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    document = request.getfixturevalue(name)
    assert load_findings(save(document, tmp_path)).to_json() == document
    run = document["interchange"][0]
    shown = {row["site"] for row in document["rows"] if row["interchange"]} | {one["site"] for one in run["others"]}
    assert shown == set(run["tested"])
    assert (run["confirmation"] is None) == (name != "confirmed")
    assert (run["gap"]["mean"] < 0) == (name == "downward")
    assert row_of(document)["verdict"] == "necessary and sufficient"


Change = Callable[[Json], object]


def effects(*path: str, value: object) -> Change:
    """Set a field of the causal expert's effects."""

    def change(document: Json) -> None:
        place = row_of(document)["interchange"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def run(*path: str, value: object) -> Change:
    def change(document: Json) -> None:
        place = document["interchange"][0]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def drop(*path: str) -> Change:
    def change(document: Json) -> None:
        place = row_of(document)["interchange"]
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


def other(document: Json, key: str, value: object) -> None:
    document["interchange"][0]["others"][0][key] = value


DAMAGES: list[tuple[Change, str]] = [
    (effects("pairs", value=29), "'per_pair' has 30 numbers for 29 pairs"),
    (effects("enough_pairs", value=False), "does not agree with 30 pairs"),
    (effects("undecided", value=["necessity"]), "'undecided' does not follow"),
    (effects("undecided", value=None), "'undecided' must be a list"),
    (effects("opposes", value=[1]), "list of texts"),
    (effects("opposes", value=["necessity"]), "'opposes' does not follow"),
    (effects("adjustment", value="none"), "expected one of family-wise"),
    (effects("adjustment", value="held out"), "does not agree with how the run chose"),
    (effects("necessary", value=False), "does not follow"),
    (effects("necessity", "p", value=1.5), "no probability"),
    (effects("necessity", "p_swap", value=None), "'p_swap' must be a finite number"),
    (effects("necessity", "percent", value=40.0), "is not its mean over the mean gap"),
    (effects("necessity", "mean", value=1.0), "'mean' is not the mean"),
    (effects("necessity", "ci", value=[5.0, 1.0]), r"must be \[low, high\]"),
    (effects("necessity", "ci", value=None), "'ci' is missing"),
    (effects("necessity", "per_pair", value=[1.0]), "1 numbers for 30 pairs"),
    (effects("necessity", "per_pair", value=["a"] * 30), "list of numbers"),
    (effects("necessity", "contrasts", value=[]), "must be an object"),
    (effects("necessity", "contrasts", "minus_placebo", value=3), "expected a JSON object"),
    (effects("necessity", "contrasts", "minus_placebo", "percent", value=0.0), "is not its mean over the mean gap"),
    (effects("necessity", "contrasts", "minus_hope", value={}), "unknown contrast 'minus_hope'"),
    (drop("necessity", "p_minus_placebo"), "'p_minus_placebo' is missing"),
    (effects("necessity", "rank", value=None), "if, and only if, the site was compared"),
    (effects("necessity", "rank", "above", value=9), "more sites are above"),
    (effects("necessity", "rank", "sites", value=19), "not among the 3 comparison sites"),
    (effects("necessity", "rank", "of", value="luck"), "expected one of minus_placebo"),
    (effects("null", "asked", value="yes"), "true or false"),
    (effects("null", "asked", value=False), "do not agree"),
    (effects("null", "active", value=4), "do not agree"),
    (effects("null", "necessity", value=[0.0]), "one number for each site"),
    (effects("null", "sites", value=[{}, 1, 2]), "list of texts"),
    (effects("thresholds", "alpha", value=2), "no probability"),
    (effects("thresholds", "minimum_effect", value=50.0), "not that of its interchange run"),
    (effects("thresholds", "material_effect", value=-1.0), "negative"),
    (effects("price", value=0.5), "must be an object"),
    (effects("price", "kl", value="much"), "finite number"),
    (effects("price", "prompts", value=0), "whole number from 1"),
    (drop("price"), "'price' is missing"),
    (drop("additivity"), "'additivity' is missing"),
    (effects("knockout_bar", "ci", value=[1]), r"\[low, high\]"),
    (effects("knockout_mean", value=None), "must be an object"),
    (run("unit", value=3), "'unit' must be a text"),
    (run("coverage", value=None), "'coverage' must be a text"),
    (run("swap", value="everything"), "expected one of contribution"),
    (run("arms", value="all"), "must be a list"),
    (run("tested", value=["L2.E5"]), "but the run did not test it"),
    (run("sensitive", value=[1.0]), "one entry for each of 30 pairs"),
    (run("pair_ids", value=["a"] * 30), "each once"),
    (run("gap", "mean", value=1.0), "not that of the judged pairs"),
    (run("gap", "p", value=-1), "no probability"),
    (run("gap", "ci", value=[2.0, 1.0]), r"must be \[low, high\]"),
    (run("pairs", value=0), "whole number from 1"),
    (run("minimum_effect", value=-2), "negative"),
    (run("confirmation", value=[]), "must be an object"),
    (run("confirmation", value={"screened": [], "chosen": [], "chosen_on": [], "tested_on": []}), "no halves"),
    (run("probe", value="another"), "of no question there"),
    (lambda d: d["interchange"].append(d["interchange"][0]), "two of one question"),
    (lambda d: d["interchange"].clear(), "no such run"),
    (lambda d: d["interchange"][0].pop("confirmation"), "'confirmation' is missing"),
    (lambda d: d["interchange"][0].pop("pairs_from"), "'pairs_from' is missing"),
    (lambda d: d["interchange"][0]["tested"].append("L3.E1"), "L3.E1 was tested by interchange, but its effects"),
    (lambda d: d["interchange"][0]["others"].append(d["interchange"][0]["others"][0]), "a site twice"),
    (lambda d: d["interchange"][0]["others"].append(3), "expected a JSON object"),
    (lambda d: other(d, "site", "everything"), "'everything' names no site"),
    (lambda d: other(d, "verdict", "necessary"), "verdict does not follow"),
    (lambda d: other(d, "interchange", {}), "'pairs' is missing"),
]


@pytest.mark.parametrize(("change", "said"), DAMAGES)
def test_damaged_runs_are_refused(document: Json, tmp_path: Path, change: Change, said: str) -> None:
    changed = copy.deepcopy(document)
    change(changed)
    with pytest.raises(FindingsError, match=said):
        load_findings(save(changed, tmp_path))


def test_damaged_sets_and_halves_are_refused(document: Json, confirmed: Json, tmp_path: Path) -> None:
    changed = copy.deepcopy(document)
    one = next(one for one in changed["interchange"][0]["others"] if "+" in one["site"])
    one["interchange"]["additivity"]["necessity"]["words"] = "more is more"
    with pytest.raises(FindingsError, match="expected one of redundant"):
        load_findings(save(changed, tmp_path))
    changed = copy.deepcopy(confirmed)
    halves = changed["interchange"][0]["confirmation"]
    halves["tested_on"].append(halves["chosen_on"].pop())
    with pytest.raises(FindingsError, match="mean gap is not that|15 pairs, but the run judged 16"):
        load_findings(save(changed, tmp_path))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values; of lists the first two entries."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


BAD = [None, "x", -1, [], {}, True, 10**400, 1e308, -1e308, [[]]]


@pytest.mark.parametrize("bad", BAD, ids=[str(number) for number in range(len(BAD))])
def test_no_damage_is_a_traceback(document: Json, bad: object) -> None:
    """Every field of a run and of the effects of an expert, replaced by something else: read, or refused in words."""
    whole = {"run": document["interchange"][0], "effects": row_of(document)["interchange"]}
    text, refused = json.dumps({**whole, "row": row_of(document)}), 0
    for path in places(whole):
        if len(path) == 1:
            continue
        changed = json.loads(text)
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = bad
        changed["row"]["interchange"] = changed["effects"]
        try:
            checked = check_run(changed["run"], "run")
            check_flags(check_row(changed["row"], "row"), checked, "row")
        except FindingsError:
            refused += 1
    assert refused > 100
