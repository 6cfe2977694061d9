"""The layer x expert map: compact arrays for the canvas, and a table for each layer that says the same in text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.report import figures, verdicts, words
from moeprobe.report.voice import Voice

Json = Mapping[str, Any]

LARGEST_LOG = 300.0
MOST_CELLS = 200_000
_CODES = {verdict.name: code for code, verdict in enumerate(verdicts.VERDICTS)}


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
    leader: str


def layer_lines(layers: Sequence[Json], rows: Sequence[Json], voice: Voice) -> list[LayerLine]:
    """Summarise each MoE layer of the model, in order."""
    by_layer: dict[int, list[Json]] = {int(layer["layer"]): [] for layer in layers}
    for row in rows:
        by_layer.setdefault(int(row["layer"]), []).append(row)
    sizes = {int(layer["layer"]): int(layer["experts"]) for layer in layers}
    return [_line(number, sizes.get(number, len(found)), found, voice) for number, found in sorted(by_layer.items())]


def _line(number: int, experts: int, rows: Sequence[Json], voice: Voice) -> LayerLine:
    associated = [row for row in rows if row["association"] == "associated"]
    known = [row for row in rows if row["rate_difference"] is not None]
    top = max(known, key=lambda row: abs(row["rate_difference"]), default=None)
    return LayerLine(
        layer=number,
        experts=experts,
        more=sum(words.direction(row) > 0 for row in associated),
        less=sum(words.direction(row) < 0 for row in associated),
        causal=sum(row["verdict"] in verdicts.CAUSAL for row in rows),
        only=sum(row["verdict"] == "association only" for row in rows),
        untestable=sum(row["association"] == "untestable" for row in rows),
        leader=figures.NONE
        if top is None
        else f"{words.site(top)}: {figures.change(top['rate_difference'], fine=voice.scores)}",
    )


def note(voice: Voice, alpha: float) -> str:
    """What "chosen more" counts in the table of the map."""
    what = {
        "scores": "more: the higher the score",
        "within generations": "more: on the marked tokens",
        "pairs": "more: on the positive side of the pairs",
    }.get(voice.kind, f"more: with {voice.about}")
    return (
        f"\u201cChosen more\u201d and \u201cchosen less\u201d count the associated experts (q below {alpha:g}), in the "
        f"direction of the test that decides ({what}).{_other(voice)}"
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
    }


def map_data(key: str, label: str, layers: Sequence[Json], rows: Sequence[Json], voice: Voice) -> dict[str, Any]:
    """Give the arrays of one map for the script: one entry per cell, layers in order, `null` where there is no row.

    `d` is the rate difference, `q` is -log10 q (at most 300), `v` the index of the verdict in `verdicts.VERDICTS`,
    `a` and `b` the selection rates S1 and S0, `t` lists the cells that interchange tested.

    Raises:
        FindingsError: more than 200,000 experts, which no model has and no page can hold.
    """
    ordered = sorted(layers, key=lambda layer: int(layer["layer"]))
    starts, total = {}, 0
    for layer in ordered:
        starts[int(layer["layer"])] = (total, int(layer["experts"]))
        total += int(layer["experts"])
    if total > MOST_CELLS:
        raise FindingsError(f"The findings name {total:,} experts; the map draws at most {MOST_CELLS:,}.")
    arrays: dict[str, list[Any]] = {name: [None] * total for name in ("d", "q", "v", "a", "b")}
    tested = []
    for row in rows:
        start, experts = starts.get(int(row["layer"]), (0, 0))
        expert = int(row["expert"])
        if not 0 <= expert < experts:
            continue
        _fill(arrays, start + expert, row)
        if row["interchange"] is not None:
            tested.append(start + expert)
    return {
        "key": key,
        "label": label,
        "layers": [[int(layer["layer"]), int(layer["experts"])] for layer in ordered],
        "t": tested,
        "words": map_words(voice),
        **arrays,
    }


def _fill(arrays: Mapping[str, list[Any]], cell: int, row: Json) -> None:
    arrays["d"][cell] = _rounded(row["rate_difference"])
    arrays["q"][cell] = log_q(row["q"])
    arrays["v"][cell] = _CODES[row["verdict"]]
    arrays["a"][cell] = _rounded(row["S1"])
    arrays["b"][cell] = _rounded(row["S0"])


def log_q(q: float | None) -> float | None:
    """-log10 q, at most 300 (a q of zero has underflowed)."""
    if q is None:
        return None
    return LARGEST_LOG if q <= 0 else round(min(LARGEST_LOG, max(0.0, -math.log10(q))), 2)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
