"""Thinking or answer, for each generated token, by the marks of the model's own tokenizer and chat template."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from moeprobe.errors import CaptureError
from moeprobe.trace import SEGMENTS

# Marks that do not spell "think" alike at both ends: Cohere, Gemma 4, Apertus, Kimi.
_KNOWN = (
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>", "<channel|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("◁think▷", "◁/think▷"),
)
# Solar Open: <|think|>TEXT<|end|><|begin|>assistant<|content|>TEXT<|end|>. Its end mark ends answers as well.
_SHARED_END = "<|end|>"
_SOLAR = ("<|think|>", _SHARED_END, "<|content|>")
# <think> (Qwen, DeepSeek, GLM, Nemotron, MiniMax, ...), <seed:think>, <longcat_think>, <thinking>, [THINK] (Mistral).
_SPELLED = re.compile(r"<(?=[^<>]*think)[a-z_:.|-]{5,30}>|\[THINK\]", re.IGNORECASE)
# gpt-oss: <|start|>ROLE<|channel|>NAME<|message|>TEXT<|end|>
_HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>")
_REASONING = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True)
class Mark:
    """A mark: its text and, where the vocabulary has it as one token, its id; then only that token counts."""

    text: str
    id: int | None


@dataclass(frozen=True)
class ThinkingMarks:
    """What a model writes around its thinking.

    Attributes:
        pairs: opening and closing marks.
        channels: text and id of gpt-oss's channel marks, None for other models.
    """

    pairs: tuple[tuple[Mark, Mark], ...] = ()
    channels: Mapping[str, int] | None = None


def thinking_marks(tokenizer: PreTrainedTokenizerBase) -> ThinkingMarks:
    """The marks that this tokenizer's vocabulary, chat template or response template knows."""
    template = tokenizer.chat_template
    text = "\n".join(map(str, template.values())) if isinstance(template, dict) else str(template or "")
    response = getattr(tokenizer, "response_template", None)
    return find_marks(tokenizer.get_added_vocab(), text, response if isinstance(response, dict) else None)


def find_marks(
    added: Mapping[str, int], template: str = "", response_template: Mapping[str, Any] | None = None
) -> ThinkingMarks:
    """As `thinking_marks`, from plain data.

    A pair counts when both marks are added tokens, or both stand in the chat template, or the response template
    (transformers' description of what a model answers) names them as the ends of its reasoning.

    Args:
        added: added tokens and their ids.
        template: source of the chat template.
        response_template: the tokenizer's, where it has one.
    """
    harmony = {"<|start|>", "<|channel|>", "<|message|>"} <= set(added)
    channels = {text: added[text] for text in _HARMONY if text in added} if harmony else None
    spelled = {match[0] for match in _SPELLED.finditer("\n".join([*added, template]))}
    candidates = [*((opening, _closing(opening)) for opening in sorted(spelled)), *_KNOWN]
    pairs = [
        pair for pair in candidates if all(mark in added for mark in pair) or all(mark in template for mark in pair)
    ]
    if all(mark in added for mark in _SOLAR):
        pairs.append(_SOLAR[:2])
    for opening, closing in _declared(response_template or {}):
        if not any(opening.startswith(known) and closing.startswith(end) for known, end in pairs):
            pairs.append((opening, closing))
    return ThinkingMarks(tuple((Mark(a, added.get(a)), Mark(b, added.get(b))) for a, b in pairs), channels)


def answer_segments(
    marks: ThinkingMarks,
    ids: Sequence[int],
    text: str,
    char_start: NDArray[np.integer],
    char_end: NDArray[np.integer],
    tail: str = "",
) -> NDArray[np.uint8]:
    """Segment of each generated token: "thinking" or "answer".

    The marks themselves, and in gpt-oss the headers of every channel, are "thinking", so that "answer" holds only what
    is said. Of gpt-oss's channels only "analysis" is thinking. Thinking that is never closed lasts to the end. A mark
    in the middle of an answer counts only as its own token and when it is closed again; other mentions are text.
    A closing token without an opening one ends thinking that began with the first token, unless the prompt has closed
    it already.

    Args:
        marks: of the model.
        ids: (tokens,) generated ids.
        text: the decoded answer.
        char_start, char_end: (tokens,) characters of each token in `text`.
        tail: the template's text before the answer (`PromptSegments.tail`).

    Returns:
        (tokens,) uint8, index into `moeprobe.trace.SEGMENTS`.

    Raises:
        CaptureError: ids and offsets of different lengths.
    """
    tokens = np.asarray(ids, np.int64).reshape(-1)
    if not tokens.shape == char_start.shape == char_end.shape:
        raise CaptureError(
            f"Ids {tokens.shape} and their offsets {char_start.shape}, {char_end.shape} must have one length."
        )
    answer = _Answer(tokens, text, char_start, char_end)
    thinking = np.zeros(len(tokens), bool)
    for opening, closing in marks.pairs:
        thinking |= _between(answer, opening, closing, tail)
    if marks.channels:
        thinking |= _channels(answer, marks.channels, tail)
    codes = np.where(thinking, SEGMENTS.index("thinking"), SEGMENTS.index("answer"))
    return codes.astype(np.uint8)


