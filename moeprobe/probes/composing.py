"""Probes made of probes: and, or, not, and reading only a part of the text.

Scores are combined as in Kleene's (1952) three-valued logic, with an abstention as the third value and the fuzzy rules
of Zadeh (1965) for degrees: the lower score for "and", the higher for "or", one minus the score for "not". Scores are
combined in the same way at every character. Composed probes hand each other these scores along the text, not only
their readings: a reading without spans cannot say whether the whole text is meant or no place in it.
"""

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from typing import Literal

from moeprobe.errors import ProbeError
from moeprobe.probes.contract import MAX_NAME, CheckedProbe
from moeprobe.probes.expressions import PLACES
from moeprobe.probes.parameters import Scalar, spelled
from moeprobe.probes.probe import LEVELS, THRESHOLD, Example, Level, Passage, Reading, Segment, Span
from moeprobe.probes.stretches import Heard, Steps, Value, combined, joined, placed, spans_of, steps_of

Kind = Literal["and", "or", "not", "within"]
# Printable ASCII without a colon: findings call a label question "label:harmful".
_PLAIN = re.compile(r"[ -9;-~]+")
_TIES = {"or": 0, "and": 1, "not": 2, "within": 3}  # what binds tighter has the higher number
_MEANINGS = {
    "and": 'for "and" the lower score counts',
    "or": 'for "or" the higher score counts',
    "not": 'for "not" one minus the score',
    "within": 'after "within" stands where the text is read; nothing is said of a text that has no such place',
}


def both(*parts: CheckedProbe) -> CheckedProbe:
    """A probe that is positive where all parts are."""
    return _composed("and", _flat("and", parts))


def either(*parts: CheckedProbe) -> CheckedProbe:
    """A probe that is positive where one of the parts is."""
    return _composed("or", _flat("or", parts))


def inverse(part: CheckedProbe) -> CheckedProbe:
    """A probe that is positive where `part` is not; the inverse of an inverse is the probe itself."""
    if isinstance(part.inner, ComposedProbe) and part.inner.kind == "not":
        return part.inner.parts[0]
    return _composed("not", (part,))


def inside(part: CheckedProbe, place: str | CheckedProbe) -> CheckedProbe:
    """`part`, reading only the segment `place` ("thinking" or "answer"), or only what the probe `place` marks.

    Raises:
        ProbeError: there is no such segment.
    """
    if isinstance(place, str) and place not in PLACES:
        raise ProbeError(f"A probe can be read within {' or '.join(PLACES)}, or within a probe; not within {place!r}.")
    return CheckedProbe(ComposedProbe("within", (part,), place))


class ComposedProbe:
    """A probe made of others.

    - Its name is the expression, for example "refusal and not apology". Where that is longer than 80 characters or
      holds a colon, it is "combined-" and 12 digits of the expression's SHA-256; the definition then spells it out.
    - Its version names its parts' versions, so that it changes with any of them.
    - It has no examples of its own: its quality is not measured.
    - Its level is the coarsest of its parts'.
    """

    def __init__(self, kind: Kind, parts: Sequence[CheckedProbe], place: str | CheckedProbe | None = None) -> None:
        self.kind, self.parts, self.place = kind, tuple(parts), place
        leaves = list(_leaves(self))
        self.expression = _expression(self)
        self.name = _name(self.expression)
        self.version = "; ".join(dict.fromkeys(f"{leaf.name} {leaf.version}" for leaf in leaves))
        self.level: Level = max((part.level for part in self.parts), key=LEVELS.index)
        inner = [*parts, *leaves, *([place] if isinstance(place, CheckedProbe) else [])]
        self.reads_segments = isinstance(place, str) or any(one.reads_segments for one in inner)
        self.parameters = _parameters(leaves)
        self.definition = _definition(self, leaves)

    def examples(self) -> tuple[Example, ...]:
        """None."""
        return ()

    def read(self, passage: Passage) -> Reading:
        """Let the parts read, and combine what they say."""
        return self.heard(passage).reading

    def heard(self, passage: Passage) -> Heard:
        """As `read`, with the scores along the text."""
        if self.kind == "within":
            return self._heard_inside(passage)
        parts = [_heard(part, passage) for part in self.parts]
        rule = _RULES[self.kind]
        score = rule([part.reading.score for part in parts])
        if score is None:
            return Heard(Reading(None), [(0, None)], marked=False)
        steps = combined([part.steps for part in parts], rule)
        if not any(part.marked for part in parts):
            return Heard(Reading(score), steps, marked=False)
        return Heard(Reading(score, spans_of(steps, len(passage.text), self.name, THRESHOLD)), steps, marked=True)

    def _heard_inside(self, passage: Passage) -> Heard:
        """The best score over the pieces that are looked at, with their spans; abstains where there is no piece."""
        score: Value = None
        spans: list[Span] = []
        found: list[tuple[int, int, Steps]] = []
        marked = False
        for start, end in self._pieces(passage):
            piece = Passage(passage.text[start:end], passage.prompt, _clipped(passage.segments, start, end))
            said = _heard(self.parts[0], piece)
            reading = said.reading
            if reading.score is not None:
                score = reading.score if score is None else max(score, reading.score)
            spans += [Span(one.start + start, one.end + start, one.score, one.label) for one in reading.spans]
            found.append((start, end, said.steps))
            marked = marked or said.marked
        return Heard(Reading(score, tuple(spans)), placed(found, len(passage.text)), marked)

    def _pieces(self, passage: Passage) -> list[tuple[int, int]]:
        if isinstance(self.place, CheckedProbe):
            marked = spans_of(_heard(self.place, passage).steps, len(passage.text), "", THRESHOLD)
            return joined([(span.start, span.end) for span in marked], passage.text)
        if not passage.segments:  # a text from elsewhere is an answer as a whole
            return [(0, len(passage.text))] if self.place == "answer" else []
        return joined([(start, end) for name, start, end in passage.segments if name == self.place], passage.text)


