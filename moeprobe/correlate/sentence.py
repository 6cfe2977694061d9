"""The design in plain words, for people who will read the findings without this code."""

from moeprobe.correlate.partial import Partial
from moeprobe.correlate.scales import scale_words
from moeprobe.designs.design import MIN_UNITS, WARN_UNITS, Design
from moeprobe.designs.frame import Fold
from moeprobe.designs.groups import Groups
from moeprobe.designs.held import Held
from moeprobe.gathering.gather import Gathered
from moeprobe.gathering.strata import STRATA
from moeprobe.stats import ModeratedT

# The two sides where a label comes and goes inside a generation.
MARKED = {"probe": "tokens that the probe marks", "label": "tokens that the labels mark"}
OTHER_TOKENS = "the other tokens of the same generations"

_UNITS = {
    "generation": "generation, not the token",
    "prompt": "prompt, not the generation or token",
    "pair": "pair, not the generation or token",
}


def design_sentence(design: Design, groups: Groups, gathered: Gathered, alpha: float, tested: int, held: Held) -> str:
    """Who was compared, on what, how, and how error was controlled."""
    only = groups.grouping.get("only")
    among = f", only where {only.replace('=', ' = ', 1)}" if only else ""
    first = f"{_compared(design, groups, among)} {_tokens(design)}"
    if not tested:
        return f"{first} No expert was tested."
    fixed = f" Held fixed: {', '.join(held.words)}." if held.words else ""
    experts = "1 expert" if tested == 1 else f"{tested:,} experts"
    return (
        f"{first} The unit is the {_UNITS[design.unit_name]}. {_strata(gathered)}{fixed} {_test(design, gathered)} "
        f"Benjamini-Hochberg over {experts} at {alpha:g}."
    )


def resampling_words(design: Design, draws: int) -> str:
    """What the family-wise p was made of."""
    if not draws:
        return "none"
    largest = "largest moderated t of all tested experts"
    if design.shifts:
        return "the marks turned in a circle inside each generation, largest z of all tested experts"
    if design.frame.tested is None and design.frame.held.shape[1]:
        return "none: sign flips do not hold numbers fixed"
    if design.kind == "pairs":
        return f"the sides of each pair swapped at random (sign flips), {largest}"
    if design.kind == "within generations":
        return f"marked and other tokens of each {design.unit_name} swapped at random (sign flips), {largest}"
    what = "the scores" if design.kind == "scores" else "the groups' names"
    inside = " within their blocks" if design.frame.blocks is not None else ""
    way = ", residuals permuted (Freedman-Lane)" if design.frame.held.shape[1] else ""
    return f"{what} dealt out anew to the {design.unit_name}s{inside}{way}, {largest}"


def prior_words(result: ModeratedT | None, tested: int) -> str:
    """What the variance of an expert was moderated with."""
    if result is None:
        return "none: variances come from all shifts" if tested else "none: no test was made"
    words = {
        "trended": "prior variance following the mean response (natural spline over tested experts, limma's trend)",
        "global": "one prior variance for all tested experts (as limma)",
    }
    return words.get(result.prior_kind, "none: too few experts with any variance to learn from")


def response_words(gathered: Gathered, design: Design) -> str:
    """The response of the deciding test."""
    if gathered.response == "S" and design.frame.fold is not Fold.PARTS:
        return "asin(sqrt(selection rate standardised for its tokens))"
    if design.frame.fold is Fold.PARTS:
        return f"(O - E) / sqrt(V) of {gathered.response_words}"
    return scale_words(gathered)


def unit_notes(design: Design) -> list[str]:
    """Notes on what so few units can carry, and on who was left out."""
    notes, left_out = [], design.left_out
    for key, words in (
        ("incomplete_pairs", "no partner of the other group in the same pair"),
        ("too_short", "shorter than the window that all are cut to"),
        ("one_kind", "no tokens of both kinds"),
        ("extra_samples", "more samples of their prompt than others have"),
        ("no_covariate", "a value that should be held fixed is missing"),
    ):
        if left_out.get(key):
            notes.append(f"{_counted(left_out[key])} left out: {words}.")
    return [*notes, *_shared_notes(design), *_size_notes(design)]


def partial_note(partial: Partial) -> str:
    """What the partial column is, or why there is none."""
    others = ", ".join(partial.others)
    if partial.reason:
        return f"No partial column (with {others} held fixed): {partial.reason}."
    return f"The partial column holds {others} fixed, on {partial.units} units with a score of all."


def confirm_note(design: Design) -> str:
    """Why there is no confirmation."""
    if design.shifts:
        return "No confirmation: circular shifts make no claim beyond these generations, so halves confirm nothing."
    return (
        f"No confirmation: each half would need {MIN_UNITS} units of a group that what is held fixed does not "
        "determine, and experts that can be tested. "
        "Record more prompts."
    )


