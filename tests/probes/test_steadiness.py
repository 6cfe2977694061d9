"""Memory and chance are caught; speed is a number one can check."""

import itertools

import pytest

from moeprobe.probes import Example, Level, Passage, Reading, checked
from moeprobe.probes.contract import CheckedProbe
from moeprobe.probes.steadiness import speed, unsteady

TEXTS = [Example("one two three", 1), Example("four five", 0), Example("six", 1)]


class Steady:
    name, version, definition = "steady", "1", "Long texts."
    level: Level = "generation"

    def examples(self) -> list[Example]:
        return TEXTS

    def read(self, passage: Passage) -> Reading:
        return Reading(min(1.0, len(passage.text) / 20))


class Remembers(Steady):
    """Two readings of one passage in a row are the same: only another order shows it."""

    def __init__(self) -> None:
        self.last, self.before = "", ""

    def read(self, passage: Passage) -> Reading:
        if passage.text != self.last:
            self.last, self.before = passage.text, self.last
        return Reading(0.9 if self.before else 0.1)


class Instances(Steady):
    """Each instance has its own mind."""

    numbers = itertools.count()

    def __init__(self) -> None:
        self.number = next(self.numbers)

    def read(self, passage: Passage) -> Reading:
        return Reading(0.5 + 0.001 * (self.number % 100) * bool(passage.text))


def test_a_steady_probe_passes() -> None:
    assert unsteady(lambda: checked(Steady()), TEXTS) == ()


@pytest.mark.parametrize(("kind", "how"), [(Remembers, "from the end"), (Instances, "fresh instance")])
def test_memory_is_caught(kind: type[Steady], how: str) -> None:
    checked(kind()).read(Passage("a"))  # reading a passage twice in a row does not show it
    found = unsteady(lambda: checked(kind()), TEXTS)
    assert found
    assert any(how in one.how for one in found)
    assert found[0].first != found[0].other


def test_speed_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("moeprobe.probes.steadiness.time.perf_counter", lambda: clock[0])

    class Slow(Steady):
        def read(self, passage: Passage) -> Reading:
            clock[0] += 0.002
            return super().read(passage)

    found = speed(CheckedProbe(Slow()), TEXTS)
    assert found is not None
    assert (found.texts, found.words, found.passes) == (3, 6, 5)
    # three readings of 2 ms for 6 words x 1.3 = 7.8 tokens
    assert found.ms_per_1000_tokens == pytest.approx(3 * 2 / 0.0078)
    assert speed(CheckedProbe(Slow()), [Example("", 1)]) is None
