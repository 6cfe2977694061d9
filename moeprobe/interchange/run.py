"""One interchange run: comparison sites, every arm, and effects, verdicts and prices of the tested sites."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.chat.encode import encode_prompt
from moeprobe.editing import layout_of
from moeprobe.editing.means import mean_values
from moeprobe.errors import InterchangeError
from moeprobe.findings import rule
from moeprobe.interchange.comparison import comparisons
from moeprobe.interchange.journal import Journal, digest
from moeprobe.interchange.lab import Lab, givers_of, lab
from moeprobe.interchange.measure import Effects, Progress, measure, unedited
from moeprobe.interchange.neutral import NEUTRAL
from moeprobe.interchange.plan import Plan
from moeprobe.interchange.price import price
from moeprobe.judging.additivity import additivity
from moeprobe.judging.confirming import confirm, split_pairs
from moeprobe.judging.judge import judge
from moeprobe.judging.ratio import check_gap, oriented, ratio, resamples
from moeprobe.models import LoadedModel, engine_section, versions_section
from moeprobe.pairs.coverage import coverage
from moeprobe.pairs.pairs import SIDES, PairSelection, TokenPair
from moeprobe.prompts import Prompt
from moeprobe.sites import Site, SiteSet, parse_sites

Floats = NDArray[np.float64]
# Placebo donors that reach less than this share of what the pairs' own donors reach are warned of.
LESS = 0.9
Named = str | Site | SiteSet


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Attributes:
        run: an entry of `interchange` in the form of docs/findings.md, without the question's names.
        effects: `rows[].interchange` by tested set of sites.
        measured: all effects per pair, of comparison sites too.
    """

    run: dict[str, Any]
    effects: dict[SiteSet, dict[str, Any]]
    measured: Effects = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """The run with the effects of every tested set; those of comparison sets are percentages in its `null`."""
        return {**self.run, "sites": {str(one): row for one, row in self.effects.items()}}


