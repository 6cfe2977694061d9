"""Interchange and findings: which sites to test, and where the verdicts go."""

from collections.abc import Sequence
from typing import Any

from moeprobe.errors import InterchangeError
from moeprobe.findings import Findings, verdict
from moeprobe.interchange.run import Outcome
from moeprobe.sites import Site, SiteSet, parse_expert


def leading_sites(findings: Findings, question: str, top: int) -> list[Site]:
    """The `top` associated sites of a question, most significant first.

    Raises:
        InterchangeError: nothing is associated, so there is nothing to test unless sites are named.
    """
    rows = [row for row in findings.rows_of(question) if row["association"] == "associated"]
    if not rows:
        raise InterchangeError(
            f"No expert is associated with {question!r}. Name experts to test with --site, e.g. L14.E114."
        )
    return [parse_expert(row["site"]) for row in rows[:top]]


def enter(findings: Findings, question: dict[str, Any], outcome: Outcome, *, replace: bool = False) -> None:
    """Write a run into findings: the run itself, the effects of its rows, and their verdicts.

    Single experts stand in their rows; heads, blocks and sets have no association and stand in the run (`others`).

    Args:
        findings: changed in place.
        question: the question whose rows were tested.
        outcome: from `interchange`.
        replace: drop a former run on the same question, with its verdicts.

    Raises:
        InterchangeError: a tested expert has no row (the findings are of another model), or there is a former run.
    """
    name = question["name"]
    check_former(findings, name, replace=replace)
    rows = {row["site"]: row for row in findings.rows if row["probe"] == name}
    alone = {str(one): effects for one, effects in outcome.effects.items() if is_expert(one)}
    check_rows(findings, name, list(outcome.effects))
    for row in rows.values():
        row["interchange"] = alone.get(row["site"])
        row["verdict"] = verdict(row["association"], row["interchange"])
    others = [
        {"site": str(one), "name": one.name, "interchange": effects, "verdict": verdict("untestable", effects)}
        for one, effects in outcome.effects.items()
        if not is_expert(one)
    ]
    findings.interchange = [run for run in findings.interchange if run["probe"] != name]
    source = outcome.run["pairs_from"]
    groups = {key: source.get(key, question[key]) for key in ("positive", "negative")}
    findings.interchange.append({"probe": name, **groups, **outcome.run, "others": others})


def check_rows(findings: Findings, question: str, sets: Sequence[SiteSet]) -> None:
    """Whether all single experts have a row, before anything is run.

    Raises:
        InterchangeError: one has none: the findings are of another model.
    """
    rows = {row["site"] for row in findings.rows if row["probe"] == question}
    for one in sets:
        if is_expert(one) and str(one) not in rows:
            raise InterchangeError(f"The findings hold no row for {one} and {question!r}. Are they of another model?")


def is_expert(one: SiteSet) -> bool:
    """Whether a set is a single expert."""
    return len(one.sites) == 1 and one.sites[0].kind == "expert"


def check_former(findings: Findings, question: str, *, replace: bool) -> None:
    """Refuse to drop the verdicts of a former run unasked: what was tried before must not vanish quietly.

    Raises:
        InterchangeError: there is a former run on the question and not `replace`.
    """
    for run in findings.interchange:
        if run["probe"] == question and not replace:
            raise InterchangeError(
                f"The findings hold an interchange run on {question!r} already (tested: {', '.join(run['tested'])}). "
                "Name all experts to test in one run and add --force to replace it."
            )
