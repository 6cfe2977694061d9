"""Every arm of every set of sites, exactly, over all pairs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from moeprobe.editing import layout_of
from moeprobe.errors import InterchangeError
from moeprobe.interchange.arms import ARMS, DEFAULT
from moeprobe.interchange.changes import jobs_of
from moeprobe.interchange.jobs import Job
from moeprobe.interchange.lab import Lab, check_pairs, givers_of
from moeprobe.interchange.trial import Trial
from moeprobe.pairs.pairs import SIDES, TokenPair
from moeprobe.sites import SiteSet

Floats = NDArray[np.float64]
# Called with (pairs done, pairs in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PairEffects:
    """What was measured of one pair; this is what a journal keeps.

    Attributes:
        pair: its id.
        sensitive, control: the metric of the unedited runs.
        effects: by name of the set of sites, then by arm, oriented so that positive goes the way sensitive - control.
    """

    pair: str
    sensitive: float
    control: float
    effects: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Effects:
    """Effects of all sets of sites over all pairs.

    Attributes:
        pair_ids: names of the pairs, in the order of all arrays.
        sensitive, control: (pairs,) the metric of the unedited runs.
        sites: by set, then by arm: (pairs,) effects in the metric's unit.
    """

    pair_ids: tuple[str, ...]
    sensitive: Floats
    control: Floats
    sites: dict[SiteSet, dict[str, Floats]] = field(default_factory=dict)

    @property
    def gap(self) -> Floats:
        """(pairs,) m(sensitive) - m(control): the whole effect there is to explain."""
        return self.sensitive - self.control


def measure(
    lab: Lab,
    pairs: Sequence[TokenPair],
    sets: Sequence[SiteSet],
    arms: Sequence[str] | Mapping[SiteSet, Sequence[str]] = DEFAULT,
    *,
    done: Mapping[str, PairEffects] | None = None,
    keep: Callable[[Sequence[PairEffects]], None] | None = None,
    progress: Progress | None = None,
) -> Effects:
    """Run every arm of every set exactly.

    Swaps act at every position that has a partner; positions without one keep their own value. Knock-outs act at every
    position of the recipient, prompt and continuation.

    Args:
        lab: model, metric, alignment, swap.
        pairs: pairs of prompts.
        sets: sites to edit, one set at a time.
        arms: names in `arms.ARMS`, for all sets or by set.
        done: pairs measured before, by id; they are not run again.
        keep: called with what was measured after each batch of pairs.
        progress: called after each batch of pairs.

    Raises:
        InterchangeError: no pairs, an unknown arm, a site that has no such edit, pairs that cannot
            be aligned, donors that are missing, or a metric that is not finite.
        MoeprobeError: a site the model has not; the message says what it has.
    """
    check_pairs(lab, pairs)
    if not sets:
        raise InterchangeError("No sites were named. Name some, for example L14.E114.")
    layout = layout_of(lab.places)
    for site in (site for one in sets for site in one.sites):
        layout.check(site)
    wished = {one: tuple(arms[one] if isinstance(arms, Mapping) else arms) for one in sets}
    givers = givers_of(lab, pairs, list(dict.fromkeys(arm for each in wished.values() for arm in each)))
    wanted = list(dict.fromkeys((site.layer, site.kind) for one in sets for site in one.sites))
    found = dict(done or {})
    left = [place for place, pair in enumerate(pairs) if pair.id not in found]
    whole: set[int] = set()
    with torch.inference_mode():
        for start in range(0, len(left), lab.batch_size):
            batch = left[start : start + lab.batch_size]
            trial = Trial(lab, pairs, batch, givers, wanted, whole)
            measured = _batch(trial, batch, wished)
            found.update({one.pair: one for one in measured})
            if keep is not None:
                keep(measured)
            if progress is not None:
                progress(len(pairs) - len(left) + start + len(batch), len(pairs))
    return gathered([found[pair.id] for pair in pairs], wished)


def unedited(lab: Lab, pairs: Sequence[TokenPair]) -> Effects:
    """The metric of both sides of all pairs, nothing edited: what there is to explain, at a small part of the cost.

    Raises:
        InterchangeError: as `check_pairs`, or a metric that is not finite.
    """
    check_pairs(lab, pairs)
    scores: dict[str, list[Floats]] = {side: [] for side in SIDES}
    with torch.inference_mode():
        for start in range(0, len(pairs), lab.batch_size):
            batch = range(start, min(start + lab.batch_size, len(pairs)))
            trial = Trial(lab, pairs, batch, {}, (), set())
            for side in SIDES:
                scores[side].append(trial.own(side).score)
    found = {side: np.concatenate(parts) for side, parts in scores.items()}
    return Effects(tuple(pair.id for pair in pairs), found["sensitive"], found["control"])


def gathered(measured: Sequence[PairEffects], arms: Mapping[SiteSet, Sequence[str]]) -> Effects:
    """Pairs side by side."""
    return Effects(
        tuple(one.pair for one in measured),
        np.array([one.sensitive for one in measured]),
        np.array([one.control for one in measured]),
        {
            one: {arm: np.array([pair.effects[str(one)][arm] for pair in measured]) for arm in names}
            for one, names in arms.items()
        },
    )


def _batch(trial: Trial, batch: Sequence[int], arms: Mapping[SiteSet, Sequence[str]]) -> list[PairEffects]:
    effects: dict[str, dict[str, Floats]] = {str(one): {} for one in arms}
    for side in SIDES:
        for group in _portions(list(arms), trial.lab.batch_size):
            mine = {one: [arm for arm in arms[one] if ARMS[arm].recipient == side] for one in group}
            _side(trial, batch, side, mine, effects)
    sensitive, control = trial.own("sensitive").score, trial.own("control").score
    return [
        PairEffects(
            pair.id,
            float(sensitive[place]),
            float(control[place]),
            {name: {arm: float(values[place]) for arm, values in found.items()} for name, found in effects.items()},
        )
        for place, pair in enumerate(trial.pairs)
    ]


def _side(
    trial: Trial,
    batch: Sequence[int],
    side: str,
    arms: Mapping[SiteSet, Sequence[str]],
    effects: dict[str, dict[str, Floats]],
) -> None:
    """All arms of some sets on one side's runs, with as many runs in each forward as fit."""
    jobs: list[Job] = []
    owners: list[tuple[str, str]] = []
    for one, names in arms.items():
        for arm in names:
            found = jobs_of(trial, one.sites, arm, batch)
            jobs += found
            owners += [(str(one), arm)] * len(found)
            effects[str(one)][arm] = np.zeros(len(batch))
    base = trial.own(side).score
    sign = 1.0 if side == "sensitive" else -1.0
    for job, (name, arm), score in zip(jobs, owners, trial.scores(side, jobs), strict=True):
        effects[name][arm][job.run] = sign * (base[job.run] - score)


def _portions(sets: Sequence[SiteSet], size: int) -> list[list[SiteSet]]:
    """Sets in portions, those of one layer together: donor values of a portion are held in memory at once."""
    ordered = sorted(sets, key=lambda one: min(site.layer for site in one.sites))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
