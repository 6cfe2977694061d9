"""The verdicts in words: one table for everything that people read (terminal, page, tables, glossary, docs).

A findings file holds the `name` of a verdict, which programs read and which never changes; people read its `words`.
A causal verdict is never shown without how much of the gap it is about: a reader takes a bare "necessary and
sufficient" for the whole cause.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

# Percent of the gap from which on, by the lower end of the interval, an effect is called most of it and not a part.
MOST = 50


@dataclass(frozen=True)
class Verdict:
    """One verdict.

    Attributes:
        name: as in a findings file.
        words: as people read it, wherever it stands.
        sign: stands beside the words on the page, so that colour alone says nothing.
        meaning: a sentence or two for readers who do no research.
        effects: what a causal verdict rests on; empty for all others.
    """

    name: str
    words: str
    sign: str
    meaning: str
    effects: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The words with a capital letter, to stand alone."""
        return self.words[:1].upper() + self.words[1:]


VERDICTS: tuple[Verdict, ...] = (
    Verdict(
        "necessary and sufficient", "necessary and sufficient", "\u25c6",
        "Taking it over from the control run removes the effect or a reliable part of it, and putting it into the "
        "control run brings that about. It stands with two percentages of the gap: how much goes (necessity), and how "
        "much comes (sufficiency). It does not say that nothing else does as much.",
        ("necessity", "sufficiency"),
    ),
    Verdict(
        "necessary", "necessary", "\u25b2",
        "Replacing its contribution removes the effect or a reliable part of it, as much as the percentage of the gap "
        "beside it; putting it in elsewhere does not bring the effect about.",
        ("necessity",),
    ),
    Verdict(
        "sufficient", "sufficient", "\u25bc",
        "Putting its contribution in brings the effect or a reliable part of it about, as much as the percentage of "
        "the gap beside it; without it the effect comes about some other way.",
        ("sufficiency",),
    ),
    Verdict(
        "association only", "association only", "\u25cb",
        "Its routing goes with the behaviour, or at least with its words, but swapping its contribution did not move "
        "it enough.",
    ),
    Verdict(
        "associated", "associated, cause not tested", "\u25cf",
        "Its routing goes with the behaviour. Nobody has tested yet whether it does anything.",
    ),
    Verdict(
        "tokens only", "perhaps only words", "\u2248",
        "Its routing differs, but the words that come along with the behaviour may be all there is to it: beyond them "
        "no difference was shown.",
    ),
    Verdict(
        "neither", "no effect shown", "\u2715",
        "Its routing was not shown to go with the behaviour, and swapping its contribution did not move it enough.",
    ),
    Verdict(
        "underpowered", "not decided", "?",
        "It was swapped, but in too few pairs of prompts, or with effects that differ too much between pairs, to call "
        "it a cause or to say that it is none.",
    ),
    Verdict(
        "not associated", "not associated", "\u00b7",
        "No difference in routing was found. That is not proof that there is none.",
    ),
    Verdict(
        "untestable", "untestable", "/", "The data could not be tested, for example never selected.",
    ),
)  # fmt: skip
NAMES = tuple(one.name for one in VERDICTS)
CAUSAL = frozenset(one.name for one in VERDICTS if one.effects)
_BY_NAME = {one.name: one for one in VERDICTS}


def in_words(name: str) -> str:
    """What people read for a verdict (or an association) of a findings file: ``perhaps only words``.

    Raises:
        KeyError: there is no such verdict.
    """
    return _BY_NAME[name].words


def said(name: str, effects: Json | None) -> str:
    """A verdict with how much it is about: ``sufficient for part of the gap: 34 % [22, 48]``."""
    return f"{in_words(name)} {extent(name, effects)}".rstrip()


def extent(name: str, effects: Json | None) -> str:
    """How much a causal verdict is about: ``for part of the gap: 34 % [22, 48] and 31 % [20, 47]``; else "".

    Args:
        name: a verdict of docs/findings.md.
        effects: `rows[].interchange` of the same row.
    """
    if effects is None or name not in CAUSAL:
        return ""
    return f"for {'most' if is_most(name, effects) else 'part'} of the gap: {sizes(name, effects)}"


def is_most(name: str, effects: Json) -> bool:
    """Whether everything that a causal verdict rests on is surely more than half of the gap."""
    intervals = [effects[key]["ci"] for key in _BY_NAME[name].effects]
    return all(interval is not None and interval[0] >= MOST for interval in intervals)


def sizes(name: str, effects: Json) -> str:
    """The effects that a causal verdict rests on, percent of the gap with 95 % intervals, necessity first."""
    return " and ".join(_size(effects[key]) for key in _BY_NAME[name].effects)


def extent_of_all(name: str, several: Iterable[Json]) -> str:
    """`extent` of one site, or from the smallest to the largest effect of several with the same causal verdict."""
    listed = list(several)
    if len(listed) < 2 or name not in CAUSAL:
        return "".join(extent(name, effects) for effects in listed)
    found = sorted(effects[key]["percent"] for effects in listed for key in _BY_NAME[name].effects)
    return f"for {_digits(found[0])} % to {_digits(found[-1])} % of the gap each"


def _size(effect: Json) -> str:
    ends = effect["ci"]
    if ends is None or None in ends:
        return f"{_digits(effect['percent'])} % [no interval]"
    fine = max(map(abs, ends)) < 9.95
    low, high = (f"{end:.1f}" if fine and any(ends) else f"{end:.0f}" for end in ends)
    return f"{_digits(effect['percent'])} % [{low}, {high}]".replace("-", "\u2212")


def _digits(percent: float) -> str:
    return f"{percent:.0f}" if abs(percent) >= 9.95 else f"{percent:.1f}"
