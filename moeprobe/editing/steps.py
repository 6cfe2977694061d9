"""Edits held at every step of a generation: what each forward, of the prompt or of one token, has to write."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from moeprobe.capture.wrap import around
from moeprobe.editing.choosing import stream_seed
from moeprobe.editing.places import Places
from moeprobe.editing.routing import Reroute, rerouting
from moeprobe.editing.seen import Seen, experts_of, place_of, reading
from moeprobe.editing.spec import ROUTING, Edit
from moeprobe.editing.write import Editor, How, Write
from moeprobe.errors import InterchangeError
from moeprobe.sites import KINDS, Site

_HOW: Mapping[str, How] = {"swap": "replace", "resample": "replace", "swap-output": "output", "swap-routing": "routing"}
_BEFORE = ("expert", "head")  # kinds whose value is known before their module runs


@dataclass(frozen=True)
class Batch:
    """Prompts of one batch, padded on the left so that all end in the same column.

    Attributes:
        lengths: tokens of each prompt that is edited, then of each donor's.
        width: columns of the padded prompts.
        seeds: one for each edited sequence, of what is random in an edit.
        donors: whether the second half are donors, sequence i's at i + half.
    """

    lengths: Tensor
    width: int
    seeds: tuple[int, ...]
    donors: bool

    @property
    def edited(self) -> int:
        """How many sequences are edited."""
        return len(self.seeds)

    def real(self, columns: Tensor) -> Tensor:
        """(sequences, columns) bool: no padding."""
        return columns[None] >= self.width - self.lengths[:, None]

    def chosen(self, columns: Tensor, where: str) -> Tensor:
        """(rows,) bool: rows of edited sequences at positions that an edit means."""
        real = self.real(columns)
        real[self.edited :] = False
        if where != "all":
            real &= ((columns >= self.width) == (where == "answer"))[None]
        return real.reshape(-1)

    def partner(self, columns: Tensor) -> Tensor:
        """(rows,) the donor's row of each edited row; -1 for donors, and where the donor's prompt has no token."""
        own = torch.full((len(self.lengths), len(columns)), -1)
        rows = torch.arange(own.numel()).reshape(own.shape)
        own[: self.edited] = rows[self.edited :].masked_fill(~self.real(columns)[self.edited :], -1)
        return own.reshape(-1)


class Steps:
    """Carries out edits in every forward of one generation.

    Args:
        places: the model's places, by layer.
        edits: all done at once.
        batch: how the sequences lie.
        means: value (width,) of each site of a "mean" edit.

    Raises:
        InterchangeError: a place the model has not.
    """

    def __init__(
        self, places: Mapping[int, Places], edits: Sequence[Edit], batch: Batch, means: Mapping[Site, Tensor]
    ) -> None:
        self.places, self.edits, self.batch, self.means = places, list(edits), batch, means
        self.touched = [
            (site.layer, site.kind) for edit in edits if edit.verb not in ROUTING for site in edit.sites.sites
        ]
        self.streams: dict[tuple[int, Site], torch.Generator] = {}
        self.passed = 0
        for layer, kind in self.touched:
            place_of(places, layer, kind)

    @contextmanager
    def around(self, model: PreTrainedModel) -> Any:
        """Stand around every forward of `model` inside the block."""
        if not self.edits:
            yield
            return
        wrapping = around(model, self._run)
        try:
            yield
        finally:
            wrapping.remove()

    def _run(self, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        columns = self._columns(kwargs.get("input_ids", args[0] if args else None))
        with ExitStack() as stack:
            editor = Editor(self.places, self.touched)
            writes = [write for edit in self.edits for write in self._writes(edit, columns)]
            editor.set(writes)
            self._noises(stack, editor, writes, columns)
            stack.enter_context(editor)
            stack.enter_context(rerouting(self.places, self._reroutes(columns)))
            return forward(*args, **kwargs)

    def _columns(self, ids: Tensor | None) -> Tensor:
        """Which columns of the text a forward computes: parts of the prompt, then one new token after the other."""
        sequences = len(self.batch.lengths)
        if ids is None or len(ids) != sequences:
            shape = "no token ids" if ids is None else f"ids {tuple(ids.shape)}"
            raise InterchangeError(f"A forward of {sequences} sequences was expected, but it got {shape}.")
        count = ids.shape[1]
        # A family without a cache computes the whole text again at each step.
        start = self.passed if self.passed < self.batch.width else self.passed + 1 - count
        self.passed = start + count
        return torch.arange(start, start + count)

    def _writes(self, edit: Edit, columns: Tensor) -> list[Write]:
        if edit.verb in ROUTING or edit.verb == "noise":
            return []
        rows = self.batch.chosen(columns, edit.where)
        if edit.verb in _HOW:
            partner = self.batch.partner(columns)
            return [
                Write(site.layer, site.kind, _index(site, rows & (partner >= 0)), _HOW[edit.verb], partner=partner)
                for site in edit.sites.sites
            ]
        if edit.verb == "mean":
            return [
                Write(site.layer, site.kind, _index(site, rows), "replace", self.means[site].expand(len(rows), -1))
                for site in edit.sites.sites
            ]
        factor = torch.full((len(rows), 1), edit.amount or 0.0)
        return [Write(site.layer, site.kind, _index(site, rows), "scale", factor) for site in edit.sites.sites]

    def _reroutes(self, columns: Tensor) -> list[Reroute]:
        found: dict[int, Tensor] = {}
        for edit in self.edits:
            if edit.verb not in ROUTING:
                continue
            rows = self.batch.chosen(columns, edit.where)
            amount = {"bar": -torch.inf, "force": torch.inf}.get(edit.verb, edit.amount or 0.0)
            for site in edit.sites.sites:
                experts = experts_of(self.places[site.layer]).experts
                bias = found.setdefault(site.layer, torch.zeros(len(rows), experts))
                bias[rows, site.expert] = amount
        return [Reroute(layer, bias) for layer, bias in found.items()]

    def _noises(self, stack: ExitStack, editor: Editor, writes: list[Write], columns: Tensor) -> None:
        """Noise as long as donor - own needs both live: they are read just before the editor looks."""
        noises = [(edit, site) for edit in self.edits if edit.verb == "noise" for site in edit.sites.sites]
        seen = stack.enter_context(reading(self.places, [(site.layer, site.kind) for _, site in noises]))
        for edit, site in noises:
            where = place_of(self.places, site.layer, site.kind)
            hook = self._noise(seen, editor, writes, site, self.batch.chosen(columns, edit.where), columns)
            register = where.register_forward_pre_hook if site.kind in _BEFORE else where.register_forward_hook
            stack.callback(register(hook).remove)

    def _noise(self, seen: Seen, editor: Editor, writes: list[Write], site: Site, rows: Tensor, columns: Tensor) -> Any:
        partner = self.batch.partner(columns)
        index = _index(site, rows & (partner >= 0))

        def hook(*_: Any) -> None:
            """Add the noise to the writes, once both rows of the forward have their own value."""
            device = next(iter(seen.places[site.layer].decoder.parameters())).device
            own = seen.value(site.layer, site.kind, index.to(device), torch.arange(len(index), device=device))
            donor = seen.value(site.layer, site.kind, index.to(device), partner.to(device))
            size = (donor - own).float().norm(dim=1, keepdim=True)
            noise = self._directions(site, own.shape[1], columns).to(device) * size
            writes.append(Write(site.layer, site.kind, index, "add", noise.to(own.dtype)))
            editor.set(writes)

        return hook

    def _directions(self, site: Site, width: int, columns: Tensor) -> Tensor:
        """(rows, width) random unit vectors. Each sequence draws for its own tokens, so padding shifts nothing."""
        real = self.batch.real(columns)
        result = torch.zeros(*real.shape, width)
        for place, seed in enumerate(self.batch.seeds):
            stream = self.streams.get((place, site))
            if stream is None:
                name = (seed, site.layer, KINDS.index(site.kind), site.index or 0)
                stream = self.streams[place, site] = torch.Generator().manual_seed(stream_seed(*name))
            drawn = torch.randn(int(real[place].sum()), width, generator=stream)
            result[place, real[place]] = drawn / drawn.norm(dim=1, keepdim=True)
        return result.reshape(-1, width)


def _index(site: Site, rows: Tensor) -> Tensor:
    """(rows,) the site's number where it is edited, -1 elsewhere."""
    return torch.where(rows, site.index or 0, -1)
