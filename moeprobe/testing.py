"""The contract test of probes, for anybody's test suite: no pytest is needed.

from moeprobe.testing import check_probe

def test_my_probe():
    check_probe("mypackage/shouting.py")
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING

from moeprobe.errors import ProbeError
from moeprobe.probes import Example, Passage, Probe, Reading, check_probe_quality, checked, load_probe

if TYPE_CHECKING:
    from moeprobe.probes import CheckedProbe

__all__ = ["HOSTILE", "check_probe"]

HOSTILE = {
    "the empty text": "",
    "white space alone": " \t\r\n\u00a0\u2028\u3000" * 20,
    "one token of 1 MB": "a" * 1_000_000,
    "an unpaired surrogate": "before \ud83d after \udc00",
    "control characters": "\x1b[2J\x07\x08 bell \x00 NUL \x7f \x85 \ufeff",
    "right-to-left text": "אני לא יכול لا أستطيع \u202eevil\u202c \u2067x\u2069",
    "combining marks": "e\u0301" * 50 + "a" + "\u0300" * 2000,
    "emoji": "👩‍👩‍👧‍👦👍🏽🇩🇪" * 50,
    "private and unassigned characters": "\ue000\uffff\U0010ffff\u0378",
    "brackets and quotes without an end": "(\"'“[{<`*_" * 200,
    "line ends of every kind": "a\rb\nc\r\nd\x0be\x0cf\u2029g" * 50,
}
"""Texts that a model may well write, by what they are."""

# What is repeated to see how the time grows: prose, and runs that make careless patterns backtrack.
_GROWING = ("I think that it may be so, he said. ", "a", " ", "\n", "a.", '"', "a b ", "-")
_FIRST, _LAST = 4_000, 256_000  # characters
_ENOUGH = 0.05  # seconds: below this a reading cannot be timed against another
_STEEPEST = 9.0  # times as long for four times the text: 4 is linear, 16 quadratic


def check_probe(
    probe: "Probe | str | os.PathLike[str]", *, examples: bool = True, speed: bool = True, seconds: float = 20.0
) -> "CheckedProbe":
    """Hold a probe to everything that moeprobe relies on.

    Tested are:

    - its facts, and that it has examples of both kinds, answered better than chance;
    - at token and sentence level, that it marks something in its positive examples;
    - the same answers when asked again, after other texts, by a new copy, and (where it is given by name or path) in
      another process, where sets have another order;
    - hostile texts (empty, a token of 1 MB, unpaired surrogates, control characters ...), with scores and offsets
      within bounds in all of them;
    - that its time grows with the length of the text, not with its square.

    Args:
        probe: a probe, or what `--probe` takes: a name, the path of a file, or an expression.
        examples: False for a probe that has none, for example one composed of others.
        speed: False leaves the timing out, for a machine that is busy.
        seconds: the longest that one reading of one text may take. A reading is cut off then where the system can do
            that (not on Windows, and not in another thread).

    Returns:
        The probe, as `load_probe` gives it.

    Raises:
        ProbeError: it cannot be loaded, or a fact is missing or malformed.
        AssertionError: all other breaches, one a line.
    """
    spec = str(probe) if isinstance(probe, str | os.PathLike) else None
    judge = checked(probe) if spec is None else load_probe(spec)
    again = None if spec is None else load_probe(spec)
    breaches: list[str] = []
    own = _own_examples(judge, breaches) if examples else ()
    texts = {"its own example": Passage(own[0].text, own[0].prompt)} if own else {}
    texts |= {what: Passage(text) for what, text in HOSTILE.items()}
    breaches += _reading_breaches(judge, again, texts, seconds)
    if spec is not None and not breaches:
        breaches += _process_breaches(judge, spec, texts, seconds)
    if own and not breaches:
        breaches += _quality_breaches(judge, own, seconds)
    if speed and not breaches:
        breaches += _speed_breaches(judge, seconds)
    if breaches:
        listed = "\n".join(f"- {breach}" for breach in breaches)
        raise AssertionError(f"The probe {judge.name} breaks the contract of probes:\n{listed}")
    return judge


def _own_examples(judge: "CheckedProbe", breaches: list[str]) -> tuple[Example, ...]:
    try:
        own = tuple(judge.examples())
        judge.held_out()
    except ProbeError as problem:
        breaches.append(str(problem))
        return ()
    positives = sum(one.label for one in own)
    if not 0 < positives < len(own):
        breaches.append(
            f"examples() gives {positives} positive and {len(own) - positives} negative examples; both are needed."
        )
    return own


def _reading_breaches(
    judge: "CheckedProbe", again: "CheckedProbe | None", texts: dict[str, Passage], seconds: float
) -> list[str]:
    """Every text once, then again in another order and by a fresh copy."""
    breaches: list[str] = []
    first: dict[str, Reading] = {}
    for what, passage in texts.items():
        with _noted(breaches, f"On {what}", seconds, passage):
            first[what] = judge.read(passage)
    for reader, when in ((judge, "after other texts"), (again, "in a second copy of the probe")):
        for what in reversed(first):
            if reader is None:
                continue
            with _noted(breaches, f"On {what}, {when}", seconds, texts[what]):
                if reader.read_once(texts[what]) != first[what]:
                    breaches.append(f"On {what}: another answer {when}. Remove randomness and memory from read().")
    return breaches


def _process_breaches(judge: "CheckedProbe", spec: str, texts: dict[str, Passage], seconds: float) -> list[str]:
    """The same texts in another process with another seed of hashes, as `interchange` is another than `correlate`."""
    if not sys.executable:
        return []
    short = {what: passage for what, passage in texts.items() if len(passage.text) < 100_000}
    asked = json.dumps([spec, [(passage.text, passage.prompt) for passage in short.values()]])
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", "from moeprobe.testing import answer; answer()"]
    limit = 60 + seconds * len(short)
    try:
        done = subprocess.run(  # noqa: S603 - this very Python, with a fixed command
            command, input=asked, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
        answers = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return ["In another process it could not be asked, or did not answer in time."]
    breaches: list[str] = []
    for (what, passage), said in zip(short.items(), answers, strict=True):
        with _noted(breaches, f"On {what}, once more", seconds, passage):
            if said != _written(judge, passage):
                breaches.append(
                    f"On {what}: another answer in another process. Do not go by hash(), or by the order of a set."
                )
    return breaches


def answer() -> None:
    """Read a spec and texts from standard input, and print the probe's readings: the other process of `check_probe`."""
    spec, texts = json.loads(sys.stdin.read())
    judge = load_probe(spec)
    print(json.dumps([_written(judge, Passage(*one)) for one in texts]))


