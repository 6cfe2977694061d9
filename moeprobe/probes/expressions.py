"""Reading what a user writes for a probe: a name or file, parameters in parentheses, and, or, not, within.

either    := both ("or" both)*
both      := negated ("and" negated)*
negated   := "not" negated | placed
placed    := single ("within" place)*
place     := "thinking" | "answer" | single
single    := "(" either ")" | source parameters?
source    := a word without spaces and parentheses, or a text in quotes
parameters:= "(" [ key "=" value ("," key "=" value)* ] ")"
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from moeprobe.errors import ProbeError

PLACES = ("thinking", "answer")
"""Segments of a generation; after "within" these words mean them."""

_WORDS = ("and", "or", "not", "within")
_TOKEN = re.compile(r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<mark>[(),=])|(?P<word>[^\s(),="']+))""")
_DEEPEST = 50
_LONGEST = 4000


@dataclass(frozen=True)
class Leaf:
    """One probe: its name or file, and what was set."""

    source: str
    parameters: dict[str, int | float | str | bool] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Combination:
    """Probes joined by "and" or "or", or one under "not"."""

    kind: Literal["and", "or", "not"]
    parts: tuple["Expression", ...]


@dataclass(frozen=True)
class Placed:
    """A probe that reads only a segment, or only what another probe marks."""

    what: "Expression"
    place: "str | Expression"


Expression = Leaf | Combination | Placed


def parse(text: str) -> Expression:
    """Read an expression; nothing is loaded or run.

    Raises:
        ProbeError: it does not follow the grammar; the message says at which character, and what was expected.
    """
    return _Reader(text).whole()


def leaves_of(expression: Expression) -> list[str]:
    """The names and files in it, in the order they are written."""
    if isinstance(expression, Leaf):
        return [expression.source]
    if isinstance(expression, Placed):
        place = [] if isinstance(expression.place, str) else leaves_of(expression.place)
        return [*leaves_of(expression.what), *place]
    return [source for part in expression.parts for source in leaves_of(part)]


class _Reader:
    """One pass over the tokens, one method for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > _LONGEST:
            raise ProbeError(f"The probe expression has {len(text):,} characters; at most {_LONGEST:,} are read.")
        self.tokens: list[tuple[str, str, int]] = []  # kind, text, where it begins
        self.next, self.depth = 0, 0
        place = 0
        while text[place:].strip():
            found = _TOKEN.match(text, place)
            if found is None:
                raise self._error("a quotation mark that is not closed", len(text) - len(text[place:].lstrip()))
            kind = str(found.lastgroup)
            self.tokens.append((kind, found[kind], found.start(kind)))
            place = found.end()

    def whole(self) -> Expression:
        found = self._either()
        if self.next < len(self.tokens):
            raise self._unexpected('"and", "or", "within" or the end')
        return found

    def _either(self) -> Expression:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ProbeError(f"The probe expression is nested more than {_DEEPEST} deep.")
        parts = [self._both()]
        while self._take_word("or"):
            parts.append(self._both())
        self.depth -= 1
        return parts[0] if len(parts) == 1 else Combination("or", tuple(parts))

    def _both(self) -> Expression:
        parts = [self._negated()]
        while self._take_word("and"):
            parts.append(self._negated())
        return parts[0] if len(parts) == 1 else Combination("and", tuple(parts))

    def _negated(self) -> Expression:
        times = 0
        while self._take_word("not"):
            times += 1
        found = self._placed()
        return Combination("not", (found,)) if times % 2 else found

    def _placed(self) -> Expression:
        found = self._single()
        while self._take_word("within"):
            kind, word, _ = self._peek()
            if kind == "word" and word in PLACES:
                self.next += 1
                found = Placed(found, word)
            else:
                found = Placed(found, self._single())
        return found

    def _single(self) -> Expression:
        kind, word, _ = self._peek()
        if word == "(" and kind == "mark":
            self.next += 1
            found = self._either()
            self._close('"and", "or", "within" or ")"')
            return found
        if kind not in ("word", "quoted") or (kind == "word" and word.lower() in _WORDS):
            raise self._unexpected("the name or file of a probe")
        if kind == "word" and word in PLACES:
            raise self._error(f'{word!r} is a place and stands after "within"', self._peek()[2])
        self.next += 1
        source = word[1:-1] if kind == "quoted" else word
        return Leaf(source, self._parameters() if self._peek()[1] == "(" else {})

    def _parameters(self) -> dict[str, int | float | str | bool]:
        self.next += 1
        found: dict[str, int | float | str | bool] = {}
        while self._peek()[:2] != ("mark", ")"):
            kind, key, at = self._peek()
            if kind != "word" or not key.isidentifier():
                raise self._unexpected('a parameter such as "every=2"')
            if key in found:
                raise self._error(f"the parameter {key} is set twice", at)
            self.next += 1
            if self._peek()[:2] != ("mark", "="):
                raise self._unexpected('"="')
            self.next += 1
            found[key] = self._value()
            if self._peek()[:2] == ("mark", ","):
                self.next += 1
            elif self._peek()[:2] != ("mark", ")"):
                raise self._unexpected('"," or ")"')
        self.next += 1
        return found

    def _value(self) -> int | float | str | bool:
        kind, word, _ = self._peek()
        if kind not in ("word", "quoted"):
            raise self._unexpected("a value")
        self.next += 1
        if kind == "quoted":
            return word[1:-1]
        if word.lower() in ("true", "false"):
            return word.lower() == "true"
        for read in (int, float):
            try:
                return read(word)
            except ValueError:
                continue
        return word

    def _peek(self) -> tuple[str, str, int]:
        return self.tokens[self.next] if self.next < len(self.tokens) else ("end", "", len(self.text))

    def _take_word(self, word: str) -> bool:
        kind, found, _ = self._peek()
        taken = kind == "word" and found.lower() == word
        self.next += taken
        return taken

    def _close(self, expected: str) -> None:
        if self._peek()[:2] != ("mark", ")"):
            raise self._unexpected(expected)
        self.next += 1

    def _unexpected(self, expected: str) -> ProbeError:
        _, word, at = self._peek()
        found = f"found {word!r}" if word else "the text ends"
        return self._error(f"expected {expected}, but {found}", at)

    def _error(self, what: str, at: int) -> ProbeError:
        shown = self.text if len(self.text) <= 200 else self.text[:197] + "..."
        return ProbeError(
            f"The probe {ascii(shown) if not shown.isprintable() else repr(shown)} cannot be read: {what} "
            f"(character {at + 1}). Write NAME or PATH.py, joined by and, or, not; quote a path that has spaces."
        )
