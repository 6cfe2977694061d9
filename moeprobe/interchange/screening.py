"""Screening: the effect of swapping every site, to first order, from one forward and one backward per run.

The estimate for a site is the gradient of the metric, at the recipient's own run, times what the swap would add there:
the donor's contribution less the recipient's own, summed over the rows that have a partner. It is exact where the
metric is linear in the site, and says nothing of what a swap does beyond that (another choice of experts downstream, a
saturated metric). So it ranks sites; what is said about a site rests on exact swaps.

Attribution patching: Nanda, "Attribution Patching" (2023); Syed, Rager and Conmy, arXiv 2310.10348.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moeprobe.editing import Places, Seen, layout_of, reading
from moeprobe.editing.oracle import expert_output
from moeprobe.editing.seen import Choice, Place, experts_of
from moeprobe.errors import InterchangeError
from moeprobe.interchange.arms import ARMS, DEFAULT, OTHER, Arm
from moeprobe.interchange.gradients import Sensed, sense
from moeprobe.interchange.lab import Givers, Lab, check_pairs, givers_of
from moeprobe.interchange.screen import Screen
from moeprobe.pairs.alignment import Span
from moeprobe.pairs.batch import Side, forward, pad_left, rows_between
from moeprobe.pairs.pairs import SIDES, TokenPair
from moeprobe.sites import Site

Floats = NDArray[np.float64]
Marks = NDArray[np.bool_]
# Called with (pairs done, pairs in all).
Progress = Callable[[int, int], None]
KINDS = ("expert", "head", "shared", "moe", "residual")
# Where the values of the arms come from that can be estimated.
SOURCES = ("partner", "placebo", "random", "resample", "zero")


@dataclass(frozen=True)
class Donors:
    """Runs whose contributions are swapped in.

    Attributes:
        seen: one forward of them.
        real: (their rows,) bool: rows that hold a token.
        rows: (recipient rows,) long: the row of theirs that stands for each of the recipients'; -1 where none does.
    """

    seen: Seen
    real: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Experiment:
    """Recipients and all that is swapped into them.

    Attributes:
        recipient: forward and gradients of the recipients.
        real: (rows,) bool: rows that hold a token; a knock-out acts at these.
        donors: by name.
    """

    recipient: Sensed
    real: Tensor
    donors: dict[str, Donors]


@dataclass(frozen=True)
class Estimates:
    """Estimates of one batch.

    Attributes:
        changes: for each experiment, by donor and for "zero": (R, sites) float64, the change of the metric.
        used: (sites,) bool: False for experts that no run chose anywhere; swapping those changes no bit.
    """

    changes: Sequence[Mapping[str, Floats]]
    used: Marks


def screen(
    lab: Lab,
    pairs: Sequence[TokenPair],
    *,
    kinds: Sequence[str] = ("expert",),
    arms: Sequence[str] = DEFAULT,
    progress: Progress | None = None,
) -> Screen:
    """Estimate the effect of every site of some kinds in some arms, for every pair.

    Costs one forward and one backward for each side of each batch, and one forward more for each kind of donor from
    other pairs. Memory grows with the lab's batch size as in training with frozen weights: the activations of one
    batch. The experts run eagerly meanwhile (`gradients` says why), whatever implementation is set.

    Args:
        lab: model, metric, alignment, batch size; the swap is the contribution.
        pairs: pairs of prompts.
        kinds: of KINDS; every site of these kinds in every layer that has them.
        arms: names in `arms.ARMS`, of those with a source in SOURCES.
        progress: called after each batch of pairs.

    Raises:
        InterchangeError: no pairs, no such kind in this model, an arm or swap that cannot be estimated, pairs that
            cannot be aligned, or a model that gives no gradient.
    """
    with torch.inference_mode(False), torch.no_grad():
        check_pairs(lab, pairs)
        givers = givers_of(lab, pairs, arms)
        wrong = [name for name in arms if ARMS[name].source not in SOURCES]
        if wrong or lab.swap != "contribution":
            what = f"The arm {wrong[0]}" if wrong else f"The swap {lab.swap!r}"
            raise InterchangeError(f"{what} cannot be estimated from a gradient. Name sites and measure it exactly.")
        work = _Work(lab, pairs, givers, [ARMS[name] for name in arms], places_of(lab.places, kinds))
        parts: list[dict[str, Floats]] = []
        used = np.zeros(len(work.sites), bool)
        for start in range(0, len(pairs), lab.batch_size):
            part, chose = work.batch(list(range(start, min(start + lab.batch_size, len(pairs)))))
            parts.append(part)
            used |= chose
            if progress is not None:
                progress(min(start + lab.batch_size, len(pairs)), len(pairs))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    scores = {side: joined.pop(side) for side in SIDES}
    ids = tuple(pair.id for pair in pairs)
    return Screen(ids, tuple(work.sites), scores["sensitive"], scores["control"], joined, used)


@dataclass(frozen=True)
class _Runs:
    """One run for each pair of a batch: prompts, their spans, and prompts with what is forced after them."""

    prompts: list[tuple[int, ...]]
    spans: list[Span | None]
    side: Side


class _Work:
    """What stays the same from batch to batch."""

    def __init__(
        self,
        lab: Lab,
        pairs: Sequence[TokenPair],
        givers: Mapping[tuple[str, str], Givers],
        arms: Sequence[Arm],
        wanted: Sequence[Place],
    ) -> None:
        self.lab, self.pairs, self.givers, self.arms, self.wanted = lab, pairs, givers, arms, wanted
        self.sites = [site for place in wanted for site in sites_at(lab.places, place)]

    def batch(self, batch: Sequence[int]) -> tuple[dict[str, Floats], Marks]:
        """Scores (pairs,) by side and estimates (pairs, sites) by arm, of one batch; and which sites were used."""
        lab = self.lab
        forced = lab.metric.prepare(lab.loaded, [self.pairs[place] for place in batch])

        def runs(sources: Sequence[tuple[int, str]]) -> _Runs:
            prompts = [self.pairs[place].side(side) for place, side in sources]
            side = pad_left([forced.run(ids, run) for run, ids in enumerate(prompts)], lab.loaded.pad_token)
            return _Runs(prompts, [self.pairs[place].span(side) for place, side in sources], side)

        def sensed(mine: _Runs) -> Sensed:
            """What the wanted places held in these runs, and the slope of the metric in each."""

            def score() -> Tensor:
                logits = forward(lab.loaded.model, mine.side, readouts=forced.tokens.shape[1])
                return lab.metric.score(logits, forced.tokens, forced.counted)

            return sense(lab.loaded.model, lab.places, self.wanted, score)

        def donors(mine: _Runs, theirs: _Runs, seen: Seen) -> Donors:
            prompts, spans = (mine.prompts, theirs.prompts), (mine.spans, theirs.spans)
            more = forced.tokens.shape[1] - 1
            rows = rows_between(mine.side, theirs.side, prompts, spans, lab.alignment, more)
            return Donors(seen, theirs.side.real(), rows)

        own = {side: runs([(place, side) for place in batch]) for side in SIDES}
        slopes = {side: sensed(own[side]) for side in SIDES}
        experiments = {side: Experiment(slopes[side], own[side].side.real(), {}) for side in SIDES}
        for arm in self.arms:
            side, mine = arm.recipient, own[arm.recipient]
            if arm.source == "partner":
                experiments[side].donors[arm.name] = donors(mine, own[OTHER[side]], slopes[OTHER[side]].seen)
            elif arm.source != "zero":
                given = self.givers[side, arm.source]
                theirs = runs([(int(given.pairs[place]), given.sides[place]) for place in batch])
                with reading(lab.places, self.wanted) as seen:
                    forward(lab.loaded.model, theirs.side, readouts=1)
                experiments[side].donors[arm.name] = donors(mine, theirs, seen)
        found = estimate(lab.places, self.wanted, list(experiments.values()), len(batch))
        result: dict[str, Floats] = {side: slopes[side].score.cpu().numpy() for side in SIDES}
        for arm in self.arms:
            change = found.changes[SIDES.index(arm.recipient)]["zero" if arm.source == "zero" else arm.name]
            result[arm.name] = -change if arm.recipient == "sensitive" else change
        return result, found.used


def places_of(places: Mapping[int, Places], kinds: Sequence[str]) -> list[Place]:
    """Every (layer, kind) of these kinds that the model has, in the order of KINDS and layers.

    Raises:
        InterchangeError: an unknown kind, or one the model has nowhere; a refusal says why.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise InterchangeError(f"{(unknown or ['nothing'])[0]!r} cannot be screened. Choose of {', '.join(KINDS)}.")
    layout = layout_of(places)
    found = {kind: [(layer, kind) for layer in sorted(places) if layout.count(layer, kind)] for kind in KINDS}
    for kind in kinds:
        if not found[kind]:
            first = next((layer for layer in sorted(places) if kind in places[layer].refused), min(places))
            raise InterchangeError(f"There is no {kind} to be screened: {layout.why_not(first, kind)}")
    return [place for kind in KINDS if kind in kinds for place in found[kind]]


