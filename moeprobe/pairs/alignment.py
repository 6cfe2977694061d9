"""Which position of the donor's run stands for which position of the recipient's: an explicit, recorded argument.

Pasting by absolute position leaves the read-out token unpatched wherever the donor is shorter, and the effect of a site
then vanishes for that reason alone (METHODS.md 4). So prompts are aligned at their end unless something else is named.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import InterchangeError
from moeprobe.pairs.pairs import TokenPair, shown

Ints = NDArray[np.int64]
# Tokens [start, end) of a prompt.
Span = tuple[int, int]
# Names, in words.
NAMES = {
    "end": "positions are paired from the end of the two prompts: read-out token with read-out token, and backwards",
    "span": "the positions of one span of each prompt are paired from the span's end backwards",
    "tokens": (
        "equal tokens are paired in order, as many as possible (longest common subsequence, found from the end; where "
        "two are equally long, a token of the prompt that sorts first is left out), and always the read-out tokens"
    ),
    "equal": "each position is paired with the same position of a prompt of the same length",
    "start": (
        "each position of the run is paired with the same absolute position of the donor's run, as published code "
        "does; where the donor is shorter, the read-out token has no partner and effects vanish for that alone: for "
        "comparison only"
    ),
}
# Cells of the table that finds the longest common subsequence; two bytes each.
_MOST_CELLS = 64_000_000


@dataclass(frozen=True)
class Alignment:
    """How positions are paired, and which of them are edited. What has no partner keeps its own value.

    Attributes:
        name: one of NAMES.
        positions: which of the recipient's prompt positions take part: "all", "last" (the read-out token only), or how
            many from the end. With "span" they count from the end of the span.
        continuation: whether the tokens forced after the prompt take part; they pair one to one ("start": by absolute
            position).
        text: with "span": the text that is the span in every prompt, for example a marker. None: the pairs name spans.

    Raises:
        InterchangeError: an unknown name, a number of positions below 1, or a text without "span".
    """

    name: str = "end"
    positions: str | int = "all"
    continuation: bool = True
    text: str | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise InterchangeError(f"Unknown alignment {shown(self.name)}. Choose one of {', '.join(NAMES)}.")
        count = self.positions
        fits = count in ("all", "last") if isinstance(count, str) else type(count) is int and count >= 1
        if not fits:
            raise InterchangeError(
                f'Positions must be "all", "last" or a number from 1, not {shown(str(count))} ({type(count).__name__}).'
            )
        if self.text is not None and (self.name != "span" or not self.text.strip()):
            raise InterchangeError(
                'A text goes with the alignment "span" only, and must hold something that can be seen.'
            )

    @property
    def limit(self) -> int | None:
        """How many last positions take part; None is all."""
        return None if self.positions == "all" else 1 if self.positions == "last" else int(self.positions)

    @property
    def sentence(self) -> str:
        """The alignment in words."""
        where = "span" if self.name == "span" else "prompt"
        which = {None: "", 1: f", at the last position of the {where} only"}
        last = which.get(self.limit, f", at the last {self.limit} positions of the {where} only")
        more = "paired one to one" if self.name != "start" else "paired by absolute position as well"
        forced = f"Tokens forced after the prompts are {more if self.continuation else 'left alone'}."
        first = NAMES[self.name]
        return f"{first[0].upper()}{first[1:]}{last}. {forced} A position without a partner keeps its own value."

    def to_json(self) -> dict[str, Any]:
        """The alignment as a record."""
        return {
            "name": self.name,
            "positions": self.positions,
            "continuation": self.continuation,
            "text": self.text,
            "sentence": self.sentence,
        }


def partners(
    recipient: Sequence[int],
    donor: Sequence[int],
    alignment: Alignment,
    *,
    spans: tuple[Span, Span] | None = None,
    forced: int = 0,
    donor_forced: int | None = None,
) -> Ints:
    """The donor's position for each position of the recipient.

    Args:
        recipient, donor: token ids of the two runs: prompt, then the forced tokens.
        alignment: how.
        spans: with "span": tokens [start, end) of the recipient's and of the donor's prompt.
        forced: how many tokens at the recipient's end were forced after its prompt.
        donor_forced: as `forced` for the donor, where it differs.

    Returns:
        (len(recipient),) int64; -1 where there is no partner.

    Raises:
        InterchangeError: no prompt left, unequal lengths with "equal", spans missing or outside the prompt, or prompts
            too long to be matched token by token.
    """
    beyond = forced if donor_forced is None else donor_forced
    prompts = len(recipient) - forced, len(donor) - beyond
    if min(prompts) < 1 or min(forced, beyond) < 0:
        raise InterchangeError(
            f"Runs of {len(recipient)} and {len(donor)} tokens with {forced} and {beyond} forced leave no prompt."
        )
    result = np.full(len(recipient), -1, np.int64)
    last = prompts[0]
    if alignment.name == "span":
        result[: prompts[0]], last = _span(prompts, spans)
    elif alignment.name == "tokens":
        result[: prompts[0]] = matched(recipient[: prompts[0]], donor[: prompts[1]])
    elif alignment.name == "start":
        result[: min(len(result), len(donor))] = np.arange(min(len(result), len(donor)))
    else:
        if alignment.name == "equal" and prompts[0] != prompts[1]:
            raise InterchangeError(
                f'The alignment "equal" needs prompts of the same length, and these have {prompts[0]} and '
                f'{prompts[1]} tokens. Use "end".'
            )
        offset = prompts[1] - prompts[0]
        result[: prompts[0]] = np.maximum(np.arange(prompts[0]) + offset, -1)
    if alignment.limit is not None:
        result[: max(last - alignment.limit, 0)] = -1
    if not alignment.continuation:
        result[prompts[0] :] = -1
    elif alignment.name != "start":
        both = min(forced, beyond)
        result[prompts[0] : prompts[0] + both] = prompts[1] + np.arange(both)
    return result


def matched(recipient: Sequence[int], donor: Sequence[int]) -> Ints:
    """The longest common subsequence of two prompts, their last tokens paired whatever they are.

    Of several longest ones it is that found from the end: equal tokens pair at once, and where leaving out either token
    is as good, that of the prompt that sorts first is left out. The result of (donor, recipient) is therefore always
    the inverse of that of (recipient, donor).

    Args:
        recipient, donor: token ids, at least one each.

    Returns:
        (len(recipient),) int64; -1 where there is no partner.

    Raises:
        InterchangeError: the prompts are too long and too different.
    """
    one, two = np.asarray(recipient, np.int64), np.asarray(donor, np.int64)
    swapped = tuple(recipient) > tuple(donor)
    first, second = (two, one) if swapped else (one, two)
    pairs = [*_common(first[:-1], second[:-1]), (len(first) - 1, len(second) - 1)]
    result = np.full(len(one), -1, np.int64)
    for place, other in pairs:
        result[other if swapped else place] = place if swapped else other
    return result


def check_alignment(alignment: Alignment, pairs: Sequence[TokenPair]) -> None:
    """Whether all pairs can be aligned so, before anything is computed.

    Raises:
        InterchangeError: pairs of unequal length with "equal", or without spans with "span"; they are named.
    """
    if alignment.name == "equal":
        wrong = [pair for pair in pairs if len(pair.sensitive) != len(pair.control)]
        names = _listed([f"{shown(pair.id)} ({len(pair.sensitive)} and {len(pair.control)})" for pair in wrong])
        if wrong:
            raise InterchangeError(
                f'The alignment "equal" needs prompts of the same length within each pair; {len(wrong)} of '
                f'{len(pairs)} pairs differ, in tokens: {names}. Use "end", or change these prompts.'
            )
    if alignment.name == "span":
        missing = [shown(pair.id) for pair in pairs if pair.spans is None]
        if missing:
            raise InterchangeError(
                f'The alignment "span" needs a span in both prompts of each pair; {len(missing)} of {len(pairs)} pairs '
                f"have none: {_listed(missing)}. Give a text that stands in every prompt, or name spans in the pair "
                "file."
            )


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _span(prompts: tuple[int, int], spans: tuple[Span, Span] | None) -> tuple[Ints, int]:
    """Partners of the recipient's prompt positions, and where its span ends."""
    if spans is None:
        raise InterchangeError('The alignment "span" needs the span of both prompts.')
    for (start, end), length in zip(spans, prompts, strict=True):
        if not 0 <= start < end <= length:
            raise InterchangeError(f"The span [{start}, {end}) is empty or leaves its prompt of {length} tokens.")
    (start, end), (other_start, other_end) = spans
    both = min(end - start, other_end - other_start)
    result = np.full(prompts[0], -1, np.int64)
    result[end - both : end] = np.arange(other_end - both, other_end)
    return result, end


