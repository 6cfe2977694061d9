"""Experts written out by hand from their raw weights, and a layer patched by hand: nothing of moeprobe's editing.

`EXPERTS[class name](module, expert, x)` is E(x) (rows, width) of one expert, from the formulas of transformers 5.23.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from moeprobe.capture import ExpertsSite


def silu(x: Tensor) -> Tensor:
    return nn.functional.silu(x)


def gelu(x: Tensor) -> Tensor:
    return nn.functional.gelu(x, approximate="tanh")


def gated(module: Any, expert: int, x: Tensor, act: Callable[[Tensor], Tensor] = silu) -> Tensor:
    """down(act(gate x) * up x), gate above up in one matrix (2 inner, width)."""
    inner = module.down_proj.shape[2]
    gate, up = linear(x, module.gate_up_proj[expert, :inner]), linear(x, module.gate_up_proj[expert, inner:])
    return linear(act(gate) * up, module.down_proj[expert])


def transposed(module: Any, expert: int, x: Tensor) -> Tensor:
    """Aria keeps (width, 2 inner) and (inner, width)."""
    gate, up = (x @ module.gate_up_proj[expert]).chunk(2, dim=-1)
    return (silu(gate) * up) @ module.down_proj[expert]


def gpt_oss(module: Any, expert: int, x: Tensor) -> Tensor:
    """Gate and up interleaved, with biases, clamped at 7; gate * sigmoid(1.702 gate) * (up + 1)."""
    both = x @ module.gate_up_proj[expert] + module.gate_up_proj_bias[expert]
    gate, up = both[:, 0::2].clamp(max=7.0), both[:, 1::2].clamp(-7.0, 7.0)
    return ((up + 1) * (gate * torch.sigmoid(1.702 * gate))) @ module.down_proj[expert] + module.down_proj_bias[expert]


def ungated(module: Any, expert: int, x: Tensor) -> Tensor:
    """Nemotron-H: down(relu(up x) squared)."""
    return linear(torch.relu(linear(x, module.up_proj[expert])).square(), module.down_proj[expert])


def clamped_before(module: Any, expert: int, x: Tensor) -> Tensor:
    """DeepSeek V4 clamps gate and up, then multiplies."""
    gate, up = linear(x, module.gate_up_proj[expert]).chunk(2, dim=-1)
    limit = module.limit
    return linear(silu(gate.clamp(max=limit)) * up.clamp(-limit, limit), module.down_proj[expert])


def clamped_after(module: Any, expert: int, x: Tensor) -> Tensor:
    """Step 3.7 clamps the activated gate."""
    gate, up = linear(x, module.gate_up_proj[expert]).chunk(2, dim=-1)
    limit = module.limit
    return linear(silu(gate).clamp(max=limit) * up.clamp(-limit, limit), module.down_proj[expert])


def normed(module: Any, expert: int, x: Tensor) -> Tensor:
    """Muse Spark: each expert's output is scaled by 1 + weight, then brought to a root mean square of 1."""
    norm = module.post_expert_norm
    scaled = (gated(module, expert, x).float() * (1 + norm.weight).float()).to(x.dtype).float()
    return (scaled * torch.rsqrt(scaled.square().mean(-1, keepdim=True) + norm.eps)).to(x.dtype)


def dbrx(module: Any, expert: int, x: Tensor) -> Tensor:
    """All experts' rows in one matrix each."""
    inner = module.ffn_hidden_size
    w1, v1, w2 = (matrix[expert * inner : (expert + 1) * inner] for matrix in vars(module.mlp)["_parameters"].values())
    return (silu(x @ w1.T) * (x @ v1.T)) @ w2