def sites_at(places: Mapping[int, Places], place: Place) -> list[Site]:
    """The sites at one place, in order of index."""
    layer, kind = place
    if kind not in ("expert", "head"):
        return [Site(layer, kind)]
    return [Site(layer, kind, index) for index in range(layout_of({layer: places[layer]}).count(layer, kind))]


def estimate(
    places: Mapping[int, Places], wanted: Sequence[Place], experiments: Sequence[Experiment], runs: int
) -> Estimates:
    """First-order change of the metric for every site and run, by donor; "zero" is the knock-out.

    Args:
        places: the model's places, by layer.
        wanted: places, all of them sensed and read.
        experiments: recipients and their donors.
        runs: number of recipients R of each experiment; rows = R * columns.
    """
    changes: list[dict[str, list[Tensor]]] = [{} for _ in experiments]
    used: list[Tensor] = []
    with torch.no_grad():
        for place in wanted:
            values = _Values(places[place[0]], place)
            for one, columns in zip(experiments, changes, strict=True):
                for name, found in _changes(values, one, runs).items():
                    columns.setdefault(name, []).append(found.cpu())
            used.append(values.used.cpu())
    joined = [{name: torch.cat(found, dim=1).numpy() for name, found in columns.items()} for columns in changes]
    return Estimates(joined, torch.cat(used).numpy())


