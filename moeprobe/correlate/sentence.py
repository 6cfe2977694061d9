"""The design in plain words, for people who will read the findings without this code."""

from moeprobe.correlate.design import Design
from moeprobe.correlate.groups import Groups
from moeprobe.stats import ModeratedT


def design_sentence(design: Design, groups: Groups, alpha: float, tested: int) -> str:
    """Who was compared, on what, how, and how error was controlled."""
    positive, negative = design.positive, design.negative
    used, all_tokens = positive.tokens_used + negative.tokens_used, positive.tokens + negative.tokens
    only = groups.grouping.get("only")
    among = f", only where {only.replace('=', ' = ', 1)}" if only else ""
    first = (
        f"{_counted(positive.generations)} with {groups.positive} compared with {negative.generations} with "
        f"{groups.negative}{among}, on {used:,} of their {all_tokens:,} {design.segment} tokens after matching lengths."
    )
    if not tested:
        return f"{first} No expert was tested."
    unit = {"generation": "generation, not the token"}.get(design.unit_name, "prompt, not the generation or token")
    experts = "1 expert" if tested == 1 else f"{tested:,} experts"
    return (
        f"{first} The unit is the {unit}. Every token is compared only with the same token elsewhere; moderated t-test "
        f"of selections beyond those that the tokens explain, Benjamini-Hochberg over {experts} at {alpha:g}."
    )


def matching_words(design: Design) -> str:
    """How the two groups were made equally long."""
    if design.equal_sizes:
        return "i-th shortest with i-th shortest generation, both cut to the shorter one"
    return "generations matched by quantile rank of length (groups differ in size), both cut to the shorter one"


def resampling_words(design: Design, draws: int) -> str:
    """What the family-wise p was made of."""
    if not draws:
        return "none"
    return f"the groups' names dealt out anew to the {design.unit_name}s, largest moderated t of all tested experts"


def prior_words(result: ModeratedT | None) -> str:
    """What the variance of an expert was moderated with."""
    if result is None:
        return "none: no test was made"
    words = {
        "trended": "prior variance following the mean response (natural spline over tested experts, limma's trend)",
        "global": "one prior variance for all tested experts (as limma)",
    }
    return words.get(result.prior_kind, "none: too few experts with any variance to learn from")


def unit_notes(design: Design, minimum: int, warning: int) -> list[str]:
    """Notes on what so few units can carry."""
    positive, negative, unit = design.positive, design.negative, design.unit_name
    notes = []
    if unit == "prompt":
        total = positive.generations + negative.generations
        notes.append(
            f"Several generations of one prompt are not independent: the {total} generations count as "
            f"{positive.units} positive and {negative.units} negative prompts."
        )
    shown = f"{positive.units} positive and {negative.units} negative {unit}s"
    if design.smallest < minimum:
        notes.append(
            f"Only {shown}: fewer than {minimum} in a group carry no p-value, so nothing was tested. "
            "The rates are shown as they are; record more prompts."
        )
    elif design.smallest < warning:
        notes.append(f"Only {shown}: under {warning} in a group show only large differences. Record more prompts.")
    return notes


def _counted(number: int) -> str:
    return "1 generation" if number == 1 else f"{number} generations"
