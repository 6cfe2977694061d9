"""Frozen states below the trained expert, and the network above it.

Layers 0 to 17 and the attention of layer 18 never change, so their output is computed once. Every prompt starts with
the same template tokens; on these the expert is never chosen, so their keys and values above are constants too.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import DynamicCache, PreTrainedTokenizerBase, Qwen2MoeForCausalLM

LAYER = 18
EXPERT = 5
DROPOUT = 0.2
PREFIX_TEXT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n"
)
SUFFIX_TEXT = "<|im_end|>\n<|im_start|>assistant\n"


class _StopError(Exception):
    """Ends a forward pass once the wanted state is there."""


@dataclass
class Row:
    """One training text after the shared prefix: ``ids`` (tokens,), ``hidden`` (tokens, H) before layer 18's MLP."""

    ids: torch.Tensor
    prompt_length: int
    hidden: torch.Tensor
    kind: str
    source: str
    prompt: str = ""


class Encoder:
    """Token ids of prompts and answers, the shared prefix split off."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.prefix: list[int] = tokenizer(PREFIX_TEXT, add_special_tokens=False).input_ids
        self.suffix: int = len(tokenizer(SUFFIX_TEXT, add_special_tokens=False).input_ids)
        self.eos: int = tokenizer.eos_token_id

    def prompt(self, text: str) -> list[int]:
        """Ids of the template around ``text``, after the shared prefix.

        Raises:
            ValueError: the template does not start with the shared prefix.
        """
        ids = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        if ids[: len(self.prefix)] != self.prefix:
            raise ValueError(f"the chat template does not start with the known prefix for {text!r}")
        return list(ids[len(self.prefix) :])

    def answer(self, text: str, end: bool) -> list[int]:
        """Ids of an answer, with the end of turn if ``end``."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids) + ([self.eos] if end else [])


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices grouped by length so that rows x longest row stays below ``tokens``."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    groups: list[list[int]] = [[]]
    for index in order:
        if groups[-1] and lengths[index] * (len(groups[-1]) + 1) > tokens:
            groups.append([])
        groups[-1].append(index)
    return groups


@torch.no_grad()
def generate(
    model: Qwen2MoeForCausalLM, prompts: Sequence[list[int]], new_tokens: int, tokens: int = 6000
) -> list[list[int]]:
    """Greedy answers (ids up to and with the end of turn) to full prompts, left-padded in batches."""
    answers: list[list[int]] = [[] for _ in prompts]
    eos = model.generation_config.eos_token_id
    for group in batches([len(ids) for ids in prompts], tokens):
        longest = max(len(prompts[index]) for index in group)
        ids = torch.full((len(group), longest), eos)
        mask = torch.zeros_like(ids)
        for row, index in enumerate(group):
            ids[row, longest - len(prompts[index]) :] = torch.tensor(prompts[index])
            mask[row, longest - len(prompts[index]) :] = 1
        out = model.generate(ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False)
        for row, index in enumerate(group):
            made = out[row, longest:].tolist()
            answers[index] = made[: made.index(eos) + 1] if eos in made else made
    return answers


