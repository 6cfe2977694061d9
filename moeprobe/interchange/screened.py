"""A whole screen: estimates for all sites, exact swaps of those that lead and of a random audit, and how well it did.

It is made on one half of the pairs, so that the other half is left to test what it found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import InterchangeError
from moeprobe.interchange.lab import Lab
from moeprobe.interchange.measure import Effects, measure
from moeprobe.interchange.screen import SHARE, SWAPS, Screen
from moeprobe.interchange.screen_quality import Quality, quality
from moeprobe.interchange.screening import screen
from moeprobe.judging.confirming import split_pairs
from moeprobe.judging.ratio import check_gap, resamples
from moeprobe.judging.stability import stability
from moeprobe.pairs.pairs import TokenPair
from moeprobe.sites import Site, SiteSet, parse_site

SCHEMA = "moeprobe.screen/1"
Floats = NDArray[np.float64]
# Called with what is being done, and (pairs done, pairs in all).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Screened:
    """A finished screen.

    Attributes:
        screen: the estimates.
        selected, audited: sites that were swapped exactly.
        exact: their effects.
        qualities: how well the screen ranked, by effect.
        left: ids of the pairs that it has not seen.
        digests: of the pairs that it has seen, by which they are known again under other names.
        stability: of the leading sites under resampling of pairs, by effect; reported, never tested with.
    """

    screen: Screen
    selected: tuple[Site, ...]
    audited: tuple[Site, ...]
    exact: Effects
    qualities: dict[str, Quality]
    left: tuple[str, ...]
    stability: dict[str, dict[str, Any]]
    digests: tuple[str, ...] = ()

    def leading(self, top: int) -> list[Site]:
        """The `top` sites with the largest exact effect in the direction of the gap, necessity or sufficiency."""
        share = {site: max(self.percent(site, effect) for effect in SWAPS) for site in self.selected}
        return sorted(self.selected, key=lambda site: -share[site])[:top]

    def percent(self, site: Site, effect: str) -> float:
        """The exact effect of a selected or audited site, in percent of the gap."""
        return float(100 * self.exact.sites[SiteSet("", (site,))][effect].sum() / self.exact.gap.sum())

    def to_json(self) -> dict[str, Any]:
        """Estimates of all sites and exact effects of some, in percent of the gap."""
        place = {site: number for number, site in enumerate(self.screen.sites)}
        estimated = {effect: self.screen.shares(effect) for effect in SWAPS}
        sites = []
        for site in self.screen.sites:
            one: dict[str, Any] = {"site": str(site), "used": bool(self.screen.used[place[site]])}
            one["estimated"] = {effect: float(estimated[effect][place[site]]) for effect in SWAPS}
            tested = site in self.selected or site in self.audited
            one["exact"] = {effect: self.percent(site, effect) for effect in SWAPS} if tested else None
            one["role"] = "selected" if site in self.selected else "audited" if tested else None
            sites.append(one)
        return {
            "sites": sites,
            "leading": [str(site) for site in self.leading(len(self.selected))],
            "pairs": list(self.screen.pair_ids),
            "pair_digests": list(self.digests),
            "pairs_left": list(self.left),
            "quality": {effect: one.to_json() for effect, one in self.qualities.items()},
            "stability": self.stability,
        }


def screened(
    lab: Lab,
    pairs: Sequence[TokenPair],
    *,
    kinds: Sequence[str] = ("expert",),
    wanted: int = 10,
    share: float = SHARE,
    audit: int = 10,
    whole: bool = False,
    progress: Progress | None = None,
) -> Screened:
    """Screen all sites of some kinds.

    Args:
        lab: the swap must be the contribution.
        pairs: at least 16, of which a random half (by the lab's seed) is used.
        kinds: of `screening.KINDS`.
        wanted: how many leading sites one hopes to find.
        share: of the sites that are swapped exactly, at the least (three times `wanted` if that is more).
        audit: random sites of the others that are swapped exactly.
        whole: use all pairs. What is found then can no longer be tested on these pairs.
        progress: called after each batch.

    Raises:
        InterchangeError: too few pairs, no gap, or what `screen` raises.
    """
    places = np.arange(len(pairs)) if whole else split_pairs(len(pairs), lab.seed)[0]
    mine = [pairs[place] for place in places]
    found = screen(lab, mine, kinds=kinds, progress=_step(progress, "estimates"))
    weights = resamples(len(mine), 2000, lab.seed)
    check_gap(found.gap, weights, signed=lab.metric.signed)
    selected = found.select(share=share, wanted=min(wanted, max(1, len(found.sites) // 3)))
    if not selected:
        raise InterchangeError("No run chose any of these sites, so there is nothing to swap.")
    audited = found.audit(selected, min(audit, len(found.others(selected))), lab.seed)
    sets = [SiteSet("", (site,)) for site in (*selected, *audited)]
    exact = measure(lab, mine, sets, SWAPS, progress=_step(progress, "exact swaps"))
    top = min(wanted, len(selected))
    qualities = {}
    for effect in SWAPS:
        means = {one.sites[0]: float(exact.sites[one][effect].mean()) for one in sets}
        qualities[effect] = quality(found, effect, means, selected=selected, audited=audited, wanted=top)
    steady = {
        effect: stability(np.column_stack([exact.sites[one][effect] for one in sets]), top, weights)
        for effect in SWAPS
        if top < len(sets)
    }
    used = {pair.id for pair in mine}
    left = tuple(pair.id for pair in pairs if pair.id not in used)
    return Screened(found, selected, audited, exact, qualities, left, steady, tuple(pair.digest for pair in mine))


def leading_of(record: dict[str, Any], top: int) -> tuple[list[Site], set[str]]:
    """Of a screen's record: the leading sites, and ids and digests of the pairs that it has seen.

    Raises:
        InterchangeError: the record is no screen.
    """
    try:
        if record["schema"] != SCHEMA:
            raise KeyError(record["schema"])
        sites = [parse_site(str(name)) for name in record["leading"][:top]]
        return sites, {str(name) for key in ("pairs", "pair_digests") for name in record[key]}
    except (KeyError, TypeError) as error:
        raise InterchangeError(f"This is no screen ({SCHEMA}): {error}. Make one with interchange screen.") from error


def _step(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None

    def step(done: int, total: int) -> None:
        progress(what, done, total)

    return step
