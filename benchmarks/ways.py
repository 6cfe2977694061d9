"""Ways to get the chosen experts of every token and layer, each behind the same four calls."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprobe.capture import Recorder, find_experts
from moeprobe.capture.signals import make_taps
from moeprobe.capture.tape import FLUSH_EVERY

Routing = dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]]


class Way:
    """The plain model, and base of all ways of recording it.

    Attributes:
        name: in the table.
        records: whether `finish` gives routing.
        generates: whether it can record a call of generate.
    """

    name = "plain"
    records = False
    generates = True

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def __enter__(self) -> "Way":
        return self

    def __exit__(self, *error: object) -> None:
        """Remove what was installed."""

    def step(self, ids: Tensor, cache: Any) -> Any:
        """One forward pass; returns the cache. ids: (sequences, tokens)."""
        return self.call(ids, cache).past_key_values

    def generate(self, ids: Tensor, tokens: int) -> object:
        """A greedy answer of `tokens` tokens."""
        return self.model.generate(ids, max_new_tokens=tokens, do_sample=False)

    def settle(self) -> None:
        """Work that is due now and then in a long run; its time is counted apart from the steps."""

    def finish(self) -> Routing:
        """What was recorded since the last call, {layer: (ids (tokens, k), weights (tokens, k))} as arrays."""
        return {}

    def call(self, ids: Tensor, cache: Any, **options: Any) -> Any:
        return self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **options)


class EmptyHook(Way):
    """What torch itself takes for a hook on each experts module: no recorder in Python can cost less."""

    name = "empty hook"

    def __enter__(self) -> "EmptyHook":
        def nothing(module: nn.Module, args: tuple[Any, ...]) -> None:
            del module, args

        self.handles = [site.module.register_forward_pre_hook(nothing) for site in find_experts(self.model)]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()


class Moeprobe(Way):
    """moeprobe's Recorder, with other signals beside ids and weights where `what` names them."""

    name = "moeprobe"
    records = True
    what: tuple[str, ...] = ()

    def __enter__(self) -> "Moeprobe":
        self.recorder = self.opened().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.recorder.__exit__(None, None, None)

    def opened(self) -> Recorder:
        sites = find_experts(self.model)
        return Recorder(self.model, sites, make_taps(self.model, sites, self.what))

    def generate(self, ids: Tensor, tokens: int) -> object:
        # As the product does it: opened, run, read, closed, all within the time.
        with self.opened() as recorder:
            super().generate(ids, tokens)
        return recorder.routing()

    def settle(self) -> None:
        if max(stack.unflushed for stack in self.recorder.stacks.values()) >= FLUSH_EVERY - 1:
            self.recorder.flush()

    def finish(self) -> Routing:
        layers = self.recorder.recording().layers
        self.recorder.clear()
        return {int(name[1:]): (layer.experts, layer.weights) for name, layer in layers.items()}


class WithMargin(Moeprobe):
    name = "moeprobe + margin"
    what = ("margin",)


class WithLogits(Moeprobe):
    name = "moeprobe + logits"
    what = ("logits",)


class WithNorms(Moeprobe):
    name = "moeprobe + norms"
    what = ("norms",)


class Lists(Way):
    """The hook most people write: `.cpu().tolist()` of ids and weights at each call."""

    name = "naive .cpu().tolist()"
    records = True

    def __enter__(self) -> "Lists":
        self.rows: dict[int, tuple[list[list[int]], list[list[float]]]] = {}
        self.handles = [
            site.module.register_forward_pre_hook(self._hook(site.layer)) for site in find_experts(self.model)
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def generate(self, ids: Tensor, tokens: int) -> object:
        with self:
            super().generate(ids, tokens)
        return self.finish()

    def finish(self) -> Routing:
        done = {
            layer: (np.array(ids, dtype=np.int64), np.array(weights, dtype=np.float32))
            for layer, (ids, weights) in self.rows.items()
        }
        for ids, weights in self.rows.values():
            ids.clear()
            weights.clear()
        return done

    def _hook(self, layer: int) -> Any:
        kept = self.rows[layer] = ([], [])

        def take(module: nn.Module, args: tuple[Any, ...]) -> None:
            del module
            kept[0].extend(args[1].cpu().tolist())
            kept[1].extend(args[2].cpu().tolist())

        return take


class RouterLogits(Way):
    """transformers' own `output_router_logits=True`; ids and weights computed again from the logits at the end, as
    Qwen3MoE's router does. generate() never returns them."""

    name = "output_router_logits"
    records = True
    generates = False

    def __enter__(self) -> "RouterLogits":
        self.kept: list[tuple[Tensor, ...]] = []
        return self

    def step(self, ids: Tensor, cache: Any) -> Any:
        output = self.call(ids, cache, output_router_logits=True)
        self.kept.append(output.router_logits)
        return output.past_key_values

    def finish(self) -> Routing:
        k = self.model.config.num_experts_per_tok
        done: Routing = {}
        for layer, parts in enumerate(zip(*self.kept, strict=True)):
            weights, ids = torch.cat(parts).float().softmax(-1).topk(k, dim=-1)
            weights = weights / weights.sum(-1, keepdim=True)
            done[layer] = (ids.cpu().numpy(), weights.cpu().numpy())
        self.kept.clear()
        return done


OWN: tuple[type[Way], ...] = (EmptyHook, Moeprobe, Lists, RouterLogits)
SIGNALS: tuple[type[Way], ...] = (WithMargin, WithLogits, WithNorms)


def agreement(got: Routing, reference: Routing) -> float:
    """Share of (token, choice) ids that equal the reference's.

    Raises:
        ValueError: other layers, or another shape: it does not do the same job.
    """
    shapes = [{layer: pair[0].shape for layer, pair in routing.items()} for routing in (got, reference)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"another job: layers and shapes {shapes[0]} against {shapes[1]}")
    same = [got[layer][0] == reference[layer][0] for layer in reference]
    return float(np.mean([part.mean() for part in same]))


def entered(stack: ExitStack, kinds: Sequence[type[Way]], models: Sequence[PreTrainedModel]) -> list[Way]:
    """Ways, installed until `stack` closes, each on a model of its own."""
    return [stack.enter_context(kind(model)) for kind, model in zip(kinds, models, strict=True)]
