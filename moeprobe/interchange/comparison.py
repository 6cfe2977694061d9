"""Comparison sites: for each tested set, others like it that an effect is held against (the competitive null)."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from moeprobe.editing import layout_of, reading
from moeprobe.interchange.lab import Lab
from moeprobe.interchange.profile import profile
from moeprobe.judging.competitive import match_sites
from moeprobe.pairs.batch import forward, pad_left
from moeprobe.pairs.pairs import SIDES, TokenPair
from moeprobe.sites import INDEXED, Site, SiteSet

# Comparison sets that a set of several needs at the least.
FEWEST = 5


def comparisons(
    lab: Lab, pairs: Sequence[TokenPair], sets: Sequence[SiteSet], n: int
) -> dict[SiteSet, tuple[SiteSet, ...] | None]:
    """Comparison sets of each tested set, of as many members each; None where a member is alone of its kind.

    Single sites are compared with the n most similar others by selection rate and norm of contribution (where no other
    site writes anything, with those of its layer that ran). A set of
    several is compared with n sets made of such neighbours: each member gives way to one of its own neighbours by lot,
    no two to the same one, members of the set to none of its members. Where fewer than 5 such sets can be made (a set
    that takes up most of its kind) it is not compared.

    Raises:
        InterchangeError: a layer whose experts cannot be asked one at a time.
    """
    members = list(dict.fromkeys(site for one in sets for site in one.sites if site.kind in INDEXED))
    if not members:
        return dict.fromkeys(sets)
    rates, norms = activity(lab, pairs, members)
    most = max(n, 2 * max(len(one.sites) for one in sets))
    near = match_sites(rates, norms, members, most, lab.seed)
    return {one: _of(one, {site: near[site].sites for site in one.sites if site in near}, n, lab.seed) for one in sets}


def _of(one: SiteSet, near: Mapping[Site, Sequence[Site]], n: int, seed: int) -> tuple[SiteSet, ...] | None:
    if len(near) < len(one.sites):
        return None  # a comparison set would hold the tested block itself, and do what it does
    if len(one.sites) == 1:
        return tuple(SiteSet("", (other,)) for other in near[one.sites[0]][:n])
    generator = np.random.default_rng([seed, len(one.sites)])
    found: dict[SiteSet, None] = {}
    for _ in range(20 * n):
        others = _swapped(one, near, generator)
        if others is not None:
            found.setdefault(SiteSet("", others))
        if len(found) == n:
            break
    # Against a handful of sets "none does as much" is a coin toss.
    return tuple(found) if len(found) >= min(FEWEST, n) else None


def _swapped(
    one: SiteSet, near: Mapping[Site, Sequence[Site]], generator: np.random.Generator
) -> tuple[Site, ...] | None:
    """The set with each member replaced by a neighbour, or None where the lot left none for a member."""
    taken: set[Site] = set(one.sites)
    result = []
    for site in one.sites:
        free = [other for other in near.get(site, ()) if other not in taken]
        if not near.get(site):
            # Nothing is like an expert that writes nothing.
            result.append(site)
        elif free:
            other = free[int(generator.integers(len(free)))]
            taken.add(other)
            result.append(other)
        else:
            return None
    return tuple(result) if set(result) != set(one.sites) else None


def activity(
    lab: Lab, pairs: Sequence[TokenPair], sites: Sequence[Site]
) -> tuple[dict[Site, float], dict[Site, float]]:
    """Selection rate and mean norm of the contribution of all experts and heads of the layers that `sites` name, and
    of all other layers with experts or heads of their kind.

    Heads always run: their rate is 1.
    """
    layout = layout_of(lab.places)
    kinds = {site.kind for site in sites}
    rates: dict[Site, float] = {}
    norms: dict[Site, float] = {}
    if "expert" in kinds:
        layers = sorted({site.layer for site in layout.sites("expert")})
        for layer, found in profile(lab, pairs, layers).items():
            for expert, (rate, norm) in enumerate(zip(found.rate, found.norm, strict=True)):
                rates[Site(layer, "expert", expert)], norms[Site(layer, "expert", expert)] = float(rate), float(norm)
    if "head" in kinds:
        norms |= _heads(lab, pairs, layout.sites("head"))
        rates |= {site: 1.0 for site in norms if site.kind == "head"}
    return rates, norms


def _heads(lab: Lab, pairs: Sequence[TokenPair], sites: Sequence[Site]) -> dict[Site, float]:
    """Mean norm of each head's slice over all tokens of the prompts of both sides."""
    layers = sorted({site.layer for site in sites})
    prompts = [pair.side(side) for pair in pairs for side in SIDES]
    totals = {layer: torch.zeros(0) for layer in layers}
    tokens = 0
    with torch.inference_mode():
        for start in range(0, len(prompts), lab.batch_size):
            batch = pad_left(prompts[start : start + lab.batch_size], lab.loaded.pad_token)
            with reading(lab.places, [(layer, "head") for layer in layers]) as seen:
                forward(lab.loaded.model, batch, readouts=1)
            real = batch.real()
            tokens += int(real.sum())
            for layer in layers:
                heads = lab.places[layer].heads
                if heads is None:
                    continue  # the layout has named layers with heads only
                value = seen.values[layer, "head"][real.to(lab.loaded.model.device)]
                norm = value.reshape(len(value), heads.count, heads.width).float().norm(dim=2).sum(dim=0).cpu()
                totals[layer] = norm if len(totals[layer]) == 0 else totals[layer] + norm
    return {site: float(totals[site.layer][site.index or 0]) / max(tokens, 1) for site in sites}
