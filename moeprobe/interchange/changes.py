"""What an arm changes in each run of a batch, for a set of sites."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from moeprobe.editing.write import How
from moeprobe.errors import InterchangeError
from moeprobe.interchange.arms import ARMS, SWAPS, Arm
from moeprobe.interchange.jobs import Change, Job
from moeprobe.interchange.trial import Run, Trial
from moeprobe.sites import Site


def jobs_of(trial: Trial, sites: Sequence[Site], arm: str, pairs: Sequence[int]) -> list[Job]:
    """The edited runs of an arm for one set of sites; runs in which it would write what stands there are left out:
    such a run is the unedited one bit for bit, so its effect is exactly 0.

    Args:
        trial: the batch.
        sites: edited together.
        arm: name in ARMS.
        pairs: for each run of the batch the pair's number in the whole experiment; seeds noise.

    Raises:
        InterchangeError: a site that has no such edit.
    """
    one = ARMS[arm]
    run = trial.own(one.recipient)
    if one.source == "bar":
        return _barred(run, sites)
    found = [_change(trial, run, site, one, pairs) for site in sites]
    runs, columns = run.batch.mask.shape
    jobs = []
    for place in range(runs):
        rows = slice(place * columns, (place + 1) * columns)
        changes = [
            Change(
                site.layer,
                site.kind,
                site.index or 0,
                how,
                where[rows],
                value[rows],
                None if ids is None else ids[rows],
            )
            for site, (how, where, changed, value, ids) in zip(sites, found, strict=True)
            if bool(where[rows].any())
        ]
        if any(bool(changed[rows].any()) for _, _, changed, _, _ in found):
            jobs.append(Job(place, tuple(changes)))
    return jobs


def _barred(run: Run, sites: Sequence[Site]) -> list[Job]:
    """Runs in which the router chose one of the experts anywhere, without them."""
    runs, columns = run.batch.mask.shape
    hit = torch.zeros(runs, dtype=torch.bool)
    for site in sites:
        if site.kind != "expert":
            raise InterchangeError(f"Only experts can be barred from the router's choice; {site} is none.")
        chosen = (run.seen.choice(site.layer).ids == site.expert).any(dim=1).cpu() & run.batch.real()
        hit |= chosen.reshape(runs, columns).any(dim=1)
    barred = tuple((site.layer, site.expert) for site in sites)
    return [Job(int(place), (), barred) for place in hit.nonzero(as_tuple=True)[0]]


Edit = tuple[How, Tensor, Tensor, Tensor, Tensor | None]


def _change(trial: Trial, run: Run, site: Site, arm: Arm, pairs: Sequence[int]) -> Edit:
    """(how, rows that are written, rows that differ, value (rows, width), ids of a router's choice) for all runs."""
    device = trial.lab.loaded.model.device
    real = run.batch.real().to(device)
    if site.kind == "router":
        return _rerouted(trial, run, site, arm)
    index = torch.full((len(real),), site.index or 0, device=device)
    rows = torch.arange(len(real), device=device)
    how: How = SWAPS[trial.lab.swap] if site.kind == "expert" and not arm.knockout else "replace"
    own = run.seen.value(site.layer, site.kind, index, rows, how)
    if arm.source == "zero":
        value, where = torch.zeros_like(own), real
    elif arm.source == "mean":
        if site not in trial.lab.means:
            raise InterchangeError(f"The mean contribution of {site} was not computed.")
        value, where = trial.lab.means[site].to(own).expand_as(own), real
    else:
        donor, partner = trial.donor(arm.name)
        where = partner >= 0
        value = donor.seen.value(site.layer, site.kind, index, partner, how)
        if arm.source == "noise":
            if how != "replace":
                raise InterchangeError("Noise is added to contributions; there is none for the other swaps.")
            value = own + _noise(value - own, trial, site, arm, pairs)
    return how, where, where & (own != value).any(dim=1), value, None


def _rerouted(trial: Trial, run: Run, site: Site, arm: Arm) -> Edit:
    """The donor's whole choice: ids and weights of every row."""
    if arm.knockout or arm.source == "noise":
        raise InterchangeError(f"{site} is a choice, which can be swapped, but not knocked out or made noisy.")
    donor, partner = trial.donor(arm.name)
    mine, theirs = run.seen.choice(site.layer), donor.seen.choice(site.layer)
    at, where = partner.clamp(min=0), partner >= 0
    ids, weights = theirs.ids[at], theirs.weights[at]
    changed = where & ((mine.ids != ids).any(dim=1) | (mine.weights != weights).any(dim=1))
    return "replace", where, changed, weights, ids


def _noise(difference: Tensor, trial: Trial, site: Site, arm: Arm, pairs: Sequence[int]) -> Tensor:
    """Gaussian noise (rows, width) of the norm that the difference has in each row; of one seed per pair, site and
    direction, so that it does not depend on the batch a pair is in."""
    rows, width = difference.shape
    columns = rows // len(pairs)
    noise = torch.empty(len(pairs), columns, width)
    lengths = trial.own(arm.recipient).batch.lengths
    for place, pair in enumerate(pairs):
        seed = [trial.lab.seed, pair, site.layer, (site.index or 0) + 1, int(arm.recipient == "control")]
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        padding = columns - int(lengths[place])
        noise[place, padding:] = torch.randn(columns - padding, width, generator=generator)
        noise[place, :padding] = 0
    flat = noise.reshape(rows, width).to(difference.device)
    scale = difference.float().norm(dim=1, keepdim=True) / flat.norm(dim=1, keepdim=True).clamp(min=1e-12)
    noisy: Tensor = (flat * scale).to(difference.dtype)
    return noisy
