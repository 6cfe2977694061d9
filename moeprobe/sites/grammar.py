"""How sets of sites are written.

Terms are joined by "+". A term is LAYERS.WHAT, for example L14.E114, L13-L16.H*, L*.router. LAYERS is L14, L13-L16 or
L*; WHAT is E114, E3-E9, E*, H3, H0-H4, H*, router, shared, moe or residual. A term without layers takes those of the
term before it: L14.E3+E7 is L14.E3 and L14.E7. Spaces may stand around "+".
"""

import re
from dataclasses import dataclass

from moeprobe.errors import MoeprobeError
from moeprobe.sites.layout import Layout
from moeprobe.sites.site import INDEXED, SINGLE, Site, meant, shown
from moeprobe.sites.siteset import SiteSet

# Bounds, so that no text makes the program count for long. The largest published models have 50,000 experts.
MAX_TEXT, MAX_TERMS, MAX_SITES = 1_000_000, 100_000, 200_000

_LAYERS = re.compile(r"L(?:(\*)|([0-9]{1,6})(?:-L([0-9]{1,6}))?)")
_WHAT = re.compile(rf"([EH])(?:(\*)|([0-9]{{1,6}})(?:-\1([0-9]{{1,6}}))?)|({'|'.join(SINGLE)})")
_KINDS = {letter: kind for kind, letter in INDEXED.items()}


@dataclass(frozen=True)
class _What:
    """A kind with its numbers, both ends included; `last` is None for all of the layer."""

    kind: str
    first: int = 0
    last: int | None = 0


def parse_sites(text: str, layout: Layout) -> SiteSet:
    """Read a set of sites, for example "L14.E3+E7" or "L13-L16.H*".

    A band of layers, or L*, takes those of its layers that have all that the term names after the dot. A single layer
    or number that the model has not is an error, and so is a band that ends beyond the last layer.

    Raises:
        MoeprobeError: the text breaks the grammar or its bounds, or names what the model has not; the message says
            what it has.
    """
    if len(text) > MAX_TEXT or text.count("+") >= MAX_TERMS:
        raise MoeprobeError(
            f"A set of sites is written in at most {MAX_TERMS} terms and {MAX_TEXT} characters; this one has "
            f"{text.count('+') + 1} terms and {len(text)} characters. Use bands such as L0-L9.E*."
        )
    found: dict[Site, None] = {}
    layers: tuple[int, ...] = ()
    room = MAX_SITES
    terms = [piece.strip() for piece in text.split("+")]
    for term in terms:
        layers, what = _read(term, layers, layout)
        resolved = _resolve(term, layers, what, layout, room)
        # Repeated sites count too: they cost time to read.
        room -= len(resolved)
        found.update(dict.fromkeys(resolved))
    return SiteSet("+".join(terms), tuple(found))


def _read(term: str, before: tuple[int, ...], layout: Layout) -> tuple[tuple[int, ...], _What]:
    """A term's layers and what it names in them; `before`: the layers of the term before it, none for the first."""
    if not term:
        raise MoeprobeError('A site is missing: write for example L14.E3+E7, with a site on both sides of each "+".')
    named, dot, rest = term.rpartition(".")
    if not dot and _LAYERS.fullmatch(term):
        raise MoeprobeError(f"{term} names layers but nothing in them: write for example {term}.E3 or {term}.residual.")
    if not dot and not before:
        raise MoeprobeError(f"{shown(term)} names no layer{meant(f'L0.{term}')} Write for example L14.E114.")
    return _read_layers(term, named, layout) if dot else before, _read_what(term, rest)


def _read_layers(term: str, named: str, layout: Layout) -> tuple[int, ...]:
    match = _LAYERS.fullmatch(named)
    if match is None:
        raise _unreadable(term)
    star, first, last = match.groups()
    if star:
        return tuple(sorted(layout.layers))
    ends = [int(first), int(last if last is not None else first)]
    if ends[0] > ends[1]:
        raise MoeprobeError(f"{term}: a band runs upward, so write L{ends[1]}-L{ends[0]}.")
    for end in ends:
        layout.check_layer(end)
    return tuple(layer for layer in sorted(layout.layers) if ends[0] <= layer <= ends[1])


def _read_what(term: str, rest: str) -> _What:
    match = _WHAT.fullmatch(rest)
    if match is None:
        raise _unreadable(term)
    letter, star, first, last, single = match.groups()
    if single:
        return _What(single)
    if star:
        return _What(_KINDS[letter], 0, None)
    ends = int(first), int(last if last is not None else first)
    if ends[0] > ends[1]:
        raise MoeprobeError(f"{term}: a band runs upward, so write {letter}{ends[1]}-{letter}{ends[0]}.")
    return _What(_KINDS[letter], *ends)


def _unreadable(term: str) -> MoeprobeError:
    return MoeprobeError(
        f"{shown(term)} names no site{meant(term)} Write LAYERS.WHAT: L14, L13-L16 or L*, then a dot, then E3, E3-E9, "
        "E*, H3, H0-H4, H*, router, shared, moe or residual."
    )


def _resolve(term: str, layers: tuple[int, ...], what: _What, layout: Layout, room: int) -> list[Site]:
    """The sites of one term, at most `room`."""
    highest = 0 if what.last is None else what.last
    having = [layer for layer in layers if layout.count(layer, what.kind) > highest]
    numbered = what.kind in INDEXED
    if not having:
        if len(layers) == 1:
            layout.check(Site(layers[0], what.kind, highest if numbered else None))
        raise MoeprobeError(f"{shown(term)}: no layer of that band has it. {_what_there_is(layers, what, layout)}")
    spans = [(layer, _stop(layout, layer, what)) for layer in having]
    if sum(stop - what.first for _, stop in spans) > room:
        raise MoeprobeError(f"{shown(term)} makes a set of more than {MAX_SITES} sites, which is too many to test.")
    return [
        Site(layer, what.kind, index if numbered else None)
        for layer, stop in spans
        for index in range(what.first, stop)
    ]


def _stop(layout: Layout, layer: int, what: _What) -> int:
    return layout.count(layer, what.kind) if what.last is None else what.last + 1


def _what_there_is(layers: tuple[int, ...], what: _What, layout: Layout) -> str:
    counts = {layout.count(layer, what.kind) for layer in layers}
    if max(counts) > 0:
        letter = INDEXED[what.kind]
        return f"Its layers go to {letter}{max(counts) - 1} at most."
    for layer in layers:
        if what.kind in layout.layers[layer].refused:
            return f"L{layer}: {layout.why_not(layer, what.kind)}"
    return layout.where(what.kind)
