"""Holding a probe to its contract: every answer is checked before anything is computed from it."""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from numbers import Real
from typing import cast

from moeprobe.errors import ProbeError
from moeprobe.probes.parameters import Scalar, declared, is_scalar
from moeprobe.probes.probe import LEVELS, Example, Level, Passage, Probe, Reading, Span

# No colon: findings call a label question "label:harmful", and a probe must not look like one.
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
MAX_NAME = 80
RESERVED = ("and", "or", "not", "within", "thinking", "answer", "true", "false")
"""Words of probe expressions; no probe may be called so."""
_MEMBERS = ("name", "version", "level", "definition", "examples", "read")


class CheckedProbe:
    """A probe whose every answer has been checked. Made by `checked`; itself a `Probe`.

    Each passage is read twice, since a probe that answers by chance or by what it saw before would pass its noise on
    as a finding.

    Attributes:
        name, version, level, definition: as the probe says.
        outputs: names of its further outputs, usually none.
        parameters: what its answers depend on besides the text; recorded in findings.
        held_out_read: "once", or "again" where the rule was changed after its held-out examples had been read.
        reads_segments: whether it must know what is thinking and what is answer.
    """

    def __init__(self, probe: Probe, made_with: Mapping[str, Scalar] | None = None) -> None:
        self._probe = probe
        self.name: str = probe.name
        self.version: str = probe.version
        self.level: Level = probe.level
        self.definition: str = probe.definition
        self.outputs: tuple[str, ...] = tuple(getattr(probe, "outputs", ()))
        self.held_out_read: str = getattr(probe, "held_out_read", "once")
        self.reads_segments = bool(getattr(probe, "reads_segments", False))
        self.parameters: dict[str, Scalar] = _parameters(probe, made_with)

    @property
    def inner(self) -> Probe:
        """The probe as it was before it was wrapped."""
        return self._probe

    def __and__(self, other: Probe) -> "CheckedProbe":
        """Both hold; as "a and b" in a spec."""
        from moeprobe.probes.composing import both  # composing builds on this module

        return both(self, checked(other))

    def __or__(self, other: Probe) -> "CheckedProbe":
        """One of them holds; as "a or b" in a spec."""
        from moeprobe.probes.composing import either  # as above

        return either(self, checked(other))

    def __invert__(self) -> "CheckedProbe":
        """It does not hold; as "not a" in a spec."""
        from moeprobe.probes.composing import inverse  # as above

        return inverse(self)

    def within(self, place: "str | Probe") -> "CheckedProbe":
        """Judged only in the thinking, in the answer, or where another probe marks; as "a within b" in a spec."""
        from moeprobe.probes.composing import inside  # as above

        return inside(self, place if isinstance(place, str) else checked(place))

    def output(self, name: str) -> "CheckedProbe":
        """One of the further outputs as a probe of its own, called "probe.output".

        Raises:
            ProbeError: there is no such output.
        """
        from moeprobe.probes.outputs import output_of  # as above

        return output_of(self, name)

    @property
    def settable(self) -> dict[str, Scalar]:
        """The parameters that a spec can set, with their defaults."""
        return declared(getattr(self._probe, "__wrapped__", type(self._probe)))

    def examples(self) -> Sequence[Example]:
        """The probe's own examples.

        Raises:
            ProbeError: they cannot be read, or one is no `Example` with a text and label 0 or 1.
        """
        return self._examples("examples")

    def held_out(self) -> Sequence[Example]:
        """Examples that the rule was not made on; none where the probe has none.

        Raises:
            ProbeError: as `examples`.
        """
        return self._examples("held_out") if hasattr(self._probe, "held_out") else ()

    def _examples(self, member: str) -> Sequence[Example]:
        try:
            with redirect_stdout(sys.stderr):  # what it prints is not the command's output
                examples = list(getattr(self._probe, member)())
        except ProbeError:
            raise
        except (Exception, SystemExit) as error:  # a stranger's code may raise anything, and may try to end us
            raise ProbeError(f"Probe {self.name}: {member}() failed with {_described(error)}.") from error
        what = "example" if member == "examples" else "held-out example"
        for number, example in enumerate(examples, 1):
            self._check_example(example, f"{what} {number}")
        return tuple(examples)

    def _check_example(self, example: object, called: str) -> None:
        if (
            not isinstance(example, Example)
            or not isinstance(example.text, str)
            or not isinstance(example.prompt, str)
            or not isinstance(example.unit, str)
            or not isinstance(example.outputs, Mapping)
        ):
            raise ProbeError(f"Probe {self.name}: {called} is {_shown(example)}. Give Example(text, label).")
        if type(example.label) is not int or example.label not in (0, 1):
            raise ProbeError(f"Probe {self.name}: {called} has label {example.label!r}. Write 0 or 1.")
        for name, right in example.outputs.items():
            if name not in self.outputs:
                known = ", ".join(self.outputs) or "it declares none"
                raise ProbeError(f"Probe {self.name}: {called} names the output {name!r}; known: {known}.")
            if type(right) is not int or right not in (0, 1):
                raise ProbeError(f"Probe {self.name}: {called} has {name} = {right!r}. Write 0 or 1.")

    def read(self, passage: Passage) -> Reading:
        """Judge one passage.

        Raises:
            ProbeError: the probe failed, gave a score outside [0, 1], a span outside the text, or two different
                answers to the same passage. The message names the probe and shows what it returned.
        """
        first = self.read_once(passage)
        second = self.read_once(passage)
        if first != second:
            raise ProbeError(
                f"Probe {self.name} gave two answers to one passage: {_shown(first)}, then {_shown(second)}. "
                "Remove randomness and memory from read(), or fix the seed inside it."
            )
        return first

    def read_once(self, passage: Passage) -> Reading:
        """As `read`, without the second reading: for a caller that compares readings itself."""
        try:
            with redirect_stdout(sys.stderr):  # as above
                reading = self._probe.read(passage)
        except ProbeError:
            raise
        except (Exception, SystemExit) as error:  # as above
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
        checked_spans = tuple(self._span(span, len(passage.text)) for span in spans)
        return Reading(score, checked_spans, reading.label, self._outputs(reading))

    def _outputs(self, reading: Reading) -> dict[str, float | None]:
        given = reading.outputs
        if not isinstance(given, Mapping):
            raise ProbeError(f"Probe {self.name} returned {_shown(reading)}: outputs must be a dict, name to score.")
        missing = [name for name in self.outputs if name not in given]
        if missing:
            raise ProbeError(f"Probe {self.name} returned {_shown(reading)}: the output {missing[0]!r} is missing.")
        unknown = [name for name in given if name not in self.outputs]
        if unknown:
            raise ProbeError(
                f"Probe {self.name} returned the output {_shown(unknown[0])}, which it does not declare. "
                f"Write outputs = (..., {_shown(unknown[0])}) in its class, or leave it out."
            )
        return {name: None if given[name] is None else self._score(given[name], reading) for name in self.outputs}

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


