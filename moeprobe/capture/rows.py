"""Which recorded row belongs to which token: sequence, absolute position, and the token that was fed in.

A row's identity is its absolute position: cache length before the forward plus offset; the last write wins. That makes
assisted decoding exact without special code: a rejected token's row is overwritten, or lies past the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moeprobe.errors import CaptureError

Ints = NDArray[np.int64]
UNKNOWN = -1  # token of a row that was fed in as an embedding; row index where nothing was recorded


@dataclass(frozen=True)
class Forward:
    """One forward pass of a stack.

    Attributes:
        past: cache length before it, an int, or a 0-d tensor where reading it would stop a GPU.
        sequences, tokens: shape of its input.
        ids: (sequences, tokens) input tokens, or None for embeddings.
    """

    past: int | Tensor
    sequences: int
    tokens: int
    ids: Tensor | None

    @property
    def rows(self) -> int:
        return self.sequences * self.tokens


@dataclass(frozen=True)
class Rows:
    """Identity of every recorded row, in the order of recording; three (rows,) int64 arrays."""

    sequence: Ints
    position: Ints
    token: Ints

    def grid(self) -> Ints:
        """(sequences, positions) index of the row that was written last, -1 where nothing was."""
        shape = (int(self.sequence.max()) + 1, int(self.position.max()) + 1)
        found = np.full(shape[0] * shape[1], UNKNOWN, dtype=np.int64)
        # The largest index is the last write. In plain assignment numpy may visit repeated places in any order.
        np.maximum.at(found, self.sequence * shape[1] + self.position, np.arange(len(self.sequence)))
        return found.reshape(shape)


def rows_of(forwards: Sequence[Forward], *, packed: bool = False) -> Rows:
    """The rows of some forwards, one after another.

    Args:
        forwards: in order.
        packed: rows of many requests in one, as in continuous batching, which finds out itself what is whose.

    Raises:
        CaptureError: the number of sequences changed between forwards, so a batch row is no sequence; or two texts
            were recorded.
    """
    counts = sorted({forward.sequences for forward in forwards})
    if len(counts) > 1:
        raise CaptureError(
            f"The number of sequences changed during the run ({', '.join(map(str, counts))}), so rows cannot be given "
            "to sequences. Record one call of generate at a time."
        )
    sequence, position, token = [], [], []
    whole: Forward | None = None  # the last forward from position 0
    for number, forward in enumerate(forwards):
        if not packed and int(forward.past) == 0:
            if number:
                _check_same_text(whole, forward)
            whole = forward
        columns = np.arange(forward.tokens)
        sequence.append(np.repeat(np.arange(forward.sequences), forward.tokens))
        position.append(np.tile(int(forward.past) + columns, forward.sequences))
        ids = np.full(forward.rows, UNKNOWN) if forward.ids is None else forward.ids.cpu().numpy().reshape(-1)
        token.append(ids.astype(np.int64))
    return Rows(np.concatenate(sequence), np.concatenate(position), np.concatenate(token))


def _check_same_text(last: Forward | None, again: Forward) -> None:
    """A later forward from position 0, as without a cache, must go over the same text as the last such forward.

    Raises:
        CaptureError: it does not (two calls of generate in one recording, say), or there was none to compare it with.
    """
    if last is None:
        raise CaptureError(
            "The recording began in the middle of a text, on a cache that was filled before, and then a forward began "
            "at position 0: whether that is the same text cannot be known. Call clear() between two calls of generate."
        )
    if last.ids is None or again.ids is None:
        return
    common = min(last.tokens, again.tokens)
    if not torch.equal(last.ids[:, :common].to(again.ids.device), again.ids[:, :common]):
        raise CaptureError(
            "Two different texts were recorded one after the other. Call clear() between two calls of generate."
        )


def follow_beams(grid: Ints, beams: Ints, prompt: int) -> Ints:
    """The grid of the returned sequences of a beam search.

    Args:
        grid: (batch * beams, positions) rows by batch row.
        beams: (returned, generated) transformers' `beam_indices`: the batch row from which token j was chosen.
        prompt: padded length of the prompt; token j of the answer was fed in at position prompt + j, in the forward
            that chose token j + 1.

    Returns:
        (returned, positions): a position that no returned token reached is -1.
    """
    returned, generated = beams.shape
    length = min(grid.shape[1], prompt + max(generated - 1, 0))
    source = np.empty((returned, length), dtype=np.int64)
    source[:, :prompt] = beams[:, :1]
    source[:, prompt:] = beams[:, 1 : length - prompt + 1]
    found = grid[np.maximum(source, 0), np.arange(length)]
    return np.where(source < 0, UNKNOWN, found)


def check_tokens(grid: Ints, rows: Rows, tokens: Ints, real: NDArray[np.bool_], where: str) -> None:
    """Assert that every kept row was computed from the token that stands at its place in the final text.

    Args:
        grid: (sequences, positions).
        tokens: (sequences, positions or more) final tokens.
        real: (sequences, positions or more) True where a row is wanted: no padding, nothing after the end.
        where: the stack, for messages.

    Raises:
        CaptureError: a wanted row is absent, or was computed from another token.
    """
    wanted = np.argwhere(real)
    place, column = wanted[:, 0], wanted[:, 1]
    if len(grid) != len(tokens) or (len(column) and int(column.max()) >= grid.shape[1]):
        raise CaptureError(
            f"{where}: rows of {grid.shape[0]} sequences by {grid.shape[1]} positions were recorded, but the text has "
            f"{tokens.shape[0]} by {tokens.shape[1]}. Nothing was written."
        )
    found = grid[place, column]
    if (found < 0).any():
        first = wanted[found < 0][0]
        raise CaptureError(
            f"{where}: sequence {first[0]} has no recorded row at position {first[1]}. Nothing was written."
        )
    fed = rows.token[found]
    wrong = (fed != UNKNOWN) & (fed != tokens[place, column])
    if wrong.any():
        first = wanted[wrong][0]
        raise CaptureError(
            f"{where}: the row at sequence {first[0]}, position {first[1]} was computed from another token than the "
            "one in the text, so rows cannot be given to tokens in this way of decoding. Nothing was written."
        )


def to_numpy(parts: Sequence[Tensor]) -> NDArray[np.generic]:
    """Join tensors along rows and bring them to the CPU; bfloat16, which numpy lacks, becomes float32."""
    joined = torch.cat(list(parts))
    wide = joined.float() if joined.dtype == torch.bfloat16 else joined
    array: NDArray[np.generic] = wide.cpu().numpy()
    return array
