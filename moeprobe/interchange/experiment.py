"""Necessity, sufficiency and contribution knock-out of experts over prompt pairs (METHODS.md 4).

The metric m is the mean negative log-likelihood, in nats per token, of the control run's own greedy continuation.
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
from moeprobe.interchange.aligned import AlignedBatch, Side, align, forward, pad_left
from moeprobe.interchange.contribution import contribution, reading, replacing
from moeprobe.interchange.pairs import TokenPair
from moeprobe.models import LoadedModel
from moeprobe.sites import Site

Floats = NDArray[np.float64]
# Called with (forwards done, forwards in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SiteEffects:
    """Effects of one expert, one value per pair, in nats per token: necessity, sufficiency, knockout (pairs,)."""

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
    batch_size: int = 8,
    progress: Progress | None = None,
) -> Effects:
    """Run every swap and knock-out exactly.

    Swaps act at every position that has a partner on the other side, aligned at the end of the prompt and continuing
    through the continuation; positions without a partner keep their own value.

    Args:
        loaded: the model.
        pairs: pairs of prompts.
        sites: experts to edit, one at a time.
        tokens: length of the control continuation that is scored.
        batch_size: pairs per forward.
        progress: called after each site of each batch.

    Raises:
        InterchangeError: no pairs, or a site the model does not have.
    """
    if not pairs:
        raise InterchangeError("There are no pairs to swap between.")
    if tokens < 1:
        raise InterchangeError("The control continuation needs at least one token.")
    longest, limit = max(max(len(pair.sensitive), len(pair.control)) for pair in pairs), loaded.positions
    if limit is not None and longest + tokens > limit:
        raise InterchangeError(
            f"A prompt of {longest} tokens and {tokens} more do not fit the model's {limit} positions."
        )
    modules = check_sites(find_experts(loaded.model), sites)
    batches = [pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)]
    columns: dict[Site, list[SiteEffects]] = {site: [] for site in sites}
    base: list[tuple[Floats, Floats]] = []
    done = 0
    with torch.inference_mode():
        for batch in batches:
            runs = _Runs(loaded, batch, list(modules.values()), tokens)
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

    def __init__(self, loaded: LoadedModel, pairs: list[TokenPair], modules: list[ExpertsSite], tokens: int) -> None:
        self.model: PreTrainedModel = loaded.model
        self.batch: AlignedBatch = align(loaded, pairs, tokens=tokens)
        self.where = self.batch.partners().to(self.model.device)
        with reading(modules) as self.seen_sensitive:
            self.sensitive_metric = self._metric(self.batch.sensitive)
        with reading(modules) as self.seen_control:
            self.control_metric = self._metric(self.batch.control)

    def effects(self, site: ExpertsSite, expert: int) -> SiteEffects:
        """All three experiments on one expert."""
        sensitive = contribution(site, expert, self.seen_sensitive[site.layer])
        control = contribution(site, expert, self.seen_control[site.layer])
        every = self.batch.sensitive.mask.bool().reshape(-1).to(self.where.device)
        without = self._edited(self.batch.sensitive, site, expert, sensitive, control, self.where)
        swapped_in = self._edited(self.batch.control, site, expert, control, sensitive, self.where)
        knocked_out = self._edited(self.batch.sensitive, site, expert, sensitive, torch.zeros_like(sensitive), every)
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
        """Mean NLL (pairs,) of the continuation, in nats per token, in float64."""
        tokens = self.batch.continuation.shape[1]
        logits = forward(self.model, side)[:, -tokens:].double()
        target = self.batch.continuation.to(logits.device)
        counted = self.batch.counted.to(logits.device)
        nll = -torch.log_softmax(logits, dim=-1).gather(2, target[..., None])[..., 0]
        total = torch.where(counted, nll, torch.zeros_like(nll)).sum(dim=1)
        result: Floats = (total / counted.sum(dim=1)).cpu().numpy()
        if not np.isfinite(result).all():
            raise InterchangeError(
                "The model gives NaN or infinite log-probabilities on these prompts. Try --dtype float32."
            )
        return result


def _joined(parts: list[SiteEffects]) -> SiteEffects:
    return SiteEffects(
        necessity=np.concatenate([part.necessity for part in parts]),
        sufficiency=np.concatenate([part.sufficiency for part in parts]),
        knockout=np.concatenate([part.knockout for part in parts]),
    )
