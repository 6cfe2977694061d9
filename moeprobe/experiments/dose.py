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

from moeprobe.editing import Reroute, Seen, Write, bias_for, reading, rerouting, writing
from moeprobe.editing.oracle import weight_of
from moeprobe.errors import InterchangeError
from moeprobe.experiments.dosed import DoseResult, Series, dose_name
from moeprobe.experiments.parts import multiplier_of
from moeprobe.experiments.subject import Subject, subject
from moeprobe.models import LoadedModel
from moeprobe.pairs.batch import Side, forward, pad_left
from moeprobe.pairs.metrics import Forced, Metric
from moeprobe.pairs.pairs import TokenPair
from moeprobe.sites import Site

Floats = NDArray[np.float64]
Kind = Literal["bias", "scale"]
KINDS: tuple[Kind, ...] = ("bias", "scale")
BIASES = (-np.inf, -8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0, np.inf)
SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0)


@dataclass(frozen=True)
class DosePlan:
    """How a dose series is done.

    Attributes:
        biases: added to the expert's router score; -inf bars it, +inf forces it among the chosen.
        scales: what its contribution is multiplied by.
        shams: how many sham experts, where none are named.
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
        _check_grid("bias", self.biases, 0.0)
        _check_grid("scale", self.scales, 1.0)
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
    target: list[Floats] = field(default_factory=list)


def _check_grid(kind: str, grid: Sequence[float], own: float) -> None:
    """Raise InterchangeError where a grid of doses is no rising grid around what the model does by itself."""
    if not grid:
        return
    if np.isnan(grid).any() or list(grid) != sorted(set(grid)) or own not in grid:
        raise InterchangeError(f"Doses of a {kind} are given in rising order, each once, with {own:g} among them.")
    if sum(np.isfinite(grid)) < 3:
        raise InterchangeError(f"A trend over a {kind} needs at least 3 finite doses.")


def dose_series(
    loaded: LoadedModel,
    pairs: Sequence[TokenPair],
    site: Site,
    metric: Metric,
    *,
    side: str = "sensitive",
    plan: DosePlan | None = None,
    shams: Sequence[Site] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DoseResult:
    """Give one expert, and sham experts of its layer, every dose, and see what the metric does.

    Every dose acts at all positions of a run: its prompt and the tokens the metric forces after it.

    Args:
        loaded: the model.
        pairs: at least 2. For single prompts: pairs whose sides are equal.
        site: the expert.
        metric: what is measured.
        side: which prompts of the pairs are run.
        plan: which doses; default as in `DosePlan`.
        shams: experts of the same layer that get the same doses; default the nearest in rate and norm.
        progress: called with (forwards done, all).

    Raises:
        InterchangeError: fewer than 2 pairs, a site or sham the layer has not, a router that cannot be biased, or a
            metric that is not finite.
    """
    plan = plan or DosePlan()
    if len(pairs) < 2:
        raise InterchangeError(f"A dose series needs at least 2 prompts; there are {len(pairs)}.")
    forced = metric.prepare(loaded, pairs)
    runs = [forced.run(pair.side(side), place) for place, pair in enumerate(pairs)]
    under = subject(loaded, runs, site, shams=plan.shams if shams is None else list(shams), batch_size=plan.batch_size)
    run = _Run(under, metric, plan, progress)
    starts = range(0, len(runs), plan.batch_size)
    run.all = len(starts) * (1 + len(under.sites) * sum(max(len(plan.grid(kind)) - 1, 0) for kind in KINDS))
    with torch.inference_mode():
        for start in starts:
            part = slice(start, start + plan.batch_size)
            run.batch(pad_left(runs[part], loaded.pad_token), Forced(forced.tokens[part], forced.counted[part]))
    names = tuple(pair.id for pair in pairs)
    draw = {"bootstrap": plan.bootstrap, "seed": plan.seed}
    return DoseResult.of(under.site, under.shams, names, run.series(), metric=metric.to_json(), side=side, **draw)


class _Run:
    """The forwards of a dose series."""

    def __init__(
        self, under: Subject, metric: Metric, plan: DosePlan, progress: Callable[[int, int], None] | None
    ) -> None:
        self.under, self.metric, self.plan, self.progress = under, metric, plan, progress
        self.columns: dict[tuple[Site, Kind, float], _Column] = {}
        self.done, self.all = 0, 0
        one, layer = under.places[under.site.layer], under.site.layer
        self.wanted = [(layer, "expert")]
        # Not every family has a block and a single stream; the size of a change is unknown there.
        self.sized = one.block is not None and not {"moe", "residual"} & set(one.refused)
        if self.sized:
            self.wanted += [(layer, "moe"), (layer, "residual")]

    def batch(self, side: Side, forced: Forced) -> None:
        """Every dose of every site on one batch."""
        base = self._forward(side, forced, None, 0.0, None)
        for site in self.under.sites:
            for kind in KINDS:
                for dose in self.plan.grid(kind):
                    # The dose that leaves the model as it is needs no forward of its own.
                    still = dose == (0.0 if kind == "bias" else 1.0)
                    found = base if still else self._forward(side, forced, kind, dose, site)
                    self._keep(side, site, kind, dose, found, base[1])

    def _forward(
        self, side: Side, forced: Forced, kind: Kind | None, dose: float, site: Site | None
    ) -> tuple[Tensor, Seen]:
        rows, places, layer = side.ids.numel(), self.under.places, self.under.site.layer
        with ExitStack() as stack:
            seen = stack.enter_context(reading(places, self.wanted))
            if site is not None and kind == "bias":
                bias = bias_for(self.under.experts, bias={site.expert: dose})
                stack.enter_context(rerouting(places, [Reroute(layer, bias)]))
            elif site is not None:
                index, factor = torch.full((rows,), site.expert), torch.full((rows, 1), dose)
                stack.enter_context(writing(places, [Write(layer, "expert", index, "scale", factor)]))
            logits = forward(self.under.loaded.model, side, readouts=forced.tokens.shape[1])
        score = self.metric.score(logits, forced.tokens.to(logits.device), forced.counted.to(logits.device))
        if not bool(torch.isfinite(score).all()):
            under = "without a dose" if site is None else f"under a {kind} of {dose_name(dose)} at {site}"
            raise InterchangeError(f"The metric is NaN or infinite on some prompt {under}. Narrow the grid.")
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.all)
        return score, seen

    def _keep(self, side: Side, site: Site, kind: Kind, dose: float, found: tuple[Tensor, Seen], base: Seen) -> None:
        score, seen = found
        column = self.columns.setdefault((site, kind, dose), _Column())
        real = side.mask.bool()
        choice = seen.choice(site.layer)
        index = torch.full((len(choice.ids),), site.expert, device=choice.ids.device)
        chosen = (choice.ids == site.expert).any(dim=1).cpu().reshape(real.shape) & real
        weight = weight_of(index, choice.ids, choice.weights).double().cpu().reshape(real.shape)
        column.outcome.append(score.double().cpu().numpy())
        column.rate.append((chosen.sum(1) / real.sum(1)).double().numpy())
        target = torch.full_like(index, self.under.site.expert)
        share = weight_of(target, choice.ids, choice.weights).double().cpu().reshape(real.shape)
        column.target.append(((share * real).sum(1) / real.sum(1)).numpy())
        # A scale multiplies what the router gave.
        factor = dose if kind == "scale" else 1.0
        column.weight.append((factor * (weight * chosen).sum(1) / chosen.sum(1)).numpy())
        column.size.append(self._size(site.layer, seen, base, real))

    def _size(self, layer: int, seen: Seen, base: Seen, real: Tensor) -> Floats:
        """(batch,) norm of the change of the block's output over the norm of the unedited stream, mean of positions.

        Both have the same width, so this is the ratio of their root mean squares. NaN where it is not known.
        """
        if not self.sized:
            return np.full(len(real), np.nan)
        change = (seen.values[layer, "moe"].float() - base.values[layer, "moe"].float()).norm(dim=-1)
        stream = base.values[layer, "residual"].float().norm(dim=-1)
        share = (multiplier_of(self.under.loaded.model) * change / stream).double().cpu().reshape(real.shape)
        return (torch.where(real, share, torch.zeros_like(share)).sum(1) / real.sum(1)).numpy()

    def series(self) -> dict[Site, dict[str, Series]]:
        """The columns side by side, (prompts, doses), by site and kind."""
        result: dict[Site, dict[str, Series]] = {site: {} for site in self.under.sites}
        for site in self.under.sites:
            for kind in KINDS:
                columns = [self.columns[site, kind, dose] for dose in self.plan.grid(kind)]
                if columns:
                    arrays: dict[str, Any] = {
                        name: np.stack([np.concatenate(getattr(column, name)) for column in columns], axis=1)
                        for name in ("outcome", "rate", "weight", "size", "target")
                    }
                    result[site][kind] = Series(self.plan.grid(kind), **arrays)
        return result