@dataclass(frozen=True)
class _Answer:
    ids: NDArray[np.int64]
    text: str
    start: NDArray[np.integer]
    end: NDArray[np.integer]

    def find(self, mark: Mark) -> list[tuple[int, int]]:
        """Where the mark stands: (first token, token after)."""
        if mark.id is not None:
            return [(int(place), int(place) + 1) for place in np.flatnonzero(self.ids == mark.id)]
        places = [match.span() for match in re.finditer(re.escape(mark.text), self.text)]
        first = np.searchsorted(self.end, [low for low, _ in places], side="right")
        after = np.searchsorted(self.start, [high for _, high in places], side="left")
        return list(zip(first.tolist(), after.tolist(), strict=True))


def _closing(opening: str) -> str:
    return opening[0] + "/" + opening[1:]


def _declared(response: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    fields = response.get("fields")
    for name in _REASONING:
        field = fields.get(name) if isinstance(fields, Mapping) else None
        opening, closing = (field.get("open"), field.get("close")) if isinstance(field, Mapping) else (None, None)
        if isinstance(opening, str) and isinstance(closing, str) and opening.strip() and closing.strip():
            yield opening.strip(), closing.strip()


def _between(answer: _Answer, opening: Mark, closing: Mark, tail: str) -> NDArray[np.bool_]:
    thinking = np.zeros(len(answer.ids), bool)
    opens, closes = answer.find(opening), answer.find(closing)
    last_open, last_close = tail.rfind(opening.text), tail.rfind(closing.text)
    begin: int | None = 0 if last_open > last_close else None
    # A closing token alone ends thinking that was never opened; a spelled one may be a mention.
    own = closing.id is not None and closing.text != _SHARED_END
    implied = own and max(last_open, last_close) < 0
    events = sorted([*((first, after, True) for first, after in opens), *((*place, False) for place in closes)])
    for first, after, opened in events:
        if opened and begin is None:
            at_start = not answer.text[: answer.start[first]].strip()
            closed_later = opening.id is not None and any(place >= after for place, _ in closes)
            if at_start or closed_later:
                begin, implied = first, False
        elif not opened and begin is not None:
            thinking[begin:after], begin, implied = True, None, False
        elif not opened and implied:
            thinking[:after], implied = True, False
        elif not opened and own:
            thinking[first:after] = True
    if begin is not None:
        thinking[begin:] = True
    return thinking


def _channels(answer: _Answer, channels: Mapping[str, int], tail: str) -> NDArray[np.bool_]:
    thinking = np.zeros(len(answer.ids), bool)
    names = {identifier: text for text, identifier in channels.items()}
    places = np.flatnonzero(np.isin(answer.ids, list(names)))
    if not len(places):
        # No channel was named, so the prompt alone says which one it is.
        thinking[:] = _last_mark(tail, channels) == "<|message|>" and _channel(tail) == "analysis"
        return thinking
    state, written = _last_mark(tail, channels), tail
    edges = [0, *places.tolist(), len(answer.ids)]
    for number, (low, high) in enumerate(pairwise(edges)):
        if number:
            state = names[int(answer.ids[low])]
            thinking[low] = True
        body = low + (number > 0)
        if state == "<|message|>":
            thinking[body:high] = _channel(written) == "analysis"
            written = ""
        elif state is not None:  # between a header's marks, or after an end mark
            thinking[body:high] = True
        if state == "<|channel|>" and number:
            written = state + answer.text[_char(answer, body) : _char(answer, high)]
    return thinking


def _char(answer: _Answer, token: int) -> int:
    return int(answer.start[token]) if token < len(answer.ids) else len(answer.text)


def _last_mark(tail: str, channels: Mapping[str, int]) -> str | None:
    found = max(channels, key=tail.rfind)
    return found if found in tail else None


def _channel(header: str) -> str:
    """The channel's name: the first word after the last channel mark."""
    name = header.rpartition("<|channel|>")[2]
    return (re.split(r"\s|<", name.strip(), maxsplit=1) or [""])[0]
