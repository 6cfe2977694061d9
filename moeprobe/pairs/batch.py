"""Runs of different lengths as one batch, its forward, and which donor row stands for which recipient row."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from moeprobe.errors import InterchangeError
from moeprobe.models import LoadedModel
from moeprobe.pairs.alignment import Alignment, Ints, Span, partners
from moeprobe.pairs.divergence import neutral_kl

# KL (nats) that rounding alone may cause; in 16 bits one rounding may change a routing.
_ROUNDING, _COARSE_ROUNDING = 1e-4, 0.1

# Fewer rows are multiplied by another kernel, which rounds otherwise (measured on a CPU: below 4 in float32). A run in
# a batch of one must not differ by that from the same run among many.
_LEAST_ROWS = 8


@dataclass(frozen=True)
class Side:
    """A batch of runs, padded on the left. A forward of it has rows = runs * columns, row = run * columns + column.

    Attributes:
        ids, mask: (runs, columns); padding has mask 0.
    """

    ids: Tensor
    mask: Tensor

    @property
    def lengths(self) -> Ints:
        """(runs,) tokens of each run."""
        result: Ints = self.mask.sum(dim=1).cpu().numpy().astype(np.int64)
        return result

    @property
    def starts(self) -> Ints:
        """(runs,) column of each run's first token."""
        return self.mask.shape[1] - self.lengths

    def real(self) -> Tensor:
        """(rows,) bool: rows that hold a token."""
        return self.mask.bool().reshape(-1)


def pad_left(runs: Sequence[Sequence[int]], pad: int, width: int | None = None) -> Side:
    """Runs of different lengths as one batch, padded on the left to `width` or to the longest.

    Raises:
        InterchangeError: no runs, one without tokens, or one longer than `width`.
    """
    lengths = [len(run) for run in runs]
    if min(lengths, default=0) < 1:
        raise InterchangeError("A batch needs runs of at least one token each.")
    width = max(lengths) if width is None else width
    if max(lengths) > width:
        raise InterchangeError(f"A run of {max(lengths)} tokens does not fit {width} columns.")
    ids = torch.full((len(runs), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, run in enumerate(runs):
        ids[place, width - len(run) :] = torch.tensor(run)
        mask[place, width - len(run) :] = 1
    return Side(ids, mask)


def check_room(loaded: LoadedModel, lengths: Sequence[int]) -> None:
    """Whether runs of these lengths, forced tokens included, fit the positions that the model was made for.

    Raises:
        InterchangeError: one does not.
    """
    longest, limit = max(lengths, default=0), loaded.positions
    if limit is not None and longest > limit:
        raise InterchangeError(
            f"A prompt and what is forced after it take {longest} tokens, and the model has {limit} positions. "
            "Leave out the longest pairs."
        )


@torch.inference_mode()
def check_forward(loaded: LoadedModel, runs: Sequence[Sequence[int]]) -> None:
    """Whether the model computes the same of a run a second time, with padding before it, and beside other runs.

    Some families do not: a diffusion model draws noise, some attention cuts blocks by column, padding included, and
    Doge's router mixes the tokens of all runs of a batch.

    Args:
        loaded: the model.
        runs: those to come; the shortest is run alone, again, padded to the longest, and below the longest.

    Raises:
        InterchangeError: the distribution of the next token moves by more than rounding explains.
    """
    shortest = min(runs, key=len)
    longest = max(runs, key=lambda run: (len(run), tuple(run) != tuple(shortest)))
    width = len(longest)
    bound = _ROUNDING if loaded.model.dtype == torch.float32 else _COARSE_ROUNDING

    def after(*first: Sequence[int], columns: int | None = None) -> Tensor:
        return forward(loaded.model, pad_left([*first, shortest], loaded.pad_token, columns), readouts=1)[-1:]

    alone, last = after(), torch.ones(1, 1)
    if alone.isnan().any() or alone.isposinf().any():
        raise InterchangeError("The model gives NaN or infinite logits on these prompts. Try --dtype float32.")
    uneven, never = width > len(shortest), "cannot be compared"
    ways: list[tuple[str, str, Callable[[], Tensor]]] = [("a second time", never, after)]
    if uneven:
        advice = "can be compared only if all prompts have one length"
        ways.append(("with padding before it", advice, lambda: after(columns=width)))
    if len(runs) > 1:
        ways.append(("beside another run", never, lambda: after(longest)))
    for how, advice, again in ways:
        moved = float(neutral_kl(alone, again(), last))
        if not moved <= bound:
            raise InterchangeError(
                f"{type(loaded.model).__name__} gives another distribution (KL {moved:.2g} nats) after the same "
                f"{len(shortest)} tokens {how}. Its runs {advice}."
            )


def row_map(
    recipient: Side, donor: Side, partners: Sequence[Ints], donors: Sequence[int] | Ints | None = None
) -> Tensor:
    """The donor's row for each row of the recipient's forward.

    Args:
        recipient, donor: the two batches; they may differ in width and in number of runs.
        partners: for each run of the recipient (its length,), position in the donor's run or -1; from
            `alignment.partners`.
        donors: for each run of the recipient which run of `donor`; None pairs them in order.

    Returns:
        (rows of the recipient,) long; -1 for padding and for positions without a partner.

    Raises:
        InterchangeError: numbers of runs, lengths or positions that do not fit the batches.
    """
    (runs, columns), width = recipient.mask.shape, donor.mask.shape[1]
    givers = np.arange(runs) if donors is None else np.asarray(donors, np.int64)
    if len(partners) != runs or len(givers) != runs or givers.min() < 0 or givers.max() >= len(donor.mask):
        raise InterchangeError(
            f"{runs} runs got {len(partners)} alignments and {len(givers)} donors out of {len(donor.mask)}."
        )
    result = np.full((runs, columns), -1, np.int64)
    starts, lengths, donor_lengths = donor.starts, recipient.lengths, donor.lengths
    for run, (giver, found) in enumerate(zip(givers, partners, strict=True)):
        if len(found) != lengths[run] or found.max(initial=-1) >= donor_lengths[giver] or found.min(initial=0) < -1:
            raise InterchangeError(
                f"The alignment of run {run} has {len(found)} positions up to {found.max(initial=-1)}; the runs have "
                f"{lengths[run]} and {donor_lengths[giver]} tokens."
            )
        result[run, columns - len(found) :] = np.where(found < 0, -1, giver * width + starts[giver] + found)
    return torch.from_numpy(result.reshape(-1))


def rows_between(
    recipient: Side,
    donor: Side,
    prompts: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]],
    spans: tuple[Sequence[Span | None], Sequence[Span | None]],
    alignment: Alignment,
    forced: int,
) -> Tensor:
    """The donor's row for each row of the recipients, run by run in order, as an alignment pairs their positions.

    Args:
        recipient, donor: the two batches.
        prompts, spans: of the recipients and of the donors, one for each run.
        alignment: how positions are paired.
        forced: how many tokens stand behind every prompt. Which they are plays no part in any alignment.

    Returns:
        As `row_map`.

    Raises:
        InterchangeError: prompts that cannot be aligned so.
    """
    found = []
    for mine, theirs, own, given in zip(*prompts, *spans, strict=True):
        both = None if own is None or given is None else (own, given)
        run, giver = ([*prompt, *[0] * forced] for prompt in (mine, theirs))
        found.append(partners(run, giver, alignment, spans=both, forced=forced))
    return row_map(recipient, donor, found)