def all_hold(values: list[Value]) -> Value:
    """The lowest score; unknown where an abstention could still change whether it is positive."""
    known = [value for value in values if value is not None]
    lowest = min(known, default=None)
    return lowest if len(known) == len(values) or (lowest is not None and lowest < THRESHOLD) else None


def one_holds(values: list[Value]) -> Value:
    """The highest score; unknown where an abstention could still change whether it is positive."""
    known = [value for value in values if value is not None]
    highest = max(known, default=None)
    return highest if len(known) == len(values) or (highest is not None and highest >= THRESHOLD) else None


def does_not_hold(values: list[Value]) -> Value:
    """One minus the score. A score of exactly .5 is positive, so its inverse is the next number below."""
    value = values[0]
    if value is None:
        return None
    return math.nextafter(THRESHOLD, 0.0) if value == THRESHOLD else 1.0 - value


_RULES: dict[str, Callable[[list[Value]], Value]] = {"and": all_hold, "or": one_holds, "not": does_not_hold}


def _heard(part: CheckedProbe, passage: Passage) -> Heard:
    """What a part says, and where."""
    if isinstance(part.inner, ComposedProbe):  # its own parts are checked one by one
        return part.inner.heard(passage)
    reading = part.read_once(passage)
    return Heard(reading, steps_of(reading, len(passage.text)), marked=bool(reading.spans))


def _composed(kind: Kind, parts: Sequence[CheckedProbe]) -> CheckedProbe:
    return CheckedProbe(ComposedProbe(kind, parts))


def _flat(kind: Kind, parts: Sequence[CheckedProbe]) -> list[CheckedProbe]:
    """Parts of the same kind taken apart: (a and b) and c is a and b and c."""
    flat: list[CheckedProbe] = []
    for part in parts:
        inner = part.inner
        flat += inner.parts if isinstance(inner, ComposedProbe) and inner.kind == kind else [part]
    return flat


def _clipped(segments: Sequence[Segment], start: int, end: int) -> tuple[Segment, ...]:
    """The segments as the piece from `start` to `end` sees them."""
    kept = [(name, max(first, start) - start, min(last, end) - start) for name, first, last in segments]
    return tuple(one for one in kept if one[1] < one[2])


def _leaves(composed: ComposedProbe) -> list[CheckedProbe]:
    """The probes at the ends, in the order they are written."""
    places = [composed.place] if isinstance(composed.place, CheckedProbe) else []
    found: list[CheckedProbe] = []
    for part in [*composed.parts, *places]:
        found += _leaves(part.inner) if isinstance(part.inner, ComposedProbe) else [part]
    return found


def _expression(composed: ComposedProbe) -> str:
    first = _shown(composed.parts[0], composed.kind)
    if composed.kind == "not":
        return f"not {first}"
    if composed.kind == "within":
        place = composed.place
        after = _shown(place, "within", after=True) if isinstance(place, CheckedProbe) else place
        return f"{first} within {after}"
    return f" {composed.kind} ".join(_shown(part, composed.kind) for part in composed.parts)


def _shown(part: CheckedProbe, around: str, *, after: bool = False) -> str:
    """A part as it stands in the expression `around` it, in parentheses where it would be read otherwise."""
    if not isinstance(part.inner, ComposedProbe):
        return part.name + spelled(_set_by_user(part))
    inner = part.inner
    tight = _TIES[inner.kind] >= _TIES[around] and not after
    return inner.expression if tight else f"({inner.expression})"


def _set_by_user(part: CheckedProbe) -> dict[str, Scalar]:
    """The parameters that differ from their defaults."""
    defaults = part.settable
    return {key: value for key, value in part.parameters.items() if key in defaults and defaults[key] != value}


def _name(expression: str) -> str:
    if len(expression) <= MAX_NAME and _PLAIN.fullmatch(expression):
        return expression
    return f"combined-{hashlib.sha256(expression.encode()).hexdigest()[:12]}"


def _parameters(leaves: Sequence[CheckedProbe]) -> dict[str, Scalar]:
    """Every part's parameters as "part.key"; where one probe is there in two settings, with what was set."""
    settings: dict[str, list[dict[str, Scalar]]] = {}
    for leaf in leaves:
        settings.setdefault(leaf.name, []).append(leaf.parameters)
    found: dict[str, Scalar] = {}
    for leaf in leaves:
        alike = all(one == leaf.parameters for one in settings[leaf.name])
        name = leaf.name if alike else leaf.name + spelled(_set_by_user(leaf))
        found |= {f"{name}.{key}": value for key, value in leaf.parameters.items()}
    return found


def _definition(composed: ComposedProbe, leaves: Sequence[CheckedProbe]) -> str:
    kinds = _kinds(composed)
    meanings = "; ".join(words for kind, words in _MEANINGS.items() if kind in kinds)
    parts = {leaf.name: " ".join(leaf.definition.split()) for leaf in leaves}
    spelled_out = " ".join(f"{name}: {definition}" for name, definition in parts.items())
    return f"Made of other probes: {composed.expression} ({meanings}). {spelled_out}"


def _kinds(composed: ComposedProbe) -> set[str]:
    places = [composed.place] if isinstance(composed.place, CheckedProbe) else []
    inner = [part.inner for part in [*composed.parts, *places]]
    return {composed.kind}.union(*(_kinds(one) for one in inner if isinstance(one, ComposedProbe)))
