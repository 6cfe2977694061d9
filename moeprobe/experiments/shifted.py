"""How one layer's routing and contributions differ between an unedited and an edited forward of the same prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moeprobe.capture.router import are_probabilities
from moeprobe.editing import Places
from moeprobe.editing.seen import experts_of
from moeprobe.experiments.downstream import Units
from moeprobe.experiments.lens import Lens
from moeprobe.experiments.parts import Parts
from moeprobe.experiments.stream import Layer
from moeprobe.stats.divergence import jensen_shannon

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Both:
    """One layer in both forwards; without parts where its family's stream cannot be taken apart."""

    layer: int
    places: Places
    base: Layer
    edited: Layer
    base_parts: Parts | None
    edited_parts: Parts | None


def router_changes(layers: Sequence[Both], real: Tensor) -> Units:
    """What each router does differently, (prompts, routers) each.

    Measures: "replaced" is the share of a position's choices that are others now; "divergence" the Jensen-Shannon
    divergence in bits between the router's distributions over experts (the softmax of its scores, or its choice weights
    where it gives no scores). Mean over positions, and with "_readout" at the last token.

    Args:
        layers: the layers.
        real: (prompts, columns) True where a token stands.
    """
    columns: dict[str, list[Floats]] = {}
    for one in layers:
        before, after = (_dense(one, kept) for kept in (one.base, one.edited))
        chosen, still = before > 0, (before > 0) & (after > 0)
        rows = {
            "replaced": 1 - still.sum(axis=1) / np.maximum(chosen.sum(axis=1), 1),
            "divergence": _divergence(one, before, after, real.reshape(-1).cpu().numpy()),
        }
        for name, values in rows.items():
            _by_prompt(columns, name, values[:, None], real)
    return Units(tuple(f"L{one.layer}.router" for one in layers), _side_by_side(columns))


def expert_changes(layers: Sequence[Both], real: Tensor, view: Lens | None) -> Units:
    """What happens to each expert, (prompts, experts of all layers) each.

    Measures: changes of "rate" (share of positions that choose it) and "weight" (mean over positions, 0 where it is not
    chosen), with "_readout" at the last token; there also "norm_ratio" and "cosine" of its contribution after and
    before, NaN where one of them is 0, and the change of its direct logit "attribution"; these three need a lens.
    """
    columns: dict[str, list[Floats]] = {}
    names: list[str] = []
    for one in layers:
        count = experts_of(one.places).experts
        names += [f"L{one.layer}.E{expert}" for expert in range(count)]
        before, after = (_dense(one, kept) for kept in (one.base, one.edited))
        _by_prompt(columns, "rate", (after > 0).astype(float) - (before > 0), real)
        _by_prompt(columns, "weight", after - before, real)
        if view is not None and one.base_parts is not None and one.edited_parts is not None:
            vectors = one.base_parts.experts(count), one.edited_parts.experts(count)
            for name, values in _contributions(*vectors, view).items():
                columns.setdefault(name, []).append(values)
    return Units(tuple(names), _side_by_side(columns))


def part_changes(layers: Sequence[Both], view: Lens) -> Units:
    """What happens to heads, shared experts and all other parts at the last token: "norm_ratio", "cosine" and change of
    "attribution", (prompts, parts) each."""
    columns: dict[str, list[Floats]] = {}
    names: list[str] = []
    for one in layers:
        vectors: list[list[Tensor]] = []
        if one.base_parts is None or one.edited_parts is None:
            continue
        for parts in (one.base_parts, one.edited_parts):
            others = [value[:, None] for value in parts.others.values()]
            vectors.append([*([] if parts.heads is None else [parts.heads]), *others])
        if not vectors[0]:
            continue
        heads = 0 if one.base_parts.heads is None else one.base_parts.heads.shape[1]
        names += [f"L{one.layer}.H{head}" for head in range(heads)]
        names += [f"L{one.layer}.{name}" for name in one.base_parts.others]
        for name, values in _contributions(torch.cat(vectors[0], dim=1), torch.cat(vectors[1], dim=1), view).items():
            columns.setdefault(name, []).append(values)
    return Units(tuple(names), _side_by_side(columns))


def _contributions(before: Tensor, after: Tensor, view: Lens) -> dict[str, Floats]:
    """Norm ratio, cosine and change of attribution, (n, parts) each, of contributions (n, parts, width)."""
    sizes = before.norm(dim=-1), after.norm(dim=-1)
    nan = torch.full_like(sizes[0], torch.nan)
    ratio = torch.where(sizes[0] > 0, sizes[1] / sizes[0], nan)
    product = sizes[0] * sizes[1]
    cosine = torch.where(product > 0, (before * after).sum(dim=-1) / product, nan).clamp(-1, 1)
    # What did not change by a bit has cosine 1, not 1 give or take a rounding.
    still = (before == after).all(dim=-1) & (sizes[0] > 0)
    values = {
        "norm_ratio": ratio,
        "cosine": cosine.masked_fill(still, 1.0),
        "attribution": view.read(after - before),
    }
    return {name: value.double().cpu().numpy() for name, value in values.items()}


def _dense(one: Both, kept: Layer) -> Floats:
    """(rows, experts) the weight each expert was given; 0 where it was not chosen, tiny where its weight was 0."""
    count = experts_of(one.places).experts
    ids, weights = _there(kept.ids), _there(kept.weights).double()
    inside = (ids >= 0) & (ids < count)
    table = torch.zeros(len(ids), count + 1, dtype=torch.float64, device=ids.device)
    # A chosen expert stays chosen when its weight rounds to 0.
    shown = weights.abs().clamp(min=1e-300).masked_fill(~inside, 0)
    table.scatter_add_(1, torch.where(inside, ids, torch.full_like(ids, count)).long(), shown)
    result: Floats = table[:, :count].cpu().numpy()
    return result


def _divergence(one: Both, before: Floats, after: Floats, real: NDArray[np.bool_]) -> Floats:
    """(rows,) bits; 0 at padding."""
    first, second = one.base.scores, one.edited.scores
    pair: list[Floats] = [before, after]
    if first is not None and second is not None and len(first) == len(before) == len(second):
        pair = [
            (scores if are_probabilities(scores) else scores.softmax(dim=-1)).cpu().numpy()
            for scores in (first.double(), second.double())
        ]
    # A position that chose no expert (one that skips the layer) has no distribution; it counts where that changes.
    mass = [table.sum(axis=1) > 0 for table in pair]
    result = np.where(real & (mass[0] != mass[1]), 1.0, 0.0)
    rows = real & mass[0] & mass[1] & (pair[0] != pair[1]).any(axis=1)
    result[rows] = np.maximum(jensen_shannon(pair[0][rows], pair[1][rows]), 0.0)
    return result


def _there(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("the layer has no router that was seen")  # callers ask only layers that have
    return value


def _by_prompt(columns: dict[str, list[Floats]], name: str, values: Floats, real: Tensor) -> None:
    """Add (prompts, units): the mean of (rows, units) over a prompt's positions, and the last position's."""
    prompts, width = real.shape
    shaped = values.reshape(prompts, width, -1)
    mask = real.cpu().numpy()[..., None]
    columns.setdefault(name, []).append(np.where(mask, shaped, 0.0).sum(axis=1) / mask.sum(axis=1))
    columns.setdefault(f"{name}_readout", []).append(shaped[:, -1])


def _side_by_side(columns: dict[str, list[Floats]]) -> dict[str, Floats]:
    return {name: np.concatenate(values, axis=1) for name, values in columns.items()}
