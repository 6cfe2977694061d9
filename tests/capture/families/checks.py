"""What is checked of each family: runs with both kinds of hooks, and comparisons that a wrong record fails."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from moeprobe.capture import ExpertsSite, LayerRouting, Recorder, find_experts
from tests.capture.families.identity import Parts, block_output, watching
from tests.capture.families.reference import reading

PROMPT, SHORT, NEW = 9, 6, 6
WEIGHTS_AGREE, OUTPUTS_AGREE = 1e-5, 1e-5
Routing = Mapping[str, LayerRouting]
Plain = Mapping[str, tuple[NDArray[np.int64], NDArray[np.float32]]]


def prompts() -> tuple[Tensor, Tensor]:
    """Two prompts of 9 and 6 tokens, padded on the left: ids and mask (2, 9)."""
    ids = torch.randint(3, 90, (2, PROMPT), generator=torch.Generator().manual_seed(7))
    mask = torch.ones_like(ids)
    mask[1, : PROMPT - SHORT] = 0
    return ids * mask, mask


@dataclass(frozen=True)
class Run:
    """One run of a model.

    Attributes:
        tokens: (2, positions) of the main stack; for encoder-decoders those of the decoder.
        logits: (steps, 2, vocabulary), or (2, positions, width) of one forward.
        routing: by site name, from the Recorder, (2, positions, k).
        plain: by site name, (ids, weights) of plain hooks, of the same shape. Ids beyond the experts stay as they are.
    """

    tokens: Tensor
    logits: Tensor
    routing: Routing
    plain: Plain


def text_sites(model: PreTrainedModel) -> list[ExpertsSite]:
    """The sites that text reaches."""
    return [site for site in find_experts(model) if site.stack not in ("vision", "talker")]


def generate(model: PreTrainedModel, **changes: Any) -> tuple[Tensor, Tensor]:
    """Greedy tokens (2, positions) and logits (steps, 2, vocabulary)."""
    ids, mask = prompts()
    options = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": NEW, "min_new_tokens": NEW} | changes
    with torch.inference_mode():
        out = model.generate(**options, do_sample=False, return_dict_in_generate=True, output_logits=True)
    return out.sequences, torch.stack(out.logits)


def forward(model: PreTrainedModel, **changes: Any) -> tuple[Tensor, Tensor]:
    """The prompts' tokens, and what one forward of them gives (logits, or hidden states)."""
    ids, mask = prompts()
    takes = inspect.signature(model.forward).parameters
    options = {"input_ids": ids, "attention_mask": mask} | ({"use_cache": False} if "use_cache" in takes else {})
    if model.config.is_encoder_decoder or "decoder_input_ids" in takes:
        options["decoder_input_ids"] = ids.clamp(min=1)
    options |= changes
    with torch.inference_mode():
        out = model(**options)
    return options["input_ids"], out.logits if "logits" in out else out.last_hidden_state


def recorded(model: PreTrainedModel, how: Any = generate, **changes: Any) -> Run:
    """A run with both kinds of hooks."""
    sites = find_experts(model)
    with reading(model, [site.path for site in sites]) as seen, Recorder(model, sites) as recorder:
        tokens, logits = how(model, **changes)
    plain = {site.name: seen[site.path].grid(len(tokens)) for site in sites if seen[site.path].ids}
    routing = {name: _from(layer, plain[name][0].shape[1]) for name, layer in recorder.routing().items()}
    return Run(tokens, logits, routing, plain)


def _from(layer: LayerRouting, positions: int) -> LayerRouting:
    """Block diffusion's decoder stands behind the cache of its encoder: its rows are the last ones, and only those."""
    before = layer.experts.shape[1] - positions
    assert (layer.experts[:, :before] == -1).all()
    return LayerRouting(layer.experts[:, before:], layer.weights[:, before:])


def teacher_forced(model: PreTrainedModel, run: Run) -> Run:
    """The tokens of `run`, all but the last, in one forward without a cache (the first of a generate without one)."""
    fed = run.tokens[:, :-1]
    if model.config.is_encoder_decoder:
        changes = {"decoder_input_ids": fed}
    else:
        _, mask = prompts()
        changes = {"input_ids": fed, "attention_mask": torch.cat([mask, torch.ones(2, NEW - 1, dtype=mask.dtype)], 1)}
    return recorded(model, **changes, max_new_tokens=1, min_new_tokens=1, use_cache=False)


