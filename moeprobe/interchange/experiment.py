"""Necessity, sufficiency and contribution knock-out of experts over prompt pairs (METHODS.md 4), for a metric m.

necessity = m(sensitive) - m(sensitive | site <- control); sufficiency = m(control | site <- sensitive) - m(control);
knock-out = m(sensitive) - m(sensitive | contribution set to 0).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from moeprobe.capture import ExpertsSite, find_experts
from moeprobe.errors import InterchangeError
from moeprobe.interchange.alignment import Alignment, partners
from moeprobe.interchange.batch import Side, check_forward, check_room, forward, pad_left, row_map
from moeprobe.interchange.contribution import contribution, reading, replacing
from moeprobe.interchange.metrics import ControlNLL, Forced, Metric
from moeprobe.interchange.pairs import SIDES, TokenPair
from moeprobe.interchange.spans import prepared
from moeprobe.models import LoadedModel
from moeprobe.sites import Site

Floats = NDArray[np.float64]
# Called with (forwards done, forwards in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SiteEffects:
    """Effects of one expert, one value per pair, in the metric's unit: necessity, sufficiency, knockout (pairs,)."""

    necessity: Floats
    sufficiency: Floats
    knockout: Floats


@dataclass(frozen=True)
class Effects:
    """Effects of all tested experts.

    Attributes:
        pair_ids: names of the pairs, in the order of all arrays.
        sensitive, control: (pairs,) the metric of the unedited runs.
        sites: effects by site.
    """

    pair_ids: tuple[str, ...]
    sensitive: Floats
    control: Floats
    sites: dict[Site, SiteEffects]

    @property
    def gap(self) -> Floats:
        """(pairs,) m(sensitive) - m(control): the whole effect there is to explain."""
        return self.sensitive - self.control


def measure(
    loaded: LoadedModel,
    pairs: list[TokenPair],
    sites: list[Site],
    *,
    tokens: int = 5,
    metric: Metric | None = None,
    alignment: Alignment | None = None,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> Effects:
    """Run every swap and knock-out exactly.

    Swaps act at every position that has a partner on the other side; positions without one keep their own value. A
    knock-out acts at every position.

    Args:
        loaded: the model.
        pairs: pairs of prompts.
        sites: experts to edit, one at a time.
        tokens: length of the control continuation that is scored, where no other metric is named.
        metric: what is measured; the default is the control's NLL of `tokens` tokens.
        alignment: which positions stand for which; the default is the end of the prompt.
        batch_size: pairs per forward.
        progress: called after each site of each batch.

    Raises:
        InterchangeError: no pairs, a site the model does not have, or pairs that cannot be aligned so.
    """
    if not pairs:
        raise InterchangeError("There are no pairs to swap between.")
    metric, alignment = metric or ControlNLL(tokens), alignment or Alignment()
    pairs = prepared(loaded.tokenizer, pairs, alignment)
    modules = check_sites(find_experts(loaded.model), sites)
    batches = [pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)]
    columns: dict[Site, list[SiteEffects]] = {site: [] for site in sites}
    base: list[tuple[Floats, Floats]] = []
    done = 0
    with torch.inference_mode():
        continuations = [metric.prepare(loaded, batch) for batch in batches]
        check_forward(loaded, [pair.side(name) for pair in pairs for name in SIDES], padded=batch_size > 1)
        for batch, forced in zip(batches, continuations, strict=True):
            check_room(loaded, [len(forced.run(pair.side(name), 0)) for pair in batch for name in SIDES])
        for batch, forced in zip(batches, continuations, strict=True):
            runs = _Runs(loaded, batch, list(modules.values()), metric, forced, alignment)
            base.append((runs.sensitive_metric, runs.control_metric))
            for site in sites:
                columns[site].append(runs.effects(modules[site.layer], site.expert))
                done += 1
                if progress is not None:
                    progress(done, len(batches) * len(sites))
    return Effects(
        pair_ids=tuple(pair.id for pair in pairs),
        sensitive=np.concatenate([sensitive for sensitive, _ in base]),
        control=np.concatenate([control for _, control in base]),
        sites={site: _joined(parts) for site, parts in columns.items()},
    )


def count_usage(
    loaded: LoadedModel, pairs: list[TokenPair], modules: list[ExpertsSite], *, batch_size: int = 8
) -> dict[int, NDArray[np.int64]]:
    """How often the router chose each expert in the prompts of both sides, (experts,) by layer; padding not counted."""
    counts = {module.layer: np.zeros(module.experts, dtype=np.int64) for module in modules}
    runs = [run for pair in pairs for run in (pair.sensitive, pair.control)]
    with torch.inference_mode():
        for start in range(0, len(runs), batch_size):
            side = pad_left(runs[start : start + batch_size], loaded.pad_token)
            with reading(modules) as seen:
                forward(loaded.model, side)
            real = side.mask.bool().reshape(-1)
            for module in modules:
                ids = seen[module.layer].ids.cpu()[real].reshape(-1)
                inside = ids[(ids >= 0) & (ids < module.experts)]
                counts[module.layer] += np.bincount(inside.numpy(), minlength=module.experts)
    return counts


