"""One interchange run: choose null experts, measure, and write effects and verdicts into findings."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.capture import find_experts
from moeprobe.errors import InterchangeError
from moeprobe.findings import EFFECTS, Findings, rule, verdict
from moeprobe.interchange.experiment import Progress, check_sites, count_usage, measure
from moeprobe.interchange.judging import Criteria, judge
from moeprobe.interchange.pairs import PairSelection
from moeprobe.models import LoadedModel, engine_section, versions_section
from moeprobe.sites import Site, expert_site, parse_expert


@dataclass(frozen=True)
class Plan:
    """How an interchange run is done; all of it is written into the findings.

    Attributes:
        tokens: length of the control continuation that is scored.
        null: other experts of its layer, chosen at random, that every tested expert is compared with.
        bootstrap: draws of the interval over pairs.
        seed: of null choice and bootstrap.
        minimum_effect: percent of the gap below which an effect gets no causal word, however certain it is. The gap
            holds everything that differs between the prompts of a pair, their topic too, so even a switch of the
            behaviour explains a part of it only: 1 to 8 % in [HAR]'s tables. 2 % is the guard of STATISTICS 8.
        batch_size: pairs per forward.
    """

    tokens: int = 5
    null: int = 5
    bootstrap: int = 10_000
    seed: int = 0
    minimum_effect: float = 2.0
    batch_size: int = 8

    def __post_init__(self) -> None:
        if min(self.tokens, self.null, self.bootstrap, self.batch_size) < 1:
            raise InterchangeError("Tokens, null experts, bootstrap draws and batch size must each be at least 1.")
        if self.minimum_effect < 0:
            raise InterchangeError("The minimum effect must not be negative.")


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Attributes:
        run: an entry of `interchange` in the form of docs/findings.md, without the question's names.
        effects: `rows[].interchange` by site.
    """

    run: dict[str, Any]
    effects: dict[Site, dict[str, Any]]


def interchange(
    loaded: LoadedModel,
    selection: PairSelection,
    sites: list[Site],
    plan: Plan | None = None,
    *,
    progress: Progress | None = None,
) -> Outcome:
    """Test whether `sites` cause what separates sensitive from control prompts.

    Args:
        loaded: the model.
        selection: prompt pairs, from `select_pairs` or `trace_pairs`.
        sites: experts to test, one at a time.
        plan: how; defaults as in `Plan`.
        progress: called with (done, all) swaps.

    Raises:
        InterchangeError: a site the model has not, fewer than 2 pairs, or no gap between the sides.
    """
    plan, pairs = plan or Plan(), list(selection.pairs)
    if len(pairs) < 2:
        raise InterchangeError(f"Interchange needs at least 2 pairs for an interval, and {len(pairs)} can be used.")
    modules = check_sites(find_experts(loaded.model), sites)
    usage = count_usage(loaded, pairs, list(modules.values()), batch_size=plan.batch_size)
    nulls = choose_nulls(usage, sites, plan)
    every = list(dict.fromkeys([*sites, *(other for group in nulls.values() for other in group)]))
    effects = measure(loaded, pairs, every, tokens=plan.tokens, batch_size=plan.batch_size, progress=progress)
    criteria = Criteria(plan.minimum_effect, bootstrap=plan.bootstrap, seed=plan.seed, placebo=False)
    named = {site: {name: getattr(own, name) for name in EFFECTS} for site, own in effects.sites.items()}
    judged = judge(named, effects.gap, nulls, criteria)
    run = {
        "pairs": len(pairs),
        "pair_ids": list(effects.pair_ids),
        "pairs_from": selection.source,
        "left_out": len(selection.left_out),
        "metric": "mean negative log-likelihood (nats per token) of the control prompt's own greedy continuation",
        "continuation_tokens": plan.tokens,
        "alignment": "end of prompt",
        "swap": "contribution",
        "gap": judged.gap,
        "bootstrap": plan.bootstrap,
        "seed": plan.seed,
        "minimum_effect": plan.minimum_effect,
        "rule": rule(plan.minimum_effect, placebo=False),
        "tested": [str(site) for site in sites],
        "engine": {**engine_section(loaded.model), **versions_section(), "model": loaded.id},
    }
    return Outcome(run, judged.rows)


def choose_nulls(usage: dict[int, NDArray[np.int64]], sites: list[Site], plan: Plan) -> dict[Site, list[Site]]:
    """For each tested site, randomly chosen other experts of its layer, in order of expert.

    Experts that the router chose in these prompts come first: one that never ran is no comparison. Experts that are
    tested themselves are drawn only when the layer has no others left.

    Args:
        usage: (experts,) how often each expert was chosen, by layer; see `count_usage`.
        sites: tested sites.
        plan: number of null experts and seed.

    Raises:
        InterchangeError: a layer of one expert has nothing to compare with.
    """
    chosen = {}
    for site in sites:
        counts = usage[site.layer]
        if len(counts) < 2:
            raise InterchangeError(f"Layer {site.layer} has a single expert; there is no other to compare it with.")
        generator = np.random.default_rng([plan.seed, site.layer])
        order = [expert_site(site.layer, int(expert)) for expert in generator.permutation(len(counts))]
        others = [other for other in order if other != site]
        free = [other for other in others if other not in sites] or others
        ranked = sorted(free, key=lambda other: counts[other.expert] == 0)
        chosen[site] = sorted(ranked[: plan.null])
    return chosen


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

    Args:
        findings: changed in place.
        question: the question whose rows were tested.
        outcome: from `interchange`.
        replace: drop a former run on the same question, with its verdicts.

    Raises:
        InterchangeError: a tested site has no row (the findings are of another model), or there is a former run.
    """
    name = question["name"]
    check_former(findings, name, replace=replace)
    rows = {row["site"]: row for row in findings.rows if row["probe"] == name}
    for site in outcome.effects:
        if str(site) not in rows:
            raise InterchangeError(f"The findings hold no row for {site} and {name!r}. Are they of another model?")
    for row in rows.values():
        row["interchange"] = outcome.effects.get(parse_expert(row["site"]))
        row["verdict"] = verdict(row["association"], row["interchange"])
    findings.interchange = [run for run in findings.interchange if run["probe"] != name]
    source = outcome.run["pairs_from"]
    groups = {key: source.get(key, question[key]) for key in ("positive", "negative")}
    findings.interchange.append({"probe": name, **groups, **outcome.run})


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
