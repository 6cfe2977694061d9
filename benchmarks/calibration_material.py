"""Effects of real swaps, measured once; benchmarks/interchange_calibration.py draws many experiments from them.

For every pair and site: the swap with the pair's other prompt, and swaps with prompts of several other pairs, of the
recipient's own class and of the other one.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moeprobe.interchange.comparison import activity
from moeprobe.interchange.lab import Lab, givers_of
from moeprobe.interchange.measure import measure
from moeprobe.judging.competitive import match_sites
from moeprobe.pairs.pairs import TokenPair
from moeprobe.sites import Site, SiteSet

Floats = NDArray[np.float64]
NAMES = ("necessity", "sufficiency")
# Comparison sites, as a run has them by default.
OTHERS = 19


@dataclass(frozen=True)
class Given:
    """What swaps with prompts of other pairs do, in one direction.

    Attributes:
        effects: (donors, sites, pairs).
        pairs: (donors, pairs) the pair that gave.
        same: (donors,) whether the donor is of the recipient's class.
    """

    effects: Floats
    pairs: NDArray[np.int64]
    same: NDArray[np.bool_]


@dataclass(frozen=True)
class Material:
    """All effects of one list of pairs, one metric and one naming of the sides.

    Attributes:
        sites: names.
        nulls: by tested site (its number) the numbers of its comparison sites.
        gap: (pairs,).
        true: by direction (sites, pairs), swaps with the pair's other prompt.
        given: by direction, swaps with prompts of other pairs.
    """

    sites: tuple[str, ...]
    nulls: dict[int, list[int]]
    gap: Floats
    true: dict[str, Floats]
    given: dict[str, Given]

    def turned(self) -> "Material":
        """With the sides of all pairs exchanged, for a metric that does not depend on which is the control."""
        other = dict(zip(NAMES, NAMES[::-1], strict=True))
        return replace(
            self,
            gap=-self.gap,
            true={name: -self.true[other[name]] for name in NAMES},
            given={name: replace(self.given[other[name]], effects=-self.given[other[name]].effects) for name in NAMES},
        )

    def save(self, path: Path) -> None:
        """As one .npz file."""
        arrays = {f"true {name}": self.true[name] for name in NAMES}
        for name, one in self.given.items():
            arrays |= {f"effects {name}": one.effects, f"pairs {name}": one.pairs, f"same {name}": one.same}
        about = json.dumps([self.sites, list(self.nulls.items())])
        np.savez(path, gap=self.gap, about=np.array(about), **arrays)


def load(path: Path) -> Material:
    """What `Material.save` wrote."""
    with np.load(path, allow_pickle=False) as kept:
        sites, nulls = json.loads(str(kept["about"]))
        given = {name: Given(kept[f"effects {name}"], kept[f"pairs {name}"], kept[f"same {name}"]) for name in NAMES}
        true = {name: kept[f"true {name}"] for name in NAMES}
        return Material(tuple(sites), {int(site): others for site, others in nulls}, kept["gap"], true, given)


def measured(one: Lab, pairs: Sequence[TokenPair], sites: Sequence[Site], own: int, other: int) -> Material:
    """Swap all sites in all pairs.

    Args:
        one: model and metric.
        pairs: with the sides as they are to be called.
        sites: all are tested; each is compared with those of the others that are most like it.
        own, other: donors of the recipient's class, and of the other class, for each run.
    """
    sets = [SiteSet("", (site,)) for site in sites]
    base = measure(one, pairs, sets, NAMES)
    effects: dict[str, list[Floats]] = {name: [] for name in NAMES}
    givers: dict[str, list[NDArray[np.int64]]] = {name: [] for name in NAMES}
    for seed in range(max(own, other)):
        kinds = _kinds(seed, own, other)
        bench = replace(one, seed=seed)
        arms = [f"{kind}_{name}" for kind in kinds for name in NAMES]
        found, donors = measure(bench, pairs, sets, arms), givers_of(bench, pairs, arms)
        for kind in kinds:
            for name, side in zip(NAMES, ("sensitive", "control"), strict=True):
                effects[name].append(np.stack([found.sites[each][f"{kind}_{name}"] for each in sets]))
                givers[name].append(donors[side, kind].pairs)
    same = np.array([kind == "placebo" for seed in range(max(own, other)) for kind in _kinds(seed, own, other)])
    return Material(
        tuple(map(str, sites)),
        _nulls(one, pairs, sites),
        base.gap,
        {name: np.stack([base.sites[each][name] for each in sets]) for name in NAMES},
        {name: Given(np.stack(effects[name]), np.stack(givers[name]), same) for name in NAMES},
    )


def _kinds(seed: int, own: int, other: int) -> list[str]:
    return ["placebo"] * (seed < own) + ["random"] * (seed < other)


def _nulls(one: Lab, pairs: Sequence[TokenPair], sites: Sequence[Site]) -> dict[int, list[int]]:
    """Comparison sites among those that were measured, chosen as `comparisons` does."""
    rates, norms = (
        {site: value for site, value in found.items() if site in set(sites)} for found in activity(one, pairs, sites)
    )
    near = match_sites(rates, norms, list(sites), OTHERS, 0)
    number = {site: place for place, site in enumerate(sites)}
    return {number[site]: [number[other] for other in near[site].sites] for site in sites}
