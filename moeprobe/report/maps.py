"""What stands around the layer x expert map: its words, and a table that says the same, a line for each layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.report import figures, verdicts, words
from moeprobe.report.voice import Voice

Json = Mapping[str, Any]

LEADERS = 3


@dataclass(frozen=True)
class LayerLine:
    """One line of the text equivalent: what the map shows for one layer."""

    layer: int
    experts: int
    more: int
    less: int
    causal: int
    only: int
    untestable: int
    leaders: list[str]


def layer_lines(layers: Sequence[Json], rows: Sequence[Json], voice: Voice) -> list[LayerLine]:
    """Summarise each MoE layer of the model, in order."""
    by_layer: dict[int, list[Json]] = {int(layer["layer"]): [] for layer in layers}
    for row in rows:
        by_layer.setdefault(int(row["layer"]), []).append(row)
    sizes = {int(layer["layer"]): int(layer["experts"]) for layer in layers}
    return [_line(number, sizes.get(number, len(found)), found, voice) for number, found in sorted(by_layer.items())]


def _line(number: int, experts: int, rows: Sequence[Json], voice: Voice) -> LayerLine:
    associated = [row for row in rows if row["association"] == "associated"]
    leading = sorted((row for row in rows if row["q"] is not None), key=lambda row: (row["q"], -abs(row["t"])))
    return LayerLine(
        layer=number,
        experts=experts,
        more=sum(words.direction(row) > 0 for row in associated),
        less=sum(words.direction(row) < 0 for row in associated),
        causal=sum(row["verdict"] in verdicts.CAUSAL for row in rows),
        only=sum(row["verdict"] == "association only" for row in rows),
        untestable=sum(row["association"] == "untestable" for row in rows),
        leaders=[_leader(row, voice) for row in leading[:LEADERS]],
    )


def _leader(row: Json, voice: Voice) -> str:
    """``L18.E5: +52.0, q 1.2e-9``: what a reader of the map would look at first."""
    change = figures.change(row["rate_difference"], fine=voice.scores)
    return f"{words.site(row)}: {change}, q\u00a0{figures.chance(row['q'])}"


def note(voice: Voice, alpha: float) -> str:
    """What "chosen more" counts in the table of the map."""
    what = {
        "scores": "more: the higher the score",
        "within generations": "more: on the marked tokens",
        "pairs": "more: on the positive side of the pairs",
    }.get(voice.kind, f"more: with {voice.about}")
    return (
        f"\u201cChosen more\u201d and \u201cchosen less\u201d count the associated experts (q below {alpha:g}), in the "
        f"direction of the test that decides ({what}). Leading: the experts with the smallest q, with their difference "
        f"in points.{_other(voice)}"
    )


def _other(voice: Voice) -> str:
    """Where q is of another quantity than the difference that the map shows."""
    if not voice.measured:
        return ""
    return f" The differences shown are of the selection rate; q and verdict are of another quantity, {voice.measured}."


def map_words(voice: Voice) -> dict[str, Any]:
    """What the script says of a cell: the two sides, the difference, and whether its numbers need fine digits."""
    meaning = {
        "scores": "Change of the selection rate, in percentage points, where the score is larger by one.",
        "within generations": "Mean difference of the selection rates of marked and other tokens in the generations.",
        "pairs": "Mean difference of the selection rates inside the pairs.",
    }.get(voice.kind, "Difference of the mean selection rates of the two groups.")
    return {
        "one": voice.tokens_one,
        "other": voice.tokens_other,
        "gap": "change per unit of score" if voice.scores else "difference",
        "meaning": f"{meaning}{_other(voice)}",
        "fine": voice.scores,
        "beyond": _beyond(voice),
        "raw": bool(voice.measured),
    }


def _beyond(voice: Voice) -> str:
    """What the map of the difference beyond the words shows."""
    per = " per unit of score" if voice.scores else ""
    held = f" that is left with the {voice.fixed} held fixed" if voice.strata else ""
    if voice.measured:
        return f"Difference of {voice.thing} per token{per}{held}, in its own unit."
    return f"Difference of the selection rates{per}{held}, in percentage points."