def checked(probe: object, source: str = "", made_with: Mapping[str, Scalar] | None = None) -> CheckedProbe:
    """Wrap `probe` so that whatever breaks the contract is a ProbeError.

    Args:
        probe: an object with the members of `Probe`.
        source: where it came from (file or package), for the message.
        made_with: the parameters its class was called with, where the caller knows them.

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
    if not isinstance(candidate.name, str) or not _NAME.fullmatch(candidate.name) or len(candidate.name) > MAX_NAME:
        raise ProbeError(f"{called}: the name {_shown(candidate.name)} must be lower-case words joined by hyphens.")
    if candidate.name in RESERVED:
        raise ProbeError(f"{called}: the name {candidate.name!r} has a meaning in probe expressions; choose another.")
    for member in ("version", "definition"):
        text = getattr(candidate, member)
        if not isinstance(text, str) or not text.strip():
            raise ProbeError(f"{called}: {member} is {_shown(text)}; it must be text and not empty.")
    if candidate.level not in LEVELS:
        raise ProbeError(f"{called}: level is {_shown(candidate.level)}; choose one of {', '.join(LEVELS)}.")
    for member in ("examples", "read", "held_out"):
        if not callable(getattr(candidate, member, checked)):
            raise ProbeError(f"{called}: {member} is {_shown(getattr(candidate, member))}; it must be a method.")
    read = getattr(candidate, "held_out_read", "once")
    if read not in ("once", "again"):
        raise ProbeError(f"{called}: held_out_read is {_shown(read)}; write 'once' or 'again'.")
    _check_outputs(getattr(candidate, "outputs", ()), called)
    _check_parameters(getattr(candidate, "parameters", {}), called)
    return CheckedProbe(candidate, made_with)


def is_name(text: object) -> bool:
    """Whether `text` may name a probe or an output: lower-case words joined by hyphens, none of `RESERVED`."""
    return isinstance(text, str) and len(text) <= MAX_NAME and bool(_NAME.fullmatch(text)) and text not in RESERVED


def _check_outputs(outputs: object, called: str) -> None:
    if not isinstance(outputs, tuple | list) or not all(is_name(name) for name in outputs):
        raise ProbeError(f"{called}: outputs is {_shown(outputs)}; give a tuple of names such as ('mild', 'strong').")
    if len(set(outputs)) < len(outputs):
        raise ProbeError(f"{called}: outputs is {_shown(outputs)}; each name may stand there once.")


def _check_parameters(parameters: object, called: str) -> None:
    if not isinstance(parameters, Mapping) or not all(
        isinstance(key, str) and is_scalar(value) for key, value in parameters.items()
    ):
        raise ProbeError(
            f"{called}: parameters is {_shown(parameters)}; give a dict of texts, finite numbers and truth values."
        )


def _parameters(probe: Probe, made_with: Mapping[str, Scalar] | None) -> dict[str, Scalar]:
    """`parameters` where the probe has it, else the arguments its class was called with or keeps as attributes."""
    own = getattr(probe, "parameters", made_with)
    if own is not None:
        return dict(own)
    kept = {key: getattr(probe, key, None) for key in declared(type(probe))}
    return {key: value for key, value in kept.items() if is_scalar(value)}  # type: ignore[misc]  # is_scalar is no type guard


def _shown(value: object) -> str:
    """A short repr on one line: what a probe returns may be long, and its own repr may fail."""
    try:
        return _one_line(repr(value))
    except Exception:  # noqa: BLE001 - the message matters more than a stranger's broken __repr__
        return f"<{type(value).__name__}>"


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {_one_line(str(error))}" if str(error) else type(error).__name__


def _one_line(text: str) -> str:
    """At most 200 characters, with control characters as codes: a terminal must not obey a stranger's text."""
    short = text if len(text) <= 200 else text[:197] + "..."
    return short if short.isprintable() else ascii(short)[1:-1][:400]
