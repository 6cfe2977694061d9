"""The sentences about interchange effects. A causal word appears only where the verdict carries it."""

import math
from collections.abc import Mapping
from typing import Any

from moeprobe.findings.causes import CAUSAL_EFFECTS, certain, undecided
from moeprobe.findings.verdicts import CAUSAL, is_most
from moeprobe.report import figures

Json = Mapping[str, Any]

# Each effect as the page names it, in the order of the page.
EFFECTS = {
    "necessity": "Necessity",
    "sufficiency": "Sufficiency",
    "knockout": "Knock-out",
    "knockout_bar": "Knock-out, barred before the choice",
    "knockout_mean": "Knock-out, its mean instead",
    "knockout_resample": "Knock-out, another prompt\u2019s instead",
}
CONTRASTS = {
    "minus_placebo": "minus a placebo donor",
    "minus_random": "minus a random donor of the other class",
    "minus_noise": "minus noise of the same length",
    "random_minus_placebo": "random donor of the other class minus placebo donor",
}
# What is swapped, in a sentence and as a fact.
SWAPPED = {
    "contribution": ("contribution", "contribution: gate weight times output of an expert; else the value of the site"),
    "output": ("output", "output: the other run\u2019s output of the expert, with the run\u2019s own gate weight"),
    "routing": ("gate weight", "routing: the other run\u2019s gate weight, with the run\u2019s own output"),
}  # fmt: skip
# Odds at which two texts are told apart; ln 20 is about 3.
_TOLD_APART = 20
_MANY = 1_000_000


def effect(value: Json) -> str:
    """Print an effect with its interval: ``97 % [90, 104]``."""
    return f"{figures.percent(value['percent'])} {figures.interval(value['ci'])}"


def minus_placebo(swaps: Json, name: str) -> str:
    """An effect less what a donor of the recipient's own class does."""
    contrast = swaps[name]["contrasts"].get("minus_placebo")
    return "not run" if contrast is None else effect(contrast)


def swapped(run: Json) -> str:
    """What of a site was swapped: ``contribution``."""
    return SWAPPED.get(run["swap"], (str(run["swap"]),))[0]


def facts(swaps: Json, noun: str) -> list[tuple[str, str]]:
    """The figures of a card: label and value."""
    lines = []
    for name in CAUSAL_EFFECTS:
        lines += [(EFFECTS[name], effect(swaps[name])), (f"{EFFECTS[name]} minus placebo", minus_placebo(swaps, name))]
    lines += [(EFFECTS[name], effect(swaps[name])) for name in EFFECTS if name not in CAUSAL_EFFECTS and name in swaps]
    if swaps["null"]["asked"]:
        lines.append((f"Comparison {noun}s, at most", figures.percent(largest_null(swaps))))
    if swaps["price"] is not None:
        lines.append(("Price, nats per token", figures.nats(swaps["price"]["kl"])))
    return lines


def more(swaps: Json) -> list[tuple[str, str]]:
    """Every contrast, p and rank of a site, for whoever wants to look closer."""
    lines = []
    for name in CAUSAL_EFFECTS:
        found = swaps[name]
        for key, contrast in found["contrasts"].items():
            lines.append((f"{EFFECTS[name]}, {CONTRASTS.get(key, str(key))}", effect(contrast)))
        held = "q over the sites chosen" if swaps["adjustment"] == "held out" else "p over all sites tested"
        lines.append(
            (
                f"{EFFECTS[name]}, {held}",
                f"{figures.chance(found['p'])} (beyond the minimum effect); {figures.chance(found['p_zero'])} (not 0)",
            )
        )
        if found["rank"] is not None and found["rank"]["sites"]:
            of = "minus placebo" if found["rank"]["of"] == "minus_placebo" else "of the swap"
            lines.append(
                (
                    f"{EFFECTS[name]}, rank {of}",
                    f"{int(found['rank']['above'])} of {int(found['rank']['sites'])} comparison sites do as much",
                )
            )
    return lines


def notes(swaps: Json, noun: str) -> list[str]:
    """What a reader must know beside the figures: what works against, comparison, price, sets."""
    found = [*opposed(swaps), *_redundant(swaps)]
    if not swaps["null"]["asked"]:
        found.append(f"It is alone of its kind: there is no other {noun} to compare it with.")
    return [*found, *price(swaps)]


