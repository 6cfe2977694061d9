"""The rule by which interchange effects become a verdict.

It stands here, low in the house, so that a reader of findings can hold a file's verdicts against its own numbers.
docs/causes.md has the reasons for each part of the rule, and its simulated error.
"""

from collections.abc import Mapping
from typing import Any

EFFECTS = ("necessity", "sufficiency", "knockout")
# The two that a verdict rests on; a knock-out has no partner run and is shown beside them.
CAUSAL_EFFECTS = ("necessity", "sufficiency")
# Below this many pairs effects are shown, but no verdict is given: an interval over fewer covers too little.
MIN_PAIRS = 8
ALPHA = 0.05
# Contrasts that a verdict rests on beside the swap itself, where their donors were run: more than a donor of the
# recipient's own class does; and, with both donors from other pairs, more by class alone. Under labels that mean
# nothing the last one is symmetric about 0 whatever the metric.
DECIDING = ("minus_placebo", "random_minus_placebo")
# An effect of this size (percent of the gap) must be excluded before a site is said to do nothing that matters.
MATERIAL = 10.0


def material_effect(minimum_effect: float) -> float:
    """Percent of the gap that an interval must stay below for "no effect shown": 10, or three minimum effects."""
    return max(MATERIAL, 3 * minimum_effect)


def allowed_above(sites: int, alpha: float = ALPHA) -> int:
    """How many of so many comparison sites may do as much as the site itself.

    As many as keep the rank p = (1 + above) / (1 + sites) at alpha or below. Where even the best rank does not reach
    alpha (fewer than 19 sites at .05), none.
    """
    return max(0, int(alpha * (1 + sites) + 1e-9) - 1)


def passes(summary: Mapping[str, Any], name: str) -> bool:
    """Whether an effect counts: beyond chance, beyond the minimum effect, and beyond other sites.

    Args:
        summary: `rows[].interchange` of docs/findings.md.
        name: "necessity" or "sufficiency".
    """
    return bool(summary["enough_pairs"] and all(_certain(summary, name)) and _leads(summary, name))


def certain(summary: Mapping[str, Any], name: str) -> bool:
    """Whether p and all intervals show an effect beyond the minimum effect, whatever other sites do."""
    return all(_certain(summary, name))


def undecided(summary: Mapping[str, Any], name: str) -> bool:
    """Whether more pairs (or comparison sites) could still turn an effect that does not pass into one that does.

    It could, if what the effect must show (the swap, and the swap minus the placebo) may all be as large as the
    material effect; if p and intervals disagree; or if the effect is certain and there is no site to compare it with.
    Otherwise either the effect is too small to matter, or it is no larger than that of comparison sites.
    """
    if passes(summary, name):
        return False
    shown = _certain(summary, name)
    if all(shown):
        return not summary["enough_pairs"] or summary[name]["rank"]["sites"] == 0
    disagree = shown[0] or all(shown[1:])
    highest = min(ci[1] for ci in _intervals(summary, name))
    return bool(not summary["enough_pairs"] or disagree or highest > summary["thresholds"]["material_effect"])


def opposes(summary: Mapping[str, Any], name: str) -> bool:
    """Whether an effect goes against the gap, by more than the minimum effect and beyond chance."""
    below = all(ci[1] < -summary["thresholds"]["minimum_effect"] for ci in _intervals(summary, name))
    return bool(summary["enough_pairs"] and below and summary[name]["p_zero"] < summary["thresholds"]["alpha"])


def judgement(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from the numbers of a row: necessary, sufficient (booleans), undecided, opposes (names)."""
    return {
        "necessary": passes(summary, "necessity"),
        "sufficient": passes(summary, "sufficiency"),
        "undecided": [name for name in CAUSAL_EFFECTS if undecided(summary, name)],
        "opposes": [name for name in CAUSAL_EFFECTS if opposes(summary, name)],
    }


def verdict(association: str, interchange: dict[str, Any] | None) -> str:
    """The verdict (its name in a findings file) of a row's association and interchange effects (METHODS.md 4)."""
    if interchange is None:
        return association
    if not interchange["enough_pairs"]:
        return "underpowered"
    necessary, sufficient = interchange["necessary"], interchange["sufficient"]
    if necessary or sufficient:
        return " and ".join(["necessary"] * necessary + ["sufficient"] * sufficient)
    if interchange.get("undecided"):
        return "underpowered"
    return "association only" if association in ("associated", "tokens only") else "neither"


def rule(minimum_effect: float, *, placebo: bool = True, random: bool = False, held_out: bool = False) -> str:
    """The verdict rule in words.

    Args:
        minimum_effect: percent of the gap.
        placebo: whether a placebo donor was run, as it should be.
        random: whether a random donor was run as well.
        held_out: whether sites were chosen on one half of the pairs and tested on the other.
    """
    contrast = "the swap minus its placebo (a donor of the recipient's own class)"
    what = (
        f"both the swap and {contrast} have a" if placebo else "the swap, which was run without a placebo donor, has a"
    )
    if placebo and random:
        what = f"the swap, {contrast}, and a random donor of the other class minus the placebo each have a"
    p = (
        "a sign-flip p below {a:g} after Benjamini-Hochberg over the sites chosen on the other half of the pairs"
        if held_out
        else "a step-down sign-flip p below {a:g}, family-wise over all tested sites and both directions"
    ).format(a=ALPHA)
    return (
        f"necessary (sufficient): with at least {MIN_PAIRS} pairs, for necessity (sufficiency) {what} 95 % bootstrap "
        f"interval wholly above {minimum_effect:g} % of the gap and {p} (tested against {minimum_effect:g} %); and the "
        f"effect is among the largest {ALPHA * 100:g} % of comparison sites (larger than all where there are fewer "
        f"than 19). not decided: fewer pairs, or nothing passes although an effect of "
        f"{material_effect(minimum_effect):g} % of the gap is not excluded. association only, no effect shown: "
        "nothing passes and effects that large are excluded, or comparison sites do as much"
    )


def _certain(summary: Mapping[str, Any], name: str) -> list[bool]:
    """p, then each interval."""
    thresholds = summary["thresholds"]
    above = [ci[0] > thresholds["minimum_effect"] for ci in _intervals(summary, name)]
    return [summary[name]["p"] < thresholds["alpha"], *above]


def _intervals(summary: Mapping[str, Any], name: str) -> list[list[float]]:
    """Of the swap and, where they were run, of the contrasts that decide."""
    contrasts = summary[name]["contrasts"]
    return [summary[name]["ci"], *(contrasts[what]["ci"] for what in DECIDING if what in contrasts)]


def _leads(summary: Mapping[str, Any], name: str) -> bool:
    """Whether few enough comparison sites do as much. No rank (null): a site that is alone of its kind."""
    rank = summary[name]["rank"]
    if rank is None:
        return True
    return bool(rank["sites"] and rank["above"] <= allowed_above(rank["sites"], summary["thresholds"]["alpha"]))
