"""What a knock-out does downstream: every later router, expert and head when one expert is gone.

Two knock-outs, never mixed: "zero", the contribution set to zero, which leaves a hole; and "bar", the expert barred
before top-k, which brings in another. Attributions of both forwards are read through the unedited forward's lens, so a
part that did not change shows exactly 0.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from moeprobe.editing import Places, Reroute, Write, bias_for, rerouting, writing
from moeprobe.errors import InterchangeError
from moeprobe.experiments.attribution import take_layers
from moeprobe.experiments.downstream import CascadeResult, Consequences, Units, joined
from moeprobe.experiments.lens import Direction, Lens, lens
from moeprobe.experiments.parts import Parts
from moeprobe.experiments.shifted import Both, expert_changes, part_changes, router_changes
from moeprobe.experiments.stream import Stream, columns_of, watching
from moeprobe.experiments.subject import Subject, subject
from moeprobe.models import LoadedModel
from moeprobe.pairs.batch import Side, forward, pad_left
from moeprobe.sites import Site

EDITS = ("zero", "bar")


@dataclass(frozen=True)
class CascadePlan:
    """How a cascade is measured.

    Attributes:
        edits: "zero" (contribution set to zero), "bar" (barred before top-k), or both.
        shams: sham experts, where none are named.
        bootstrap, seed: of the intervals over prompts.
        batch_size: prompts per forward.
    """

    edits: tuple[str, ...] = EDITS
    shams: int = 5
    bootstrap: int = 2_000
    seed: int = 0
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not self.edits or set(self.edits) - set(EDITS) or len(set(self.edits)) < len(self.edits):
            raise InterchangeError(f"Knock-outs are {' and '.join(EDITS)}, each once; not {', '.join(self.edits)}.")
        if self.bootstrap < 100 or self.batch_size < 1 or self.shams < 0:
            raise InterchangeError("At least 100 draws, 1 prompt per forward and 0 shams are needed.")


@dataclass(frozen=True)
class _Taken:
    """One forward: its stream, its parts, and its logits (batch, vocabulary) at the read-out. The unedited one has a
    lens, or no parts and the reason why its family's stream cannot be taken apart."""

    stream: Stream
    parts: dict[int, Parts]
    logits: Tensor
    view: Lens | None = None
    refused: str = ""


