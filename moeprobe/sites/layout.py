"""Which sites a model has, and why it lacks the others."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from moeprobe.errors import MoeprobeError
from moeprobe.sites.site import INDEXED, KINDS, Site
from moeprobe.sites.siteset import numbered

_WORDS = {
    "expert": "experts",
    "head": "attention heads",
    "router": "router",
    "shared": "shared expert",
    "moe": "MoE block",
    "residual": "residual stream",
}


@dataclass(frozen=True)
class LayerSites:
    """The sites of one layer.

    Attributes:
        experts: number of experts; None: it has none, or none that can be read and edited.
        heads: number of attention heads, likewise.
        router, shared, moe, residual: whether there is such a site.
        refused: for a kind that the layer has but moeprobe does not offer, why, in words that follow a colon.
    """

    experts: int | None = None
    heads: int | None = None
    router: bool = False
    shared: bool = False
    moe: bool = False
    residual: bool = True
    refused: Mapping[str, str] = field(default_factory=dict)

    def count(self, kind: str) -> int:
        """How many sites of `kind` the layer has."""
        if kind == "expert":
            return self.experts or 0
        return (self.heads or 0) if kind == "head" else int(getattr(self, kind))


@dataclass(frozen=True)
class Layout:
    """The sites of a model's main stack, by layer. Every layer of the stack has an entry."""

    layers: Mapping[int, LayerSites]

    def __post_init__(self) -> None:
        if not self.layers:
            raise MoeprobeError("A layout needs at least one layer.")

    def count(self, layer: int, kind: str) -> int:
        """How many sites of `kind` layer `layer` has; 0 where there is no such layer."""
        return self.layers[layer].count(kind) if layer in self.layers else 0

    def sites(self, kind: str) -> list[Site]:
        """Every site of `kind`, in order."""
        return [
            Site(layer, kind, index if kind in INDEXED else None)
            for layer in sorted(self.layers)
            for index in range(self.count(layer, kind))
        ]

    def check(self, site: Site) -> None:
        """Make sure that the model has `site`.

        Raises:
            MoeprobeError: it has not; the message says what it has, or why the site is refused.
        """
        self.check_layer(site.layer)
        there = self.count(site.layer, site.kind)
        if there == 0:
            raise MoeprobeError(f"{site}: {self.why_not(site.layer, site.kind)}")
        if site.index is not None and site.index >= there:
            last = Site(site.layer, site.kind, there - 1)
            raise MoeprobeError(f"The model has no {site}: the last of that layer is {last}.")

    def check_layer(self, layer: int) -> None:
        """Make sure that the model has the layer.

        Raises:
            MoeprobeError: it has not.
        """
        if layer not in self.layers:
            raise MoeprobeError(f"The model has no layer L{layer}: it has {numbered('L', self.layers)}.")

    def why_not(self, layer: int, kind: str) -> str:
        """Sentences on why layer `layer` has no site of `kind`, and what there is instead."""
        reason = self.layers[layer].refused.get(kind)
        if reason is not None:
            return f"the {_WORDS[kind]} of L{layer} cannot be read and edited: {reason}. {self.where(kind)}"
        return f"L{layer} has no {_WORDS[kind]}. It has {self._contents(layer)}. {self.where(kind)}"

    def where(self, kind: str) -> str:
        """A sentence on the layers that have sites of `kind`."""
        having = [layer for layer in self.layers if self.count(layer, kind)]
        if not having:
            return f"No layer of this model has such a site ({_WORDS[kind]})."
        return f"Layers with {_WORDS[kind]}: {numbered('L', having)}."

    def _contents(self, layer: int) -> str:
        found = []
        for kind in KINDS:
            there = self.count(layer, kind)
            if there:
                found.append(f"{INDEXED[kind]}0-{INDEXED[kind]}{there - 1}" if kind in INDEXED else kind)
        return ", ".join(found) or "nothing that can be named"
