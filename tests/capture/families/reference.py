"""Routing read by plain hooks on the routers, without anything of moeprobe's capture.

Regular families: the router's return value (scores, weights, ids). The irregular ones are routed again by hand, from
the raw output of the linear layer that makes the logits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

Record = Callable[[Tensor, Tensor], None]


@dataclass
class Seen:
    """Calls of one site, in order: ids (rows, k) with ids beyond the experts as they are, -1 = none; weights."""

    ids: list[NDArray[np.int64]] = field(default_factory=list)
    weights: list[NDArray[np.float32]] = field(default_factory=list)

    def put(self, ids: Tensor, weights: Tensor) -> None:
        rows = ids.reshape(-1, ids.shape[-1]), weights.reshape(-1, ids.shape[-1])
        self.ids.append(rows[0].numpy().astype(np.int64).copy())
        self.weights.append(rows[1].numpy().astype(np.float32).copy())

    def grid(self, sequences: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(sequences, positions, k): one call after another along the positions."""
        parts = [[part.reshape(sequences, -1, part.shape[-1]) for part in kind] for kind in (self.ids, self.weights)]
        return np.concatenate(parts[0], axis=1), np.concatenate(parts[1], axis=1)


@contextmanager
def reading(model: PreTrainedModel, paths: list[str]) -> Iterator[dict[str, Seen]]:
    """By path of the experts module, what its router chose in each call inside the block."""
    seen = {path: Seen() for path in paths}
    handles = [handle for path in paths for handle in _watch(model, path, seen[path].put)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _watch(model: PreTrainedModel, path: str, put: Record) -> list[Any]:
    module, parent = model.get_submodule(path), model.get_submodule(path.rpartition(".")[0])
    kind = type(module).__name__
    if kind in ("JetMoeMoE", "JetMoeMoA"):
        return [module.router.layer.register_forward_hook(lambda m, a, out: put(*softmax_of_best(out, 2)))]
    if kind == "Llama4TextExperts":
        return [parent.router.register_forward_hook(lambda m, a, out: put(*sigmoid_of_best(out[1], 2)))]
    if kind == "SwitchTransformersExperts":
        return [parent.router.classifier.register_forward_hook(lambda m, a, out: put(*switch(out, parent.router)))]
    if kind == "ZayaExperts":
        return [parent.gate.register_forward_hook(lambda m, a, out: put(*zaya(out[0], parent.gate)))]
    if kind == "DogeCDMoE":
        return [*_doge(module, put)]
    if kind == "DbrxExperts":  # its router returns logits alone
        return [parent.router.layer.register_forward_hook(lambda m, a, out: put(*dbrx(out, parent)))]
    router = next(child for name, child in parent.named_children() if name in ("gate", "router"))
    return [router.register_forward_hook(lambda m, a, out: put(out[2], out[1]))]


def softmax_of_best(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    best, ids = logits.float().topk(k, dim=-1)
    return ids, best.softmax(-1)


def sigmoid_of_best(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    best, ids = logits.topk(k, dim=-1)
    return ids, best.sigmoid()


def dbrx(logits: Tensor, block: nn.Module) -> tuple[Tensor, Tensor]:
    weights, ids = logits.reshape(-1, logits.shape[-1]).softmax(-1).topk(block.top_k, dim=-1)
    return ids, weights / weights.sum(-1, keepdim=True)


def switch(logits: Tensor, router: nn.Module) -> tuple[Tensor, Tensor]:
    """First come, first served in each sequence (batch, tokens, E), until an expert has `expert_capacity` tokens."""
    chosen, ids = logits.float().softmax(-1).max(-1)
    taken = torch.zeros(logits.shape[0], logits.shape[-1], dtype=torch.long)
    for place in np.ndindex(*ids.shape):
        expert = int(ids[place])
        taken[place[0], expert] += 1
        if taken[place[0], expert] > router.expert_capacity:
            ids[place] = -1
    return ids[..., None], chosen[..., None]


def zaya(logits: Tensor, router: nn.Module) -> tuple[Tensor, Tensor]:
    """Class E of the router is "skip": no expert."""
    scores = logits.softmax(-1)
    ids = (scores + router.balancing_biases).argmax(-1, keepdim=True)
    weights = scores.gather(-1, ids)
    return torch.where(ids == router.num_experts, -1, ids), torch.where(ids == router.num_experts, 0.0, weights)


def _doge(block: nn.Module, put: Record) -> Iterator[Any]:
    """Ids as they are looked up; weights from the linear layer's raw output, one pair of keys after another."""
    raw: list[Tensor] = []
    yield block.router_gate.register_forward_hook(lambda m, a, out: raw.append(out.reshape(2, -1, block.num_keys)))

    def looked_up(module: nn.Module, args: tuple[Any, ...]) -> None:
        ids, logits = args[0], raw.pop()
        rows = torch.arange(len(ids))[:, None]
        scores = logits[0][rows, ids // block.num_keys] + logits[1][rows, ids % block.num_keys]
        put(ids, scores.softmax(-1))

    yield block.down_embed.register_forward_pre_hook(looked_up)
