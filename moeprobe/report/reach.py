"""How far the tests of one question reach: how many, how long, what was held fixed, what was tried beside them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.findings.verdicts import in_words
from moeprobe.report import figures, words
from moeprobe.report.voice import Voice

Json = Mapping[str, Any]

FEW = 20
LEFT_OUT = {
    "abstained": "the probe abstained",
    "unlabelled": "no label, or another one",
    "no_tokens": "no tokens there",
    "no_covariate": "a value that should be held fixed is missing",
    "incomplete_pairs": "no partner on the other side of the pair",
    "too_short": "shorter than the window",
    "one_kind": "tokens of one kind only",
    "extra_samples": "more samples than others of their prompt's rank",
}


@dataclass(frozen=True)
class Limit:
    """One thing the reader may not conclude: what is not known or was not tested, plainly, and why, with figures."""

    heading: str
    reason: str


def reach(question: Json, rows: Sequence[Json], voice: Voice) -> list[Limit]:
    """The limits that follow from the design and from what stands beside the deciding test."""
    return [
        *_these(question, voice),
        _few(question, voice),
        *_length(question, voice),
        _words(question, rows, voice),
        _held(question, voice),
        *_others(question, rows, voice),
        _again(question, voice),
        *_left_out(question),
    ]


def _these(question: Json, voice: Voice) -> list[Limit]:
    if not voice.shifts:
        return []
    return [
        Limit(
            "Whether it holds for new prompts was not tested",
            f"With {figures.count(int(question['design']['units']), voice.unit)} too few were there to test between "
            "them. Instead the marks were turned in a circle inside each answer. The q values say that choices and "
            "marks go together in these generations, not that they would in others.",
        )
    ]


def _few(question: Json, voice: Voice) -> Limit:
    design = question["design"]
    units = int(design["units"])
    two = voice.kind == "two groups"
    sides = [int(design[side]["units"]) for side in ("positive", "negative")]
    reason = f"There {'was' if not two and units == 1 else 'were'} {words.size(design, voice)}."
    if voice.unit == "prompt":
        reason += " Several samples of one prompt count as one: the number that counts is that of prompts."
    if voice.pairs:
        reason += " The number that counts is that of pairs, not of generations."
    parts = [reason, _resolution(design, voice), _detectable(design, voice)]
    few = units < FEW if not two else min(sides) < FEW
    return Limit(
        f"With so few {voice.unit}s, differences can have been missed"
        if few
        else "Smaller differences can have been missed",
        " ".join([*(part for part in parts if part), "Experts with smaller differences can be missed."]),
    )


def _resolution(design: Json, voice: Voice) -> str:
    """What an exact test of so few units could show at best; "" where that is no bound or none was asked for."""
    tested, best = int(design["tested"]), _best(design, voice)
    if best is None or not tested or best * tested <= design["alpha"] / 10:
        return ""
    test = "permutation" if voice.kind == "two groups" else "sign-flip"
    separation = (
        "a perfect separation" if voice.kind == "two groups" else f"a difference of one sign in every {voice.unit}"
    )
    return (
        f"Even {separation} has an exact {test} p of {figures.chance(min(best, 1.0))}, against "
        f"{figures.count(tested, 'test')}: the small q values lean on the moderated t-test's assumptions."
    )


def _best(design: Json, voice: Voice) -> float | None:
    units = int(design["units"])
    if voice.scores or voice.shifts:
        return None
    if voice.kind != "two groups":
        return float(2.0 ** (1 - units)) if units < 1000 else 0.0
    first, second = (int(design[side]["units"]) for side in ("positive", "negative"))
    # where generations are compared within blocks only, fewer arrangements are possible; the bound below still holds
    return 2 / math.comb(first + second, first) if first and second and first + second < 1000 else None


def _detectable(design: Json, voice: Voice) -> str:
    power = design["detectable"]
    if power is None:
        return ""
    d = figures.number(power["d"], 2)
    spread = {
        "pairs": f"its mean difference inside pairs is {d} times the standard deviation of these differences",
        "within generations": f"its mean difference inside a {voice.unit} is {d} times the standard deviation of these "
        "differences",
        "scores": f"the halves with high and low scores differ by {d} standard deviations (the score itself finds "
        "somewhat more)",
    }.get(voice.kind, f"the groups differ by {d} standard deviations of the {voice.unit}s")
    return (
        f"If one expert alone is different, it is found with a chance of {figures.percent(100 * power['power'])} where "
        f"{spread}. What is smaller is found less often."
    )


def _length(question: Json, voice: Voice) -> list[Limit]:
    design = question["design"]
    before, after = (design[f"length_ratio_{when}"] for when in ("before", "after"))
    method = f"Method: {str(design['length_matching']).removesuffix('.')}."
    if voice.inside:
        return [
            Limit(
                "Whether the place in the answer plays a part is not known",
                "Marked and other tokens stand in the same answers, so their lengths are no reason. But one kind can "
                "stand earlier than the other, and that was not held fixed"
                f"{' finely' if 'position' in voice.strata else ''}.",
            )
        ]
    if voice.scores:
        halves = "" if before is None else (
            f" Before that, the upper half of the scores had {figures.number(before, 2)} times the tokens of the lower."
        )  # fmt: skip
        return [
            Limit(
                "Whether length plays a part is not known",
                f"{method} What comes after the window was not looked at.{halves}",
            )
        ]
    if before is None or after is None:
        return [
            Limit(
                "Whether length plays a part is not known",
                f"One side has no tokens, so there is no length ratio. {method}",
            )
        ]
    return [
        Limit(
            "Whether length plays a part is not known",
            f"Mean token counts, {voice.one} to {voice.other} {voice.about}, stood "
            f"{figures.number(before, 2)} to 1 before matching and "
            f"{figures.number(after, 2)} to 1 after. {method}",
        )
    ]


def _words(question: Json, rows: Sequence[Json], voice: Voice) -> Limit:
    """What holding the tokens fixed can and cannot do."""
    heading = "Whether it is the behaviour or its words is not known"
    only = sum(row["association"] == "tokens only" for row in rows)
    names = f" The {figures.count(only, 'expert')} called \u201c{in_words('tokens only')}\u201d" if only else ""
    ending = (
        f"{names} differ{'s' if only == 1 else ''} only as long as words are not held fixed; the q in the table is "
        "that with words held fixed, the other stands below the verdict."
        if only
        else ""
    )
    if not voice.strata:
        return Limit(
            heading,
            "Tokens were not held fixed. An expert can lead because one word or filler token is frequent with "
            f"{voice.theme}.{ending}",
        )
    common = figures.share(question["design"]["common_tokens"])
    what = (
        "Each token was compared only with the same token elsewhere"
        if voice.word_fixed
        else "Only what stands before a token was held fixed, not the token itself"
    )
    return Limit(
        heading,
        f"{what} (held fixed: {voice.strata}). {common} of the tokens can be compared so; words that only one side "
        f"uses count for nothing, and the meaning of a word in its context was not held fixed.{ending}",
    )


def _held(question: Json, voice: Voice) -> Limit:
    held = [str(word) for word in question["design"]["held"]]
    shared = {
        "pairs": " What both sides of a pair share, for example its topic, is held fixed by comparing inside pairs.",
        "within generations": " What belongs to a whole generation, for example its topic, is held fixed: its tokens "
        "are compared with each other.",
    }.get(voice.kind, "")
    if held:
        listed = ", ".join(held)
        return Limit(
            "Whether something else is the reason is not known",
            f"Beside the tokens, this was held fixed: {listed}.{shared} Whatever else comes along with {voice.theme} "
            "can be the reason.",
        )
    return Limit(
        "Whether something else is the reason is not known",
        f"No topic, length or other property was held fixed by name.{shared} Whatever else comes along with "
        f"{voice.theme} can be the reason.",
    )


def _others(question: Json, rows: Sequence[Json], voice: Voice) -> list[Limit]:
    """What the partial column says of other registers."""
    partial, alpha = question["design"]["partial"], question["design"]["alpha"]
    if partial is None:
        return []
    named = ", ".join(str(other) for other in partial["others"])
    heading = f"Whether it is {voice.about} alone is not known"
    if partial["reason"]:
        return [Limit(heading, f"Other registers ({named}) could not be held fixed: {partial['reason']}.")]
    found = [row for row in rows if row["association"] == "associated"]
    kept = sum(_below(row["partial"], alpha) for row in found)
    counted = (
        f"Of {figures.count(len(found), 'associated expert')}, {kept:,} still {'goes' if kept == 1 else 'go'} with "
        f"{voice.theme} then (q below {alpha:g}). The others may go with {named} instead. "
        if found
        else ""
    )
    return [
        Limit(
            heading,
            f"A second test held {named} fixed, on {figures.count(int(partial['units']), voice.unit)} with all scores. "
            f"{counted}It is no part of the verdict. Registers that nobody scored were not held fixed.",
        )
    ]


def _below(partial: Json | None, alpha: float) -> bool:
    return partial is not None and partial["q"] is not None and partial["q"] < alpha


def _again(question: Json, voice: Voice) -> Limit:
    halves = question["design"]["confirmation"]
    if halves is None:
        return Limit(
            "Whether it would be found again was not tested",
            f"No {voice.unit}s were kept back to confirm what was found. All q values come from the data that chose "
            "the experts; sizes of the largest differences are too large on average.",
        )
    screened, confirmed = int(halves["screened"]), int(halves["confirmed"])
    return Limit(
        "Only the leading experts were tested a second time",
        f"The {figures.count(screened, 'leading expert')} of one half ({int(halves['screen_units']):,} {voice.unit}s) "
        f"{'was' if screened == 1 else 'were'} tested once more on the other half "
        f"({int(halves['confirm_units']):,}), in the same direction: {confirmed:,} of {screened:,} were confirmed. The "
        "verdicts use all data; see the details of an expert for its confirmation. Half the data find less.",
    )


def _left_out(question: Json) -> list[Limit]:
    left = [(label, int(question["design"]["left_out"].get(key) or 0)) for key, label in LEFT_OUT.items()]
    total = sum(value for _, value in left)
    if not total:
        return []
    listed = ", ".join(f"{label}: {value:,}" for label, value in left if value)
    return [
        Limit(
            "What the generations left out would show is not known",
            f"{figures.count(total, 'generation')} {'was' if total == 1 else 'were'} not used ({listed}).",
        )
    ]
