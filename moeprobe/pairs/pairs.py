"""Pairs of prompts: a sensitive one, where the behaviour appears, and a control."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import overload

from moeprobe.errors import InterchangeError
from moeprobe.prompts import Label, Prompt, label_text
from moeprobe.visible import shortened, visible

SIDES = ("sensitive", "control")


@dataclass(frozen=True)
class TokenPair:
    """One pair as token ids.

    Attributes:
        id: the pair's name.
        sensitive: prompt ids of the run that shows the behaviour.
        control: prompt ids of the run that does not.
        continuation: token ids to be scored after both prompts, where the pair brings its own.
        spans: tokens [start, end) of the span of `sensitive` and of that of `control`, where they are named.
    """

    id: str
    sensitive: tuple[int, ...]
    control: tuple[int, ...]
    continuation: tuple[int, ...] | None = None
    spans: tuple[tuple[int, int], tuple[int, int]] | None = None

    @property
    def digest(self) -> str:
        """Of both prompts, whichever side they are on: the same two prompts under another name have the same."""
        both = sorted([list(self.sensitive), list(self.control)])
        return f"sha256:{hashlib.sha256(json.dumps(both).encode()).hexdigest()}"

    def side(self, name: str) -> tuple[int, ...]:
        """Prompt ids of the side "sensitive" or "control"."""
        return (self.sensitive, self.control)[_side(name)]

    def span(self, name: str) -> tuple[int, int] | None:
        """The span of a side, where it is named."""
        return None if self.spans is None else self.spans[_side(name)]


@dataclass(frozen=True)
class PairSelection(Sequence[TokenPair]):
    """Pairs found; a sequence of them.

    Attributes:
        pairs: those with one sensitive and one control run.
        left_out: ids of those without, with the reason in words.
        source: where they come from, for the record (`interchange[].pairs_from` of docs/findings.md).
    """

    pairs: tuple[TokenPair, ...]
    left_out: dict[str, str]
    source: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, place: int) -> TokenPair: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[TokenPair, ...]: ...

    def __getitem__(self, place: int | slice) -> TokenPair | tuple[TokenPair, ...]:
        return self.pairs[place]


def select_pairs(
    members: Sequence[tuple[str | None, bool | None, tuple[int, ...]]], *, what: str = "the prompts"
) -> PairSelection:
    """Form pairs from (pair id, is sensitive, token ids); None for members in neither group.

    A pair is used when it has exactly one sensitive and one control member. Pairs that do not split are left out and
    counted: their two runs do not differ in the behaviour, so there is nothing to move.

    Raises:
        InterchangeError: no pair ids at all, or not one pair that splits.
    """
    grouped: dict[str, list[tuple[bool | None, tuple[int, ...]]]] = {}
    for pair, sensitive, ids in members:
        if pair is not None:
            grouped.setdefault(pair, []).append((sensitive, ids))
    if not grouped:
        raise InterchangeError(f'Interchange needs prompt pairs, and {what} have none. Give lines a "pair" id.')
    pairs, left_out = [], {}
    for name, group in grouped.items():
        if all(sensitive is None for sensitive, _ in group):
            continue  # never asked about (`--only`, another label)
        yes = [ids for sensitive, ids in group if sensitive is True]
        no = [ids for sensitive, ids in group if sensitive is False]
        if len(yes) == 1 and len(no) == 1:
            pairs.append(TokenPair(name, yes[0], no[0]))
        else:
            left_out[name] = f"{len(yes)} sensitive and {len(no)} control runs; one of each is needed"
    if not pairs:
        first = next(iter(left_out.items()), ("none", "no run in either group"))
        raise InterchangeError(
            f"None of the {len(grouped)} pairs has exactly one sensitive and one control run "
            f"(first: {shown(first[0])} has {first[1]}). Check labels and pair ids."
        )
    return PairSelection(tuple(pairs), left_out)


def label_members(
    prompts: Sequence[Prompt], ids: Sequence[Sequence[int]], positive: Label, negative: Label = None
) -> list[tuple[str | None, bool | None, tuple[int, ...]]]:
    """Members for `select_pairs` from the labels of a prompt file.

    `positive` is the sensitive label; control is `negative`, or any other label when that is None. Labels are compared
    as text (true, not True); a prompt without a label is in neither group.
    """
    wanted, other = label_text(positive), label_text(negative)
    result: list[tuple[str | None, bool | None, tuple[int, ...]]] = []
    for prompt, tokens in zip(prompts, ids, strict=True):
        label = label_text(prompt.label)
        is_control = label is not None and other in (None, label)
        side = None if label is None else True if label == wanted else False if is_control else None
        result.append((prompt.pair, side, tuple(tokens)))
    return result


def shown(text: str, most: int = 60) -> str:
    """A text of the user's (a pair's id) in quotes for a message: short, on one line, nothing hidden in it."""
    return repr(visible(shortened(text, most)))


def _side(name: str) -> int:
    if name not in SIDES:
        raise InterchangeError(f"A pair has the sides {' and '.join(SIDES)}, not {shown(name)}.")
    return SIDES.index(name)


def sourced(selection: PairSelection, **source: str) -> PairSelection:
    """The same pairs with a note of where they come from."""
    return replace(selection, source=source)
