"""Pairs of prompts: a sensitive one, where the behaviour appears, and a control."""

from collections.abc import Sequence
from dataclasses import dataclass

from moeprobe.errors import InterchangeError
from moeprobe.prompts import Label, Prompt


@dataclass(frozen=True)
class TokenPair:
    """One pair as token ids.

    Attributes:
        id: the pair's name.
        sensitive: prompt ids of the run that shows the behaviour.
        control: prompt ids of the run that does not.
    """

    id: str
    sensitive: tuple[int, ...]
    control: tuple[int, ...]


@dataclass(frozen=True)
class PairSelection:
    """Pairs found, and the ids of those that could not be used, with the reason in words."""

    pairs: tuple[TokenPair, ...]
    left_out: dict[str, str]


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
        yes = [ids for sensitive, ids in group if sensitive is True]
        no = [ids for sensitive, ids in group if sensitive is False]
        if len(yes) == 1 and len(no) == 1:
            pairs.append(TokenPair(name, yes[0], no[0]))
        else:
            left_out[name] = f"{len(yes)} sensitive and {len(no)} control runs; one of each is needed"
    if not pairs:
        raise InterchangeError(
            f"None of the {len(grouped)} pairs has exactly one sensitive and one control run "
            f"(first: {next(iter(grouped))!r} has {next(iter(left_out.values()))}). Check labels and pair ids."
        )
    return PairSelection(tuple(pairs), left_out)


def label_members(
    prompts: Sequence[Prompt], ids: Sequence[Sequence[int]], positive: Label, negative: Label = None
) -> list[tuple[str | None, bool | None, tuple[int, ...]]]:
    """Members for `select_pairs` from the labels of a prompt file.

    `positive` is the sensitive label; control is `negative`, or any other label when that is None.
    """
    result: list[tuple[str | None, bool | None, tuple[int, ...]]] = []
    for prompt, tokens in zip(prompts, ids, strict=True):
        is_control = prompt.label is not None and (negative is None or str(prompt.label) == str(negative))
        side = True if str(prompt.label) == str(positive) else False if is_control else None
        result.append((prompt.pair, side, tuple(tokens)))
    return result
