"""Attaching to a model: what must not be compiled, replaced or silent."""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprobe.capture.discover import ID_NAMES, WEIGHT_NAMES, ExpertsSite
from moeprobe.errors import CaptureError

# Classes that run experts without calling the experts module: hooks on it would see nothing, or the wrong thing.
_BYPASSING = {
    "Mxfp4GptOssMLP": "it runs MXFP4 kernels on the router's weights; load with Mxfp4Config(dequantize=True)",
    "MegaBlocksMoeMLP": "it is a hub kernel; load with use_kernels=False",
}
# transformers has these in kernels for accelerators only; a CPU would fail within the first forward.
_NOT_ON_CPU = ("FP8Linear", "FP8GroupedLinear", "FP8Experts")


def refuse_compiled(model: PreTrainedModel) -> None:
    """Raise when some part of `model` was compiled: hooks installed now would be skipped without a word.

    Raises:
        CaptureError: names the part.
    """
    for path, module in model.named_modules():
        compiled = isinstance(module, torch._dynamo.OptimizedModule) or module._compiled_call_impl is not None
        # `model.forward = torch.compile(model.forward)` is how many recipes do it; some do it to the class.
        replaced = hasattr(module.forward, "_torchdynamo_orig_callable")
        # What generate compiled for itself in an earlier call, and would use again.
        kept = "_compiled_call" in module.__dict__
        if compiled or replaced or kept:
            part = "The model" if path == "" else f"{path} of the model"
            raise CaptureError(
                f"{part} is compiled, and compiled code skips recording hooks silently. "
                "Load it anew without torch.compile."
            )


def refuse_bypassing(model: PreTrainedModel) -> None:
    """Raise when a block is of a class known to run experts without calling them, or one that cannot run here.

    Raises:
        CaptureError: names the block and the remedy.
    """
    for path, module in model.named_modules():
        kind = type(module).__name__
        if kind in _BYPASSING:
            raise CaptureError(f"{path} is a {kind}, whose routing cannot be seen: {_BYPASSING[kind]}.")
        packed = [one for one in module.parameters(recurse=False) if one.element_size() == 1]
        if kind in _NOT_ON_CPU and any(one.device.type == "cpu" for one in packed):
            raise CaptureError(
                f"{path} is a {kind}, whose FP8 kernels do not run on the CPU. Move the model to a GPU, or load it "
                "with FineGrainedFP8Config(dequantize=True)."
            )


def read_routing(
    site: ExpertsSite, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
) -> tuple[Tensor, Tensor]:
    """Expert ids and weights, both (tokens, k), of one call at a site.

    Raises:
        CaptureError: tensors of another shape or type.
    """
    if site.source is not None:
        # An adapter's own top-k is no choice of the model: modes that watch for those must not see it.
        with contextlib.nullcontext() if torch.compiler.is_compiling() else torch._C.DisableTorchFunction():
            ids, weights = site.source.read(args, kwargs, output)
    else:
        ids = args[1] if len(args) > 1 else _named(kwargs, ID_NAMES)
        weights = args[2] if len(args) > 2 else _named(kwargs, WEIGHT_NAMES)
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
