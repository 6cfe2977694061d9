"""Holding a probe to its contract: every answer is checked before anything is computed from it."""

import math
import re
from collections.abc import Sequence
from numbers import Real
from typing import cast

from moeprobe.errors import ProbeError
from moeprobe.probes.probe import LEVELS, Example, Level, Passage, Probe, Reading, Span

# No colon: findings call a label question "label:harmful", and a probe must not look like one.
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MEMBERS = ("name", "version", "level", "definition", "examples", "read")


class CheckedProbe:
    """A probe whose every answer has been checked. Made by `checked`; itself a `Probe`.

    Each passage is read twice, since a probe that answers by chance or by what it saw before would pass its noise on
    as a finding.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self.name: str = probe.name
        self.version: str = probe.version
        self.level: Level = probe.level
        self.definition: str = probe.definition

    def examples(self) -> Sequence[Example]:
        """The probe's own examples.

        Raises:
            ProbeError: they cannot be read, or one is no `Example` with a text and label 0 or 1.
        """
        try:
            examples = list(self._probe.examples())
        except ProbeError:
            raise
        except Exception as error:  # a stranger's code may raise anything; the user needs to know whose it was
            raise ProbeError(f"Probe {self.name}: examples() failed with {_described(error)}.") from error
        for number, example in enumerate(examples, 1):
            if (
                not isinstance(example, Example)
                or not isinstance(example.text, str)
                or not isinstance(example.prompt, str)
            ):
                raise ProbeError(
                    f"Probe {self.name}: example {number} is {_shown(example)}. Give Example(text, label)."
                )
            if type(example.label) is not int or example.label not in (0, 1):
                raise ProbeError(f"Probe {self.name}: example {number} has label {example.label!r}. Write 0 or 1.")
        return tuple(examples)

    def read(self, passage: Passage) -> Reading:
        """Judge one passage.

        Raises:
            ProbeError: the probe failed, gave a score outside [0, 1], a span outside the text, or two different
                answers to the same passage. The message names the probe and shows what it returned.
        """
        first = self._checked_reading(passage)
        second = self._checked_reading(passage)
        if first != second:
            raise ProbeError(
                f"Probe {self.name} gave two answers to one passage: {_shown(first)}, then {_shown(second)}. "
                "Remove randomness and memory from read(), or fix the seed inside it."
            )
        return first

    def _checked_reading(self, passage: Passage) -> Reading:
        try:
            reading = self._probe.read(passage)
        except ProbeError:
            raise
        except Exception as error:  # as above
            raise ProbeError(
                f"Probe {self.name}: read() failed with {_described(error)} on the text {_shown(passage.text)}."
            ) from error
        if not isinstance(reading, Reading):
            raise ProbeError(f"Probe {self.name}: read() returned {_shown(reading)}. Return Reading(score).")
        score = None if reading.score is None else self._score(reading.score, reading)
        if reading.label is not None and not isinstance(reading.label, str):
            raise ProbeError(f"Probe {self.name} returned {_shown(reading)}: the label must be text or None.")
        try:
            spans = tuple(reading.spans)
        except TypeError:
            raise ProbeError(f"Probe {self.name} returned {_shown(reading)}: spans must be a tuple of Span.") from None
        return Reading(score, tuple(self._span(span, len(passage.text)) for span in spans), reading.label)

    def _score(self, score: object, shown: object) -> float:
        if not isinstance(score, Real) or isinstance(score, bool):
            raise ProbeError(f"Probe {self.name} returned {_shown(shown)}: a score is a number in [0, 1], or None.")
        value = float(score)
        if not math.isfinite(value) or not 0.0 <= value <= 1.0:
            raise ProbeError(f"Probe {self.name} returned {_shown(shown)}: the score {value} is not in [0, 1].")
        return value

    def _span(self, span: object, length: int) -> Span:
        if not isinstance(span, Span) or type(span.start) is not int or type(span.end) is not int:
            raise ProbeError(
                f"Probe {self.name} returned the span {_shown(span)}. Give Span(start, end, score, label)."
            )
        if not 0 <= span.start < span.end <= length:
            raise ProbeError(
                f"Probe {self.name} returned {_shown(span)}, but the text has {length} characters: "
                "a span needs 0 <= start < end <= length."
            )
        if not isinstance(span.label, str):
            raise ProbeError(f"Probe {self.name} returned {_shown(span)}: a span's label must be text.")
        return Span(span.start, span.end, self._score(span.score, span), span.label)


def checked(probe: object, source: str = "") -> CheckedProbe:
    """Wrap `probe` so that whatever breaks the contract is a ProbeError.

    Args:
        probe: an object with the members of `Probe`.
        source: where it came from (file or package), for the message.

    Raises:
        ProbeError: a member is missing or malformed; the message names the member and shows what was found.
    """
    if isinstance(probe, CheckedProbe):
        return probe
    where = f" from {source}" if source else ""
    shown = getattr(probe, "name", None)
    called = f"The probe {shown!r}{where}" if isinstance(shown, str) else f"The probe {type(probe).__name__}{where}"
    missing = [member for member in _MEMBERS if not hasattr(probe, member)]
    if missing:
        raise ProbeError(f"{called} lacks {', '.join(missing)}. A probe has {', '.join(_MEMBERS)}; see docs/probes.md.")
    candidate = cast(Probe, probe)
    if not isinstance(candidate.name, str) or not _NAME.fullmatch(candidate.name) or len(candidate.name) > 80:
        raise ProbeError(f"{called}: the name {_shown(candidate.name)} must be lower-case words joined by hyphens.")
    for member in ("version", "definition"):
        text = getattr(candidate, member)
        if not isinstance(text, str) or not text.strip():
            raise ProbeError(f"{called}: {member} is {_shown(text)}; it must be text and not empty.")
    if candidate.level not in LEVELS:
        raise ProbeError(f"{called}: level is {_shown(candidate.level)}; choose one of {', '.join(LEVELS)}.")
    for member in ("examples", "read"):
        if not callable(getattr(candidate, member)):
            raise ProbeError(f"{called}: {member} is {_shown(getattr(candidate, member))}; it must be a method.")
    return CheckedProbe(candidate)


def _shown(value: object) -> str:
    """A short repr on one line: what a probe returns may be long, and its own repr may fail."""
    try:
        return _one_line(repr(value))
    except Exception:  # noqa: BLE001 - the message matters more than a stranger's broken __repr__
        return f"<{type(value).__name__}>"


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {_one_line(str(error))}" if str(error) else type(error).__name__


def _one_line(text: str) -> str:
    """At most 200 characters, with control characters as codes: a terminal must not obey a stranger's text."""
    short = text if len(text) <= 200 else text[:197] + "..."
    return short if short.isprintable() else ascii(short)[1:-1][:400]
