"""A batch of pairs laid out so that column j of every run is the same distance from the end of its prompt."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from moeprobe.interchange.pairs import TokenPair
from moeprobe.models import LoadedModel


@dataclass(frozen=True)
class Side:
    """One run per pair (all sensitive, or all control).

    Attributes:
        ids, mask: (pairs, columns); padding on the left has mask 0.
    """

    ids: Tensor
    mask: Tensor


@dataclass(frozen=True)
class AlignedBatch:
    """Prompts and control continuation of a batch of pairs.

    Attributes:
        sensitive, control: the two sides, both (pairs, columns), aligned at the end of the prompt; the continuation
            tokens (all but the last, which is only predicted) follow in the same columns on both sides.
        continuation: (pairs, n) token ids; `counted` (pairs, n) is False after the end token.
    """

    sensitive: Side
    control: Side
    continuation: Tensor
    counted: Tensor

    def partners(self) -> Tensor:
        """(pairs * columns,) bool: rows that hold a token on both sides. The others keep their own value."""
        return (self.sensitive.mask.bool() & self.control.mask.bool()).reshape(-1)


def align(loaded: LoadedModel, pairs: list[TokenPair], *, tokens: int) -> AlignedBatch:
    """Greedy continuation of each control prompt, then both sides padded to one width.

    Args:
        loaded: used for the continuation, unedited. What follows one of its end tokens is not counted.
        pairs: pairs of one batch.
        tokens: length n of the continuation.
    """
    model, pad = loaded.model, loaded.pad_token
    control = pad_left([pair.control for pair in pairs], pad)
    continuation = _greedy(model, control, tokens)
    counted = _until_end(continuation, loaded.end_tokens)
    given = [row[:-1] for row in continuation.tolist()]
    runs = [(*pair.sensitive, *more) for pair, more in zip(pairs, given, strict=True)]
    partners = [(*pair.control, *more) for pair, more in zip(pairs, given, strict=True)]
    width = max(len(run) for run in runs + partners)
    return AlignedBatch(pad_left(runs, pad, width), pad_left(partners, pad, width), continuation, counted)


def forward(model: PreTrainedModel, side: Side) -> Tensor:
    """Logits (pairs, columns, vocabulary) of one side; positions count from the first real token."""
    positions = (side.mask.cumsum(dim=1) - 1).clamp(min=0)
    device = model.device
    output = model(
        input_ids=side.ids.to(device),
        attention_mask=side.mask.to(device),
        position_ids=positions.to(device),
        use_cache=False,
    )
    logits: Tensor = output.logits
    return logits


def _greedy(model: PreTrainedModel, side: Side, tokens: int) -> Tensor:
    """The n most likely tokens one after another, by full forwards without a cache, as the test runs compute."""
    ids, mask = side.ids, side.mask
    for _ in range(tokens):
        new = forward(model, Side(ids, mask))[:, -1].argmax(dim=-1).to(ids.device)
        ids, mask = torch.cat([ids, new[:, None]], dim=1), torch.cat([mask, torch.ones_like(new)[:, None]], dim=1)
    return ids[:, -tokens:]


def _until_end(continuation: Tensor, ends: set[int]) -> Tensor:
    stops = torch.isin(continuation, torch.tensor(sorted(ends), dtype=continuation.dtype))
    # The end token itself is predicted and counted; nothing after it is.
    return (stops.cumsum(dim=1) - stops.long()) == 0


def pad_left(runs: list[tuple[int, ...]], pad: int, width: int | None = None) -> Side:
    """Runs of different lengths as one batch, padded on the left to `width` or to the longest."""
    width = width or max(len(run) for run in runs)
    ids = torch.full((len(runs), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, run in enumerate(runs):
        ids[place, width - len(run) :] = torch.tensor(run)
        mask[place, width - len(run) :] = 1
    return Side(ids, mask)