def _changes(values: "_Values", one: Experiment, runs: int) -> dict[str, Tensor]:
    """Changes (R, sites at this place) by donor."""
    slope = one.recipient.slopes[values.place].float()
    real = one.real.to(slope.device)
    every = torch.arange(len(slope), device=slope.device)
    whole = values.products(one.recipient.seen, one.real, every, slope)
    result = {"zero": -_by_run(whole, real, runs)}
    for name, donor in one.donors.items():
        rows = donor.rows.to(slope.device)
        given = values.products(donor.seen, donor.real, rows.clamp(min=0), slope)
        result[name] = _by_run(given - whole, rows >= 0, runs)
    return result


def _by_run(products: Tensor, where: Tensor, runs: int) -> Tensor:
    """(R, sites) sums over each run's rows at `where` (rows,), of products (rows, sites)."""
    kept = products.masked_fill(~where[:, None], 0)
    return kept.reshape(runs, -1, products.shape[1]).sum(dim=1)


class _Values:
    """What the sites of one place contribute in each forward; each forward's experts are asked once.

    Attributes:
        place: layer and kind.
        used: (sites,) bool: whether any of the forwards asked so far used the site: for experts, chose it.
    """

    def __init__(self, one: Places, place: Place) -> None:
        self.one, self.place = one, place
        self.count = len(sites_at({place[0]: one}, place))
        self.used = torch.full((self.count,), place[1] != "expert")
        self._asked: dict[int, tuple[Tensor, Tensor]] = {}

    def products(self, seen: Seen, real: Tensor, rows: Tensor, slope: Tensor) -> Tensor:
        """Slope times contribution, (n, sites) float64.

        Args:
            seen: a forward.
            real: (rows of seen,) bool: those that hold a token; the others' experts are not asked.
            rows: (n,) rows of `seen`.
            slope: (n, width).
        """
        if self.place[1] != "expert":
            values = seen.values[self.place][rows].float()
            return (values * slope).reshape(len(rows), self.count, -1).double().sum(dim=2)
        ids, values = self._experts(seen, real)
        products = torch.einsum("rkw,rw->rk", values[rows], slope).double()
        # Absent choices stand in one more column, with products of 0.
        result = products.new_zeros(len(rows), self.count + 1)
        return result.scatter_add_(1, ids[rows], products)[:, :-1]

    def _experts(self, seen: Seen, real: Tensor) -> tuple[Tensor, Tensor]:
        """ids (rows, k) and contributions (rows, k, width) of one forward's choices; absent ones have the id E and the
        value 0."""
        if id(seen) not in self._asked:
            self._asked[id(seen)] = self._ask(seen.choice(self.place[0]), real)
        return self._asked[id(seen)]

    def _ask(self, choice: Choice, real: Tensor) -> tuple[Tensor, Tensor]:
        site = experts_of(self.one)
        # No choice: ids beyond the experts (experts without weights, another device's), and weights of exactly 0.
        valid = (choice.ids >= 0) & (choice.ids < site.experts) & (choice.weights != 0)
        valid &= real.to(valid.device)[:, None]
        row, slot = valid.nonzero(as_tuple=True)
        experts = choice.ids[row, slot]
        found = expert_output(site, choice.hidden[row], experts, choice.weights[row, slot])
        values = torch.zeros(*choice.ids.shape, found.shape[1], dtype=torch.float32, device=found.device)
        values[row, slot] = found.float()
        self.used[experts.unique().cpu()] = True
        return torch.where(valid, choice.ids, site.experts).long(), values
