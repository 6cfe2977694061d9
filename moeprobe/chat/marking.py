"""Where the contents of a chat stand in its rendered prompt, found by rendering it again with marks in them."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from jinja2.exceptions import TemplateError

Messages = Sequence[Mapping[str, str]]
Render = Callable[[Messages], str]
Found = tuple[int, int, int]  # part, start, end in the rendering without marks

# What templates look for inside a message, so that a mark beside it hides it: the end of thinking, then any tag of
# thinking and tools, then everything that is written like a tag.
_READ = (
    re.compile(r"</[^<>\n]{0,30}think[^<>\n]{0,30}>|\[/THINK\]", re.IGNORECASE),
    re.compile(
        r"<[^<>\n]{0,30}(?:think|thought|reason|tool|function|response)[^<>\n]{0,30}>|\[/?THINK\]", re.IGNORECASE
    ),
    re.compile(r"<[^<>\n]{1,60}>|\[/?[A-Z_]{2,30}\]|◁[^◁▷\n]{1,20}▷"),
)
# What a template's own Python-like code can raise on an unusual chat.
REFUSED = (TemplateError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
_DIGITS = 7


@dataclass(frozen=True)
class Run:
    """Characters [start, end) of the rendered prompt that are (part of) the content of message number `message`."""

    start: int
    end: int
    message: int


class Unplaced(Exception):  # noqa: N818  # control flow inside this module
    """The contents cannot be placed with certainty; the message says why."""


@dataclass(frozen=True)
class Marking:
    """Which parts of which contents get marks: (message, first character, end) each, in order."""

    messages: Messages
    parts: tuple[tuple[int, int, int], ...]
    nonce: str

    def render(self, render: Render) -> tuple[str, list[Found]]:
        """The rendering without the marks, and (part, start, end) for each marked part found in it, in order.

        Raises:
            Unplaced: the template refuses the chat, or tears marks apart.
        """
        contents = [str(message["content"]) for message in self.messages]
        for number in reversed(range(len(self.parts))):
            message, low, high = self.parts[number]
            text = contents[message]
            opening, closing = self._mark(2 * number), self._mark(2 * number + 1)
            contents[message] = text[:low] + opening + text[low:high] + closing + text[high:]
        marked = [{**message, "content": text} for message, text in zip(self.messages, contents, strict=True)]
        return self.read(attempt(render, marked))

    def read(self, rendered: str) -> tuple[str, list[Found]]:
        """Take the marks out of a rendered conversation: its plain text, and where each message's text stands in it."""
        plain, marks, place = [], [], 0
        removed = 0
        for match in re.finditer(self.nonce + f"([0-7]{{{_DIGITS}}})", rendered):
            plain.append(rendered[place : match.start()])
            marks.append((int(match[1], 8), match.start() - removed))
            place, removed = match.end(), removed + len(match[0])
        text = "".join([*plain, rendered[place:]])
        pairs = list(zip(marks[::2], marks[1::2], strict=False))
        if len(marks) % 2 or any(first[0] % 2 or second[0] != first[0] + 1 for first, second in pairs):
            raise Unplaced("the template takes a message apart")
        return text, [(first[0] // 2, first[1], second[1]) for first, second in pairs]

    def _mark(self, number: int) -> str:
        return f"{self.nonce}{number:0{_DIGITS}o}"


def attempt(render: Render, messages: Messages) -> str:
    """Render.

    Raises:
        Unplaced: the template refuses the chat.
    """
    try:
        return render(messages)
    except REFUSED as problem:
        raise Unplaced(f"the chat template refused the chat: {problem}") from problem


def unused_digits(texts: Sequence[str]) -> str:
    """Digits that stand in no text. Digits alone survive escaping and changes of case.

    Only the first is a 9, and marks end in octal digits, so a mark cannot begin inside another one, or half in a text.
    """
    body = "\0".join(texts)
    for attempt in range(1000):
        seed = hashlib.sha256(f"{attempt}\0{body}".encode("utf-8", "surrogatepass")).digest()
        nonce = "9" + f"{int.from_bytes(seed[:6], 'big'):016o}"
        if nonce not in body:
            return nonce
    raise Unplaced("every mark that was tried stands in the prompt already")


def place_marks(messages: Messages, text: str, render: Render, nonce: str) -> tuple[Marking, list[Found]]:
    """The marking whose rendering, without its marks, is `text`, and where its parts stand.

    Raises:
        Unplaced: there is none; the message names the chat's message at fault where one is.
    """
    plain = {index: [_core(str(message["content"]))] for index, message in enumerate(messages)}
    plain = {index: parts for index, parts in plain.items() if parts[0][0] < parts[0][1]}
    marking, found = _verified(messages, plain, text, render, nonce)
    for tags in _READ:  # most often the template reads the thinking of earlier answers
        if found is not None:
            return marking, found
        answers = {index: parts for index in plain if (parts := _split_answer(messages[index], tags))}
        marking, found = _verified(messages, {**plain, **answers}, text, render, nonce)
    if found is not None:
        return marking, found
    # Some other message is read by the template. Find out which, and keep the marks away from its tags.
    chosen = {}
    for index, parts in plain.items():
        content = str(messages[index]["content"])
        for candidate in (parts, *(_between(tags, content) for tags in _READ)):
            if candidate and _verified(messages, {index: candidate}, text, render, nonce)[1] is not None:
                chosen[index] = candidate
                break
        else:
            raise Unplaced(f"the chat template rewrites message {index + 1} in a way that cannot be followed")
    marking, found = _verified(messages, chosen, text, render, nonce)
    if found is None:
        raise Unplaced("the chat template treats one message by the text of another")
    return marking, found


def _split_answer(message: Mapping[str, str], tags: re.Pattern[str]) -> list[tuple[int, int]]:
    return _between(tags, str(message["content"])) if message["role"] == "assistant" else []


def _verified(
    messages: Messages, parts: Mapping[int, Sequence[tuple[int, int]]], text: str, render: Render, nonce: str
) -> tuple[Marking, list[Found] | None]:
    marking = Marking(messages, tuple((index, *part) for index in sorted(parts) for part in parts[index]), nonce)
    try:
        plain, found = marking.render(render)
    except Unplaced:
        return marking, None
    return marking, found if plain == text else None


def _core(content: str) -> tuple[int, int]:
    stripped = content.strip()
    low = len(content) - len(content.lstrip())
    return low, low + len(stripped)


def _between(tags: re.Pattern[str], content: str) -> list[tuple[int, int]]:
    edges = [0, *(edge for match in tags.finditer(content) for edge in match.span()), len(content)]
    parts = []
    for low, high in zip(edges[::2], edges[1::2], strict=True):
        first, last = _core(content[low:high])
        if first < last:
            parts.append((low + first, low + last))
    return parts


def content_runs(marking: Marking, found: Sequence[Found], text: str, render: Render) -> list[Run]:
    """The marked parts, and around them what belongs to the same content."""
    left, right = (_kept_space(marking, found, text, render, left=side) for side in (True, False))
    runs: list[Run] = []
    for place, (number, start, end) in enumerate(found):
        message, low, high = marking.parts[number]
        content = str(marking.messages[message]["content"])
        first, last = _core(content)
        floor = found[place - 1][2] if place else 0
        ceiling = found[place + 1][1] if place + 1 < len(found) else len(text)
        if low > first:
            left[place] = _tags_before(marking, number, text[floor:start], found[place - 1][0] if place else -1)
        if high < last and (number + 1 == len(marking.parts) or marking.parts[number + 1][0] != message):
            right[place] = last - high if text[end:ceiling].startswith(content[high:last]) else 0
        begin, finish = start - left[place], end + right[place]
        if runs and begin < runs[-1].end:
            begin = start  # two contents claim the same spaces
        if runs and runs[-1].message == message and begin == runs[-1].end:
            runs[-1] = replace(runs[-1], end=finish)
        else:
            runs.append(Run(begin, finish, message))
    return runs


def _tags_before(marking: Marking, number: int, gap: str, previous: int) -> int:
    """How many characters at the end of `gap` are the content's own text before part `number`, tags and all.

    The template may write the same tags itself; then text and place are still those of the content.
    """
    message, low, _ = marking.parts[number]
    content = str(marking.messages[message]["content"])
    has_earlier = number > 0 and marking.parts[number - 1][0] == message
    if not has_earlier:
        lead = content[_core(content)[0] : low]
        return len(lead) if gap.endswith(lead) else 0
    between = content[marking.parts[number - 1][2] : low]
    return len(between) if previous == number - 1 and gap == between else 0


def _kept_space(marking: Marking, found: Sequence[Found], text: str, render: Render, *, left: bool) -> list[int]:
    """For each found part, how many characters beside it are the outer white space of its content.

    Rendering once more without that space tells it from the template's own, which may look the same.
    """
    kept = [0] * len(found)
    contents = [str(message["content"]) for message in marking.messages]
    # A content of spaces alone has no mark to stand beside; it stays as it is in both renderings.
    bare = [(content.lstrip() if left else content.rstrip()) if content.strip() else content for content in contents]
    if bare == contents:
        return kept
    cut = [len(content) - len(text) if left else 0 for content, text in zip(contents, bare, strict=True)]
    messages = [{**message, "content": content} for message, content in zip(marking.messages, bare, strict=True)]
    parts = tuple((message, low - cut[message], high - cut[message]) for message, low, high in marking.parts)
    try:
        plain, again = Marking(messages, parts, marking.nonce).render(render)
    except Unplaced:
        return kept
    if [number for number, *_ in again] != [number for number, *_ in found]:
        return kept
    for place in range(len(found)):
        full, less = (_gap(rendered, where, place, left) for rendered, where in ((text, found), (plain, again)))
        spare = len(full) - len(less)
        if spare > 0 and less == (full[:-spare] if left else full[spare:]):
            kept[place] = spare
    return kept


def _gap(text: str, found: Sequence[Found], place: int, left: bool) -> str:
    if left:
        return text[found[place - 1][2] if place else 0 : found[place][1]]
    return text[found[place][2] : found[place + 1][1] if place + 1 < len(found) else len(text)]
