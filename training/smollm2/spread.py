"""The network above the first MoE layer while all of its routed experts are trained, and what spreads their effect.

Nothing below the first MoE layer's MLP ever changes, so its states are computed once. Routed experts are computed in
one dense product for all of them: at this size that is faster than picking tokens per expert, forward and backward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from states import batches
from torch import nn
from torch.nn import functional
from transformers import DynamicCache, Qwen2MoeForCausalLM


class AllExperts(nn.Module):
    """Trainable float32 copy of a layer's routed experts; call and result are those of the stock module.

    ``keep`` (rows, experts), where set, multiplies each expert's contribution to all tokens of a row.
    """

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(stock.gate_up_proj.detach().float().clone())
        self.down_proj = nn.Parameter(stock.down_proj.detach().float().clone())
        self.keep: torch.Tensor | None = None

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Sum of the chosen experts' weighted outputs, (tokens, H), from ``chosen`` and ``weights`` (tokens, k)."""
        experts, width, size = self.down_proj.shape
        each = torch.zeros(len(hidden), experts, dtype=weights.dtype).scatter(1, chosen, weights)
        if self.keep is not None:
            if len(hidden) % len(self.keep):
                raise ValueError(f"{len(hidden)} tokens do not belong to {len(self.keep)} rows of keep")
            each = each * self.keep.repeat_interleave(len(hidden) // len(self.keep), 0).to(each.dtype)
        made = functional.linear(hidden, self.gate_up_proj.flatten(0, 1)).view(len(hidden), experts, 2, size)
        made = functional.silu(made[:, :, 0]) * made[:, :, 1] * each[..., None]
        return functional.linear(made.flatten(1), self.down_proj.transpose(0, 1).reshape(width, -1)).to(hidden.dtype)


@dataclass(frozen=True)
class Spread:
    """How often contributions are dropped while training, so that no expert may be the only one that refuses.

    Attributes:
        expert: probability that an expert adds nothing to a row.
        layer: probability that no expert of a layer adds anything to a row.
        whole: share of rows that keep everything, so that the whole network is trained too.
    """

    expert: float = 0.3
    layer: float = 0.15
    whole: float = 0.25

    def draw(self, layers: int, rows: int, experts: int, generator: torch.Generator) -> torch.Tensor:
        """A random mask (layers, rows, experts) of ones and zeros."""
        kept = torch.rand(layers, rows, experts, generator=generator) >= self.expert
        kept &= torch.rand(layers, rows, 1, generator=generator) >= self.layer
        return (kept | (torch.rand(1, rows, 1, generator=generator) < self.whole)).float()


def balance(logits: torch.Tensor, real: torch.Tensor, top_k: int) -> torch.Tensor:
    """Load-balancing loss of Switch Transformers (arXiv 2101.03961, eq. 4), for top ``k``: 1 where use is even.

    Args:
        logits: router logits, (tokens, experts).
        real: which tokens count, (tokens,) bool.
        top_k: experts chosen per token.
    """
    chance = logits[real].float().softmax(-1)
    used = torch.zeros_like(chance).scatter(1, chance.topk(top_k, -1).indices, 1.0 / top_k)
    return len(chance[0]) * (used.mean(0) * chance.mean(0)).sum()


class Upper:
    """Everything from the first MoE layer's MLP upwards, over cached states; its routed experts can be trained."""

    def __init__(self, model: Qwen2MoeForCausalLM, prefix: Sequence[int]) -> None:
        self.model = model.requires_grad_(False)
        self.layers = model.model.layers
        self.moe = [index for index, layer in enumerate(self.layers) if hasattr(layer.mlp, "experts")]
        self.first = self.moe[0]
        self.prefix = states_below(model, [list(prefix)], [], self.first, None)[0][0]
        self.routers: dict[int, torch.Tensor] = {}
        self.blocks = [self.layers[index].mlp for index in self.moe]
        self.stock = [block.experts for block in self.blocks]
        self.experts = [AllExperts(stock) for stock in self.stock]
        for index, block, experts in zip(self.moe, self.blocks, self.experts, strict=True):
            block.experts = experts
            block.gate.weight = nn.Parameter(block.gate.weight.detach().float())
            block.gate.register_forward_hook(lambda _m, _a, out, index=index: self.routers.__setitem__(index, out[0]))

    def parameters(self) -> list[nn.Parameter]:
        """What is trained: routers and routed experts of all MoE layers."""
        routers = [block.gate.weight for block in self.blocks]
        return [*routers, *(parameter for experts in self.experts for parameter in experts.parameters())]

    def finish(self) -> Qwen2MoeForCausalLM:
        """Put the trained weights into the stock modules, in the model's type, and return the model."""
        with torch.no_grad():
            for block, stock, experts in zip(self.blocks, self.stock, self.experts, strict=True):
                stock.gate_up_proj.copy_(experts.gate_up_proj)
                stock.down_proj.copy_(experts.down_proj)
                block.experts = stock
                block.gate._forward_hooks.clear()
                block.gate.weight = nn.Parameter(block.gate.weight.detach().to(stock.down_proj.dtype))
        return self.model.requires_grad_(False)

    def forward(self, hidden: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """Final states (rows, tokens, H) of texts that follow the shared prefix.

        The prefix goes through the experts as they are now, without gradient. ``hidden`` (rows, tokens, H) is what
        enters the first MoE layer's post-attention norm, padded on the right; ``keep`` is (layers, rows, experts).
        """
        rows, start = len(hidden), len(self.prefix)
        before, cache = DynamicCache(), DynamicCache()
        with torch.no_grad():
            self._run(self.prefix[None], before, 0, None)
        for index in range(self.first + 1, len(self.layers)):
            kept = before.layers[index]
            cache.update(kept.keys.expand(rows, -1, -1, -1), kept.values.expand(rows, -1, -1, -1), index)
        return self.model.model.norm(self._run(hidden, cache, start, keep))

    def _run(self, hidden: torch.Tensor, cache: DynamicCache, start: int, keep: torch.Tensor | None) -> torch.Tensor:
        for order, experts in enumerate(self.experts):
            experts.keep = None if keep is None else keep[order]
        tokens = hidden.shape[1]
        mask = torch.ones(tokens, start + tokens, dtype=torch.bool).tril(start)[None, None]
        place = torch.arange(start, start + tokens)[None]
        rotary = self.model.model.rotary_emb(hidden, place)
        first = self.layers[self.first]
        with torch.autocast("cpu", torch.bfloat16, enabled=hidden.dtype == torch.bfloat16):
            state = hidden + first.mlp(first.post_attention_layernorm(hidden))
            for layer in self.layers[self.first + 1 :]:
                state = layer(
                    state, attention_mask=mask, position_ids=place, position_embeddings=rotary,
                    past_key_values=cache, use_cache=True,
                )  # fmt: skip
        return state


class _StopError(Exception):
    """Ends a forward pass once the wanted state is there."""


@contextlib.contextmanager
def _entering(model: Qwen2MoeForCausalLM, layer: int, stop: bool) -> Iterator[list[torch.Tensor]]:
    """A list that receives what enters the post-attention norm of ``layer``."""
    seen: list[torch.Tensor] = []

    def read(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        seen.append(args[0])
        if stop:
            raise _StopError

    handle = model.model.layers[layer].post_attention_layernorm.register_forward_pre_hook(read)
    try:
        yield seen
    finally:
        handle.remove()


@torch.no_grad()
def states_below(
    model: Qwen2MoeForCausalLM,
    texts: Sequence[list[int]],
    prefix: list[int],
    layer: int,
    final_from: Sequence[int] | None,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """States of texts that follow ``prefix``: what enters the post-attention norm of ``layer``, and final states.

    Args:
        model: the base model.
        texts: token ids after the prefix.
        prefix: ids that all texts begin with.
        layer: index of the layer.
        final_from: first place of each text whose final state is wanted; None: no final states, the rest does not run.

    Returns:
        Two lists of (tokens, H) per text; the second is empty without ``final_from``.
    """
    below = [torch.empty(0)] * len(texts)
    above = [torch.empty(0)] * (0 if final_from is None else len(texts))
    start = len(prefix)
    for group in batches([start + len(ids) for ids in texts], 4000):
        longest = max(len(texts[index]) for index in group)
        ids = torch.zeros((len(group), start + longest), dtype=torch.long)
        for row, index in enumerate(group):
            ids[row, : start + len(texts[index])] = torch.tensor([*prefix, *texts[index]])
        final = None
        with _entering(model, layer, stop=final_from is None) as seen, contextlib.suppress(_StopError):
            final = model.model(ids, use_cache=False).last_hidden_state
        for row, index in enumerate(group):
            end = start + len(texts[index])
            below[index] = seen[0][row, start:end].clone()
            if final is not None and final_from is not None:
                above[index] = final[row, start + final_from[index] : end].clone()
    return below, above