def price(swaps: Json) -> list[str]:
    """What knocking the site out costs where the behaviour is not asked for, in words; nothing where not measured."""
    paid = swaps["price"]
    if paid is None:
        return []
    prompts = figures.count(int(paid["prompts"]), "neutral prompt")
    if paid["kl"] <= 0:
        return [f"Price: on {prompts}, knocking it out changed nothing the model says."]
    low, high = (figures.nats(end) for end in paid["ci"])
    changed = (
        f"Price: on {prompts}, knocking it out changes what the model says by "
        f"{figures.nats(paid['kl'])} [{low}, {high}] nats per token (KL divergence)"
    )
    if paid["ci"][0] <= 0:
        return [f"{changed}, which these prompts do not tell apart from nothing."]
    tokens = math.log(_TOLD_APART) / paid["kl"]
    many = f"about {tokens:,.0f} tokens" if tokens >= 1.5 else "a single token"
    many = many if tokens < _MANY else "more than a million tokens"
    return [
        f"{changed}. At that rate it takes {many} of text until the model with it and the one without it can be told "
        f"apart at {_TOLD_APART} to 1."
    ]


def opposed(swaps: Json) -> list[str]:
    """Effects that are reliably negative."""
    away = {
        "necessity": "put in from the control run, it moved the metric further from the control run",
        "sufficiency": "put in from the sensitive run, it moved the metric further from the sensitive run",
    }
    return [
        f"Its {name} is reliably below 0 (more than the minimum effect): {away[name]}."
        for name in CAUSAL_EFFECTS
        if name in swaps["opposes"]
    ]


def _redundant(swaps: Json) -> list[str]:
    """A set against the sum of its members."""
    if swaps["additivity"] is None:
        return []
    said = {
        "redundant": "less than its members add up to, so they do some of the same work (redundant)",
        "more than its members": "more than its members add up to",
        "not told apart from additive": "not told apart from what its members add up to",
    }
    found = []
    for name in CAUSAL_EFFECTS:
        one = swaps["additivity"][name]
        share = one["redundancy"]
        much = ""
        if share is not None and one["words"] == "redundant":
            ends = figures.interval(share["ci"], 100)
            much = f" {figures.percent(100 * share['value'])} {ends} of the sum is done twice."
        found.append(
            f"{EFFECTS[name]} of the set is {said.get(one['words'], str(one['words']))}: {effect(one['set'])} "
            f"together, {effect(one['sum'])} as the sum of its members one by one.{much}"
        )
    return found


def largest_null(swaps: Json) -> float | None:
    """The largest effect (in size, percent) of the comparison sites; None when there are none."""
    null = swaps["null"]
    sizes = [abs(x) for key in CAUSAL_EFFECTS for x in null[key] if x is not None]
    return max(sizes, default=None)


def null_sentence(swaps: Json, noun: str) -> str:
    """Say what the sites most like this one did under the same swaps."""
    largest, tried = largest_null(swaps), len(swaps["null"]["sites"])
    if not swaps["null"]["asked"]:
        return f"It is alone of its kind, so it was compared with no other {noun}."
    if largest is None:
        return f"There was no {noun} like it to compare it with."
    if swaps["null"]["active"] == 0:
        who = f"The other {noun}" if tried == 1 else f"None of the {tried} other {noun}s"
        return f"{who} that it was compared with changed {'nothing' if tried == 1 else 'anything'} at all."
    like = "in how often it is chosen and how much it adds" if noun == "expert" else "in how much it adds"
    who = f"The {noun} most like it {like}" if tried == 1 else f"The {tried} {noun}s most like it {like}"
    return f"{who} changed the effect by at most {figures.percent(largest)} (necessity or sufficiency)."


def causal(verdict: str, swaps: Json, runs: tuple[str, str, str], thing: str, what: str) -> str:
    """The sentence behind a causal verdict, from its verb on; it claims no more than the verdict, with both numbers.

    `what` of the site was swapped, between `runs` (`Voice.runs`).
    """
    sensitive, control, into = runs
    needed = (
        f"replacing its {what} in {sensitive} by that of {control} removes {effect(swaps['necessity'])} of the effect "
        "(necessity)"
    )
    enough = f"putting it into {into} brings {effect(swaps['sufficiency'])} of the effect about (sufficiency)"
    thing = part(verdict, swaps) + thing
    if verdict == "necessary and sufficient":
        return f"causes {thing} here: {needed}, and {enough}."
    if verdict == "necessary":
        return f"is needed for {thing} here: {needed}. It is not enough on its own: {enough}."
    return f"is enough to bring {thing} about here: {enough}. It is not needed: {needed}."


