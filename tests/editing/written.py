"""What the sites of a tiny model are, in one line, and why others are refused."""

from collections.abc import Mapping

from moeprobe.editing import Places, layout_of
from moeprobe.sites import KINDS
from moeprobe.sites.siteset import numbered


def written(places: Mapping[int, Places]) -> str:
    """ "L0 H4x8 residual; L1-L3 E8 H4x8 router shared moe residual": 8 experts, 4 heads of width 8 in layers 1 to 3. A
    kind that is refused has a minus before it."""
    layout, groups = layout_of(places), {}
    for layer in sorted(places):
        sites, heads = layout.layers[layer], places[layer].heads
        words = {kind: kind for kind in KINDS if sites.count(kind)}
        if "expert" in words:
            words["expert"] = f"E{sites.experts}"
        if heads is not None and "head" in words:
            words["head"] = f"H{sites.heads}x{heads.width}"
        words |= {kind: f"-{kind}" for kind in sites.refused}
        groups.setdefault(" ".join(words[kind] for kind in KINDS if kind in words), []).append(layer)
    return "; ".join(f"{numbered('L', layers)} {words}" for words, layers in groups.items())


def reasons(places: Mapping[int, Places]) -> dict[str, set[str]]:
    """By kind, why it is refused in any layer; the layer's name is written L*."""
    found: dict[str, set[str]] = {}
    for layer, one in places.items():
        for kind, reason in one.refused.items():
            found.setdefault(kind, set()).add(reason.replace(f"L{layer} ", "L* "))
    return found
