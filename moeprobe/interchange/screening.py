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

from moeprobe.editing import Places, find_places
from moeprobe.editing.oracle import expert_output
from moeprobe.editing.seen import Choice, Place, Seen, experts_of, heads_of, place_of, reading
from moeprobe.errors import InterchangeError
from moeprobe.interchange.alignment import Alignment, check_alignment, partners
from moeprobe.interchange.batch import Side, check_room, forward, pad_left, row_map
from moeprobe.interchange.donors import donors as draw_donors
from moeprobe.interchange.gradients import Sensed, sense
from moeprobe.interchange.metrics import ControlNLL, Forced, Metric
from moeprobe.interchange.pairs import SIDES, TokenPair
from moeprobe.interchange.screen import Screen
from moeprobe.models import LoadedModel
from moeprobe.sites import Site

Floats = NDArray[np.float64]
# Called with (batches done, batches in all).
Progress = Callable[[int, int], None]
KINDS = ("expert", "head", "shared", "moe", "residual")
# Recipient of each experiment, and how a change of the metric is counted: positive is in the direction of the gap.
EXPERIMENTS = {"necessity": ("sensitive", -1.0), "sufficiency": ("control", 1.0)}


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
    donors: Mapping[str, Donors]


@dataclass(frozen=True)
class Estimates:
    """Estimates of one batch.

    Attributes:
        changes: for each experiment, by donor and for "zero": (R, sites) float64, the change of the metric.
        used: (sites,) bool: False for experts that no run chose anywhere; swapping those changes no bit.
    """

    changes: Sequence[Mapping[str, Floats]]
    used: NDArray[np.bool_]


