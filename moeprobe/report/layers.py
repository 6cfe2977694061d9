"""Whole layers, families of layers and coalitions of experts: small tables beside the map. None of it decides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.report import figures
from moeprobe.report.voice import Voice

Json = Mapping[str, Any]
Cell = Callable[[Any], str]
Columns = Mapping[str, tuple[str, Cell]]

MOST_NAMED = 8
MOST_LINES = 200


@dataclass(frozen=True)
class Beside:
    """A small table: title, heads, lines (first cell the name), what the columns mean, what the findings say of it."""

    title: str
    heads: list[str]
    lines: list[list[str]]
    note: str
    said: str = ""


def beside(question: Json, voice: Voice) -> list[Beside]:
    """The tables of one question that hold anything."""
    one, other = voice.one, voice.other
    tables = [
        _table(
            _used(len(question["layers"])),
            "layer",
            question["layers"],
            _layer_columns(one, other),
            f"Divergence: how differently {_sides(voice)} share out a layer's choices, Jensen-Shannon, in bits; 0: "
            "alike. Entropy: how evenly a token's weight is spread over its experts; 1: evenly. Largest "
            "load: choices of the busiest expert; 1: an equal share. Always busy: experts with at least two equal "
            "shares in nearly all of either side, whatever the behaviour. p and q are of whole layers, and say nothing "
            "of single experts.",
        ),
        _table(
            "Families of layers",
            "family",
            question.get("families") or [],
            _family_columns(),
            "Each family of layers is tested as one: do its experts differ more than chance would have it? A small p "
            "says that the family holds something, not that another holds less.",
        ),
        _table(
            "Experts that are chosen together",
            "sites",
            question.get("coalitions") or [],
            _coalition_columns(one, other),
            "Experts of one layer that the same tokens choose, found without looking at who is compared, and tested "
            "as one, words held fixed. A token counts where it chose the number needed.",
            str(question.get("coalitions_found") or ""),
        ),
    ]
    return [table for table in tables if table.lines]


def _used(layers: int) -> str:
    return "How the layer was used" if layers == 1 else f"How the {figures.count(layers, 'layer')} were used"


def _sides(voice: Voice) -> str:
    return {
        "scores": "the upper and the lower half of the scores",
        "within generations": "marked and other tokens",
        "pairs": "the two sides of the pairs",
    }.get(voice.kind, "the two groups")


def _layer_columns(one: str, other: str) -> Columns:
    return {
        "layer": ("Layer", lambda value: f"L{int(value)}"),
        "jsd": ("Divergence, bits", lambda value: figures.number(value, 4)),
        "jsd_p": ("p", figures.chance),
        "jsd_q": ("q", figures.chance),
        "entropy1": (f"Entropy, {one}", lambda value: figures.number(value, 3)),
        "entropy0": (f"Entropy, {other}", lambda value: figures.number(value, 3)),
        "entropy_p": ("p of entropy", figures.chance),
        "entropy_q": ("q of entropy", figures.chance),
        "largest_load": ("Largest load", lambda value: figures.number(value, 1)),
        "committee": ("Always busy", _names),
    }


def _family_columns() -> Columns:
    return {
        "family": ("Family", str),
        "layers": ("Layers", lambda value: f"{int(value):,}"),
        "tested": ("Tested", lambda value: f"{int(value):,}"),
        "associated": ("Associated", lambda value: f"{int(value):,}"),
        "mean_difference": ("Mean size of difference, points", lambda value: figures.number(100 * value, 2)),
        "excess": ("Times what chance gives", lambda value: figures.number(value, 2)),
        "p": ("p", figures.chance),
        "p_holm": ("p, all families", figures.chance),
    }


def _coalition_columns(one: str, other: str) -> Columns:
    return {
        "sites": ("Experts", _names),
        "needed": ("Needed", lambda value: f"{int(value):,}"),
        "tokens_share1": (f"Tokens, {one}", figures.share),
        "tokens_share0": (f"Tokens, {other}", figures.share),
        "t": ("t", lambda value: figures.number(value, 2, sign=True)),
        "p": ("p", figures.chance),
        "q": ("q", figures.chance),
        "fwer": ("Family-wise p", figures.chance),
    }


def _table(title: str, name: str, lines: Sequence[Json], columns: Columns, note: str, said: str = "") -> Beside:
    """Only columns that some line has a value for; older files lack a few."""
    shown = [key for key in columns if key == name or any(line.get(key) is not None for line in lines)]
    cells = [[_cell(line.get(key), columns[key][1]) for key in shown] for line in lines[:MOST_LINES]]
    left = len(lines) - len(cells)
    more = f" {left:,} more stand in the findings file." if left > 0 else ""
    return Beside(title, [columns[key][0] for key in shown], cells, note + more, said)


def _cell(value: Any, cell: Cell) -> str:
    return figures.NONE if value is None else cell(value)


def _names(sites: Sequence[Any]) -> str:
    """Up to eight experts by name."""
    listed = ", ".join(str(site) for site in sites[:MOST_NAMED])
    return f"{listed} and {len(sites) - MOST_NAMED} more" if len(sites) > MOST_NAMED else listed or figures.NONE
