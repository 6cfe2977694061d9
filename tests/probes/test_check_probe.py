"""moeprobe.testing.check_probe: sound probes pass, and each planted fault is found and named."""

import random
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moeprobe.errors import ProbeError
from moeprobe.probes import Example, Level, Passage, Reading, Span
from moeprobe.testing import HOSTILE, check_probe


class Sound:
    """Marks every "yes"."""

    name = "sound"
    version = "1"
    level: Level = "token"
    definition = "Says yes."

    def examples(self) -> list[Example]:
        return [Example(f"yes {word}", 1) for word in "abcdef"] + [Example(f"no {word}", 0) for word in "abcdef"]

    def read(self, passage: Passage) -> Reading:
        spans = tuple(Span(m.start(), m.end(), 1.0, "yes") for m in re.finditer("yes", passage.text))
        return Reading(1.0 if spans else 0.0, spans)


def test_a_sound_probe_passes() -> None:
    assert check_probe(Sound()).name == "sound"


@pytest.mark.parametrize("name", ["refusal", "first-person-self-examination"])
def test_the_built_in_registers_pass(name: str) -> None:
    check_probe(name)


def test_a_composed_probe_passes_without_examples() -> None:
    check_probe("refusal and not first-person-self-examination", examples=False, speed=False)
    with pytest.raises(AssertionError, match="0 positive and 0 negative"):
        check_probe("refusal or refusal", speed=False)


def faulty(read: Callable[[Sound, Passage], object]) -> Sound:
    return type("Faulty", (Sound,), {"read": read})()  # type: ignore[no-any-return]  # a class made here


def _raises(probe: Sound, passage: Passage) -> object:
    return passage.text.encode("utf-8") and Sound.read(probe, passage)


def _beyond(probe: Sound, passage: Passage) -> object:
    length = len(passage.text.encode("utf-16", "surrogatepass")) // 2  # counts code units, as JavaScript would
    return Reading(1.0, (Span(0, length, 1.0, "all"),))


def _no_number(probe: Sound, passage: Passage) -> object:
    letters = sum(character.isalpha() for character in passage.text)
    return Reading(float("nan")) if not letters else Sound.read(probe, passage)


def _random(probe: Sound, passage: Passage) -> object:
    return Reading(random.random())


def _remembers(probe: Sound, passage: Passage) -> object:
    seen = probe.__dict__.setdefault("seen", [])
    if passage.text not in seen:
        seen.append(passage.text)
    return Reading(min(1.0, len(seen) / 100))


def _quadratic(probe: Sound, passage: Passage) -> object:
    text = passage.text
    if text.count("a") < len(text) or len(text) > 500_000:
        return Sound.read(probe, passage)
    return Reading(min(1.0, sum(text[start:].count("b") for start in range(0, len(text), 4))))


def _backtracks(probe: Sound, passage: Passage) -> object:
    return Reading(float(bool(re.match(r"(a+)+$", passage.text[:40] + "!"))))


def _always(probe: Sound, passage: Passage) -> object:
    return Reading(1.0, (Span(0, 1, 1.0, "x"),) if passage.text else ())


def _abstains(probe: Sound, passage: Passage) -> object:
    return Reading(None)


def _unmarked(probe: Sound, passage: Passage) -> object:
    return Reading(Sound.read(probe, passage).score)


@pytest.mark.parametrize(
    ("read", "complaint"),
    [
        (_raises, "an unpaired surrogate: Probe sound: read() failed with UnicodeEncodeError"),
        (_beyond, "needs 0 <= start < end <= length"),
        (_no_number, "On white space alone: Probe sound returned"),
        (_random, "two answers to one passage"),
        (_remembers, "another answer after other texts"),
        (_backtracks, "On one token of 1 MB (1,000,000 characters): no answer within 2 seconds"),
        (_always, "includes .5, that of a coin"),
        (_abstains, "answers 0 of its 12 own examples"),
        (_unmarked, "marks no span in any of its positive examples"),
    ],
)
def test_a_planted_fault_is_found(read: Callable[[Sound, Passage], object], complaint: str) -> None:
    with pytest.raises(AssertionError, match="The probe sound breaks the contract") as caught:
        check_probe(faulty(read), speed=False, seconds=2)
    assert complaint in str(caught.value)