def _compared(design: Design, groups: Groups, among: str) -> str:
    positive, negative = design.positive, design.negative
    if design.kind == "scores":
        total = positive.generations + negative.generations
        return f"{_counted(total)} compared by {groups.name} as a number{among},"
    if design.kind == "within generations":
        marked = f"{MARKED[groups.kind]} ({groups.name})"
        return f"In {_counted(positive.generations)}{among}, {marked} compared with {OTHER_TOKENS},"
    pairs = f" in {_pairs(design.units)}" if design.kind == "pairs" else ""
    return (
        f"{_counted(positive.generations)} with {groups.positive} compared with {negative.generations} with "
        f"{groups.negative}{pairs}{among},"
    )


def _tokens(design: Design) -> str:
    used = design.positive.tokens_used + design.negative.tokens_used
    every = design.positive.tokens + design.negative.tokens
    if design.kind == "within generations":
        return f"on {design.positive.tokens_used:,} and {design.negative.tokens_used:,} {design.segment} tokens."
    how = {"pairs": "after matching lengths within each pair", "scores": "cut to one window"}
    return f"on {used:,} of their {every:,} {design.segment} tokens {how.get(design.kind, 'after matching lengths')}."


def _strata(gathered: Gathered) -> str:
    """What each token is compared with."""
    words = gathered.strata_words
    if words in (None, STRATA[()]):
        return "Words are not held fixed."
    if words == STRATA["token",]:
        return "Every token is compared only with the same token elsewhere."
    return f"Every token is compared only with tokens of the same {words} elsewhere."


def _tested_words(gathered: Gathered) -> str:
    """What is compared, beyond what the strata explain."""
    strata, (what, _, absent) = gathered.strata_words, gathered.response_words.partition("; not recorded in ")
    beyond = ""
    if strata not in (None, STRATA[()]):
        several = strata == STRATA["token",] or " and " in str(strata)
        named = "the tokens" if strata == STRATA["token",] else f"the {strata}"
        beyond = f" {named} explain{'' if several else 's'}"
    if gathered.response == "S":
        return "selections" + (f" beyond those that{beyond}" if beyond else "")
    missing = f" (not recorded in {absent})" if absent else ""
    return f"{what}{missing}" + (f", beyond what{beyond}" if beyond else "")


def _test(design: Design, gathered: Gathered) -> str:
    what = _tested_words(gathered)
    if design.shifts:
        return (
            f"Circular shifts of the marks inside each generation, of {what} "
            "(a claim about these generations, not about new prompts),"
        )
    of = {
        "pairs": "t-test of the differences within pairs, of ",
        "within generations": f"t-test of the differences inside each {design.unit_name}, of ",
        "scores": "t-test of the slope on the score, of ",
    }.get(design.kind, "t-test of ")
    return f"Moderated {of}{what},"


def _shared_notes(design: Design) -> list[str]:
    total, unit = design.positive.generations + design.negative.generations, design.unit_name
    if design.kind == "pairs":
        if total == 2 * design.units:
            return []
        return [f"Some pairs hold several generations of one group: the {total} generations count as "
                f"{_pairs(design.units)}."]  # fmt: skip
    if unit != "prompt":
        return []
    first = "Several generations of one prompt are not independent:"
    if design.kind == "two groups":
        positive, negative = design.positive.units, design.negative.units
        return [f"{first} the {total} generations count as {positive} positive and {negative} negative prompts."]
    return [f"{first} the {max(total, 1)} generations count as {design.units} prompts."]


def _size_notes(design: Design) -> list[str]:
    unit = design.unit_name
    if design.kind == "two groups":
        shown = f"{design.positive.units} positive and {design.negative.units} negative {unit}s"
        size, inside = design.smallest, " in a group"
    else:
        size, inside = (design.units, "") if design.kind != "scores" else (design.units // 2, "")
        shown = _pairs(size) if unit == "pair" else f"{design.units} {unit}{'' if design.units == 1 else 's'}"
    if design.shortage is not None:
        few = (
            f": fewer than {MIN_UNITS}{inside} carry no p-value"
            if size < MIN_UNITS and design.kind != "scores"
            else f" ({design.shortage})"
        )
        return [
            f"Only {shown}{few}, so nothing was tested. The rates are shown as they are; "
            f"record more {'pairs' if unit == 'pair' else 'prompts'}."
        ]
    if size < WARN_UNITS:
        return [
            f"Only {shown}: under {WARN_UNITS}{inside} show only large differences. "
            f"Record more {'pairs' if unit == 'pair' else 'prompts'}."
        ]
    return []


def _pairs(number: int) -> str:
    return "1 pair" if number == 1 else f"{number} pairs"


def _counted(number: int) -> str:
    return "1 generation" if number == 1 else f"{number} generations"
