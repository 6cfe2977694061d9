"""One place inside a model, and its name."""

import difflib
import re
from dataclasses import dataclass

from moeprobe.errors import MoeprobeError

# Kind -> the letter of its name, for kinds of which a layer has several.
INDEXED = {"expert": "E", "head": "H"}
# Kinds of which a layer has one; the name is the kind.
SINGLE = ("router", "shared", "moe", "residual")
KINDS = (*INDEXED, *SINGLE)
# Far beyond every model; a larger number is a slip or an attempt to make the program count.
LARGEST = 999_999

_NAME = re.compile(rf"L([0-9]{{1,6}})\.(?:([EH])([0-9]{{1,6}})|({'|'.join(SINGLE)}))")
_LETTERS = {letter: kind for kind, letter in INDEXED.items()}
_FORMS = "L14.E114 (expert), L14.H3 (attention head), L14.router, L14.shared, L14.moe or L14.residual"


@dataclass(frozen=True, order=True)
class Site:
    """One place of the main stack.

    Attributes:
        layer: the model's own layer index (dense layers count too).
        kind: "expert" and "head" (one of several, by index), "router" (the layer's choice of experts), "shared" (the
            shared experts' output), "moe" (the output of the MoE block), "residual" (the stream after the layer).
        index: which expert or head; None for the other kinds.

    Raises:
        MoeprobeError: an unknown kind, an index that is missing or too many, or a number out of bounds.
    """

    layer: int
    kind: str
    index: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise MoeprobeError(f"{self.kind!r} is no kind of site. There are: {', '.join(KINDS)}.")
        if (self.index is None) == (self.kind in INDEXED):
            wanted = "needs the number of one" if self.index is None else "has no number"
            raise MoeprobeError(f"A site of kind {self.kind!r} {wanted} (layer {self.layer}, number {self.index}).")
        for number in (self.layer, self.index or 0):
            if not 0 <= number <= LARGEST:
                raise MoeprobeError(f"Layers, experts and heads are counted from 0 to {LARGEST}, not {number}.")

    def __str__(self) -> str:
        return f"L{self.layer}.{self.kind if self.index is None else f'{INDEXED[self.kind]}{self.index}'}"

    @property
    def expert(self) -> int:
        """Index of the expert.

        Raises:
            MoeprobeError: the site is of another kind.
        """
        if self.kind != "expert" or self.index is None:
            raise MoeprobeError(f"{self} names no expert: write layer and expert, for example L14.E114.")
        return self.index


def expert_site(layer: int, expert: int) -> Site:
    """Expert `expert` of layer `layer`."""
    return Site(layer, "expert", expert)


def parse_site(text: str) -> Site:
    """Read the name of one site, for example "L14.E114" or "L14.router".

    Raises:
        MoeprobeError: the text has another form; a bare number names nothing.
    """
    match = _NAME.fullmatch(text.strip())
    if match is None:
        raise MoeprobeError(f"{shown(text)} names no site{meant(text)} Sites are {_FORMS}.")
    layer, letter, index, single = match.groups()
    if single is not None:
        return Site(int(layer), single)
    return Site(int(layer), _LETTERS[letter], int(index))


def parse_expert(text: str) -> Site:
    """Read "L14.E114".

    Raises:
        MoeprobeError: the text has another form; a bare index names no expert.
    """
    match = _NAME.fullmatch(text.strip())
    if match is None or match[2] != "E":
        raise MoeprobeError(f"{shown(text)} names no expert: write layer and expert, for example L14.E114.")
    return Site(int(match[1]), "expert", int(match[3]))


def shown(text: str) -> str:
    """A text of unknown length, quoted for a message."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def meant(text: str) -> str:
    """End of a sentence that says `text` is wrong: what may have been meant, or nothing."""
    corrected = _corrected(text.strip()) if len(text) <= 60 else None
    return f". Did you mean {corrected}?" if corrected not in (None, text.strip()) else "."


def _corrected(term: str) -> str | None:
    """A term with its letters and words as they should be, or None where nothing is near."""
    layers, dot, what = term.rpartition(".")
    band = re.fullmatch(r"[Ll]([0-9]{1,6})(?:-[Ll]?([0-9]{1,6}))?|[Ll]?(\*)", layers)
    if dot and band is None:
        return None
    of = "" if band is None else "L*" if band[3] else f"L{band[1]}" + (f"-L{band[2]}" if band[2] else "")
    several = re.fullmatch(r"([EeHh])(?:([0-9]{1,6})(?:-[EeHh]?([0-9]{1,6}))?|(\*))", what)
    if several is not None:
        letter, first, last, star = several.groups()
        letter = letter.upper()
        return f"{of}{dot}{letter}*" if star else f"{of}{dot}{letter}{first}" + (f"-{letter}{last}" if last else "")
    near = difflib.get_close_matches(what.lower(), SINGLE, 1)
    return f"{of}{dot}{near[0]}" if near else None