class Later:
    """Says yes in every reading but one, and then does what it was given."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self.left, self.act = number, act

    def __call__(self, probe: Sound, passage: Passage) -> object:
        self.left -= 1
        if self.left == 0:
            self.act()
        return Sound.read(probe, passage)


def _fails() -> None:
    raise KeyError("later")


FIRST = 2 * (len(HOSTILE) + 1)  # readings of the first round
AGAIN = FIRST + len(HOSTILE) + 1  # and those after the second


@pytest.mark.parametrize(
    ("number", "act", "complaint"),
    [
        (FIRST + 1, _fails, "On line ends of every kind, after other texts: Probe sound: read() failed with KeyError"),
        (FIRST + 1, lambda: time.sleep(30), "after other texts (700 characters): no answer within 1 seconds"),
        (AGAIN + 1, _fails, "On its own example 1: Probe sound: read() failed with KeyError"),
        (AGAIN + 2, lambda: time.sleep(30), "On its own example 2 (5 characters): no answer within 1 seconds"),
        (AGAIN + 12 + 1, _fails, "On its own examples, once more: Probe sound: read() failed with KeyError"),
    ],
)
def test_a_later_reading_that_fails_is_a_breach(number: int, act: Callable[[], object], complaint: str) -> None:
    later = Later(number, act)
    with pytest.raises(AssertionError, match="The probe sound breaks the contract") as caught:
        check_probe(faulty(lambda probe, passage: later(probe, passage)), speed=False, seconds=1)
    assert complaint in str(caught.value)


def test_a_failure_on_a_long_run_is_a_breach() -> None:
    def fails_on_runs(probe: Sound, passage: Passage) -> object:
        return _fails() if passage.text.startswith("a b a b a b") else Sound.read(probe, passage)

    with pytest.raises(AssertionError, match="On a long run of 'a b ': Probe sound: read.. failed with KeyError"):
        check_probe(faulty(fails_on_runs))


def test_time_that_grows_with_the_square_is_found() -> None:
    with pytest.raises(AssertionError, match=r"a run of 'a' it takes \d+ times as long"):
        check_probe(faulty(_quadratic))


def test_all_breaches_are_listed() -> None:
    with pytest.raises(AssertionError) as caught:
        check_probe(faulty(lambda probe, passage: Reading(2.0)), speed=False)
    assert str(caught.value).count("\n- ") == len(HOSTILE) + 1
    assert all(line.isprintable() for line in str(caught.value).splitlines())


def test_facts_and_examples_are_checked() -> None:
    with pytest.raises(ProbeError, match="the name 'Bad Name'"):
        check_probe(type("Named", (Sound,), {"name": "Bad Name"})())
    for own, complaint in (
        ([Example("yes", 1)], "1 positive and 0 negative"),
        ([Example("yes", 3)], "label 3"),
        ([Example("yes", 1), Example("no", 0)], "includes .5"),  # right, and too few to tell
    ):
        probe = type("Few", (Sound,), {"examples": lambda self, own=own: own})()
        with pytest.raises(AssertionError, match=re.escape(complaint)):
            check_probe(probe, speed=False)


def test_a_second_copy_must_answer_alike(tmp_path: Path) -> None:
    path = tmp_path / "copied.py"
    path.write_text(
        "import itertools, os\nfrom moeprobe.probes import probe\n"
        f"MARK = {str(tmp_path / 'loaded')!r}\nSECOND = os.path.exists(MARK)\nopen(MARK, 'w').close()\n"
        "@probe(name='copied', version='1', level='generation', definition='d',\n"
        "       examples=[('yes', 1)] * 6 + [('no', 0)] * 6)\n"
        "def judge(text):\n    return 0.75 if SECOND else float('yes' in text)\n"
    )
    with pytest.raises(AssertionError, match="another answer in a second copy"):
        check_probe(str(path), speed=False)


def test_another_process_must_answer_alike(tmp_path: Path) -> None:
    path = tmp_path / "hashed.py"
    source = (
        "from moeprobe.probes import probe\n"
        "@probe(name='hashed', version='1', level='generation', definition='d',\n"
        "       examples=[('yes', 1)] * 6 + [('no', 0)] * 6)\n"
        "def judge(text):\n    return 0.5 + (KEY % 1000) / 2000 if 'yes' in text else 0.0\n"
    )
    path.write_text(source.replace("KEY", "len(text)"))
    check_probe(path, speed=False)
    path.write_text(source.replace("KEY", "hash(text)"))
    with pytest.raises(AssertionError, match="On its own example: another answer in another process") as caught:
        check_probe(path, speed=False)
    assert str(caught.value).count("\n- ") == 1


def test_it_works_in_another_thread() -> None:
    done: list[str] = []
    thread = threading.Thread(target=lambda: done.append(check_probe(Sound(), speed=False).name))
    thread.start()
    thread.join()
    assert done == ["sound"]
