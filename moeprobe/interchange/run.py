"""One interchange run: choose null experts, measure, and write effects and verdicts into findings."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from moeprobe.capture import find_experts
from moeprobe.errors import InterchangeError
from moeprobe.findings import Findings, verdict
from moeprobe.interchange.experiment import Progress, check_sites, measure
from moeprobe.interchange.inference import check_gap, ratio_of_means, resamples, rule, summarise
from moeprobe.interchange.pairs import PairSelection
from moeprobe.models import LoadedModel, engine_section, versions_section
from moeprobe.sites import ExpertSite, parse_expert


@dataclass(frozen=True)
class Plan:
    """How an interchange run is done; all of it is written into the findings.

    Attributes:
        tokens: length of the control continuation that is scored.
        null: other experts per layer, chosen at random, that every tested expert is compared with.
        bootstrap: draws of the interval over pairs.
        seed: of null choice and bootstrap.
        minimum_effect: percent of the gap below which an effect gets no causal word, however certain it is.
        batch_size: pairs per forward.
    """

    tokens: int = 5
    null: int = 5
    bootstrap: int = 10_000
    seed: int = 0
    minimum_effect: float = 10.0
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
    effects: dict[ExpertSite, dict[str, Any]]


def interchange(
    loaded: LoadedModel,
    selection: PairSelection,
    sites: list[ExpertSite],
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
    nulls = choose_nulls({layer: module.experts for layer, module in modules.items()}, sites, plan)
    every = list(dict.fromkeys([*sites, *(other for group in nulls.values() for other in group)]))
    effects = measure(loaded, pairs, every, tokens=plan.tokens, batch_size=plan.batch_size, progress=progress)
    check_gap(effects)
    summary = summarise(
        effects, sites, nulls, bootstrap=plan.bootstrap, seed=plan.seed, minimum_effect=plan.minimum_effect
    )
    gap = ratio_of_means(effects.gap, effects.gap, resamples(len(pairs), plan.bootstrap, plan.seed))
    run = {
        "pairs": len(pairs),
        "pair_ids": list(effects.pair_ids),
        "left_out": len(selection.left_out),
        "metric": "mean negative log-likelihood (nats per token) of the control prompt's own greedy continuation",
        "continuation_tokens": plan.tokens,
        "alignment": "end of prompt",
        "swap": "contribution",
        "gap": {"mean": gap["mean"], "ci": _mean_interval(effects.gap, plan)},
        "bootstrap": plan.bootstrap,
        "seed": plan.seed,
        "minimum_effect": plan.minimum_effect,
        "rule": rule(plan.minimum_effect),
        "tested": [str(site) for site in sites],
        "engine": {**engine_section(loaded.model), **versions_section(), "model": loaded.id},
    }
    return Outcome(run, summary)


def choose_nulls(experts: dict[int, int], sites: list[ExpertSite], plan: Plan) -> dict[int, list[ExpertSite]]:
    """Randomly chosen other experts of each tested layer, (layer -> sites), in order of expert.

    Experts that are tested themselves are chosen only when the layer has no others left.

    Raises:
        InterchangeError: a layer of one expert has nothing to compare with.
    """
    generator = np.random.default_rng(plan.seed)
    chosen = {}
    for layer, count in sorted(experts.items()):
        tested = {site.expert for site in sites if site.layer == layer}
        free = [expert for expert in range(count) if expert not in tested] or list(range(count))
        if count < 2:
            raise InterchangeError(
                f"Layer {layer} has a single expert, so there is no other expert to compare it with."
            )
        picks = generator.choice(free, size=min(plan.null, len(free)), replace=False)
        chosen[layer] = [ExpertSite(layer, int(expert)) for expert in sorted(picks)]
    return chosen


def leading_sites(findings: Findings, question: str, top: int) -> list[ExpertSite]:
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


def enter(findings: Findings, question: dict[str, Any], outcome: Outcome) -> None:
    """Write a run into findings: the run itself, the effects of its rows, and their verdicts. A former run on the same
    question is replaced.

    Raises:
        InterchangeError: a tested site has no row (the findings are of another model).
    """
    name = question["name"]
    rows = {row["site"]: row for row in findings.rows if row["probe"] == name}
    for site in outcome.effects:
        if str(site) not in rows:
            raise InterchangeError(f"The findings hold no row for {site} and {name!r}. Are they of another model?")
    for row in rows.values():
        row["interchange"] = outcome.effects.get(parse_expert(row["site"]))
        row["verdict"] = verdict(row["association"], row["interchange"])
    findings.interchange = [run for run in findings.interchange if run["probe"] != name]
    findings.interchange.append(
        {"probe": name, "positive": question["positive"], "negative": question["negative"], **outcome.run}
    )


def _mean_interval(gap: np.ndarray[Any, np.dtype[np.float64]], plan: Plan) -> list[float]:
    low, high = np.percentile(resamples(len(gap), plan.bootstrap, plan.seed) @ gap, [2.5, 97.5])
    return [float(low), float(high)]