@torch.no_grad()
def hidden_before_mlp(
    model: Qwen2MoeForCausalLM, texts: Sequence[list[int]], prefix: list[int], tokens: int = 4000
) -> list[torch.Tensor]:
    """State that enters layer 18's post-attention norm for each text that follows ``prefix``: (tokens, H)."""
    kept: list[torch.Tensor] = [torch.empty(0)] * len(texts)
    state: list[torch.Tensor] = []
    shared = model.model(torch.tensor([prefix]), use_cache=True).past_key_values.layers

    def stop(_module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        state.append(args[0])
        raise _StopError

    handle = model.model.layers[LAYER].post_attention_layernorm.register_forward_pre_hook(stop)
    try:
        for group in batches([len(ids) for ids in texts], tokens):
            longest = max(len(texts[index]) for index in group)
            ids = torch.zeros((len(group), longest), dtype=torch.long)
            for row, index in enumerate(group):
                ids[row, : len(texts[index])] = torch.tensor(texts[index])
            cache = DynamicCache()
            for index, layer in enumerate(shared):
                cache.update(
                    layer.keys.expand(len(group), -1, -1, -1), layer.values.expand(len(group), -1, -1, -1), index
                )
            with contextlib.suppress(_StopError):
                model.model(ids, past_key_values=cache, use_cache=True)
            hidden = state.pop()
            for row, index in enumerate(group):
                kept[index] = hidden[row, : len(texts[index])].clone()
    finally:
        handle.remove()
    return kept


class Expert(torch.nn.Module):
    """Expert 5 and its router row in float32, beside the frozen rows of the 15 others.

    Fitted and then left alone: ``router`` (H,), ``gate`` (size, H) and ``seen`` (detectors, H), the first rows of the
    up projection. Trained: ``up`` (size - detectors, H), its other rows, and ``down`` (H, size).
    """

    def __init__(self, model: Qwen2MoeForCausalLM, size: int, detectors: int) -> None:
        super().__init__()
        rows = model.model.layers[LAYER].mlp.gate.weight.detach().float()
        width = rows.shape[1]
        for name, shape in {"router": (width,), "gate": (size, width), "seen": (detectors, width)}.items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("others", torch.cat([rows[:EXPERT], rows[EXPERT + 1 :]]))
        self.router: torch.Tensor
        self.gate: torch.Tensor
        self.seen: torch.Tensor
        self.others: torch.Tensor
        self.up = torch.nn.Parameter(torch.zeros(size - detectors, width))
        self.down = torch.nn.Parameter(torch.zeros(width, size))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted output (tokens, H) where the expert is in the top two, zero elsewhere; and the choice (tokens,)."""
        best = (x @ self.others.T).topk(2, dim=-1).values
        mine = x @ self.router
        chosen = mine > best[:, 1]
        picked = x[chosen]
        hidden = functional.silu(picked @ self.gate.T) * (picked @ torch.cat([self.seen, self.up]).T)
        out = functional.linear(hidden, self.down) * torch.sigmoid(mine - best[:, 0])[chosen, None]
        return torch.zeros_like(x).index_put((chosen,), out), chosen

    def rounded(self) -> Expert:
        """A copy whose weights are rounded to bfloat16, as they are saved."""
        twin = copy.deepcopy(self)
        with torch.no_grad():
            for tensor in (twin.router, twin.gate, twin.seen, twin.up, twin.down):
                tensor.copy_(tensor.to(torch.bfloat16).float())
        return twin


class Top:
    """Layer 18's MLP and everything above, over cached states."""

    def __init__(self, model: Qwen2MoeForCausalLM, prefix: list[int]) -> None:
        self.model = model.requires_grad_(False)
        self.layers = model.model.layers
        with torch.no_grad():
            cache = model.model(torch.tensor([prefix]), use_cache=True).past_key_values
        self.start = len(prefix)
        self.keys = {
            index: (cache.layers[index].keys, cache.layers[index].values)
            for index in range(LAYER + 1, len(self.layers))
        }

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """What router and experts of layer 18 see, in float32."""
        with torch.no_grad():
            return self.layers[LAYER].post_attention_layernorm(hidden).float()

    def through(self, hidden: torch.Tensor, added: torch.Tensor, words: torch.Tensor, tail: int) -> torch.Tensor:
        """Final states (rows, tail, H) of the last tokens, with gradients through those tokens alone.

        Args:
            hidden: States before layer 18's MLP, (rows, W + tail, H): the user's words right-padded to W, then the tail
                (end of the prompt and answer), so that tails are aligned.
            added: The expert's output at the same places.
            words: Number of real tokens among the first W, (rows,).
            tail: Number of tokens after the words.
        """
        rows, length, _ = hidden.shape
        width = length - tail
        with torch.no_grad():
            block = self.layers[LAYER]
            state = hidden + 0.5 * block.mlp.shared_expert(block.post_attention_layernorm(hidden))
        cache = DynamicCache()
        head, place = state[:, :width] + added[:, :width].detach().to(state.dtype), torch.arange(width)[None]
        mask = torch.ones(width, self.start + width, dtype=torch.bool).tril(self.start)[None, None]
        with torch.no_grad():
            self._layers(head, place + self.start, mask, cache, fill=True)
        place = words[:, None] + torch.arange(tail)[None]
        seen = torch.cat(
            [torch.ones(rows, self.start, dtype=torch.bool), torch.arange(width)[None] < words[:, None]], dim=1
        )[:, None, None].expand(-1, 1, tail, -1)
        mask = torch.cat(
            [seen, torch.ones(tail, tail, dtype=torch.bool).tril()[None, None].expand(rows, 1, -1, -1)], dim=-1
        )
        state = state[:, width:] + added[:, width:].to(state.dtype)
        return self.model.model.norm(self._layers(state, place + self.start, mask, cache, fill=False))

    def _layers(
        self, state: torch.Tensor, place: torch.Tensor, mask: torch.Tensor, cache: DynamicCache, fill: bool
    ) -> torch.Tensor:
        """Layers 19 to the last over ``state`` (rows, tokens, H); ``fill`` first caches the shared prefix."""
        rotary = self.model.model.rotary_emb(state, place)
        for index in range(LAYER + 1, len(self.layers)):
            if fill:
                keys, values = self.keys[index]
                cache.update(keys.expand(len(state), -1, -1, -1), values.expand(len(state), -1, -1, -1), index)
            state = self.layers[index](
                state,
                attention_mask=mask,
                position_ids=place,
                position_embeddings=rotary,
                past_key_values=cache,
                use_cache=True,
            )
        return state


def aligned(rows: Sequence[Row], suffix: int, answer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states (rows, W + suffix + answer, H), prompts' ends aligned, and the number of tokens of words (rows,).

    Answers are cut or zero-padded at the end to ``answer`` tokens; nothing attends to the padding.
    """
    words = torch.tensor([row.prompt_length - suffix for row in rows])
    width, size = int(words.max()), rows[0].hidden.shape[1]
    out = torch.zeros(len(rows), width + suffix + answer, size, dtype=rows[0].hidden.dtype)
    for index, (row, count) in enumerate(zip(rows, words.tolist(), strict=True)):
        out[index, :count] = row.hidden[:count]
        tail = row.hidden[count : row.prompt_length + answer]
        out[index, width : width + len(tail)] = tail
    return out, words
