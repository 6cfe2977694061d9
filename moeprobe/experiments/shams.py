"""Sham experts: others of the same layer that are chosen about as often and write about as much.

Unlike the comparison sites of a verdict (`competitive`), shams may be experts that write nothing: what a dose of those
does is what the dose alone does, and a layer may have no others.
"""

from collections.abc import Sequence

import numpy as np

from moeprobe.errors import InterchangeError
from moeprobe.interchange.lab import lab
from moeprobe.interchange.profile import LayerProfile, profile
from moeprobe.models import LoadedModel
from moeprobe.pairs.pairs import TokenPair
from moeprobe.sites import Site, expert_site


def usage_of(loaded: LoadedModel, prompts: Sequence[Sequence[int]], layer: int, *, batch_size: int = 8) -> LayerProfile:
    """Selection rates and contribution norms of one layer, over all positions of the prompts.

    Raises:
        InterchangeError: the layer has no experts that can be asked one at a time.
    """
    pairs = [TokenPair(str(place), tuple(prompt), tuple(prompt)) for place, prompt in enumerate(prompts)]
    return profile(lab(loaded, batch_size=batch_size), pairs, [layer])[layer]


def nearest(site: Site, usage: LayerProfile, count: int) -> list[Site]:
    """The `count` experts nearest in selection rate and contribution norm, each in SD over the experts in use.

    Experts that are never chosen are left out, unless the site itself never is: they are no comparison.

    Raises:
        InterchangeError: the layer has no such expert, or no other that is in use.
    """
    if not 0 <= site.expert < len(usage.rate):
        raise InterchangeError(f"L{site.layer} has experts E0 to E{len(usage.rate) - 1}; there is no {site}.")
    active = usage.rate > 0 if usage.rate[site.expert] > 0 else np.ones(len(usage.rate), dtype=bool)
    distance = np.zeros(len(usage.rate))
    for values in (usage.rate, usage.norm):
        spread = float(values[active].std()) or 1.0
        distance += np.abs(values - values[site.expert]) / spread
    active[site.expert] = False
    others = np.flatnonzero(active)
    if not len(others):
        raise InterchangeError(
            f"No other expert of L{site.layer} is chosen in these prompts, so {site} has no shams. "
            "Name some, or ask for 0."
        )
    order = others[np.argsort(distance[others], kind="stable")]
    return [expert_site(site.layer, int(expert)) for expert in order[:count]]
