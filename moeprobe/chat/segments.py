"""Which part of a chat each prompt token belongs to: system, user, assistant, tool, or the template itself.

Searching the rendered prompt for each message is wrong as soon as a message repeats another one, holds a role marker,
or is stripped, escaped or shortened by the template. Instead the template is asked: it renders the chat again with a
numbered mark at both ends of each message, and the marks tell where each message came to stand. The marked rendering
without its marks must equal the real one, character by character; otherwise every token stays "prompt".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from moeprobe.chat.marking import (
    REFUSED,
    Marking,
    Messages,
    Render,
    Unplaced,
    attempt,
    content_runs,
    place_marks,
    unused_digits,
)  # fmt: skip
from moeprobe.chat.pieces import Pieces
from moeprobe.errors import CaptureError
from moeprobe.trace import SEGMENTS

# Role of a message -> segment of its content. "developer" is what newer templates call the system message.
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


@dataclass(frozen=True)
class Span:
    """A run of characters of the rendered prompt, [start, end), that is one message's content (or a part of it).

    `message` is the message's index; -1 for a system prompt that the template adds by itself.
    """

    start: int
    end: int
    segment: str
    message: int


@dataclass(frozen=True)
class PromptSegments:
    """Segments of one prompt.

    Attributes:
        codes: (tokens,) uint8, index into `moeprobe.trace.SEGMENTS`.
        spans: where the contents stand in the rendered prompt, in order, not overlapping.
        tail: the template's text after the last content: the header of the answer, perhaps with thinking opened.
        reason: None, or why every token stays "prompt" although the prompt is a chat.
    """

    codes: NDArray[np.uint8]
    spans: tuple[Span, ...]
    tail: str
    reason: str | None


def chat_renderer(tokenizer: PreTrainedTokenizerBase, **options: object) -> Render:
    """A function from messages to the text the model is given; `options` go to the chat template."""

    def render(messages: Messages) -> str:
        chat = [dict(message) for message in messages]
        return str(
            tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False, **options)  # type: ignore[arg-type]  # template variables are free
        )

    return render


def segment_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Messages | None, ids: Sequence[int], pieces: Pieces, **options: object
) -> PromptSegments:
    """`prompt_segments` for the token ids of one prompt.

    Args:
        tokenizer: with the chat template that made `ids`.
        messages: the chat, or None for a prompt without a template.
        ids: (tokens,) token ids of the prompt.
        pieces: `decode_pieces(tokenizer, ids)`.
        options: the chat template's own variables, as they were when `ids` were made.
    """
    if messages is None:
        return prompt_segments(None, pieces.text, pieces.start, pieces.end)
    render = chat_renderer(tokenizer, **options)
    try:
        rendered = render(messages)
    except REFUSED as problem:
        return _fallback(len(ids), f"the chat template refused the chat: {problem}", "")
    start: NDArray[np.integer] = pieces.start
    end: NDArray[np.integer] = pieces.end
    if pieces.text != rendered:  # a tokenizer that adds or folds characters: its own offsets are then the truth
        offsets = _offsets(tokenizer, rendered, ids)
        if offsets is None:
            reason = f"the decoded prompt differs from the rendered one ({_difference(pieces.text, rendered)})"
            return _fallback(len(ids), reason, _benign_tail(render, rendered))
        start, end = offsets
    return prompt_segments(messages, rendered, start, end, render, tokenizer.all_special_tokens)


def prompt_segments(
    messages: Messages | None,
    prompt_text: str,
    char_start: NDArray[np.integer],
    char_end: NDArray[np.integer],
    render: Render | None = None,
    special: Iterable[str] = (),
) -> PromptSegments:
    """Segment of each prompt token.

    A token belongs to a message when all its characters do, or when all its visible characters do and the others are
    spaces of the template (tokenizers write a word's leading space into the word). A token that mixes visible
    characters of a message with the template's, or of two segments, is "prompt": its routing is not the message's
    alone. Marker tokens that a user wrote are the user's. Contents without a visible character have no span.

    Args:
        messages: the chat (`role`, `content`), or None for a prompt without a template: all tokens are "prompt".
        prompt_text: the rendered chat.
        char_start, char_end: (tokens,) characters of each token in `prompt_text`.
        render: the chat template, needed with `messages`.
        special: texts of the tokenizer's special tokens; a system prompt that holds one is scaffolding.

    Raises:
        CaptureError: offsets of different shapes or outside of the text.
    """
    _check(prompt_text, char_start, char_end)
    tokens = len(char_start)
    if messages is None or render is None:
        # Written by hand: only its very end can open the answer (a last "<think>").
        return _fallback(tokens, None, (prompt_text.split() or [""])[-1])
    try:
        spans = _spans(messages, prompt_text, render, tuple(special))
    except Unplaced as problem:
        return _fallback(tokens, str(problem), _benign_tail(render, prompt_text))
    last = max((span.end for span in spans), default=0)
    return PromptSegments(_token_codes(prompt_text, spans, char_start, char_end), spans, prompt_text[last:], None)


def _check(text: str, start: NDArray[np.integer], end: NDArray[np.integer]) -> None:
    if start.ndim != 1 or start.shape != end.shape:
        raise CaptureError(f"Token offsets must be two equal rows, but have shapes {start.shape} and {end.shape}.")
    if len(start) and (start.min() < 0 or end.max() > len(text) or (end < start).any()):
        raise CaptureError(f"Token offsets leave the prompt's {len(text)} characters; the trace would be wrong.")


def _fallback(tokens: int, reason: str | None, tail: str) -> PromptSegments:
    return PromptSegments(np.full(tokens, SEGMENTS.index("prompt"), np.uint8), (), tail, reason)


def _token_codes(
    text: str, spans: Sequence[Span], start: NDArray[np.integer], end: NDArray[np.integer]
) -> NDArray[np.uint8]:
    prompt = SEGMENTS.index("prompt")
    chars = np.full(len(text), prompt, np.uint8)
    for span in spans:
        chars[span.start : span.end] = SEGMENTS.index(span.segment)
    visible: NDArray[np.bool_] = ~np.strings.isspace(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<U1"))
    total, seen = end - start, _count(visible, start, end)
    codes = np.full(len(start), prompt, np.uint8)
    for code in {SEGMENTS.index(span.segment) for span in spans}:
        mine = chars == code
        own, own_seen = _count(mine, start, end), _count(mine & visible, start, end)
        codes[(total > 0) & ((own == total) | ((own_seen > 0) & (own_seen == seen)))] = code
    # A token without characters of its own stands inside a content, or between two things.
    inner = (total == 0) & (start > 0) & (start < len(text))
    before, after = chars[start[inner] - 1], chars[start[inner]]
    codes[inner] = np.where(before == after, after, prompt)
    return codes


def _count(flags: NDArray[np.bool_], start: NDArray[np.integer], end: NDArray[np.integer]) -> NDArray[np.int64]:
    total = np.concatenate([[0], np.cumsum(flags, dtype=np.int64)])
    result: NDArray[np.int64] = total[end] - total[start]
    return result


def _spans(messages: Messages, text: str, render: Render, special: tuple[str, ...]) -> tuple[Span, ...]:
    unknown = [str(message["role"]) for message in messages if message["role"] not in ROLES]
    if unknown:
        raise Unplaced(f"a message has the unknown role {unknown[0]!r}")
    if attempt(render, messages) != text:
        raise Unplaced("the prompt is not what the chat template renders (a template that writes the time does this)")
    nonce = unused_digits([text, *(str(message["content"]) for message in messages)])
    marking, found = place_marks(messages, text, render, nonce)
    spans = [
        Span(run.start, run.end, ROLES[str(messages[run.message]["role"])], run.message)
        for run in content_runs(marking, found, text, render)
    ]
    added = _added_system(messages, text, render, nonce, spans, special)
    return (added, *spans) if added else tuple(spans)


def _added_system(
    messages: Messages, text: str, render: Render, nonce: str, spans: Sequence[Span], special: tuple[str, ...]
) -> Span | None:
    """The system prompt a template adds where none is given: what a given one would stand in place of.

    What the template writes with and without a system message (a date, a list of channels) is its own text.
    """
    if ROLES[str(messages[0]["role"])] == "system":
        return None
    marking = Marking([{"role": "system", "content": "x"}, *messages], ((0, 0, 1),), nonce)
    try:
        given, found = marking.render(render)
    except Unplaced:
        return None
    if len(found) != 1:
        return None
    _, start, end = found[0]
    finish = len(text) - (len(given) - end)
    added = text[start:finish]
    if not text.startswith(given[:start]) or not text.endswith(given[end:]) or not added.strip():
        return None
    if any(span.start < finish for span in spans) or any(token and token in added for token in special):
        return None
    return Span(start, finish, "system", -1)


def _benign_tail(render: Render, text: str) -> str:
    """The template's text after a plain user message, where the prompt ends with it; nobody's message can forge it."""
    nonce = unused_digits([text])
    try:
        tail = render([{"role": "user", "content": nonce}]).rpartition(nonce)[2]
    except REFUSED:
        return ""
    return tail if text.endswith(tail) else ""


def _offsets(
    tokenizer: PreTrainedTokenizerBase, rendered: str, ids: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    if not tokenizer.is_fast:
        return None
    encoded = tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    if list(encoded["input_ids"]) != list(ids):
        return None
    offsets = np.asarray(encoded["offset_mapping"], np.int64).reshape(-1, 2)
    return offsets[:, 0], offsets[:, 1]


def _difference(first: str, second: str) -> str:
    same = next((place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    place = min(len(first), len(second)) if same is None else same
    return f"from character {place}: {first[place : place + 20]!r} against {second[place : place + 20]!r}"
