"""Sham experts: others of the same layer that are chosen about as often and write about as much."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from moeprobe.editing import find_places, reading
from moeprobe.editing.oracle import expert_output
from moeprobe.editing.seen import Choice, experts_of, place_of
from moeprobe.errors import InterchangeError
from moeprobe.interchange.batch import forward, pad_left
from moeprobe.models import LoadedModel
from moeprobe.sites import Site, expert_site

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Usage:
    """How a layer's experts are used in some prompts.

    Attributes:
        rate: (experts,) share of the positions at which each is chosen.
        norm: (experts,) mean norm of its contribution where it is chosen; 0 where it never is.
    """

    rate: Floats
    norm: Floats


@torch.inference_mode()
def usage_of(loaded: LoadedModel, prompts: Sequence[Sequence[int]], layer: int, *, batch_size: int = 8) -> Usage:
    """Selection rates and contribution norms of one layer, over all positions of the prompts.

    Raises:
        InterchangeError: the layer has no experts that can be asked one at a time.
    """
    places = find_places(loaded.model)
    place_of(places, layer, "expert")
    count = experts_of(places[layer]).experts
    chosen, norm, positions = np.zeros(count), np.zeros(count), 0
    for start in range(0, len(prompts), batch_size):
        side = pad_left([tuple(prompt) for prompt in prompts[start : start + batch_size]], loaded.pad_token)
        with reading(places, [(layer, "expert")]) as seen:
            forward(loaded.model, side, readouts=1)
        choice, real = seen.choice(layer), side.mask.reshape(-1).bool()
        rows = real.to(choice.ids.device)
        if len(rows) != len(choice.ids):
            raise InterchangeError(
                f"The experts of L{layer} saw {len(choice.ids)} rows of {len(rows)}; their use cannot be counted."
            )
        positions += int(real.sum())
        kept = Choice(choice.hidden[rows], choice.ids[rows], choice.weights[rows])
        for slot in range(kept.ids.shape[1]):
            ids = kept.ids[:, slot]
            inside = (ids >= 0) & (ids < count) & (kept.weights[:, slot] != 0)
            given = expert_output(
                experts_of(places[layer]), kept.hidden[inside], ids[inside], kept.weights[:, slot][inside]
            )
            sizes = given.float().norm(dim=-1).double().cpu().numpy()
            chosen += np.bincount(ids[inside].cpu().numpy(), minlength=count)
            norm += np.bincount(ids[inside].cpu().numpy(), weights=sizes, minlength=count)
    return Usage(chosen / max(positions, 1), norm / np.maximum(chosen, 1))


def nearest(site: Site, usage: Usage, count: int) -> list[Site]:
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
        raise InterchangeError(f"No other expert of L{site.layer} is chosen in these prompts, so {site} has no shams.")
    order = others[np.argsort(distance[others], kind="stable")]
    return [expert_site(site.layer, int(expert)) for expert in order[:count]]
