"""Recording which experts a model chose, while it runs, without changing what it computes.

A row's identity is its absolute position: cache length before the forward plus offset; the last write wins. After
every forward the recorder asserts that each layer recorded exactly the rows that were forwarded.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from moeprobe.capture.discover import ExpertsSite, find_experts
from moeprobe.errors import CaptureError

# Converting once per 64 forwards keeps the cost of a decode step near that of an empty hook.
_FLUSH_EVERY = 64


@dataclass(frozen=True)
class LayerRouting:
    """Routing of one layer over a batch, in padded coordinates.

    Attributes:
        experts: (sequences, positions, k) int64; -1 where a choice is absent.
        weights: (sequences, positions, k) float32, gate weights as the model computed them.
    """

    experts: NDArray[np.int64]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class _Forward:
    past: int
    sequences: int
    tokens: int


class Recorder:
    """Context manager that records routing of every forward of `model` while it is open.

    The hooks keep references to the id and weight tensors the experts receive; they compute nothing, so logits stay
    bitwise equal. Use one recorder per batch of `generate`:

        with Recorder(model) as recorder:
            model.generate(...)
        routing = recorder.routing()        # {layer: LayerRouting}

    Raises:
        CaptureError: on entering, when the model was compiled (hooks would be skipped silently); after a forward in
            which a layer recorded no rows, too many, or tensors of another shape.
        ModelError: the model has no experts that can be recorded.
    """

    def __init__(self, model: PreTrainedModel, sites: list[ExpertsSite] | None = None) -> None:
        self.model = model
        self.sites = find_experts(model) if sites is None else sites
        self._handles: list[RemovableHandle] = []
        self._forwards: list[_Forward] = []
        self._current: _Forward | None = None
        self._pending: dict[int, list[tuple[Tensor, Tensor]]] = {site.layer: [] for site in self.sites}
        self._done: dict[int, list[tuple[Tensor, Tensor]]] = {site.layer: [] for site in self.sites}

    def __enter__(self) -> "Recorder":
        if isinstance(self.model, torch._dynamo.OptimizedModule) or self.model._compiled_call_impl is not None:
            raise CaptureError(
                "The model is compiled, and compiled code skips recording hooks silently. "
                "Load it anew without torch.compile."
            )
        self._handles = [
            self.model.register_forward_pre_hook(self._begin, with_kwargs=True),
            self.model.register_forward_hook(self._end),
        ]
        for site in self.sites:
            self._handles.append(site.module.register_forward_pre_hook(self._hook(site), with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def routing(self) -> dict[int, LayerRouting]:
        """Everything recorded, by layer. Positions count padding; later forwards overwrite earlier ones.

        Raises:
            CaptureError: nothing was forwarded, or the number of sequences changed between forwards.
        """
        self._flush()
        if not self._forwards:
            raise CaptureError("The model ran no forward pass while it was recorded, so there is no routing.")
        if len({forward.sequences for forward in self._forwards}) > 1:
            raise CaptureError("The number of sequences changed during the run; beams are not supported yet.")
        return {site.layer: self._assemble(site) for site in self.sites}

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        inputs = kwargs.get("input_ids", args[0] if args else None)
        inputs = kwargs.get("inputs_embeds") if inputs is None else inputs
        if inputs is None:
            raise CaptureError("The model was called without input_ids or inputs_embeds; rows have no place.")
        cache = kwargs.get("past_key_values")
        past = 0 if cache is None else int(cache.get_seq_length())
        self._current = _Forward(past, int(inputs.shape[0]), int(inputs.shape[1]))

    def _hook(self, site: ExpertsSite) -> Any:
        names = ("top_k_index", "router_indices"), ("top_k_weights", "routing_weights")

        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            del module
            ids = args[1] if len(args) > 1 else next((kwargs[name] for name in names[0] if name in kwargs), None)
            weights = args[2] if len(args) > 2 else next((kwargs[name] for name in names[1] if name in kwargs), None)
            if ids is None or weights is None or ids.dim() != 2 or ids.shape != weights.shape:
                shapes = [None if tensor is None else tuple(tensor.shape) for tensor in (ids, weights)]
                raise CaptureError(
                    f"L{site.layer}: expected expert ids and weights of shape (tokens, k), got {shapes}."
                )
            # Fresh tensors at each call, so a reference is enough; a copy would cost a kernel per layer and step.
            self._pending[site.layer].append((ids.detach(), weights.detach()))

        return record

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        del module, args, output
        forward = self._current
        if forward is None:
            raise CaptureError("A forward pass ended that never began. This is a bug in moeprobe.")
        waiting = len(self._forwards) % _FLUSH_EVERY + 1
        rows = forward.sequences * forward.tokens
        for site in self.sites:
            entries = self._pending[site.layer]
            if len(entries) != waiting or len(entries[-1][0]) != rows:
                got = sum(len(ids) for ids, _ in entries[waiting - 1 :])
                raise CaptureError(
                    f"L{site.layer} ({site.path}) recorded {got} rows of {rows} forwarded: bypassed or "
                    "run twice (a fused kernel, torch.compile, gradient checkpointing); turn that off and run again."
                )
        self._forwards.append(forward)
        self._current = None
        if len(self._forwards) % _FLUSH_EVERY == 0:
            self._flush()

    def _flush(self) -> None:
        """Join pending tensors and narrow the ids; they stay on their device until `routing`."""
        for layer, entries in self._pending.items():
            if entries:
                ids = torch.cat([ids for ids, _ in entries]).to(torch.int32)
                self._done[layer].append((ids, torch.cat([weights for _, weights in entries])))
                entries.clear()

    def _assemble(self, site: ExpertsSite) -> LayerRouting:
        ids = torch.cat([part for part, _ in self._done[site.layer]]).cpu().numpy().astype(np.int64)
        weights = torch.cat([part for _, part in self._done[site.layer]]).float().cpu().numpy()
        if not np.isfinite(weights).all():
            raise CaptureError(
                f"L{site.layer}: the router gave NaN or infinite weights, so this run says nothing. Try another dtype."
            )
        sequences = self._forwards[0].sequences
        length = max(forward.past + forward.tokens for forward in self._forwards)
        shape = (sequences, length, ids.shape[1])
        experts, gates = np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        row = 0
        for forward in self._forwards:
            stop = row + sequences * forward.tokens
            place = slice(forward.past, forward.past + forward.tokens)
            experts[:, place] = ids[row:stop].reshape(sequences, forward.tokens, -1)
            gates[:, place] = weights[row:stop].reshape(sequences, forward.tokens, -1)
            row = stop
        # Some routers mark an absent choice by an id outside the experts (sentinels, zero-computation experts).
        absent = (experts < 0) | (experts >= site.experts)
        return LayerRouting(np.where(absent, -1, experts), np.where(absent, np.float32(0), gates))
