"""Pairs written out, one JSON object a line: `id`, `sensitive`, `control`, perhaps `continuation` and `span`."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeprobe.chat.encode import Template, encode_prompt
from moeprobe.chat.pieces import decode_pieces
from moeprobe.errors import InterchangeError, PromptError
from moeprobe.fields import Fields, read_text
from moeprobe.models import LoadedModel
from moeprobe.pairs.metrics import continuation_ids
from moeprobe.pairs.pairs import SIDES, PairSelection, TokenPair, shown
from moeprobe.pairs.spans import covering, only_place, text_span
from moeprobe.prompts import Prompt, parse_fields, parse_identifier, parse_messages

_KNOWN = {"id", *SIDES, "continuation", "span", "metadata"}
MOST_PAIRS = 100_000
MOST_CHARACTERS = 1_000_000
_LONGEST_ID = 200
# A text that stands in the prompt, or characters [start, end) of a plain prompt.
SpanText = str | tuple[int, int]


@dataclass(frozen=True)
class PairText:
    """One pair as written.

    Attributes:
        id: the pair's name.
        sensitive, control: the two prompts.
        continuation: text to be scored after both, or None.
        spans: span of the sensitive and of the control prompt, or None.
    """

    id: str
    sensitive: Prompt
    control: Prompt
    continuation: str | None = None
    spans: tuple[SpanText, SpanText] | None = None

    def to_json(self) -> dict[str, Any]:
        """The pair as one JSONL object."""
        sides = (self.sensitive, self.control)
        texts = [one.prompt if one.messages is None else list(one.messages) for one in sides]
        spans = None if self.spans is None else dict(zip(SIDES, self.spans, strict=True))
        return {
            "id": self.id, **dict(zip(SIDES, texts, strict=True)), "continuation": self.continuation, "span": spans,
        }  # fmt: skip


def is_pair_file(path: Path) -> bool:
    """Whether a file's first line that is not blank is a pair in this form, and not a prompt."""
    first = next((line for line in read_text(path, PromptError).removeprefix("\ufeff").split("\n") if line.strip()), "")
    return first.lstrip().startswith("{") and bool(set(SIDES) & set(parse_fields(first, f"{path}, line 1").data))


def read_pairs(path: Path | str) -> list[PairText]:
    """Read a pair file.

    Raises:
        PromptError: no pairs, malformed lines, an id or a pair that stands there twice, two equal sides, or texts
            beyond the limits; the message names file and line.
    """
    path = Path(path)
    lines = read_text(path, PromptError).removeprefix("\ufeff").split("\n")
    result: list[PairText] = []
    ids: dict[str, int] = {}
    texts: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        if len(result) == MOST_PAIRS:
            raise PromptError(f"{where}: more than {MOST_PAIRS:,} pairs. Split the file.")
        pair = _pair(parse_fields(line, where))
        record = pair.to_json()
        both = json.dumps([record[side] for side in SIDES])
        for seen, key, what in ((ids, pair.id, f"the id {shown(pair.id)}"), (texts, both, "the same pair of prompts")):
            if key in seen:
                raise PromptError(
                    f"{where}: {what} stands in line {seen[key]} already. Pairs are what is counted; each must be new."
                )
            seen[key] = number
        result.append(pair)
    if not result:
        raise PromptError(f'{path} holds no pairs. Write one object per line: {{"id", "sensitive", "control"}}.')
    return result


def encode_pairs(
    loaded: LoadedModel,
    pairs: Sequence[PairText],
    *,
    name: str = "",
    raw: bool = False,
    template: Template | None = None,
) -> PairSelection:
    """The pairs as token ids.

    Args:
        loaded: model and tokenizer.
        pairs: from `read_pairs`.
        name: of their file, for the record.
        raw, template: as in `encode_prompt`.

    Raises:
        PromptError: a prompt that the chat template refuses or that gives no token.
        InterchangeError: two sides with the same token ids, a span that is not found, a continuation that cannot be
            scored.
    """
    result = []
    for pair in pairs:
        sides = (pair.sensitive, pair.control)
        ids = [tuple(encode_prompt(loaded.tokenizer, one, raw=raw, template=template)) for one in sides]
        if ids[0] == ids[1]:
            raise InterchangeError(
                f"The two prompts of pair {shown(pair.id)} are the same {len(ids[0])} tokens to this tokenizer, though "
                "their texts differ. Change one."
            )
        what = f"The continuation of pair {shown(pair.id)}"
        more = None if pair.continuation is None else continuation_ids(loaded, pair.continuation, what)
        spans = None
        if pair.spans is not None:
            found = [_place(loaded, *one, pair.id) for one in zip(SIDES, sides, ids, pair.spans, strict=True)]
            spans = found[0], found[1]
        result.append(TokenPair(pair.id, ids[0], ids[1], more, spans))
    body = "\n".join(json.dumps(pair.to_json(), sort_keys=True) for pair in pairs)
    source = {"kind": "file", "name": name, "digest": "sha256:" + hashlib.sha256(body.encode()).hexdigest()}
    return PairSelection(tuple(result), {}, {**source, "positive": "sensitive", "negative": "control"})


