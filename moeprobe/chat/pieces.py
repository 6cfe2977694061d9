"""Which characters each token stands for, for any tokenizer that can decode."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\ufffd"
# A character has at most four bytes, so at most three tokens wait for the one that completes it.
_WAITING = 3
_MOST_OPEN = 8
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


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

    Tokens that hold parts of characters stay open until one completes the last of them; then each gets the characters
    that it has a byte of (`_ranges`). Tokens that are one byte ("<0xE6>", SentencePiece's byte fallback) are read as
    UTF-8 here, since such a decoder spoils good characters that stand in one run with a bad byte. What is no UTF-8 is
    U+FFFD.
    """
    found = _fallback_bytes(tokenizer, ids)
    text = ""
    start, end = np.zeros(len(ids), np.int32), np.zeros(len(ids), np.int32)
    window = read = index = 0
    before, prefixes = "", list[str]()
    while index < len(ids):
        if not prefixes and index in found:
            run = bytes(found[place] for place in itertools.takewhile(found.__contains__, range(index, len(ids))))
            closed, ranges = _characters(run)
        else:
            after = _decode(tokenizer, ids[window : index + 1])
            fits = after.startswith(before)
            prefixes.append(after[len(before) :] if fits else _decode(tokenizer, ids[read : index + 1]))
            index += 1
            open_ = ids[read:index]
            finished = len(prefixes) if index == len(ids) else _finished(tokenizer, open_, prefixes)
            if not finished:
                continue
            closed = prefixes[finished - 1]
            ranges = list(_ranges(tokenizer, open_[:finished], prefixes[:finished]))
        for token, (first, last) in enumerate(ranges, read):
            start[token], end[token] = len(text) + first, len(text) + last
        text += closed
        index = read + len(ranges)
        window, read = (read if prefixes else index - 1), index
        before, prefixes = _decode(tokenizer, ids[window:read]), []
    return Pieces(text, start, end)


def _fallback_bytes(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> dict[int, int]:
    """Place -> byte of the tokens that stand for one byte. A token that is decoded as it is spelled is only text."""
    spelled = getattr(tokenizer, "convert_ids_to_tokens", None)
    if spelled is None:
        return {}
    names = dict(zip(kinds := list(dict.fromkeys(ids)), spelled(kinds), strict=True))
    values = {
        token: int(match[1], 16)
        for token, name in names.items()
        if (match := _BYTE.fullmatch(name or "")) and _decode(tokenizer, [token]) != name
    }
    return {place: values[token] for place, token in enumerate(ids) if token in values}


def _characters(data: bytes) -> tuple[str, list[tuple[int, int]]]:
    """UTF-8 as text, and for each byte the character that it belongs to as [first, last).

    What is no UTF-8 is U+FFFD, one for each maximal subpart (Unicode 15, section 3.9).
    """
    text, own = "", list[tuple[int, int]]()
    while len(own) < len(data):
        rest = data[len(own) :]
        try:
            good, bad = rest.decode("utf-8"), 0
        except UnicodeDecodeError as problem:
            good, bad = rest[: problem.start].decode("utf-8"), problem.end - problem.start
        for character in good:
            own += [(len(text), len(text) + 1)] * len(character.encode("utf-8"))
            text += character
        if bad:
            own += [(len(text), len(text) + 1)] * bad
            text += _INCOMPLETE
    return text, own


def _finished(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], prefixes: Sequence[str]) -> int:
    """How many of the open tokens are done with; 0: none, since the last of them ends in the middle of a character.

    U+FFFD at the end may also be what the model wrote, so a long row of open tokens is cut where both parts decode to
    what the whole does: there no character goes across. Where no cut is seen (a decoder that strips what a text begins
    with), the row is cut before the tokens that can still wait, so that the cost stays linear.

    Args:
        ids: the open tokens.
        prefixes: decoded text of the first, the first two, ... of them.
    """
    whole = prefixes[-1]
    if not whole.endswith(_INCOMPLETE):
        return len(prefixes)
    if len(prefixes) < _MOST_OPEN:
        return 0
    settled = len(prefixes) - _WAITING - 1
    for cut in range(settled, 0, -1):
        if prefixes[cut - 1] + _decode(tokenizer, ids[cut:]) == whole:
            return cut
    return settled if len(prefixes) >= 2 * _MOST_OPEN and whole.startswith(prefixes[settled - 1]) else 0


def _ranges(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], prefixes: Sequence[str]
) -> Iterator[tuple[int, int]]:
    """Characters that each of some tokens has a byte of, as [first, last) in their common text `prefixes[-1]`.

    A prefix agrees with the common text up to its last whole character. What follows there is a character that waits
    for bytes, and that all tokens up to the completing one share.
    """
    whole, last, waits = prefixes[-1], 0, False
    for place, prefix in enumerate(prefixes):
        agreed = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(prefix, whole, strict=False)))
        first = last - (waits or (place > 0 and _joins(tokenizer, ids[place], prefixes[place - 1], prefix)))
        waits = agreed < len(prefix)
        last = min(agreed + waits, len(whole))
        yield first, last


def _joins(tokenizer: PreTrainedTokenizerBase, token: int, before: str, after: str) -> bool:
    """Whether a token's first bytes belong to the broken character before it: together they are fewer characters."""
    if not before.endswith(_INCOMPLETE):
        return False
    alone = _decode(tokenizer, [token])
    return alone.startswith(_INCOMPLETE) and len(after) < len(before) + len(alone)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