def cascade(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    site: Site,
    direction: Direction,
    *,
    plan: CascadePlan | None = None,
    shams: Sequence[Site] | None = None,
    names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CascadeResult:
    """Knock one expert out at all positions, and compare what follows with the same for sham experts.

    Contributions and attributions are those at the last token of a prompt (the read-out); routing is given there and
    over all positions.

    Args:
        loaded: the model.
        prompts: token ids; at least 2.
        site: the expert.
        direction: token sets whose logit difference is attributed.
        plan: how; default as in `CascadePlan`.
        shams: experts of the same layer that are knocked out as well; default the nearest in rate and norm.
        names: of the prompts; default their numbers.
        progress: called with (forwards done, all).

    Where a family's stream cannot be taken apart, routing alone is compared; the result says why.

    Raises:
        InterchangeError: fewer than 2 prompts, a site or sham the layer has not, or a layer before the site that
            changed (the forward is not deterministic then).
    """
    plan = plan or CascadePlan()
    wanted = plan.shams if shams is None else list(shams)
    under = subject(loaded, prompts, site, shams=wanted, batch_size=plan.batch_size)
    found: dict[tuple[str, Site], list[Consequences]] = {}
    refused = ""
    starts = range(0, len(prompts), plan.batch_size)
    done, everything = 0, len(starts) * (1 + len(under.sites) * len(plan.edits))
    edits = [(edit, one) for edit in plan.edits for one in under.sites]
    with torch.inference_mode():
        for start in starts:
            side = pad_left(prompts[start : start + plan.batch_size], loaded.pad_token)
            base = _base(under, side, direction)
            refused = base.refused
            for place in range(len(edits) + 1):
                if place:
                    edit, one = edits[place - 1]
                    edited = _forward(under, side, one, edit, whole=base.view is not None)
                    _nothing_before(base, edited, one, edit)
                    found.setdefault((edit, one), []).append(_compare(under.places, side, base, edited, one, direction))
                done += 1
                if progress is not None:
                    progress(done, everything)
    by_edit = {edit: {one: joined(found[edit, one]) for one in under.sites} for edit in plan.edits}
    given = tuple(names) if names is not None else tuple(str(place) for place in range(len(prompts)))
    return CascadeResult(site, under.shams, given, direction.name, by_edit, refused, plan.bootstrap, plan.seed)


def _base(under: Subject, side: Side, direction: Direction) -> _Taken:
    """The unedited forward."""
    stream, logits = _run(under, side, None, "")
    direction.check(logits.shape[-1])
    try:
        parts = take_layers(under.loaded.model, under.places, stream)[1]
        return _Taken(stream, parts, logits, lens(under.loaded.model, stream, logits, direction))
    except InterchangeError as problem:  # routing can be followed all the same
        return _Taken(stream, {}, logits, None, str(problem))


def _forward(under: Subject, side: Side, site: Site, edit: str, *, whole: bool) -> _Taken:
    """An edited forward; its parts only where those of the unedited one are known."""
    stream, logits = _run(under, side, site, edit)
    if edit == "zero":
        own = stream.layers[site.layer]
        if own.weights is not None and own.ids is not None:
            own.weights = own.weights.masked_fill(own.ids == site.expert, 0)
    return _Taken(stream, take_layers(under.loaded.model, under.places, stream)[1] if whole else {}, logits)


def _run(under: Subject, side: Side, site: Site | None, edit: str) -> tuple[Stream, Tensor]:
    rows, model, places = side.ids.numel(), under.loaded.model, under.places
    with ExitStack() as stack:
        # Watching first: it sees the choice that the router made, also where a write silences it afterwards.
        stream = stack.enter_context(watching(model, places, columns_of(side.mask)))
        if site is not None and edit == "bar":
            stack.enter_context(rerouting(places, [Reroute(site.layer, bias_for(under.experts, bar=[site.expert]))]))
        elif site is not None:
            zero = Write(site.layer, "expert", torch.full((rows,), site.expert), "scale", torch.zeros(rows, 1))
            stack.enter_context(writing(places, [zero]))
        logits = forward(model, side, readouts=1)[:, -1]
    return stream, logits


def _nothing_before(base: _Taken, edited: _Taken, site: Site, edit: str) -> None:
    """Every layer before the site must be the same to the bit, and so must what enters the site's own layer.

    Raises:
        InterchangeError: one is not.
    """
    for layer, kept in base.stream.layers.items():
        if layer > site.layer:
            return
        other = edited.stream.layers[layer]
        names = ["before", "heads"]
        if layer < site.layer:
            names += ["after", "ids", "weights", "scores", "shared"]
        elif edit == "zero":
            names += ["ids", "scores", "hidden", "shared"]
        for name in names:
            one, two = getattr(kept, name), getattr(other, name)
            if (one is None) != (two is None) or (
                one is not None and not torch.equal(*map(torch.nan_to_num, (one, two)))
            ):
                raise InterchangeError(
                    f"Knocking {site} out changed L{layer} ({name}), which comes before it. The model's forwards are "
                    "not repeatable, or an edit reached the wrong place; nothing can be concluded."
                )


def _compare(
    places: Mapping[int, Places], side: Side, base: _Taken, edited: _Taken, site: Site, direction: Direction
) -> Consequences:
    real, view = side.mask.bool(), base.view
    later = [
        Both(layer, places[layer], kept, edited.stream.layers[layer], base.parts.get(layer), edited.parts.get(layer))
        for layer, kept in base.stream.layers.items()
        if layer > site.layer
    ]
    routed = [one for one in later if one.base.ids is not None and one.edited.ids is not None]
    logits = (base.logits, edited.logits)
    if view is not None and view.capped and base.stream.head is not None and edited.stream.head is not None:
        logits = (base.stream.head[1], edited.stream.head[1])
    total = (direction(logits[1]) - direction(logits[0])).cpu()
    if not bool(torch.isfinite(total).all()):
        raise InterchangeError(f"{direction.name} is NaN or infinite on some prompt, before or after {site} is gone.")
    direct = indirect = torch.full_like(total, torch.nan)
    if view is not None:
        written = {
            layer: view.read(edited.parts[layer].total() - parts.total()).cpu() for layer, parts in base.parts.items()
        }
        direct = written[site.layer]
        indirect = torch.stack([torch.zeros_like(direct), *(written[one.layer] for one in later)]).sum(dim=0)
    return Consequences(
        routers=router_changes(routed, real),
        experts=expert_changes(routed, real, view),
        parts=part_changes(later, view) if view is not None else Units((), {}),
        total=total.double().numpy(),
        direct=direct.double().numpy(),
        indirect=indirect.double().numpy(),
    )
