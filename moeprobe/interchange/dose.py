"""Dose series at one expert: a bias on its router score, or a scale of its contribution, from little to much.

A cause should have a dose and a response: more of it, more of the effect, and no such thing under sham experts that are
given the same doses. Each dose is checked by what it did: how often the expert is chosen then, and how large the change
is against the residual stream.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moeprobe.editing import Places, Reroute, Write, bias_for, find_places, reading, rerouting, writing
from moeprobe.editing.oracle import refused, weight_of
from moeprobe.editing.seen import Seen, experts_of, place_of
from moeprobe.errors import InterchangeError
from moeprobe.interchange.aligned import Side, forward, pad_left
from moeprobe.interchange.dosed import DoseResult, Series
from moeprobe.interchange.parts import multiplier_of
from moeprobe.interchange.shams import nearest, usage_of
from moeprobe.models import LoadedModel
from moeprobe.sites import ExpertSite

Floats = NDArray[np.float64]
# Logits at the last token (batch, vocabulary) -> outcome (batch,).
Outcome = Callable[[Tensor], Tensor]
Kind = Literal["bias", "scale"]
BIASES = (-np.inf, -8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0, np.inf)
SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0)


@dataclass(frozen=True)
class DosePlan:
    """How a dose series is done.

    Attributes:
        biases: added to the expert's router score; -inf bars it, +inf forces it among the chosen.
        scales: what its contribution is multiplied by.
        shams: sham experts, where none are named.
        bootstrap, seed: of the intervals over prompts.
        batch_size: prompts per forward.
    """

    biases: tuple[float, ...] = BIASES
    scales: tuple[float, ...] = SCALES
    shams: int = 5
    bootstrap: int = 10_000
    seed: int = 0
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name, own in (("bias", 0.0), ("scale", 1.0)):
            grid = self.grid("bias" if name == "bias" else "scale")
            if not grid:
                continue
            if list(grid) != sorted(set(grid)) or own not in grid or np.isnan(grid).any():
                raise InterchangeError(
                    f"Doses of a {name} are given in rising order, each once, with {own:g} among them."
                )
            if sum(np.isfinite(grid)) < 3:
                raise InterchangeError(f"A trend over a {name} needs at least 3 finite doses.")
        if not (self.biases or self.scales):
            raise InterchangeError("There are no doses to give.")
        if not np.isfinite(self.scales).all():
            raise InterchangeError("A contribution cannot be scaled without end.")
        if self.bootstrap < 100 or self.batch_size < 1 or self.shams < 0:
            raise InterchangeError("At least 100 draws, 1 prompt per forward and 0 shams are needed.")

    def grid(self, kind: Kind) -> tuple[float, ...]:
        """Doses of a kind, in rising order."""
        return self.biases if kind == "bias" else self.scales


@dataclass
class _Column:
    """What one dose did in one batch, (batch,) each."""

    outcome: list[Floats] = field(default_factory=list)
    rate: list[Floats] = field(default_factory=list)
    weight: list[Floats] = field(default_factory=list)
    size: list[Floats] = field(default_factory=list)


def dose_series(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    site: ExpertSite,
    outcome: Outcome,
    *,
    plan: DosePlan | None = None,
    shams: Sequence[ExpertSite] | None = None,
    names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DoseResult:
    """Give one expert, and sham experts of its layer, every dose, and see what the outcome does.

    Every dose acts at all positions of a prompt.

    Args:
        loaded: the model.
        prompts: token ids; at least 2.
        site: the expert.
        outcome: from the logits at the last token (batch, vocabulary) to (batch,), for example a `Direction`.
        plan: which doses; default as in `DosePlan`.
        shams: experts of the same layer that get the same doses; default the nearest in rate and norm.
        names: of the prompts; default their numbers.
        progress: called with (forwards done, all).

    Raises:
        InterchangeError: fewer than 2 prompts, a site or sham the layer has not, or a router that cannot be biased.
    """
    plan = plan or DosePlan()
    if len(prompts) < 2 or not all(prompts):
        raise InterchangeError(f"A dose series needs at least 2 prompts, none of them empty; there are {len(prompts)}.")
    places = find_places(loaded.model)
    place_of(places, site.layer, "expert")
    reason = refused(experts_of(places[site.layer]))
    if reason is not None:
        raise InterchangeError(f"No dose can be given to {site}: {reason}.")
    if shams is None:
        usage = usage_of(loaded, prompts, site.layer, batch_size=plan.batch_size)
        shams = nearest(site, usage, plan.shams) if plan.shams else []
    sites = list(dict.fromkeys([site, *shams]))
    _check(places, sites, site)
    run = _Run(loaded, places, outcome, plan, progress)
    batches = [
        pad_left([tuple(prompt) for prompt in prompts[start : start + plan.batch_size]], loaded.pad_token)
        for start in range(0, len(prompts), plan.batch_size)
    ]
    run.all = len(batches) * (1 + len(sites) * sum(max(len(plan.grid(kind)) - 1, 0) for kind in ("bias", "scale")))
    with torch.inference_mode():
        for side in batches:
            run.batch(side, sites)
    given = tuple(names) if names is not None else tuple(str(place) for place in range(len(prompts)))
    return DoseResult.of(site, sites[1:], given, run.series(sites), bootstrap=plan.bootstrap, seed=plan.seed)


def _check(places: dict[int, Places], sites: Sequence[ExpertSite], site: ExpertSite) -> None:
    count = experts_of(places[site.layer]).experts
    for one in sites:
        if one.layer != site.layer or not 0 <= one.expert < count:
            raise InterchangeError(f"L{site.layer} has experts E0 to E{count - 1}; {one} is none of them.")


class _Run:
    """The forwards of a dose series."""

    def __init__(
        self,
        loaded: LoadedModel,
        places: dict[int, Places],
        outcome: Outcome,
        plan: DosePlan,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.loaded, self.places, self.outcome, self.plan, self.progress = loaded, places, outcome, plan, progress
        self.columns: dict[tuple[ExpertSite, Kind, float], _Column] = {}
        self.done, self.all = 0, 0

    def batch(self, side: Side, sites: Sequence[ExpertSite]) -> None:
        """Every dose of every site on one batch."""
        layer = sites[0].layer
        logits, base = self._forward(side, layer, None, 0.0, None)
        kinds: tuple[Kind, ...] = ("bias", "scale")
        for site in sites:
            for kind in kinds:
                for dose in self.plan.grid(kind):
                    if dose == (0.0 if kind == "bias" else 1.0):  # as the model is: no forward of its own
                        self._keep(side, site, kind, dose, (logits, base), base)
                        continue
                    found = self._forward(side, layer, kind, dose, site)
                    self._keep(side, site, kind, dose, found, base)

    def _forward(
        self, side: Side, layer: int, kind: Kind | None, dose: float, site: ExpertSite | None
    ) -> tuple[Tensor, Seen]:
        rows = side.ids.numel()
        with ExitStack() as stack:
            seen = stack.enter_context(reading(self.places, [(layer, "expert"), (layer, "moe"), (layer, "residual")]))
            if site is not None and kind == "bias":
                bias = bias_for(experts_of(self.places[layer]).experts, bias={site.expert: dose})
                stack.enter_context(rerouting(self.places, [Reroute(layer, bias)]))
            elif site is not None:
                index, factor = torch.full((rows,), site.expert), torch.full((rows, 1), dose)
                stack.enter_context(writing(self.places, [Write(layer, "expert", index, "scale", factor)]))
            logits = forward(self.loaded.model, side)[:, -1]
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.all)
        return logits, seen

    def _keep(
        self, side: Side, site: ExpertSite, kind: Kind, dose: float, found: tuple[Tensor, Seen], base: Seen
    ) -> None:
        logits, seen = found
        column = self.columns.setdefault((site, kind, dose), _Column())
        real = side.mask.bool()
        choice = seen.choice(site.layer)
        index = torch.full((len(choice.ids),), site.expert, device=choice.ids.device)
        chosen = (choice.ids == site.expert).any(dim=1).cpu().reshape(real.shape) & real
        weight = weight_of(index, choice.ids, choice.weights).double().cpu().reshape(real.shape)
        column.outcome.append(self.outcome(logits).double().cpu().numpy())
        column.rate.append((chosen.sum(1) / real.sum(1)).double().numpy())
        # A scale multiplies what the router gave.
        factor = dose if kind == "scale" else 1.0
        column.weight.append((factor * (weight * chosen).sum(1) / chosen.sum(1)).numpy())
        column.size.append(self._size(site.layer, seen, base, real))

    def _size(self, layer: int, seen: Seen, base: Seen, real: Tensor) -> Floats:
        """(batch,) norm of the change of the block's output over the norm of the unedited stream, mean of positions.

        Both have the same width, so this is the ratio of their root mean squares.
        """
        change = (seen.values[layer, "moe"].float() - base.values[layer, "moe"].float()).norm(dim=-1)
        stream = base.values[layer, "residual"].float().norm(dim=-1)
        share = (multiplier_of(self.loaded.model) * change / stream).double().cpu().reshape(real.shape)
        return (torch.where(real, share, torch.zeros_like(share)).sum(1) / real.sum(1)).numpy()

    def series(self, sites: Sequence[ExpertSite]) -> dict[ExpertSite, dict[str, Series]]:
        """The columns side by side, (prompts, doses), by site and kind."""
        result: dict[ExpertSite, dict[str, Series]] = {site: {} for site in sites}
        kinds: tuple[Kind, ...] = ("bias", "scale")
        for site in sites:
            for kind in kinds:
                columns = [self.columns[site, kind, dose] for dose in self.plan.grid(kind)]
                if columns:
                    arrays: dict[str, Any] = {
                        name: np.stack([np.concatenate(getattr(column, name)) for column in columns], axis=1)
                        for name in ("outcome", "rate", "weight", "size")
                    }
                    result[site][kind] = Series(self.plan.grid(kind), **arrays)
        return result
