"""Several sites that are read or edited together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from moeprobe.errors import MoeprobeError
from moeprobe.sites.site import INDEXED, KINDS, Site


@dataclass(frozen=True)
class SiteSet:
    """A set of sites: a single one, a coalition, a band of layers.

    Two sets are equal when their sites are, whatever they are called.

    Attributes:
        name: what the set is called where it is shown, for example "L13-L16.H*" as it was asked for; empty: `str()`.
        sites: its members, sorted, each once.

    Raises:
        MoeprobeError: there is no member.
    """

    name: str = field(compare=False)
    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        if not self.sites:
            raise MoeprobeError("A set of sites needs at least one member.")
        object.__setattr__(self, "sites", tuple(sorted(set(self.sites))))
        object.__setattr__(self, "name", self.name or str(self))

    def __str__(self) -> str:
        """Compact: "L13-L14.E3-E5+H0"; `parse_sites` reads it back as the same set."""
        layers: dict[tuple[str, int, int], list[int]] = {}
        for layer, kind, indices in self._by_layer():
            for first, last in runs(indices):
                layers.setdefault((kind, first, last), []).append(layer)
        bands: dict[tuple[int, int], list[str]] = {}
        for (kind, first, last), numbers in sorted(layers.items(), key=lambda item: _rank(item[0])):
            for band in runs(numbers):
                bands.setdefault(band, []).append(_what(kind, first, last))
        return "+".join(f"{_band('L', *band)}.{'+'.join(whats)}" for band, whats in sorted(bands.items()))

    def _by_layer(self) -> list[tuple[int, str, list[int]]]:
        found: dict[tuple[int, str], list[int]] = {}
        for site in self.sites:
            found.setdefault((site.layer, site.kind), []).append(0 if site.index is None else site.index)
        return [(layer, kind, indices) for (layer, kind), indices in found.items()]


def runs(numbers: Iterable[int]) -> Sequence[tuple[int, int]]:
    """Ascending numbers as (first, last) of each run without a gap."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def numbered(letter: str, numbers: Iterable[int]) -> str:
    """ "L1, L3-L5" for a message."""
    return ", ".join(_band(letter, first, last) for first, last in runs(sorted(numbers)))


def _rank(run: tuple[str, int, int]) -> tuple[int, int, int]:
    return KINDS.index(run[0]), run[1], run[2]


def _what(kind: str, first: int, last: int) -> str:
    return _band(INDEXED[kind], first, last) if kind in INDEXED else kind


def _band(letter: str, first: int, last: int) -> str:
    return f"{letter}{first}" if first == last else f"{letter}{first}-{letter}{last}"
