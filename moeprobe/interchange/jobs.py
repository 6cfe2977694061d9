"""Edited runs: which run is repeated with which changes, and many of them in one forward."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from moeprobe.editing import Places, Reroute, Write
from moeprobe.editing.write import How


@dataclass(frozen=True)
class Change:
    """A change of one site in one run.

    Attributes:
        layer, kind: the place.
        index: which expert or head; 0 for the other kinds.
        how: as in `Write`.
        where: (columns,) bool: positions that are changed.
        value: (columns, width), as in `Write`.
        ids: (columns, k), of a router only.
    """

    layer: int
    kind: str
    index: int
    how: How
    where: Tensor
    value: Tensor
    ids: Tensor | None = None


@dataclass(frozen=True)
class Job:
    """One edited run.

    Attributes:
        run: which run of the batch it repeats.
        changes: what is changed in it.
        barred: experts (layer, expert) that the router may not choose.
    """

    run: int
    changes: tuple[Change, ...] = ()
    barred: tuple[tuple[int, int], ...] = field(default=())

    @property
    def first_layer(self) -> int:
        """The first layer in which the run departs from the unedited one."""
        return min([change.layer for change in self.changes] + [layer for layer, _ in self.barred])


def chunks(jobs: Sequence[Job], size: int) -> list[list[int]]:
    """Indices of jobs for one forward each: at most `size`, all with the same first layer, places with places."""
    order = sorted(range(len(jobs)), key=lambda place: (jobs[place].first_layer, _places(jobs[place])))
    groups: list[list[int]] = []
    for place in order:
        last = groups[-1] if groups else []
        if last and len(last) < size and jobs[last[0]].first_layer == jobs[place].first_layer:
            last.append(place)
        else:
            groups.append([place])
    return groups


def _places(job: Job) -> tuple[tuple[int, str], ...]:
    return tuple((change.layer, change.kind) for change in job.changes)


def writes_of(jobs: Sequence[Job]) -> list[Write]:
    """The writes of jobs that stand side by side in one forward: run i of it carries out jobs[i].

    Sites of the same place in different runs share one write, whose rows name different experts or heads.
    """
    slots: dict[tuple[int, str, How, int], dict[int, Change]] = {}
    for run, job in enumerate(jobs):
        used: dict[tuple[int, str, How], int] = {}
        for change in job.changes:
            place = (change.layer, change.kind, change.how)
            slots.setdefault((*place, used.setdefault(place, 0)), {})[run] = change
            used[place] += 1
    return [_merged(changes, len(jobs)) for _, changes in sorted(slots.items(), key=lambda item: item[0])]


def _merged(changes: Mapping[int, Change], runs: int) -> Write:
    one = next(iter(changes.values()))
    columns, width = one.value.shape
    index = torch.full((runs, columns), -1, device=one.where.device)
    value = torch.zeros(runs, columns, width, dtype=one.value.dtype, device=one.value.device)
    ids = None if one.ids is None else one.ids.new_zeros(runs, columns, one.ids.shape[1])
    for run, change in changes.items():
        index[run] = torch.where(change.where, change.index, -1)
        value[run] = change.value
        if ids is not None and change.ids is not None:
            ids[run] = change.ids
    flat = None if ids is None else ids.flatten(0, 1)
    return Write(one.layer, one.kind, index.flatten(), one.how, value.flatten(0, 1), ids=flat)


def reroutes_of(jobs: Sequence[Job], places: Mapping[int, Places], columns: int) -> list[Reroute]:
    """The barred experts of jobs that stand side by side in one forward."""
    biases: dict[int, Tensor] = {}
    for run, job in enumerate(jobs):
        for layer, expert in job.barred:
            experts = places[layer].experts
            if experts is None:
                continue  # the caller has checked the sites
            bias = biases.setdefault(layer, torch.zeros(len(jobs), columns, experts.experts))
            bias[run, :, expert] = -torch.inf
    return [Reroute(layer, bias.flatten(0, 1)) for layer, bias in sorted(biases.items())]