def real_rows(model: PreTrainedModel, name: str, positions: int) -> NDArray[np.bool_]:
    """(2, positions) True where a row is no padding. A decoder of an encoder-decoder has none."""
    real = np.ones((2, positions), dtype=bool)
    if not model.config.is_encoder_decoder or name.startswith("encoder"):
        real[1, : PROMPT - SHORT] = False
    return real


@dataclass(frozen=True)
class Difference:
    """How two records differ: choices whose ids do, and the largest difference of weights where they agree."""

    ids: int
    weights: float

    @property
    def none(self) -> bool:
        return self.ids == 0 and self.weights <= WEIGHTS_AGREE


def compare(model: PreTrainedModel, one: Routing, other: Routing) -> Difference:
    """Two records of the same tokens. A layer that only one of them has counts with all its choices."""
    ids, weights = 0, 0.0
    for name in one.keys() | other.keys():
        if name not in one or name not in other:
            ids += (one.get(name) or other[name]).experts.size
            continue
        first, second = one[name], other[name]
        if first.experts.shape != second.experts.shape:
            ids += max(first.experts.size, second.experts.size)
            continue
        real = real_rows(model, name, first.experts.shape[1])
        differ = (first.experts != second.experts)[real]
        ids += int(differ.sum())
        apart = np.abs(first.weights - second.weights)[real][~differ]
        weights = max(weights, float(apart.max(initial=0.0)))
    return Difference(ids, weights)


def as_routing(model: PreTrainedModel, plain: Plain) -> dict[str, LayerRouting]:
    """Plain hooks' reading in the recorder's terms: no expert is -1 with weight 0."""
    experts = {site.name: site.experts for site in find_experts(model)}
    routing = {}
    for name, (ids, weights) in plain.items():
        absent = (ids < 0) | (ids >= experts[name])
        routing[name] = LayerRouting(np.where(absent, -1, ids), np.where(absent, np.float32(0), weights))
    return routing


@dataclass(frozen=True)
class Blocks:
    """One forward of the prompts, with the parts of every block."""

    run: Run
    parts: Mapping[str, Parts]


def blocks(model: PreTrainedModel) -> Blocks:
    """One forward of the prompts."""
    sites = text_sites(model)
    with watching(model, sites) as parts:
        run = recorded(model, forward)
    for site in sites:
        ids, weights = run.plain[site.name]
        absent = np.where(ids >= site.experts, weights, 0).sum(-1).reshape(-1, 1)
        parts[site.name].raw["absent weight"] = torch.from_numpy(absent)
    return Blocks(run, parts)


def identity(model: PreTrainedModel, seen: Blocks, routing: Routing) -> float:
    """Largest difference between a block's output and the one that follows from `routing`, relative to the block's
    largest output; infinite where a layer is not in `routing`."""
    worst = 0.0
    for site in text_sites(model):
        if site.name not in routing:
            return float("inf")
        parts = seen.parts[site.name]
        with torch.inference_mode():
            follows = block_output(model, site, routing[site.name], parts)
        worst = max(worst, float((follows - parts.whole).abs().max() / parts.whole.abs().max()))
    return worst


@dataclass(frozen=True)
class Counts:
    """Choices of real tokens: in the record, and as they must be (tokens * k less those without an expert)."""

    recorded: int
    due: int


def counts(model: PreTrainedModel, run: Run, routing: Routing) -> Counts:
    """Sum of the counts by expert over all layers; what is due comes from the plain hooks."""
    found = due = 0
    for site in text_sites(model):
        ids, _ = run.plain[site.name]
        real = real_rows(model, site.name, ids.shape[1])
        due += int(((ids >= 0) & (ids < site.experts))[real].sum())
        if site.name in routing and routing[site.name].experts.shape == ids.shape:
            chosen = routing[site.name].experts[real]
            inside = chosen[(chosen >= 0) & (chosen < site.experts)]
            found += int(np.bincount(inside, minlength=site.experts).sum())
    return Counts(found, due)
