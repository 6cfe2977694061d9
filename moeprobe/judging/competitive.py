"""Does a site do more than sites like it? Comparison sites matched by use and norm, and the rank among them.

This is the competitive null: about a site against other sites. It is another question than chance over pairs
(`signflip`): a site may move the metric beyond doubt, and every site of its layer may do the same.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from moeprobe.errors import InterchangeError


class Layered(Protocol):
    """A site: hashable, with the layer it lies in. One that has a `kind` is compared with its own kind only."""

    @property
    def layer(self) -> int:
        """The layer's index."""

    def __hash__(self) -> int:
        """Sites are keys."""


Site = TypeVar("Site", bound=Layered)
Key = TypeVar("Key", bound=Hashable)
# Sites of other layers are comparable up to this factor in selection rate.
BAND = 2.0


@dataclass(frozen=True)
class Matched(Generic[Site]):
    """Comparison sites of one site, nearest first.

    Attributes:
        sites: those of the same layer first, then of other layers.
        rate_ratios, norm_ratios: selection rate and contribution norm of each over the site's own.
    """

    sites: tuple[Site, ...]
    rate_ratios: tuple[float, ...]
    norm_ratios: tuple[float, ...]

    @property
    def mismatch(self) -> float | None:
        """The largest factor between a comparison site and the site, in rate or norm; None without any."""
        factors = [max(ratio, 1 / ratio) if ratio else math.inf for ratio in (*self.rate_ratios, *self.norm_ratios)]
        return max(factors, default=None)


def match_sites(
    rates: Mapping[Site, float], norms: Mapping[Site, float], targets: Sequence[Site], n: int, seed: int
) -> dict[Site, Matched[Site]]:
    """For each target the n most similar other sites, by selection rate and contribution norm.

    Similar: a small distance sqrt(dr^2 + dn^2), with dr and dn the differences of the log rates and log norms, each
    over its robust spread (1.4826 times the median absolute deviation over all sites of that kind that ran; 1 where
    that is 0). Sites of the target's own layer come first, then sites of other layers whose rate is within a factor of
    2. Sites that are targets themselves come last. Only where none of these writes anything, sites that ran and write
    nothing are taken: where one expert of a layer does all, the others are what it is to be compared with. A site that
    never ran is no comparison, and has none; nor has one that writes nothing.

    Args:
        rates: share of the tokens at which each site ran (1 for a site that always runs).
        norms: mean norm of what each site writes where it ran.
        targets: sites to be compared.
        n: comparison sites for each; fewer where there are no more.
        seed: orders sites that are equally near.

    Raises:
        InterchangeError: a target without rate or norm, or a rate or norm that is negative or not finite.
    """
    if n < 1:
        raise InterchangeError(f"{n} comparison sites: at least one is needed.")
    unknown = [str(site) for site in targets if site not in rates or site not in norms]
    if unknown:
        raise InterchangeError(f"No selection rate or norm is known of {', '.join(unknown)}.")
    bad = [str(site) for site in rates if not (_sound(rates[site]) and _sound(norms.get(site, 0.0)))]
    if bad:
        raise InterchangeError(f"Rate or norm is negative, NaN or infinite: {', '.join(bad)}.")
    generator = np.random.default_rng(seed)
    ran = [site for site in rates if rates[site] > 0]
    ran = [ran[i] for i in generator.permutation(len(ran))]
    tested = set(targets)
    wrote = [site for site in ran if norms.get(site, 0.0) > 0]
    kinds = {_kind(site) for site in wrote}
    spreads = {kind: _spreads([site for site in wrote if _kind(site) == kind], rates, norms) for kind in kinds}
    found = {}
    for target in targets:
        near: list[tuple[int, float, Site]] = []
        for other in ran if target in wrote else ():
            if other == target or _kind(other) != _kind(target):
                continue
            rate, factor = math.log(rates[other] / rates[target]), norms.get(other, 0.0) / norms[target]
            norm = math.log(factor) if factor > 0 else 0.0  # all that write nothing are alike in that
            same = other.layer == target.layer
            if same or abs(rate) <= math.log(BAND):
                spread = spreads[_kind(target)]
                distance = math.hypot(rate / spread[0], norm / spread[1])
                near.append((4 * (factor == 0) + 2 * (other in tested) + (not same), distance, other))
        near.sort(key=lambda one: one[:2])
        near = [one for one in near if one[0] < 4] or near
        chosen = [other for _, _, other in near[:n]]
        found[target] = Matched(
            tuple(chosen),
            tuple(rates[other] / rates[target] for other in chosen),
            tuple(norms.get(other, 0.0) / norms[target] for other in chosen),
        )
    return found


def usage_band(rate: float) -> int:
    """Bands of selection rate that double, for `pooled`: (1/2, 1] is 0, (1/4, 1/2] is -1, ...

    Raises:
        InterchangeError: the rate is not above 0: a site that never ran is in no band.
    """
    if not rate > 0:
        raise InterchangeError(f"A selection rate of {rate} is in no band.")
    return math.ceil(math.log2(rate))


def pooled(nulls: Mapping[Key, Sequence[Key]], groups: Mapping[Key, Hashable]) -> dict[Key, tuple[Key, ...]]:
    """Comparison sites shared within groups (a layer, a usage band), so that ranks are finer.

    Args:
        nulls: comparison sites of each tested site.
        groups: group of each tested site.

    Returns:
        For each tested site all comparison sites of its group but itself, each once.
    """
    shared: dict[Hashable, dict[Key, None]] = {}
    for site, others in nulls.items():
        shared.setdefault(groups[site], {}).update(dict.fromkeys(others))
    return {site: tuple(other for other in shared[groups[site]] if other != site) for site in nulls}


def rank(own: float, others: Sequence[float]) -> dict[str, Any]:
    """Rank of a site's effect among its comparison sites' effects.

    Returns:
        sites (how many), above (how many do at least as much), p = (1 + above) / (1 + sites), best_p (the smallest p
        that so few sites allow).
    """
    above = sum(other >= own for other in others)
    return {
        "sites": len(others),
        "above": above,
        "p": (1 + above) / (1 + len(others)),
        "best_p": 1 / (1 + len(others)),
    }


def _spreads(sites: Sequence[Site], rates: Mapping[Site, float], norms: Mapping[Site, float]) -> tuple[float, float]:
    return tuple(_spread([values[site] for site in sites]) for values in (rates, norms))  # type: ignore[return-value]


def _spread(values: Sequence[float]) -> float:
    logs = np.log(values)
    return float(1.4826 * np.median(np.abs(logs - np.median(logs)))) or 1.0


def _kind(site: object) -> object:
    return getattr(site, "kind", None)


def _sound(value: float) -> bool:
    return math.isfinite(value) and value >= 0