def screen(
    loaded: LoadedModel,
    pairs: Sequence[TokenPair],
    *,
    kinds: Sequence[str] = ("expert",),
    metric: Metric | None = None,
    alignment: Alignment | None = None,
    controls: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> Screen:
    """Estimate necessity, sufficiency and knock-out of every site of some kinds, for every pair.

    Costs one forward and one backward for each side of each batch, and one forward more for each kind of control donor
    and side. Memory grows with `batch_size` as in training with frozen weights: the activations of one batch.
    The experts run eagerly meanwhile (`gradients.sense` says why), whatever implementation is set.

    Args:
        loaded: the model.
        pairs: pairs of prompts.
        kinds: of KINDS; every site of these kinds in every layer that has them.
        metric: what is measured; the default is the control's NLL of 5 tokens.
        alignment: which positions stand for which; the default is the end of the prompt. A knock-out acts at every
            position.
        controls: other donors to estimate as well, of `donors.KINDS`: "placebo" and "random".
        seed: of the draw of those donors.
        batch_size: pairs per forward.
        progress: called after each batch.

    Raises:
        InterchangeError: no pairs, none of the kinds in this model, pairs that cannot be aligned so, or a model that
            gives no gradient.
    """
    if not pairs:
        raise InterchangeError("There are no pairs to screen with.")
    metric, alignment = metric or ControlNLL(), alignment or Alignment()
    check_alignment(alignment, pairs)
    work = _Work(loaded, find_places(loaded.model), tuple(kinds), metric, alignment)
    given = {
        (kind, side): draw_donors(pairs, kind, seed, recipient=side, same_length=alignment.name == "equal")
        for kind in controls
        for side in SIDES
    }
    starts = range(0, len(pairs), batch_size)
    parts: list[dict[str, Floats]] = []
    used = np.zeros(len(work.sites), bool)
    for number, start in enumerate(starts):
        chosen = list(range(start, min(start + batch_size, len(pairs))))
        part, chose = work.batch(pairs, chosen, given)
        parts.append(part)
        used |= chose
        if progress is not None:
            progress(number + 1, len(starts))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    scores = {side: joined.pop(side) for side in SIDES}
    ids = tuple(pair.id for pair in pairs)
    return Screen(ids, tuple(work.sites), scores["sensitive"], scores["control"], joined, used)


class _Work:
    """What stays the same from batch to batch."""

    def __init__(
        self,
        loaded: LoadedModel,
        places: Mapping[int, Places],
        kinds: tuple[str, ...],
        metric: Metric,
        alignment: Alignment,
    ) -> None:
        self.loaded, self.places, self.metric, self.alignment = loaded, places, metric, alignment
        self.wanted = places_of(places, kinds)
        self.sites = [site for place in self.wanted for site in sites_at(places, place)]

    def batch(
        self, pairs: Sequence[TokenPair], chosen: Sequence[int], given: Mapping[tuple[str, str], NDArray[np.int64]]
    ) -> tuple[dict[str, Floats], NDArray[np.bool_]]:
        """Scores (pairs,) by side and estimates (pairs, sites) by effect, of one batch; and which sites were used."""
        own = [pairs[place] for place in chosen]
        with torch.no_grad():
            forced = self.metric.prepare(self.loaded, own)
        sides = {name: self._side([pair.side(name) for pair in own], forced) for name in SIDES}
        sensed = {name: self._sense(sides[name], forced) for name in SIDES}
        experiments = []
        for effect, (side, _) in EXPERIMENTS.items():
            other = _other(side)
            rows = self._rows(own, own, (side, other), (sides[side], sides[other]), forced)
            donors = {effect: Donors(sensed[other].seen, sides[other].real(), rows)}
            for (kind, recipient), places in given.items():
                if recipient == side:
                    picked = [pairs[places[place]] for place in chosen]
                    giver = side if kind == "placebo" else other
                    donors[f"{kind}_{effect}"] = self._control(own, picked, (side, giver), sides[side], forced)
            experiments.append(Experiment(sensed[side], sides[side].real(), donors))
        found = estimate(self.places, self.wanted, experiments, len(own))
        result: dict[str, Floats] = {name: sensed[name].score.cpu().numpy() for name in SIDES}
        for (_, sign), changes in zip(EXPERIMENTS.values(), found.changes, strict=True):
            result.update({name: sign * change for name, change in changes.items() if name != "zero"})
        result["knockout"] = -found.changes[0]["zero"]
        return result, found.used

    def _side(self, prompts: Sequence[tuple[int, ...]], forced: Forced) -> Side:
        runs = [forced.run(prompt, place) for place, prompt in enumerate(prompts)]
        check_room(self.loaded, [len(run) for run in runs])
        return pad_left(runs, self.loaded.pad_token)

    def _sense(self, side: Side, forced: Forced) -> Sensed:
        model, tokens = self.loaded.model, forced.tokens

        def run() -> Tensor:
            logits = forward(model, side, readouts=tokens.shape[1])
            return self.metric.score(logits, tokens, forced.counted)

        return sense(model, self.places, self.wanted, run)

    def _rows(
        self,
        own: Sequence[TokenPair],
        givers: Sequence[TokenPair],
        names: tuple[str, str],
        sides: tuple[Side, Side],
        forced: Forced,
    ) -> Tensor:
        """(recipient rows,) the donor's row, or -1. `names` and `sides`: the recipients', then the donors'."""
        found = []
        for place, (mine, theirs) in enumerate(zip(own, givers, strict=True)):
            spans = (mine.span(names[0]), theirs.span(names[1]))
            found.append(
                partners(
                    forced.run(mine.side(names[0]), place),
                    forced.run(theirs.side(names[1]), place),
                    self.alignment,
                    spans=None if spans[0] is None or spans[1] is None else (spans[0], spans[1]),
                    forced=forced.tokens.shape[1] - 1,
                )
            )
        return row_map(*sides, found)

    def _control(
        self,
        own: Sequence[TokenPair],
        picked: Sequence[TokenPair],
        names: tuple[str, str],
        recipient: Side,
        forced: Forced,
    ) -> Donors:
        """A forward of donors from other pairs, each followed by what is forced after the recipient."""
        donor = self._side([pair.side(names[1]) for pair in picked], forced)
        with torch.no_grad(), reading(self.places, self.wanted) as seen:
            forward(self.loaded.model, donor, readouts=1)
        return Donors(seen, donor.real(), self._rows(own, picked, names, (recipient, donor), forced))


def places_of(places: Mapping[int, Places], kinds: Sequence[str]) -> list[Place]:
    """Every (layer, kind) of these kinds that the model has.

    Raises:
        InterchangeError: an unknown kind, or one the model has nowhere; a refusal says why.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise InterchangeError(f"{(unknown or ['nothing'])[0]!r} cannot be screened. Choose of {', '.join(KINDS)}.")
    found: list[Place] = []
    for kind in dict.fromkeys(kinds):
        having, reason = [], "there is none"
        for layer in sorted(places):
            try:
                place_of(places, layer, kind)
            except InterchangeError as problem:
                reason = str(problem)
            else:
                having.append((layer, kind))
        if not having:
            raise InterchangeError(f"No layer of this model has a {kind} that could be screened: {reason}")
        found += having
    return sorted(found, key=lambda place: (KINDS.index(place[1]), place[0]))


def sites_at(places: Mapping[int, Places], place: Place) -> list[Site]:
    """The sites at one place, in order of index."""
    layer, kind = place
    if kind not in ("expert", "head"):
        return [Site(layer, kind)]
    count = experts_of(places[layer]).experts if kind == "expert" else heads_of(places[layer]).count
    return [Site(layer, kind, index) for index in range(count)]


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


def _other(side: str) -> str:
    return SIDES[1 - SIDES.index(side)]