def _written(judge: "CheckedProbe", passage: Passage) -> str:
    return json.dumps(asdict(judge.read_once(passage)), sort_keys=True)


def _quality_breaches(judge: "CheckedProbe", own: tuple[Example, ...], seconds: float) -> list[str]:
    breaches: list[str] = []
    marks = False
    for number, one in enumerate(own, 1):  # alone first: so a text that cannot be read is named
        passage = Passage(one.text, one.prompt)
        with _noted(breaches, f"On its own example {number}", seconds, passage):
            spans = judge.read_once(passage).spans
            marks = marks or bool(one.label and spans)
    if breaches:
        return breaches
    quality = None
    with _noted(breaches, "On its own examples, once more", 60 + seconds * len(own)):
        quality = check_probe_quality(judge, own)
    if quality is None:
        return breaches
    answered = len(own) - len(quality.abstentions)
    balanced = quality.balanced_accuracy
    if answered * 2 < len(own) or balanced.value is None or balanced.low is None:
        breaches.append(
            f"It answers {answered} of its {len(own)} own examples; at least half, of both kinds, it should."
        )
    elif balanced.low <= 0.5:
        breaches.append(
            f"Its balanced accuracy on its own {len(own)} examples is {balanced.value:.2f} with the interval "
            f"[{balanced.low:.2f}, {balanced.high:.2f}], which includes .5, that of a coin. "
            "Mend the rule, or give more examples."
        )
    if judge.level != "generation" and not marks:
        breaches.append(
            f"Its level is {judge.level!r}, but it marks no span in any of its positive examples. Give spans, or write "
            'level = "generation".'
        )
    return breaches


def _speed_breaches(judge: "CheckedProbe", seconds: float) -> list[str]:
    breaches = []
    for unit in _GROWING:
        try:
            with _at_most(seconds):
                steepness = _steepness(judge, unit)
                if steepness > _STEEPEST:  # a busy machine can look like this for once, a rule does every time
                    steepness = min(steepness, _steepness(judge, unit), _steepness(judge, unit))
        except _TooSlow:
            breaches.append(f"On a long run of {unit!r} it takes more than {seconds:g} seconds.")
            continue
        except ProbeError as problem:
            breaches.append(f"On a long run of {unit!r}: {problem}")
            continue
        if steepness > _STEEPEST:
            breaches.append(
                f"On four times as long a run of {unit!r} it takes {steepness:.0f} times as long, so its time grows "
                "faster than the text. Bound the repetitions in its patterns, or cut long texts."
            )
    return breaches


def _steepness(judge: "CheckedProbe", unit: str) -> float:
    """How many times as long four times the text takes; 0 where everything is too quick to be timed."""
    size, long = _FIRST, _time(judge, unit, _FIRST, 2)
    while long < _ENOUGH:
        size *= 2
        if size > _LAST:
            return 0.0
        long = _time(judge, unit, size, 2)
    return long / max(_time(judge, unit, size // 4, 3), 1e-6)


def _time(judge: "CheckedProbe", unit: str, size: int, times: int) -> float:
    """Seconds of computing (not of waiting for others) of the quickest of some readings."""
    passage = Passage((unit * (size // len(unit) + 1))[:size])
    taken = []
    for _ in range(times):
        begun = time.thread_time()
        judge.read_once(passage)
        taken.append(time.thread_time() - begun)
    return min(taken)


@contextlib.contextmanager
def _noted(breaches: list[str], where: str, seconds: float, passage: Passage | None = None) -> Iterator[None]:
    """A failure of what runs inside, or more than so many seconds, becomes a breach."""
    try:
        with _at_most(seconds):
            yield
    except ProbeError as problem:
        breaches.append(f"{where}: {problem}")
    except _TooSlow:
        long = "" if passage is None else f" ({len(passage.text):,} characters)"
        breaches.append(f"{where}{long}: no answer within {seconds:g} seconds.")


class _TooSlow(BaseException):
    """Raised inside a probe that takes too long; no Exception, so that the probe's own handlers let it pass."""


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Stop what runs inside after so many seconds, also a pattern that backtracks."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