def _place(
    loaded: LoadedModel, side: str, prompt: Prompt, ids: tuple[int, ...], span: SpanText, name: str
) -> tuple[int, int]:
    """Tokens of a span."""
    what = f"the {side} prompt of pair {shown(name)}"
    if isinstance(span, str):
        return text_span(loaded.tokenizer, ids, span, what)
    pieces = decode_pieces(loaded.tokenizer, ids)
    first = only_place(pieces.text, prompt.prompt or "", what)
    return covering(pieces, first + span[0], first + span[1], what)


def _pair(fields: Fields) -> PairText:
    unknown = sorted(set(fields.data) - _KNOWN)
    if unknown:
        raise PromptError(
            f'{fields.where}: unknown field {shown(unknown[0])}. Put fields of your own under "metadata".'
        )
    name = parse_identifier(fields)
    if len(name) > _LONGEST_ID or not name.strip():
        raise PromptError(
            f"{fields.where}: the id must hold something that can be seen, and at most {_LONGEST_ID} characters."
        )
    sensitive, control = (_prompt(fields, side, name) for side in SIDES)
    if (sensitive.prompt, sensitive.messages) == (control.prompt, control.messages):
        raise PromptError(f"{fields.where}: the two prompts are the same; there is nothing to swap between them.")
    continuation = fields.optional_text("continuation")
    if continuation is not None and not continuation:
        raise PromptError(f"{fields.where}: the continuation is empty. Leave it out, or give a text.")
    _check_size(fields, continuation or "", "continuation")
    return PairText(name, sensitive, control, continuation, _spans(fields, (sensitive, control)))


def _prompt(fields: Fields, side: str, name: str) -> Prompt:
    if isinstance(fields.data.get(side), list):
        messages = parse_messages(fields, side)
        content = "".join(message["content"] for message in messages)
        prompt = Prompt(f"{name} ({side})", messages=messages)
    else:
        content = fields.text(side)
        prompt = Prompt(f"{name} ({side})", prompt=content)
    if not content.strip():
        raise PromptError(f"{fields.where}: the {side} prompt is empty.")
    _check_size(fields, content, f"{side} prompt")
    return prompt


def _check_size(fields: Fields, text: str, what: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise PromptError(
            f"{fields.where}: the {what} has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read."
        )


def _spans(fields: Fields, prompts: tuple[Prompt, Prompt]) -> tuple[SpanText, SpanText] | None:
    """The field "span": a text for both sides, or an object with a text or [start, end] for each."""
    if fields.data.get("span") is None:
        return None
    given = fields.data["span"]
    if isinstance(given, str):
        given = dict.fromkeys(SIDES, given)
    inner = Fields(given, f"{fields.where}, span", PromptError)
    if set(inner.data) != set(SIDES):
        raise PromptError(f'{inner.where}: give one text, or an object with "sensitive" and "control".')
    found = [_span(inner, side, prompt) for side, prompt in zip(SIDES, prompts, strict=True)]
    return found[0], found[1]


def _span(fields: Fields, side: str, prompt: Prompt) -> SpanText:
    if not isinstance(fields.data[side], list):
        text = fields.text(side)
        if not text.strip():
            raise PromptError(f"{fields.where}: the text of the {side} span is empty.")
        return text
    if prompt.prompt is None:
        raise PromptError(f"{fields.where}: the {side} prompt is a chat; name its span by its text.")
    ends = fields.items(side)
    whole = all(type(end) is int for end in ends)
    if not whole or len(ends) != 2 or not 0 <= ends[0] < ends[1] <= len(prompt.prompt):
        raise PromptError(
            f"{fields.where}: the {side} span must be [start, end) in characters of its prompt, which has "
            f"{len(prompt.prompt):,}."
        )
    return ends[0], ends[1]
