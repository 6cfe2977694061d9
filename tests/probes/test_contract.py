"""A probe that breaks its contract is stopped, by name."""

import itertools
import math

import numpy as np
import pytest

from moeprobe.errors import ProbeError
from moeprobe.probes import Example, Level, Passage, Probe, Reading, Span, checked


class Fine:
    name = "fine"
    version = "1"
    level: Level = "generation"
    definition = "A probe for tests. It says what it was told to say."
    answer: object = Reading(0.5)

    def examples(self) -> list[Example]:
        return [Example("a", 1), Example("b", 0)]

    def read(self, passage: Passage) -> Reading:  # noqa: ARG002 - the answer was set beforehand
        return self.answer  # type: ignore[return-value]  # tests hand out wrong answers on purpose


def answering(answer: object) -> Fine:
    probe = Fine()
    probe.answer = answer
    return probe


def test_a_plain_class_is_a_probe() -> None:
    assert isinstance(Fine(), Probe)
    assert not isinstance(object(), Probe)
    assert isinstance(checked(Fine()), Probe)
    assert checked(checked(Fine())).read(Passage("x")) == Reading(0.5)


@pytest.mark.parametrize("score", [None, 0, 1, 0.0, 1.0, np.float32(0.25), np.float64(0.25), np.int64(1)])
def test_passes_scores_in_range(score: float | None) -> None:
    reading = checked(answering(Reading(score))).read(Passage("x"))
    assert reading.score == score
    assert reading.score is None or type(reading.score) is float


@pytest.mark.parametrize("score", [1.0001, -0.1, math.nan, math.inf, True, "0.5", [0.5], np.array([0.5]), 1 + 0j])
def test_stops_scores_out_of_range(score: object) -> None:
    with pytest.raises(ProbeError, match=r"Probe fine returned .*score"):
        checked(answering(Reading(score))).read(Passage("x"))  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("answer", [None, 0.5, {"score": 0.5}, Reading])
def test_stops_what_is_no_reading(answer: object) -> None:
    with pytest.raises(ProbeError, match=r"fine: read\(\) returned .*Return Reading"):
        checked(answering(answer)).read(Passage("x"))


@pytest.mark.parametrize(
    "span",
    [
        Span(0, 4, 0.5, "a"),
        Span(-1, 2, 0.5, "a"),
        Span(2, 2, 0.5, "a"),
        Span(2, 1, 0.5, "a"),
        Span(0, 1, 2.0, "a"),
        Span(0, 1, math.nan, "a"),
        Span(0.0, 1, 0.5, "a"),  # type: ignore[arg-type]  # wrong on purpose
        Span(0, 1, 0.5, None),  # type: ignore[arg-type]  # wrong on purpose
        (0, 1, 0.5, "a"),
    ],
)
def test_stops_spans_outside_the_text(span: object) -> None:
    with pytest.raises(ProbeError, match="fine"):
        checked(answering(Reading(0.5, (span,)))).read(Passage("abc"))  # type: ignore[arg-type]  # wrong on purpose


def test_counts_characters_not_bytes() -> None:
    reading = Reading(0.5, (Span(0, 3, 0.5, "a"),))
    assert checked(answering(reading)).read(Passage("é👍x")) == reading


def test_stops_spans_and_labels_of_the_wrong_kind() -> None:
    with pytest.raises(ProbeError, match="tuple of Span"):
        checked(answering(Reading(0.5, 7))).read(Passage("abc"))  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ProbeError, match="label must be text"):
        checked(answering(Reading(0.5, (), 7))).read(Passage("abc"))  # type: ignore[arg-type]  # wrong on purpose


def test_stops_a_probe_that_changes_its_mind() -> None:
    class Fickle(Fine):
        def __init__(self) -> None:
            self.turns = itertools.cycle((0.1, 0.9))

        def read(self, passage: Passage) -> Reading:  # noqa: ARG002 - the answer is the next one
            return Reading(next(self.turns))

    with pytest.raises(ProbeError, match=r"two answers .*0\.1.*0\.9"):
        checked(Fickle()).read(Passage("x"))


def test_names_the_probe_whose_code_fails() -> None:
    class Failing(Fine):
        def examples(self) -> list[Example]:
            raise KeyError("gone")

        def read(self, passage: Passage) -> Reading:  # noqa: ARG002 - it fails first
            raise ZeroDivisionError

    with pytest.raises(ProbeError, match=r"fine: read\(\) failed with ZeroDivisionError on the text"):
        checked(Failing()).read(Passage("x"))
    with pytest.raises(ProbeError, match=r"fine: examples\(\) failed with KeyError"):
        checked(Failing()).examples()


def test_shows_hostile_values_on_one_line() -> None:
    class Loud:
        def __repr__(self) -> str:
            return "\x1b[2J\n" * 1000

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    for value in (Loud(), Broken()):
        with pytest.raises(ProbeError) as caught:
            checked(answering(value)).read(Passage("x"))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("name", "Hedging"),
        ("name", "label:harmful"),
        ("name", "a b"),
        ("name", "x\n"),
        ("name", ""),
        ("name", 7),
        ("version", 1),
        ("version", " "),
        ("definition", ""),
        ("level", "word"),
        ("level", ["token"]),
        ("read", "text"),
        ("examples", []),
    ],
)
def test_stops_malformed_members(member: str, value: object) -> None:
    probe = Fine()
    setattr(probe, member, value)
    with pytest.raises(ProbeError, match=member):
        checked(probe)


def test_names_missing_members() -> None:
    with pytest.raises(
        ProbeError, match=r"The probe object from x\.py lacks name, version, level, definition, examples, read"
    ):
        checked(object(), "x.py")


_WRONG: list[object] = [
    ("a", 1),
    Example("a", 2),
    Example("a", True),
    Example("a", None),  # type: ignore[arg-type]  # wrong on purpose
    Example(b"a", 1),  # type: ignore[arg-type]  # wrong on purpose
]


@pytest.mark.parametrize("example", _WRONG)
def test_stops_malformed_examples(example: object) -> None:
    class Odd(Fine):
        def examples(self) -> list[Example]:
            return [Example("fine", 1), example]  # type: ignore[list-item]  # wrong on purpose

    with pytest.raises(ProbeError, match="example 2"):
        checked(Odd()).examples()


def test_a_probe_cannot_end_the_run_or_write_into_its_output(capsys: pytest.CaptureFixture[str]) -> None:
    class Leaving(Fine):
        def read(self, passage: Passage) -> Reading:
            print("HELLO", len(passage.text))
            raise SystemExit(0)

    with pytest.raises(ProbeError, match="read\\(\\) failed with SystemExit"):
        checked(Leaving()).read(Passage("x"))
    out, err = capsys.readouterr()
    assert (out, "HELLO" in err) == ("", True)
