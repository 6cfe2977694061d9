"""Tokens and gate weights that the findings file carries for a reader's eyes: whole examples and windows."""

from itertools import pairwise
from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.checks import check_choice, is_number
from moeprobe.sites import parse_expert

GROUPS = ("positive", "negative")
MATCHED_BY = ("token", "position")


def check_example(fields: Fields) -> None:
    """A generation with its tokens and, for each site, where it was chosen with what weight."""
    count = _check_tokens(fields)
    fields.integer("answer_start", 0, count)
    fields.integer("generation")
    fields.text("prompt_id")
    fields.optional_number("score")
    check_choice(fields, "group", GROUPS)
    for site, weights in fields.section("weights").items():
        parse_expert(site)
        _check_weights(Fields(weights, f"{fields.where}, weights of {site}", FindingsError), count)


def check_window(item: object, where: str) -> None:
    """A few tokens around a centre, with the gate weights of one expert."""
    fields = Fields(item, where, FindingsError)
    count = _check_tokens(fields)
    if not count:
        raise FindingsError(f"{where}: a window must hold a token.")
    fields.integer("centre", 0, count - 1)
    fields.integer("generation")
    fields.text("prompt_id")
    fields.integer("position")
    check_choice(fields, "group", GROUPS)
    _check_weights(Fields(fields.section("gate"), f"{where}, gate", FindingsError), count)


def check_windows(fields: Fields, key: str) -> None:
    """The strongest windows of an expert, each with its match or null."""
    for index, item in enumerate(fields.items(key)):
        where = f"{fields.where}, {key}[{index}]"
        pair = Fields(item, where, FindingsError)
        check_window(pair.section("window"), f"{where}, window")
        for name in ("matched", "matched_by"):
            if name not in pair.data:
                raise FindingsError(f"{where}: the field {name!r} is missing.")
        if pair.data["matched"] is not None:
            check_choice(pair, "matched_by", MATCHED_BY)
            check_window(pair.section("matched"), f"{where}, matched")
        elif pair.data["matched_by"] is not None:
            raise FindingsError(f"{pair.where}: 'matched_by' says how, but nothing is matched.")


def _check_tokens(fields: Fields) -> int:
    """Texts of the tokens and ranges of them that the probe marked; how many tokens there are."""
    tokens = fields.items("tokens")
    if not all(isinstance(token, str) for token in tokens):
        raise FindingsError(f"{fields.where}: 'tokens' must be a list of texts.")
    for span in fields.items("spans"):
        if not isinstance(span, list) or [type(end) for end in span] != [int, int]:
            raise FindingsError(f"{fields.where}: 'spans' must hold pairs of token numbers.")
        if not 0 <= span[0] <= span[1] <= len(tokens):
            raise FindingsError(f"{fields.where}: the span {span} lies outside the {len(tokens)} tokens.")
    return len(tokens)


def _check_weights(fields: Fields, count: int) -> None:
    """``at``, increasing numbers of the tokens that chose the expert, and ``weight``, their gate weights."""
    at, weights = fields.items("at"), fields.items("weight")
    if len(at) != len(weights):
        raise FindingsError(f"{fields.where}: {len(at)} tokens, but {len(weights)} weights.")
    if not all(is_number(weight) for weight in weights):
        raise FindingsError(f"{fields.where}: gate weights must be numbers.")
    if not all(type(index) is int for index in at):
        raise FindingsError(f"{fields.where}: 'at' must hold numbers of tokens.")
    if at and not (at[0] >= 0 and at[-1] < count and all(a < b for a, b in pairwise(at))):
        raise FindingsError(f"{fields.where}: 'at' must hold numbers of the {count} tokens, in increasing order.")


def dense(weights: dict[str, Any], count: int) -> list[float | None]:
    """Gate weights by token, null where the expert was not chosen, (count,)."""
    made: list[float | None] = [None] * count
    for index, weight in zip(weights["at"], weights["weight"], strict=True):
        made[index] = weight
    return made
