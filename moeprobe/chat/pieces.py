"""Which characters each token stands for, for any tokenizer that can decode."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\ufffd"


@dataclass(frozen=True)
class Pieces:
    """Decoded text with the character range of each token.

    Attributes:
        text: the decoded text.
        start, end: (tokens,) int32; token i covers text[start[i]:end[i]]. Tokens that only together make one character
            all cover that character.
    """

    text: str
    start: NDArray[np.int32]
    end: NDArray[np.int32]


def decode_pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> Pieces:
    """Decode `ids` token by token, special tokens included.

    A token's text is what it adds to the decoded text of its neighbours (the incremental decoding of text-generation
    servers): each step decodes a short window, so the cost is linear in the number of tokens. The loop over tokens is
    over text, once per generation, not over activations.
    """
    text = ""
    start, end = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.int32)
    window, read = 0, 0
    for index in range(len(ids)):
        before = _decode(tokenizer, ids[window:read])
        after = _decode(tokenizer, ids[window : index + 1])
        last = index + 1 == len(ids)
        if after.endswith(_INCOMPLETE) and not last:
            continue
        start[read : index + 1] = len(text)
        text += after[len(before) :]
        end[read : index + 1] = len(text)
        window, read = read, index + 1
    return Pieces(text, start, end)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