def check_sites(found: list[ExpertsSite], sites: list[Site]) -> dict[int, ExpertsSite]:
    """The experts modules of the layers in `sites`, in the main (text decoder) stack.

    Raises:
        InterchangeError: a layer without experts, one whose experts cannot be asked one at a time, or an expert beyond
            the layer's last.
    """
    by_layer = {module.layer: module for module in found if module.stack == ""}
    for site in sites:
        if site.layer in by_layer and not by_layer[site.layer].regular:
            raise InterchangeError(
                f"The experts of L{site.layer} ({by_layer[site.layer].path}) cannot be called one at a time, so {site} "
                "cannot be swapped. Its routing can be traced and correlated."
            )
        if site.layer not in by_layer:
            layers = ", ".join(f"L{layer}" for layer in sorted(by_layer))
            raise InterchangeError(f"The model has no experts in layer {site.layer} ({site}). It has them in {layers}.")
        if site.expert >= by_layer[site.layer].experts:
            last = by_layer[site.layer].experts - 1
            raise InterchangeError(f"The model has no {site}: the last expert of that layer is L{site.layer}.E{last}.")
    return {site.layer: by_layer[site.layer] for site in sites}


class _Runs:
    """Unedited runs of one batch of pairs, and edited ones on demand."""

    def __init__(
        self,
        loaded: LoadedModel,
        pairs: list[TokenPair],
        modules: list[ExpertsSite],
        metric: Metric,
        forced: Forced,
        alignment: Alignment,
    ) -> None:
        self.model: PreTrainedModel = loaded.model
        self.metric, self.forced = metric, forced
        runs = {name: [self.forced.run(pair.side(name), at) for at, pair in enumerate(pairs)] for name in SIDES}
        # One width for both: a token that stands in both runs of a pair is then computed in the same column. A batch of
        # one pair is not padded at all: some families need that (`check_forward`).
        width = max(len(run) for group in runs.values() for run in group) if len(pairs) > 1 else None
        self.sensitive, self.control = (pad_left(runs[name], loaded.pad_token, width) for name in SIDES)
        # Row of the control run for each row of the sensitive one, and the other way round; -1 without a partner.
        self.for_sensitive = self._map(pairs, runs, alignment, SIDES)
        self.for_control = self._map(pairs, runs, alignment, SIDES[::-1])
        with reading(modules) as self.seen_sensitive:
            self.sensitive_metric = self._metric(self.sensitive)
        with reading(modules) as self.seen_control:
            self.control_metric = self._metric(self.control)

    def _map(
        self,
        pairs: list[TokenPair],
        runs: dict[str, list[tuple[int, ...]]],
        alignment: Alignment,
        sides: tuple[str, ...],
    ) -> Tensor:
        mine, other = sides
        forced, found = self.forced.tokens.shape[1] - 1, []
        for pair, own, given in zip(pairs, runs[mine], runs[other], strict=True):
            spans = None if pair.spans is None else (pair.spans[SIDES.index(mine)], pair.spans[SIDES.index(other)])
            found.append(partners(own, given, alignment, spans=spans, forced=forced))
        return row_map(getattr(self, mine), getattr(self, other), found).to(self.model.device)

    def effects(self, site: ExpertsSite, expert: int) -> SiteEffects:
        """All three experiments on one expert."""
        sensitive = contribution(site, expert, self.seen_sensitive[site.layer])
        control = contribution(site, expert, self.seen_control[site.layer])
        every = self.sensitive.real().to(self.model.device)
        given, taken = self.for_sensitive, self.for_control
        without = self._edited(self.sensitive, site, expert, sensitive, control[given.clamp(min=0)], given >= 0)
        swapped_in = self._edited(self.control, site, expert, control, sensitive[taken.clamp(min=0)], taken >= 0)
        knocked_out = self._edited(self.sensitive, site, expert, sensitive, torch.zeros_like(sensitive), every)
        zero = np.zeros_like(self.sensitive_metric)
        return SiteEffects(
            necessity=zero if without is None else self.sensitive_metric - without,
            sufficiency=zero if swapped_in is None else swapped_in - self.control_metric,
            knockout=zero if knocked_out is None else self.sensitive_metric - knocked_out,
        )

    def _edited(
        self, side: Side, site: ExpertsSite, expert: int, own: Tensor, donor: Tensor, where: Tensor
    ) -> Floats | None:
        """The metric with the edit, or None when the edit writes what stands there already at every row: such a run is
        the unedited run bit for bit (tests hold this), so it is not repeated."""
        if not (where & (own != donor).any(dim=1)).any():
            return None
        with replacing(site, expert, donor, where):
            return self._metric(side)

    def _metric(self, side: Side) -> Floats:
        """The metric (pairs,) of one side's runs as they are edited now."""
        tokens, counted = self.forced.tokens, self.forced.counted
        logits = forward(self.model, side, readouts=tokens.shape[1])
        result: Floats = self.metric.score(logits, tokens, counted).cpu().numpy()
        if not np.isfinite(result).all():
            raise InterchangeError(
                "The model gives a metric that is NaN or infinite on these prompts. Try --dtype float32."
            )
        return result


def _joined(parts: list[SiteEffects]) -> SiteEffects:
    return SiteEffects(
        necessity=np.concatenate([part.necessity for part in parts]),
        sufficiency=np.concatenate([part.sufficiency for part in parts]),
        knockout=np.concatenate([part.knockout for part in parts]),
    )