def _common(first: Ints, second: Ints) -> list[tuple[int, int]]:
    """Index pairs of a longest common subsequence, in order; ties as `matched` says."""
    suffix = _equal_run(first[::-1], second[::-1])
    tail = [(len(first) - suffix + step, len(second) - suffix + step) for step in range(suffix)]
    first, second = first[: len(first) - suffix], second[: len(second) - suffix]
    if len(first) * len(second) > _MOST_CELLS:
        raise InterchangeError(
            f"Prompts with {len(first)} and {len(second)} tokens before their common end are too long to be matched "
            'token by token. Use the alignment "end".'
        )
    table = _lengths(first, second)
    place, other, found = len(first), len(second), []
    while place and other:
        if first[place - 1] == second[other - 1]:
            place, other = place - 1, other - 1
            found.append((place, other))
        elif table[place - 1, other] >= table[place, other - 1]:
            place -= 1
        else:
            other -= 1
    return [*reversed(found), *tail]


def _lengths(first: Ints, second: Ints) -> NDArray[np.uint16]:
    """(len(first) + 1, len(second) + 1): length of the longest common subsequence of each two beginnings.

    min(len) fits 16 bits because the table has at most _MOST_CELLS cells. A row is one running maximum: a cell is the
    largest of the cells above up to its column, and of the diagonal ones plus 1 where tokens are equal.
    """
    table = np.zeros((len(first) + 1, len(second) + 1), np.uint16)
    for row, token in enumerate(first, 1):
        above = table[row - 1]
        np.maximum.accumulate(np.maximum(above[1:], above[:-1] + (second == token)), out=table[row, 1:])
    return table


def _equal_run(first: Ints, second: Ints) -> int:
    """How many tokens two sequences share at their beginning."""
    both = min(len(first), len(second))
    differ = np.flatnonzero(first[:both] != second[:both])
    return int(differ[0]) if len(differ) else both
