"""One forward's residual stream: what stands in it before and after each layer, and what each layer added.

Only the read-out rows are kept (the last column of each element), but the routers' choices of all rows.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from moeprobe.capture.router import router_scores
from moeprobe.editing import Places
from moeprobe.editing.seen import arguments, first, flat, gated
from moeprobe.errors import CaptureError, InterchangeError


@dataclass
class Layer:
    """What was met in one layer.

    Attributes:
        before, after: (n, width) the stream at the kept rows.
        branches: (n, width) what each direct child of the layer gave that could have been added to the stream.
        heads: (n, count * head width) what goes into attention's output projection.
        shared: (n, width) the shared experts' output, after their gate.
        hidden: (n, width) the experts' input.
        ids, weights: (all rows, k) the router's choice.
        scores: (all rows, experts) what the router's choice was made from, where it says.
        calls: how often the layer ran; more than once cannot be taken apart.
    """

    before: Tensor | None = None
    after: Tensor | None = None
    branches: dict[str, Tensor] = field(default_factory=dict)
    heads: Tensor | None = None
    shared: Tensor | None = None
    hidden: Tensor | None = None
    ids: Tensor | None = None
    weights: Tensor | None = None
    scores: Tensor | None = None
    calls: int = 0


@dataclass
class Stream:
    """What `watching` kept of one forward.

    Attributes:
        rows: (n,) rows of the forward that are kept: the last of each element.
        layers: by layer.
        norm: (n, width) each: what went into the last norm and what came out of it.
        norm_module: that norm, the last one that ran beside the layers.
        head: (n, width), (n, vocabulary): what went into the unembedding and what came out of it.
    """

    rows: Tensor
    layers: dict[int, Layer]
    norm: tuple[Tensor, Tensor] | None = None
    norm_module: nn.Module | None = None
    head: tuple[Tensor, Tensor] | None = None


def trunk(model: PreTrainedModel, places: Mapping[int, Places]) -> nn.Module:
    """The module that holds the layers of `places` and the norm behind them.

    Raises:
        InterchangeError: no module holds them directly.
    """
    wanted = next(iter(places.values())).decoder
    for module in model.modules():
        for child in module.children():
            if isinstance(child, nn.ModuleList) and any(one is wanted for one in child):
                return module
    raise InterchangeError(f"The layers of {type(model).__name__} stand in no list of layers.")


@contextmanager
def watching(model: PreTrainedModel, places: Mapping[int, Places], rows: Tensor) -> Iterator[Stream]:
    """Keep the stream of the one forward inside the block. Watching changes no bit.

    Enter it outside of `writing` and `rerouting`, so that it sees the choice as the router made it.

    Args:
        model: the model.
        places: of all its layers.
        rows: (batch,) the row (element * columns + column) of each element's last column; from `columns_of`.
    """
    stream = Stream(rows, {layer: Layer() for layer in places})
    handles: list[RemovableHandle] = []
    try:
        for layer, one in places.items():
            handles += _layer_hooks(one, stream.layers[layer], rows)
        handles += _end_hooks(model, places, stream)
        yield stream
    finally:
        for handle in handles:
            handle.remove()


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm by the name of its class; no family of transformers names one otherwise."""
    return "norm" in type(module).__name__.lower()


def _layer_hooks(one: Places, kept: Layer, rows: Tensor) -> list[RemovableHandle]:
    def take(value: Tensor) -> Tensor:
        if flat(value).shape[0] <= int(rows.max()):
            raise InterchangeError(f"L{one.layer} is not run on all rows at once; its stream cannot be taken apart.")
        return flat(value)[rows.to(value.device)].detach()

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        kept.calls += 1
        kept.before = take(args[0] if args else kwargs["hidden_states"])

    def leave(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        del module, args
        kept.after = take(first(result))

    handles = [
        one.decoder.register_forward_pre_hook(enter, with_kwargs=True),
        one.decoder.register_forward_hook(leave),
    ]
    handles += [
        child.register_forward_hook(_branch(kept, name, rows))
        for name, child in one.decoder.named_children()
        if not is_norm(child) and not isinstance(child, nn.Dropout | nn.Identity)
    ]
    if one.heads is not None:

        def slices(module: nn.Module, args: tuple[Any, ...]) -> None:
            del module
            kept.heads = take(args[0])

        handles.append(one.heads.module.register_forward_pre_hook(slices))
    return handles + _expert_hooks(one, kept, rows)


def _branch(kept: Layer, name: str, rows: Tensor) -> Any:
    def keep(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        """Keep an output that has the stream's width as a branch."""
        del module, args
        value = result[0] if isinstance(result, tuple | list) and result else result
        if isinstance(value, Tensor) and value.is_floating_point() and kept.before is not None:
            whole = flat(value)
            if whole.shape[-1] == kept.before.shape[-1] and len(whole) > int(rows.max()):
                kept.branches[name] = whole[rows.to(whole.device)].detach()

    return keep


def _expert_hooks(one: Places, kept: Layer, rows: Tensor) -> list[RemovableHandle]:
    if one.experts is None:
        return []
    site = one.experts

    def choice(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        hidden, ids, weights = arguments(args, kwargs)
        kept.hidden = flat(hidden)[rows.to(hidden.device)].detach()
        kept.ids, kept.weights = ids.detach(), weights.detach()

    handles = []
    if site.source is None:
        handles.append(site.module.register_forward_pre_hook(choice, with_kwargs=True))
    if one.router is not None:

        def scored(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
            """Keep the router's scores, where its kind gives them out."""
            del module, args
            try:
                kept.scores = router_scores(site, result)
            except CaptureError:
                kept.scores = None

        handles.append(one.router.register_forward_hook(scored))
    if one.shared is not None:

        def shared(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
            del module
            value = flat(first(result))
            kept.shared = gated(one, flat(args[0]), value)[rows.to(value.device)].detach()

        handles.append(one.shared.register_forward_hook(shared))
    return handles


def _end_hooks(model: PreTrainedModel, places: Mapping[int, Places], stream: Stream) -> list[RemovableHandle]:
    def norm(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        """Keep what the last norm was given and what it returned, at the kept rows."""
        entered, value = flat(args[0]), flat(first(result))
        if entered.shape != value.shape or len(value) <= int(stream.rows.max()):
            return
        rows = stream.rows.to(value.device)
        stream.norm = (entered[rows].detach(), value[rows].detach())
        stream.norm_module = module

    def head(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        del module
        # Of the columns whose logits were asked for, however many, the last is the one that is kept.
        if args[0].dim() == 3 and len(args[0]) == len(stream.rows):
            stream.head = (args[0][:, -1].detach().clone(), first(result)[:, -1].detach().clone())

    handles = [child.register_forward_hook(norm) for child in trunk(model, places).children() if is_norm(child)]
    unembedding = model.get_output_embeddings()
    if unembedding is not None:
        handles.append(unembedding.register_forward_hook(head))
    return handles


def columns_of(mask: Tensor) -> Tensor:
    """(batch,) the row of each element's last column, for a mask (batch, columns) padded on the left."""
    batch, columns = mask.shape
    return torch.arange(batch) * columns + columns - 1
