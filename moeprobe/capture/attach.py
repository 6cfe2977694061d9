"""Attaching to a model: what must not be compiled, replaced or silent."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprobe.capture.discover import ExpertsSite
from moeprobe.errors import CaptureError

_IDS = ("top_k_index", "router_indices", "selected_experts", "topk_indices", "topk_index")
_WEIGHTS = ("top_k_weights", "routing_weights", "topk_weights", "router_weights", "expert_weights")
# Classes that run experts without calling the experts module: hooks on it would see nothing, or the wrong thing.
_BYPASSING = {
    "Mxfp4GptOssMLP": "it runs MXFP4 kernels on the router's weights; load with Mxfp4Config(dequantize=True)",
    "MegaBlocksMoeMLP": "it is a hub kernel; load with use_kernels=False",
}


def refuse_compiled(model: PreTrainedModel) -> None:
    """Raise when some part of `model` was compiled: hooks installed now would be skipped without a word.

    Raises:
        CaptureError: names the part.
    """
    for path, module in model.named_modules():
        compiled = isinstance(module, torch._dynamo.OptimizedModule) or module._compiled_call_impl is not None
        # `model.forward = torch.compile(model.forward)` is how many recipes do it.
        replaced = hasattr(module.__dict__.get("forward"), "_torchdynamo_orig_callable")
        if compiled or replaced:
            part = "The model" if path == "" else f"{path} of the model"
            raise CaptureError(
                f"{part} is compiled, and compiled code skips recording hooks silently. "
                "Load it anew without torch.compile."
            )


def refuse_bypassing(model: PreTrainedModel) -> None:
    """Raise when a block is of a class known to run experts without calling them.

    Raises:
        CaptureError: names the block and the remedy.
    """
    for path, module in model.named_modules():
        reason = _BYPASSING.get(type(module).__name__)
        if reason is not None:
            raise CaptureError(f"{path} is a {type(module).__name__}, whose routing cannot be seen: {reason}.")


def read_routing(
    site: ExpertsSite, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
) -> tuple[Tensor, Tensor]:
    """Expert ids and weights, both (tokens, k), of one call at a site.

    Raises:
        CaptureError: tensors of another shape or type.
    """
    if site.source is not None:
        ids, weights = site.source.read(args, kwargs, output)
    else:
        ids = args[1] if len(args) > 1 else _named(kwargs, _IDS)
        weights = args[2] if len(args) > 2 else _named(kwargs, _WEIGHTS)
    usable = isinstance(ids, Tensor) and isinstance(weights, Tensor)
    if not usable or ids.dim() != 2 or ids.shape != weights.shape or ids.is_floating_point():
        shapes = [tuple(one.shape) if isinstance(one, Tensor) else None for one in (ids, weights)]
        raise CaptureError(f"{site.name}: expected expert ids and weights of shape (tokens, k), got {shapes}.")
    return ids.detach(), weights.detach()


def seam(site: ExpertsSite) -> tuple[nn.Module, bool]:
    """The module that is hooked at a site, and whether its routing is read when it is called (else on return)."""
    return (site.module, True) if site.source is None else (site.source.module, site.source.when == "call")


def _named(kwargs: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((kwargs[name] for name in names if name in kwargs), None)
