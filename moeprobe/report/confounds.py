"""What else tells the two sides of a question apart: lengths, kinds of token, topics; and when that is a warning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.report import figures
from moeprobe.report.voice import Voice

Json = Mapping[str, Any]

# From here on, in either direction, something sorts the sides well enough to stand for the behaviour.
TELLS = 0.8
NAMES = {"length": "Length alone", "prompt words": "The wording of the prompt alone", "position": "The position alone"}


@dataclass(frozen=True)
class Sorter:
    """How well something tells the sides apart; positions in percent of the width, None where it was not measured."""

    label: str
    value: str
    how: str
    point: str | None
    low: str | None
    high: str | None
    strong: bool


@dataclass(frozen=True)
class Share:
    """A kind of token: its share on either side, with bars in percent of the largest share."""

    token: str
    one: str
    other: str
    bars: tuple[float, float]


@dataclass(frozen=True)
class Confounds:
    """The panel of one question."""

    warnings: list[str]
    sorters: list[Sorter]
    lengths: list[tuple[str, list[str]]]
    tokens: list[Share]
    topics: list[tuple[str, list[str]]]
    sides: tuple[str, str]
    left_out: str
    words_fixed: bool


def confounds_view(question: Json, rows: Sequence[Json], voice: Voice, *, text: bool) -> Confounds | None:
    """Lay out the panel; None where the findings hold none.

    Args:
        question: of the findings.
        rows: its rows, leading rows first; the first associated one is shown for comparison.
        voice: its words.
        text: whether the page may show text.
    """
    found = question["confounds"]
    if found is None:
        return None
    leading = next((row for row in rows if row["association"] == "associated" and row["auc"] is not None), None)
    sides = _sides(voice)
    return Confounds(
        warnings=[_warning(one, leading, voice) for one in found["sorting"] if tells(one)],
        sorters=[_sorter(one) for one in found["sorting"]] + ([] if leading is None else [_expert(leading)]),
        lengths=[
            (f"{side}, {when} matching", [figures.number(value, 0) for value in found["lengths"][when][key]])
            for when in (("before",) if voice.inside else ("before", "after"))
            for key, side in zip(("positive", "negative"), sides, strict=True)
        ],
        tokens=_shares(found["tokens"]),
        topics=_topics(found["topics"], sides),
        sides=sides,
        left_out="" if text else "Tokens and words were left out of this report on request.",
        words_fixed=voice.word_fixed,
    )


def tells(sorter: Json) -> bool:
    """Whether it sorts the sides well, and beyond chance."""
    value, bounds = sorter["auc"], sorter["ci"]
    return value is not None and max(value, 1 - value) >= TELLS and not bounds[0] <= 0.5 <= bounds[1]


def doubts(question: Json, row: Json, voice: Voice) -> list[str]:
    """What the confounds say against one finding."""
    if question["confounds"] is None or row["association"] != "associated":
        return []
    found = [one for one in question["confounds"]["sorting"] if tells(one)]
    return [
        f"{NAMES[one['sorter']]} {_apart(one, voice)}: the expert may go with that instead.{_against(one, row)}"
        for one in found
    ]


def _apart(sorter: Json, voice: Voice) -> str:
    value = f"AUC {figures.number(max(sorter['auc'], 1 - sorter['auc']), 2)}"
    what = "marked tokens from others" if voice.inside else "the two sides apart"
    return f"tells {what} ({value})"


def _against(sorter: Json, row: Json) -> str:
    """The expert beside it, where that is worth a word."""
    if row["auc"] is None:
        return ""
    own, other = (max(value, 1 - value) for value in (row["auc"], sorter["auc"]))
    return f" It does so as well as the expert (AUC {figures.number(own, 2)})." if other >= own else ""


def _warning(sorter: Json, leading: Json | None, voice: Voice) -> str:
    low, high = sorter["ci"]
    low, high = (low, high) if sorter["auc"] >= 0.5 else (1 - high, 1 - low)  # turned as the AUC before it
    hold = {
        "length": "Lengths were matched, but what goes with long or short answers was not.",
        "prompt words": "What was found may go with the topic of the prompts. Prompts of the same topics on both sides "
        "(pairs), or --block with the topic, would tell.",
        "position": "What was found may go with the place in the answer.",
    }[sorter["sorter"]]
    ahead = "" if leading is None else _against(sorter, leading).replace("the expert", "the leading expert")
    interval = figures.interval((low, high), digits=2)
    return f"{NAMES[sorter['sorter']]} {_apart(sorter, voice)}, 95 % interval {interval}.{ahead} {hold}"


def _sorter(one: Json) -> Sorter:
    if one["auc"] is None:
        return Sorter(
            NAMES[one["sorter"]], "not measured", f"{one['how']}: {one['reason'] or ''}", None, None, None, False
        )
    return Sorter(
        label=NAMES[one["sorter"]],
        value=f"{figures.number(one['auc'], 2)} {figures.interval(one['ci'], digits=2)}",
        how=one["how"],
        point=_at(one["auc"]),
        low=_at(one["ci"][0]),
        high=_at(one["ci"][1]),
        strong=tells(one),
    )


def _expert(row: Json) -> Sorter:
    site = f"L{int(row['layer'])}.E{int(row['expert'])}"
    return Sorter(
        f"For comparison: {site}", figures.number(row["auc"], 2), "selection rate of the leading associated expert",
        _at(row["auc"]), None, None, False,
    )  # fmt: skip


def _at(value: float) -> str:
    return f"{2 + 96 * value:.1f}%"


def _shares(kinds: Sequence[Json]) -> list[Share]:
    most = max((max(kind["positive"], kind["negative"]) for kind in kinds), default=0.0) or 1.0
    return [
        Share(
            token=f"\u201c{_line(kind['token'])}\u201d" if kind["token"] else f"number {kind['token_id']}",
            one=f"{figures.number(100 * kind['positive'], 2)}\u00a0%",
            other=f"{figures.number(100 * kind['negative'], 2)}\u00a0%",
            bars=(100 * kind["positive"] / most, 100 * kind["negative"] / most),
        )
        for kind in kinds
    ]


def _topics(words: Sequence[Json], sides: tuple[str, str]) -> list[tuple[str, list[str]]]:
    """The words of each side, with the number of prompts that hold them on it and on the other."""
    made = []
    for sign, side in zip((1, -1), sides, strict=True):
        own = [word for word in words if sign * word["z"] > 0]
        listed = [
            f"{_line(word['word'])} ({' against '.join(str(int(word[key])) for key in _ordered(sign))})" for word in own
        ]
        if listed:
            made.append((side, listed))
    return made


def _ordered(sign: int) -> tuple[str, str]:
    return ("positive", "negative") if sign > 0 else ("negative", "positive")


def _sides(voice: Voice) -> tuple[str, str]:
    one, other = ("marked tokens", "other tokens") if voice.inside else (
        f"{voice.one} {voice.about}", f"{voice.other} {voice.about}"
    )  # fmt: skip
    return one[:1].upper() + one[1:], other[:1].upper() + other[1:]


def _line(text: str) -> str:
    return text.replace("\n", "\u21b5").replace("\t", "\u21e5")