def forward(model: PreTrainedModel, side: Side, *, readouts: int | None = None) -> Tensor:
    """Logits of one batch; positions count from the first real token.

    Args:
        model: a causal language model. Its own position ids are left to it where its forward takes none.
        side: the batch.
        readouts: only the last so many columns. Where the model's forward takes `logits_to_keep` the others are never
            computed; the values are those of the whole forward, bit for bit on a CPU.

    Returns:
        (runs, columns or readouts, vocabulary).

    Raises:
        InterchangeError: an encoder-decoder model, or more read-outs than columns.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        raise InterchangeError(
            f"{type(model).__name__} is an encoder-decoder model; interchange needs a causal one, whose prompt and "
            "answer are one run. Its routing can be traced and correlated."
        )
    columns = side.ids.shape[1]
    if readouts is not None and not 1 <= readouts <= columns:
        raise InterchangeError(f"{readouts} columns cannot be read out of {columns}.")
    takes = inspect.signature(model.forward).parameters
    options: dict[str, Any] = {"use_cache": False}
    if "position_ids" in takes:
        options["position_ids"] = (side.mask.cumsum(dim=1) - 1).clamp(min=0).to(model.device)
    if readouts is not None and "logits_to_keep" in takes:
        options["logits_to_keep"] = min(columns, max(readouts, -(-_LEAST_ROWS // len(side.ids))))
    output = model(input_ids=side.ids.to(model.device), attention_mask=side.mask.to(model.device), **options)
    if getattr(output, "logits", None) is None:
        raise InterchangeError(f"{type(model).__name__} gives no logits of a next token, so nothing can be measured.")
    logits: Tensor = output.logits
    return logits if readouts is None else logits[:, -readouts:]


def greedy(loaded: LoadedModel, runs: Sequence[Sequence[int]], tokens: int) -> tuple[Tensor, Tensor]:
    """The n most likely tokens after each run, one after another, by full forwards without a cache, as the test runs
    compute; unedited.

    Returns:
        (runs, n) token ids, and (runs, n) bool: False after the end token, which itself counts.

    Raises:
        InterchangeError: more tokens than the model has positions.
    """
    check_room(loaded, [len(run) + tokens for run in runs])
    side = pad_left(runs, loaded.pad_token)
    for _ in range(tokens):
        new = forward(loaded.model, side, readouts=1)[:, -1].argmax(dim=-1).to(side.ids.device)[:, None]
        side = Side(torch.cat([side.ids, new], dim=1), torch.cat([side.mask, torch.ones_like(new)], dim=1))
    found = side.ids[:, -tokens:]
    stops = torch.isin(found, torch.tensor(sorted(loaded.end_tokens), dtype=found.dtype))
    return found, (stops.cumsum(dim=1) - stops.long()) == 0