def part(verdict: str, swaps: Json) -> str:
    """`part of ` where a causal verdict rests on effects that are not clearly most of the whole.

    A reader takes a bare "causes" for the whole.
    """
    return "" if is_most(verdict, swaps) else "part of "


def inert(verdict: str, swaps: Json, run: Json, noun: str, ending: str) -> str:
    """The sentence behind a verdict that names no cause, from its verb on."""
    if swaps["exactly_zero"] and verdict != "underpowered":
        out = " or knocking it out" if "knockout" in swaps else ""
        return f"swapping it{out} changed nothing (exactly 0): {ending}."
    numbers = ", ".join(f"{name} {effect(swaps[name])}" for name in CAUSAL_EFFECTS)
    if not swaps["enough_pairs"]:
        return f"it was swapped in only {int(swaps['pairs'])} pairs, too few for a verdict: {numbers}."
    if verdict == "underpowered":
        return f"swapping it in {int(swaps['pairs'])} pairs decided nothing: {numbers}. {open_question(swaps, noun)}"
    beaten = [name for name in CAUSAL_EFFECTS if certain(swaps, name)]
    if beaten:
        rank = swaps[beaten[0]]["rank"]
        return (
            f"{noun}s like it do as much: {numbers}. Of {int(rank['sites'])} most like it, {int(rank['above'])} have "
            f"at least its {beaten[0]}: {ending}."
        )
    placebo = all("minus_placebo" in swaps[name]["contrasts"] for name in CAUSAL_EFFECTS)
    less = f" (minus a placebo donor: {', '.join(minus_placebo(swaps, name) for name in CAUSAL_EFFECTS)})"
    return (
        f"swapping it changed too little: {numbers}{less if placebo else ''}. Reliably more than "
        f"{figures.percent(run['minimum_effect'])}{', by both counts,' if placebo else ','} and more than {noun}s "
        f"like it do, was asked for: {ending}."
    )


def open_question(swaps: Json, noun: str) -> str:
    """What would decide an effect that enough pairs left open."""
    found = []
    for name in CAUSAL_EFFECTS:
        if not undecided(swaps, name):
            continue
        if certain(swaps, name):
            found.append(f"Its {name} is certain, but there is no other {noun} to compare it with.")
            continue
        ends = [
            swaps[name]["ci"][1],
            *(one["ci"][1] for key, one in swaps[name]["contrasts"].items() if key == "minus_placebo"),
        ]
        limit = swaps["thresholds"]["material_effect"]
        if min(ends) > limit:
            found.append(
                f"Its {name} may be as large as {figures.percent(min(ends))}, and less than {figures.percent(limit)} "
                "must be certain before it is called none. More pairs would decide it."
            )
        else:
            found.append(f"Of its {name}, p and intervals do not agree yet. More pairs would decide it.")
    return " ".join(found)


def doubts(verdict: str, swaps: Json, run: Json, noun: str) -> list[str]:
    """What would make the verdict wrong, given what was and was not run."""
    found = []
    if verdict in CAUSAL:
        found.append(f"The metric is not the behaviour: it was {run['metric']}.")
        if any("minus_placebo" not in swaps[name]["contrasts"] for name in CAUSAL_EFFECTS):
            found.append(
                "Any disturbance does it: no placebo donor, of the recipient\u2019s own class, was swapped in."
            )
        else:
            found.append(
                "It carries something else in which the two prompts of a pair differ, such as their topic: a placebo "
                "donor shows what any swap does, not what a swap of another topic does."
            )
        tried = len(swaps["null"]["sites"])
        if 0 < tried < 19:
            found.append(
                f"Other {noun}s do as much. Only {figures.count(tried, f'{noun} like it', f'{noun}s like it')} "
                f"{'was' if tried == 1 else 'were'} tried, so the comparison cannot be finer than 1 in {tried + 1}."
            )
        if swaps["price"] is not None and swaps["price"]["kl"] > 0:
            found.append("It is about more than the behaviour: see what knocking it out does to neutral prompts.")
    else:
        found.append(
            f"It acts at other positions, on another metric, or together with {noun}s that stand in for it. How "
            f"positions were paired here: {run['alignment']}"
        )
    if swaps["pairs"] < 20:
        found.append(f"The {figures.count(swaps['pairs'], 'prompt pair')} are not like other prompts: that is few.")
    return found
