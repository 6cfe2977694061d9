"""The strongest windows of an expert beside their matches, as pieces of text that a template can print."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.report import figures
from moeprobe.report.voice import Voice
from moeprobe.visible import TOKEN_LIMIT, shortened

Json = Mapping[str, Any]

SHADES = 8


@dataclass(frozen=True)
class Piece:
    """Neighbouring tokens that look the same: `css` is empty for plain text."""

    text: str
    css: str


@dataclass(frozen=True)
class Window:
    """One window: where it stands, its pieces, and the weight at its centre in words."""

    title: str
    pieces: list[Piece]
    weight: str


@dataclass(frozen=True)
class WindowPair:
    """A strong window and its match."""

    strong: Window
    match: Window | None
    by: str


def window_pairs(windows: Sequence[Json], voice: Voice) -> list[WindowPair]:
    """Lay out the windows of one expert; the largest weight among them is the full colour."""
    shown = [part for one in windows for part in (one["window"], one["matched"]) if part is not None]
    most = max((weight for one in shown for weight in one["gate"]["weight"]), default=0.0)
    by = {"token": "the same token, not chosen", "position": "the same position, not chosen"}
    return [
        WindowPair(
            strong=_window(one["window"], most, voice),
            match=None if one["matched"] is None else _window(one["matched"], most, voice),
            by=by.get(one["matched_by"], ""),
        )
        for one in windows
    ]


def _window(window: Json, most: float, voice: Voice) -> Window:
    weights = dict(zip(window["gate"]["at"], window["gate"]["weight"], strict=True))
    marked = {index for first, last in window["spans"] for index in range(first, min(last, len(window["tokens"])))}
    pieces: list[Piece] = []
    for index, token in enumerate(window["tokens"]):
        css = _css(weights.get(index), most, index in marked, index == window["centre"])
        text = _shown(token, centre=index == window["centre"])
        if pieces and pieces[-1].css == css and "centre" not in css:
            pieces[-1] = Piece(pieces[-1].text + text, css)
        else:
            pieces.append(Piece(text, css))
    weight = weights.get(window["centre"])
    positive = window["group"] == "positive"
    side = ("marked" if positive else "not marked") if voice.inside else voice.one if positive else voice.other
    about = "" if voice.inside else f" {voice.about}"
    return Window(
        title=f"{side[:1].upper()}{side[1:]}{about}: generation {window['generation']}, {window['prompt_id']}, token "
        f"{int(window['position']) + 1:,}",
        pieces=pieces,
        weight="not chosen" if weight is None else f"weight {figures.number(weight, 3)}",
    )


def _css(weight: float | None, most: float, marked: bool, centre: bool) -> str:
    shade = "" if weight is None else f"w{min(SHADES - 1, int(SHADES * weight / most)) if most > 0 else 0}"
    return " ".join(name for name in (shade, "span" if marked else "", "centre" if centre else "") if name)


def _shown(token: str, *, centre: bool) -> str:
    """A token in one line; hidden characters are codes already (`visible.cleaned`)."""
    if centre and not token:
        return "\u2205"  # it shares its character with the token before, which shows it
    return shortened(token, TOKEN_LIMIT).replace("\n", "\u21b5").replace("\t", "\u21e5")