def interchange(
    loaded: LoadedModel,
    selection: PairSelection | Sequence[TokenPair],
    sites: Sequence[Named] | Named,
    plan: Plan | None = None,
    *,
    neutral: Sequence[Prompt] | None = None,
    raw: bool = False,
    journal: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Test whether sites cause what separates sensitive from control prompts.

    Args:
        loaded: the model.
        selection: prompt pairs: from `select_pairs`, `trace_pairs` or `encode_pairs`, or a list of them.
        sites: what to test, one after the other: names ("L14.E114", "L14.E3+E7", "L13-L16.H*"), sites or sets.
        plan: how; defaults as in `Plan`.
        neutral: prompts on which the price of knocking a site out is measured; default: those of moeprobe.
        raw: neutral prompts are encoded without the chat template.
        journal: file that keeps finished pairs while the run lasts; removed by whoever stores the outcome.
        resume: go on with the journal of an interrupted run.
        progress: called with (pairs done, pairs in all).

    Raises:
        InterchangeError: fewer than 2 pairs (16 with `confirm`), no gap between the sides, donors that are missing.
        MoeprobeError: a site the model has not.
    """
    plan = plan or Plan()
    selection = _selected(selection, plan)
    pairs = list(selection)
    names = ("metric", "alignment", "swap", "seed", "batch_size")
    bench = lab(loaded, **{name: getattr(plan, name) for name in names})
    tested = resolved(bench, [sites] if isinstance(sites, str | Site | SiteSet) else sites)
    # Whether there is anything to move is known from the unedited runs, at a small part of the cost.
    check_gap(unedited(bench, pairs).gap, resamples(len(pairs), plan.bootstrap, plan.seed), signed=plan.metric.signed)
    every = tested + _members(tested, plan)
    nulls = comparisons(bench, pairs, every, plan.null)
    if "mean" in plan.knockouts:
        singles = {site for one in every for site in one.sites if site.kind != "router"}
        prompts = [pair.side(side) for pair in pairs for side in SIDES]
        bench = replace(bench, means=mean_values(loaded, bench.places, prompts, sorted(singles)))
    asked = _asked(bench, selection, every, nulls, plan)
    kept = None if journal is None else Journal(journal, asked, resume=resume)
    measured = _measured(bench, pairs, every, nulls, plan, kept, progress)
    run, rows = _judged(bench, selection, measured, tested, nulls, plan)
    paid = price(bench, _encoded(loaded, neutral, raw=raw), [one for one in tested if _has_knockout(one)])
    for one in rows:
        rows[one]["price"] = paid[one].to_json() if one in paid else None
    return Outcome(run, rows, measured)


def _selected(selection: PairSelection | Sequence[TokenPair], plan: Plan) -> PairSelection:
    """The pairs with their record.

    Raises:
        InterchangeError: too few, before anything is run.
    """
    if not isinstance(selection, PairSelection):
        selection = PairSelection(tuple(selection), {}, {"kind": "list", "name": "pairs", "digest": ""})
    if len(selection) < 2:
        raise InterchangeError(f"Interchange needs at least 2 pairs for an interval, and {len(selection)} can be used.")
    if plan.confirm:
        split_pairs(len(selection), plan.seed)
    return selection


def resolved(bench: Lab, sites: Sequence[Named]) -> list[SiteSet]:
    """Named sites as sets, each once, held against the model.

    Raises:
        InterchangeError: no name at all.
        MoeprobeError: a name that cannot be read, or a site the model has not.
    """
    layout = layout_of(bench.places)
    found: dict[SiteSet, None] = {}
    for name in sites:
        one = parse_sites(name, layout) if isinstance(name, str) else name
        one = SiteSet("", (one,)) if isinstance(one, Site) else one
        for site in one.sites:
            layout.check(site)
        found.setdefault(one)
    if not found:
        raise InterchangeError("No sites were named. Name some, for example L14.E114.")
    return list(found)


def _members(tested: Sequence[SiteSet], plan: Plan) -> list[SiteSet]:
    """The single sites of tested sets of several, where they are asked for and not tested anyway."""
    if not plan.members:
        return []
    singles = dict.fromkeys(SiteSet("", (site,)) for one in tested if len(one.sites) > 1 for site in one.sites)
    return [one for one in singles if one not in tested]


def _has_knockout(one: SiteSet) -> bool:
    return all(site.kind != "router" for site in one.sites)


def _measured(
    bench: Lab,
    pairs: Sequence[TokenPair],
    tested: Sequence[SiteSet],
    nulls: Mapping[SiteSet, tuple[SiteSet, ...] | None],
    plan: Plan,
    kept: Journal | None,
    progress: Progress | None,
) -> Effects:
    """Tested sets with all arms, comparison sets with those they are compared by; in one pass over the pairs."""
    others = dict.fromkeys(other for group in nulls.values() for other in group or ())
    arms: dict[SiteSet, tuple[str, ...]] = {one: plan.arms_for(_kinds(one)) for one in tested}
    for other in others:
        arms.setdefault(other, tuple(arm for arm in plan.null_arms if arm in plan.arms_for(_kinds(other))))
    return measure(
        bench,
        pairs,
        list(arms),
        arms,
        done={} if kept is None else kept.done,
        keep=None if kept is None else kept.keep,
        progress=progress,
    )


def _kinds(one: SiteSet) -> set[str]:
    return {site.kind for site in one.sites}


def _judged(
    bench: Lab,
    selection: PairSelection,
    measured: Effects,
    tested: Sequence[SiteSet],
    nulls: Mapping[SiteSet, tuple[SiteSet, ...] | None],
    plan: Plan,
) -> tuple[dict[str, Any], dict[SiteSet, dict[str, Any]]]:
    gap, signed = measured.gap, plan.metric.signed
    run = _described(bench, selection, measured, plan)
    if plan.confirm:
        asked = {one: nulls[one] for one in tested}
        found = confirm(measured.sites, gap, asked, plan.confirm, plan.criteria, signed=signed)
        judged, used = found.judged, found.tested_on
        run["confirmation"] = {
            "screened": [str(one) for one in tested],
            "chosen": [str(one) for one in found.candidates],
            "chosen_on": [measured.pair_ids[place] for place in found.chosen_on],
            "tested_on": [measured.pair_ids[place] for place in found.tested_on],
        }
    else:
        judged = judge(measured.sites, gap, {one: nulls[one] for one in tested}, plan.criteria, signed=signed)
        used = np.arange(len(gap))
    run["gap"] = judged.gap
    run["tested"] = [str(one) for one in judged.rows]
    run["per_pair"] = {
        str(one): {arm: [float(f"{value:.7g}") for value in values] for arm, values in arms.items()}
        for one, arms in measured.sites.items()
    }
    weights = resamples(len(used), plan.bootstrap, plan.seed)
    for one, row in judged.rows.items():
        own = measured.sites[one]
        for arm in (arm for arm in own if arm.startswith("knockout_")):
            row[arm] = _share(own[arm][used], measured.gap[used], weights)
        row["additivity"] = _additivity(measured, one, used, weights, plan)
    return run, judged.rows


def _share(values: Floats, gap: Floats, weights: Floats) -> dict[str, Any]:
    share = ratio(oriented(values, gap), oriented(gap, gap), weights)
    return {**share, "mean": float(values.mean()), "per_pair": values.tolist()}


def _additivity(
    measured: Effects, one: SiteSet, used: NDArray[np.int64], weights: Floats, plan: Plan
) -> dict[str, Any] | None:
    """A set of several against the sum of its members, in both directions; None where members were not tested."""
    if not plan.members or len(one.sites) < 2:
        return None
    singles = [measured.sites[SiteSet("", (site,))] for site in one.sites]
    return {
        name: additivity(
            measured.sites[one][name][used],
            np.column_stack([single[name][used] for single in singles]),
            measured.gap[used],
            weights,
        )
        for name in ("necessity", "sufficiency")
    }


def _described(bench: Lab, selection: PairSelection, measured: Effects, plan: Plan) -> dict[str, Any]:
    return {
        "pairs": len(selection.pairs),
        "pair_ids": list(measured.pair_ids),
        "pairs_from": selection.source,
        "left_out": len(selection.left_out),
        "metric": plan.metric.sentence,
        "metric_options": plan.metric.to_json(),
        "unit": plan.metric.unit,
        "sensitive": measured.sensitive.tolist(),
        "control": measured.control.tolist(),
        "alignment": plan.alignment.sentence,
        "alignment_options": plan.alignment.to_json(),
        "coverage": _covered(bench, selection.pairs, plan),
        "swap": plan.swap,
        "arms": list(plan.arms),
        "null": plan.null,
        "bootstrap": plan.bootstrap,
        "seed": plan.seed,
        "minimum_effect": plan.minimum_effect,
        "confirmation": None,
        "rule": _rule(plan),
        "engine": {**engine_section(bench.loaded.model), **versions_section(), "model": bench.loaded.id},
    }


def _covered(bench: Lab, pairs: Sequence[TokenPair], plan: Plan) -> str:
    """How much of the prompts the swaps reach, and whether placebo swaps reach less: they would then do less for that
    alone, and swap minus placebo would show an effect where there is none."""
    own, back = (coverage(pairs, plan.alignment, recipient=side) for side in SIDES)
    told = own.sentence if back.readout.all() else f"{own.sentence} Of the control prompts: {back.sentence}"
    if "placebo" not in plan.controls:
        return told
    givers = givers_of(bench, pairs, ["placebo_necessity"])["sensitive", "placebo"]
    placebo = coverage(pairs, plan.alignment, donors=givers.pairs.tolist(), donor="sensitive")
    shares = [100 * int(one.paired.sum()) / int(one.positions.sum()) for one in (own, placebo)]
    text = f"{told} With placebo donors {shares[1]:.0f} % of the positions had one"
    less = shares[1] < LESS * shares[0]
    return f"{text}: a placebo that swaps less shows less, so its contrast may be too large." if less else f"{text}."


def _rule(plan: Plan) -> str:
    placebo, random = ("placebo" in plan.controls, "random" in plan.controls)
    return rule(plan.minimum_effect, placebo=placebo, random=random, held_out=bool(plan.confirm))


def _asked(
    bench: Lab,
    selection: PairSelection,
    tested: Sequence[SiteSet],
    nulls: Mapping[SiteSet, tuple[SiteSet, ...] | None],
    plan: Plan,
) -> dict[str, Any]:
    """Everything a measured pair depends on, for the journal."""
    others = sorted({str(other) for group in nulls.values() for other in group or ()})
    model = {key: value for key, value in bench.loaded.provenance.items() if key != "path"}
    pairs = [[pair.id, *pair.sensitive, -1, *pair.control, -1, *(pair.continuation or ())] for pair in selection.pairs]
    return {
        "model": digest({"model": model}),
        "pairs": digest({"pairs": pairs, "spans": [pair.spans for pair in selection.pairs]}),
        "tested": sorted(map(str, tested)),
        "others": others,
        "arms": list(plan.arms),
        "metric": plan.metric.to_json(),
        "alignment": plan.alignment.to_json(),
        "swap": plan.swap,
        "seed": plan.seed,
        # In 16 bits the greedy continuation can depend on what shares a forward.
        "batch_size": plan.batch_size,
        "engine": engine_section(bench.loaded.model),
        "versions": versions_section(),
    }


def _encoded(loaded: LoadedModel, neutral: Sequence[Prompt] | None, *, raw: bool) -> list[tuple[int, ...]]:
    prompts = [Prompt(f"neutral-{n}", text) for n, text in enumerate(NEUTRAL)] if neutral is None else list(neutral)
    return [tuple(encode_prompt(loaded.tokenizer, prompt, raw=raw)) for prompt in prompts]