EXPERTS: dict[str, Callable[[Any, int, Tensor], Tensor]] = {
    "AriaExperts": transposed,
    "DbrxExperts": dbrx,
    "DeepseekV3Experts": gated,
    "DeepseekV4Experts": clamped_before,
    "Gemma4TextExperts": lambda module, expert, x: gated(module, expert, x, gelu),
    "Glm4MoeExperts": gated,
    "GptOssExperts": gpt_oss,
    "LongcatFlashExperts": gated,
    "MixtralExperts": gated,
    "MuseSparkExperts": normed,
    "NemotronHExperts": ungated,
    "Qwen3MoeExperts": gated,
    "Qwen3_5MoeExperts": gated,
    "Step3p7Experts": clamped_after,
    "ZayaExperts": gated,
}


@dataclass(frozen=True)
class Call:
    """One call of an experts module: hidden, output (rows, width), ids and weights (rows, k)."""

    hidden: Tensor
    ids: Tensor
    weights: Tensor
    output: Tensor


Patch = Callable[[Call], Tensor]


@contextmanager
def calls(sites: Mapping[int, ExpertsSite], patches: Mapping[int, Patch] | None = None) -> Iterator[dict[int, Call]]:
    """The last call of each layer's experts; `patches` turn a layer's call into another output."""
    found: dict[int, Call] = {}
    with ExitStack() as stack:
        for layer, site in sites.items():
            for handle in _watch(site.module, layer, found, (patches or {}).get(layer)):
                stack.callback(handle.remove)
        yield found


def _watch(module: nn.Module, layer: int, found: dict[int, Call], patch: Patch | None) -> list[Any]:
    given: list[Any] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given[:] = [*args, *kwargs.values()]

    def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        hidden, ids, weights = given
        width = hidden.shape[-1]
        found[layer] = Call(hidden.reshape(-1, width).clone(), ids, weights, output.reshape(-1, width).clone())
        return None if patch is None else patch(found[layer]).to(output.dtype).reshape(output.shape)

    return [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]


def outputs(site: ExpertsSite, x: Tensor, index: Tensor) -> Tensor:
    """E(x) (rows, width) of the expert named for each row; 0 where none is (index below 0)."""
    by_class = EXPERTS[type(site.module).__name__]
    result = torch.zeros(x.shape, dtype=x.dtype)
    for expert in range(site.experts):
        mine = index == expert
        if mine.any():
            result[mine] = by_class(site.module, expert, x[mine])
    return result


def weights_of(call: Call, index: Tensor) -> Tensor:
    """(rows, 1) the weight that each row gave the expert named for it, 0 where it was not chosen; row by row."""
    found = torch.zeros(len(index), 1, dtype=call.weights.dtype)
    for row, expert in enumerate(index.tolist()):
        for slot, chosen in enumerate(call.ids[row].tolist()):
            if expert >= 0 and chosen == expert:
                found[row] += call.weights[row, slot]
    return found


def contributions(site: ExpertsSite, call: Call, index: Tensor) -> Tensor:
    """w * E(x) (rows, width) of the expert named for each row."""
    return weights_of(call, index) * outputs(site, call.hidden, index)


def layer_output(site: ExpertsSite, call: Call, replaced: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """What the experts give when, for each pair (index (rows,), value (rows, width)), that expert's contribution is the
    value: the slots that are left, one after another, and the values. Never as a difference of large numbers."""
    total = torch.zeros(call.output.shape, dtype=torch.float32)
    for slot in range(call.ids.shape[1]):
        ids = call.ids[:, slot]
        gone = torch.zeros(len(ids), dtype=torch.bool)
        for index, _ in replaced:
            gone |= ids == index
        inside = torch.where((ids < site.experts) & ~gone, ids, -1)
        value = call.weights[:, slot, None] * outputs(site, call.hidden, inside)
        # LongCat: an id beyond the experts hands the input on.
        value = torch.where((ids >= site.experts)[:, None], call.weights[:, slot, None] * call.hidden, value)
        total += value.float()
    for index, value in replaced:
        total += torch.where((index >= 0)[:, None], value.float(), 0)
    return total
