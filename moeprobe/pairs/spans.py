"""Spans of prompts: which tokens a text covers, in the prompt as the model is given it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from moeprobe.chat.pieces import Pieces, decode_pieces
from moeprobe.errors import InterchangeError
from moeprobe.pairs.alignment import Alignment, check_alignment
from moeprobe.pairs.pairs import SIDES, TokenPair, shown


def covering(pieces: Pieces, start: int, end: int, what: str) -> tuple[int, int]:
    """Tokens [first, last + 1) that hold any of the characters [start, end).

    Args:
        pieces: the decoded prompt.
        start, end: characters of `pieces.text`.
        what: what is looked for, for the message.

    Raises:
        InterchangeError: no token holds one of them.
    """
    inside = np.flatnonzero((pieces.start < end) & (pieces.end > start))
    if not len(inside):
        raise InterchangeError(f"No token of {what} holds a character of its span.")
    return int(inside[0]), int(inside[-1]) + 1


def text_span(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str, what: str) -> tuple[int, int]:
    """Tokens of a prompt that hold `text`, which must stand in it exactly once, letter for letter.

    Args:
        tokenizer: that made `ids`.
        ids: (tokens,) the prompt.
        text: what to find, for example a marker.
        what: the prompt's name, for the message.

    Raises:
        InterchangeError: the text does not stand in the prompt, or more than once.
    """
    pieces = decode_pieces(tokenizer, ids)
    start = only_place(pieces.text, text, what)
    return covering(pieces, start, start + len(text), what)


def only_place(whole: str, text: str, what: str) -> int:
    """Where `text` begins in `whole`.

    Raises:
        InterchangeError: it does not stand there exactly once (overlapping places count).
    """
    first = whole.find(text) if text else -1
    if first < 0:
        raise InterchangeError(
            f"The text of the span, {shown(text)}, does not stand in {what} as the model is given it."
        )
    if whole.find(text, first + 1) >= 0:
        raise InterchangeError(
            f"The text of the span, {shown(text)}, stands in {what} more than once; which one is meant? Give a longer "
            "text."
        )
    return first


def prepared(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[TokenPair], alignment: Alignment) -> list[TokenPair]:
    """The pairs as `alignment` needs them: with the spans of its text, and checked.

    Raises:
        InterchangeError: pairs that cannot be aligned so; they are named.
    """
    result = list(pairs) if alignment.text is None else place_spans(tokenizer, pairs, alignment.text)
    check_alignment(alignment, result)
    return result


def place_spans(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[TokenPair], text: str) -> list[TokenPair]:
    """The pairs with `text` as the span of both prompts.

    Raises:
        InterchangeError: a prompt holds the text not at all, or more than once.
    """
    result = []
    for pair in pairs:
        found = [
            text_span(tokenizer, pair.side(side), text, f"the {side} prompt of pair {shown(pair.id)}") for side in SIDES
        ]
        result.append(replace(pair, spans=(found[0], found[1])))
    return result
