"""The rule by which interchange effects become a verdict.

It stands here, low in the house, so that a reader of findings can hold a file's verdicts against its own numbers.
"""

from typing import Any

EFFECTS = ("necessity", "sufficiency", "knockout")
# The two that a verdict rests on; a knock-out has no partner run and is shown beside them.
CAUSAL_EFFECTS = ("necessity", "sufficiency")
# Below this many pairs effects are shown, but no verdict is given: a bootstrap interval over fewer covers too little.
MIN_PAIRS = 8
ALPHA = 0.05


def passes(summary: dict[str, Any], name: str, minimum_effect: float) -> bool:
    """Whether an effect counts.

    Args:
        summary: `rows[].interchange` of docs/findings.md.
        name: "necessity" or "sufficiency".
        minimum_effect: in percent of the gap.
    """
    effect, null = summary[name], summary["null"][name]
    return bool(
        summary["enough_pairs"]
        and effect["p"] < ALPHA
        and effect["ci"][0] > minimum_effect
        and null
        and all(effect["percent"] > other for other in null)
    )


def rule(minimum_effect: float) -> str:
    """The verdict rule in words."""
    return (
        f"necessary (sufficient): with at least {MIN_PAIRS} pairs, the 95 % bootstrap interval of the necessity "
        f"(sufficiency) lies wholly above {minimum_effect:g} % of the gap, the sign-flip p over all tested sites and "
        f"both directions together is below {ALPHA:g}, and the effect is larger than that of every randomly chosen "
        "other expert of the layer"
    )


def verdict(association: str, interchange: dict[str, Any] | None) -> str:
    """The verdict in words, from the association and the interchange effects of a row (METHODS.md 4)."""
    if interchange is None:
        return association
    if not interchange["enough_pairs"]:
        return "underpowered"
    necessary, sufficient = interchange["necessary"], interchange["sufficient"]
    if necessary or sufficient:
        return " and ".join(["necessary"] * necessary + ["sufficient"] * sufficient)
    return "association only" if association in ("associated", "tokens only") else "neither"
