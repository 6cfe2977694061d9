"""Taps that read one tensor of one layer."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from moeprobe.capture.attach import read_routing
from moeprobe.capture.discover import ExpertsSite
from moeprobe.capture.router import are_probabilities, block_of, find_router, router_scores
from moeprobe.capture.stacks import split
from moeprobe.capture.tap import Tap
from moeprobe.capture.tape import Tape
from moeprobe.capture.wrap import unwatched
from moeprobe.errors import CaptureError


class LayerTap(Tap):
    """A tap of one layer of experts.

    Args:
        model: the model.
        site: the layer.
    """

    kind = ""

    def __init__(self, model: PreTrainedModel, site: ExpertsSite) -> None:
        self.model, self.site, self.stack = model, site, site.stack
        self.names = (f"{site.name}.{self.kind}",)

    @classmethod
    def exists(cls, model: PreTrainedModel, site: ExpertsSite) -> bool:
        """Whether the layer has this signal."""
        del model, site
        return True


class LogitsTap(LayerTap):
    """What the router returned for every expert, (rows, E); named "probabilities" where a softmax was applied."""

    kind = "logits"

    def attach(self, recorder: Any) -> list[RemovableHandle]:
        """Read what the router returns."""

        def take(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            """Put the layer's output on the tape, while its stack is running."""
            """Keep the layer's output."""
            del module, args
            if recorder.running(self.stack):
                recorder.tape.put(self.names[0], router_scores(self.site, output))

        return [find_router(self.model, self.site).register_forward_hook(take)]

    def arrays(self, tape: Tape) -> dict[str, NDArray[np.generic]]:
        scores = tape.array(self.names[0])
        kind = "probabilities" if are_probabilities(torch.from_numpy(scores)) else "logits"
        return {f"{self.site.name}.{kind}": scores}


class SharedGateTap(LayerTap):
    """The weight of the shared expert, where a learned gate gives one (Qwen2-MoE, Qwen3-Next, Qwen3.5-MoE)."""

    kind = "shared_gate"

    @classmethod
    def exists(cls, model: PreTrainedModel, site: ExpertsSite) -> bool:
        return isinstance(getattr(block_of(model, site), "shared_expert_gate", None), nn.Module)

    def attach(self, recorder: Any) -> list[RemovableHandle]:
        """Read the gate's output, and apply the sigmoid the block applies."""

        def take(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            del module, args
            if recorder.running(self.stack):
                recorder.tape.put(self.names[0], torch.sigmoid(output.detach()).reshape(-1))

        gate: nn.Module = block_of(self.model, self.site).shared_expert_gate  # type: ignore[assignment]
        return [gate.register_forward_hook(take)]


class RouterInputTap(LayerTap):
    """The vectors the router reads, (rows, width)."""

    kind = "router_input"

    def attach(self, recorder: Any) -> list[RemovableHandle]:
        """Read what the router is given."""

        def take(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            """Keep the router's input."""
            del module
            if recorder.running(self.stack):
                hidden = args[0] if args else next(iter(kwargs.values()))
                # A copy: in-place operations may follow, and a view would keep more alive than itself.
                recorder.tape.put(self.names[0], hidden.detach().reshape(-1, hidden.shape[-1]).clone())

        return [find_router(self.model, self.site).register_forward_pre_hook(take, with_kwargs=True)]


class NormsTap(LayerTap):
    """Euclidean length of the output of each chosen expert before its weight, (rows, k); absent choices give 0.

    The experts module is called once more per choice, as its own oracle with k = 1 and weight 1, so this costs about
    as much as the experts do.
    """

    kind = "norms"

    @classmethod
    def exists(cls, model: PreTrainedModel, site: ExpertsSite) -> bool:
        del model
        return site.source is None

    def attach(self, recorder: Any) -> list[RemovableHandle]:
        """Run each chosen expert once more beside the block's own run."""

        def take(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if recorder.running(self.stack):
                ids, _ = read_routing(self.site, args, kwargs, None)
                hidden = args[0] if args else kwargs["hidden_states"]
                recorder.tape.put(self.names[0], self._norms(unwatched(module), hidden, ids))

        return [self.site.module.register_forward_pre_hook(take, with_kwargs=True)]

    def _norms(self, experts: Callable[..., Tensor], hidden: Tensor, ids: Tensor) -> Tensor:
        columns = []
        for choice in range(ids.shape[1]):
            one = ids[:, choice : choice + 1]
            present = (one >= 0) & (one < self.site.experts)
            # Two slots, the second with weight 0: LongCat's loop does not run with one.
            slots = torch.where(present, one, torch.zeros_like(one)).expand(-1, 2).contiguous()
            weights = torch.tensor([1.0, 0.0], dtype=hidden.dtype, device=hidden.device).expand(len(one), -1)
            output = experts(hidden, slots, weights.contiguous())
            length = output.detach().reshape(len(one), -1).float().norm(dim=-1)
            columns.append(torch.where(present[:, 0], length, torch.zeros_like(length)))
        return torch.stack(columns, dim=1)


class ResidualTap(Tap):
    """The residual stream after a decoder layer of the main stack, (rows, width).

    Args:
        model: the model.
        sites: its recorded sites, from whose paths the list of layers is found.
        layer: the model's own layer index; dense layers too.

    Raises:
        CaptureError: no such layer.
    """

    def __init__(self, model: PreTrainedModel, sites: Sequence[ExpertsSite], layer: int) -> None:
        self.names = (f"residual.L{layer}",)
        main = next((site for site in sites if site.stack == ""), None)
        layers = None if main is None else model.get_submodule(".".join(split(main.path)[0]))
        if not isinstance(layers, nn.ModuleList) or layer >= len(layers):
            count = len(layers) if isinstance(layers, nn.ModuleList) else 0
            raise CaptureError(f"residual:{layer}: the model has {count} layers, counted from 0.")
        self.layer = layers[layer]

    def attach(self, recorder: Any) -> list[RemovableHandle]:
        """Read what the decoder layer returns."""

        def take(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            """Put the hidden states (rows, width) on the tape, while the text's own stack runs."""
            del module, args
            if recorder.running(self.stack):
                hidden = output[0] if isinstance(output, tuple) else output
                if not isinstance(hidden, Tensor):
                    raise CaptureError(f"{self.names[0]}: the layer returned {type(hidden).__name__}, no tensor.")
                rows = recorder.stacks[self.stack].current.rows
                recorder.tape.put(self.names[0], hidden.detach().reshape(rows, -1).clone())

        return [self.layer.register_forward_hook(take)]
