"""The verdicts as the page shows them: the words of `findings.verdicts`, each with a colour."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moeprobe.errors import FindingsError
from moeprobe.findings import verdicts as table
from moeprobe.findings.verdicts import CAUSAL as CAUSAL
from moeprobe.report import figures

_CSS = {
    "necessary and sufficient": "both",
    "necessary": "necessary",
    "sufficient": "sufficient",
    "association only": "only",
    "associated": "associated",
    "tokens only": "tokens",
    "neither": "neither",
    "underpowered": "untestable",
    "not associated": "none",
    "untestable": "untestable",
}


@dataclass(frozen=True)
class Badge:
    """A verdict on the page: its CSS class, its sign (never colour alone), its label and meaning.

    Attributes:
        extent: of a causal verdict on a site, how much of the gap; empty in legends.
    """

    name: str
    css: str
    sign: str
    label: str
    meaning: str
    extent: str = ""

    @property
    def text(self) -> str:
        """Label and extent: ``Necessary for part of the gap: 34 % [22, 48]``."""
        return f"{self.label} {self.extent}".rstrip()


VERDICTS = tuple(Badge(one.name, _CSS[one.name], one.sign, one.label, one.meaning) for one in table.VERDICTS)
_BY_NAME = {one.name: one for one in VERDICTS}


def badge(name: str, effects: table.Json | None) -> Badge:
    """The badge of a site from its verdict and its interchange effects.

    Raises:
        FindingsError: the name is none of the verdicts of docs/findings.md; a report must not guess.
    """
    if name not in _BY_NAME:
        raise FindingsError(f"The findings hold the verdict {name[:80]!r}, which this report does not know.")
    return _sized(name, table.extent(name, effects))


def tally(rows: Sequence[table.Json]) -> list[tuple[Badge, int]]:
    """How many rows have which verdict, in the order of the table, with how much causal ones are about."""
    found: list[tuple[Badge, int]] = []
    for one in VERDICTS:
        effects = [row["interchange"] for row in rows if row["verdict"] == one.name]
        if effects:
            found.append((_sized(one.name, table.extent_of_all(one.name, effects)), len(effects)))
    return found


def extent(row: table.Json) -> str:
    """How much the verdict of a row is about: ``for part of the gap: 34 % [22, 48]``; "" where it names no cause."""
    return _unbroken(table.extent(row["verdict"], row["interchange"]))


def sizes(name: str, effects: table.Json) -> str:
    """`findings.verdicts.sizes` with spaces that do not break."""
    return _unbroken(table.sizes(name, effects))


def _sized(name: str, extent: str) -> Badge:
    return replace(_BY_NAME[name], extent=_unbroken(extent))


def _unbroken(text: str) -> str:
    """A number stays on one line with its unit and its interval."""
    return text.replace(" %", f"{figures.NBSP}%").replace(" [", f"{figures.NBSP}[").replace(", ", f",{figures.NBSP}")
