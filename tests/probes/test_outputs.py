"""Several outputs of one probe, and held-out examples: what is checked of them, and how one is asked for."""

import math
from pathlib import Path

import pytest

from moeprobe.errors import ProbeError
from moeprobe.probes import Example, Level, Passage, Reading, Span, checked, load_probe, probe_quality


class Two:
    name = "two"
    version = "1"
    level: Level = "sentence"
    definition = "Two of a kind."
    outputs: object = ("mild", "very-strong")
    answer: object = Reading(0.5, (), None, {"mild": 0.25, "very-strong": None})
    own: object = (Example("a", 1, outputs={"mild": 1}), Example("b", 0))
    kept: object = (Example("c", 1, outputs={"very-strong": 0}),)

    def examples(self) -> object:
        return self.own

    def held_out(self) -> object:
        return self.kept

    def read(self, passage: Passage) -> object:  # noqa: ARG002 - the answer was set beforehand
        return self.answer


def changed(**members: object) -> Two:
    probe = Two()
    for name, value in members.items():
        setattr(probe, name, value)
    return probe


def test_outputs_are_passed_on() -> None:
    probe = checked(Two())
    assert probe.outputs == ("mild", "very-strong")
    assert probe.read(Passage("x")).outputs == {"mild": 0.25, "very-strong": None}
    assert probe.held_out() == Two.kept


@pytest.mark.parametrize(
    ("outputs", "complaint"),
    [
        ({}, "'mild' is missing"),
        ({"mild": 0.5}, "'very-strong' is missing"),
        ({"mild": 0.5, "very-strong": 0.5, "other": 0.1}, "'other', which it does not declare"),
        ({"mild": math.nan, "very-strong": 0.5}, "nan is not in"),
        ({"mild": 1.5, "very-strong": 0.5}, "1.5 is not in"),
        ({"mild": True, "very-strong": 0.5}, "a score is a number"),
        ([0.5, 0.5], "outputs must be a dict"),
        (None, "outputs must be a dict"),
    ],
)
def test_stops_wrong_outputs(outputs: object, complaint: str) -> None:
    with pytest.raises(ProbeError) as caught:
        checked(changed(answer=Reading(0.5, outputs=outputs))).read(Passage("x"))  # type: ignore[arg-type]  # wrong on purpose
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_outputs_that_change_are_two_answers() -> None:
    class Fickle(Two):
        turns = 0.0

        def read(self, passage: Passage) -> Reading:  # noqa: ARG002 - the answer is the next one
            self.turns += 0.1
            return Reading(0.5, outputs={"mild": self.turns, "very-strong": 0.5})

    with pytest.raises(ProbeError, match="two answers"):
        checked(Fickle()).read(Passage("x"))


@pytest.mark.parametrize("outputs", ["mild", ("Mild",), ("mild", "mild"), (1,), ("and",), None, ("a b",)])
def test_stops_wrong_names(outputs: object) -> None:
    with pytest.raises(ProbeError, match="outputs is"):
        checked(changed(outputs=outputs))


def test_a_reading_may_not_bring_outputs_that_nobody_declared() -> None:
    with pytest.raises(ProbeError, match="does not declare"):
        checked(changed(outputs=())).read(Passage("x"))


@pytest.mark.parametrize(
    ("example", "complaint"),
    [
        (Example("a", 1, outputs={"other": 1}), "names the output 'other'; known: mild, very-strong"),
        (Example("a", 1, outputs={"mild": 0.5}), "has mild = 0.5"),  # type: ignore[dict-item]  # wrong on purpose
        (Example("a", 1, outputs=[1]), "is Example"),  # type: ignore[arg-type]  # wrong on purpose
    ],
)
def test_stops_wrong_examples(example: Example, complaint: str) -> None:
    with pytest.raises(ProbeError, match="Probe two: example 1") as caught:
        checked(changed(own=[example])).examples()
    assert complaint in str(caught.value)
    with pytest.raises(ProbeError, match="Probe two: held-out example 1"):
        checked(changed(kept=[example])).held_out()


def test_held_out_must_be_a_method_and_is_optional() -> None:
    with pytest.raises(ProbeError, match="held_out is"):
        checked(changed(held_out=[]))
    assert load_probe("refusal").held_out() is not None


FILE = """
from moeprobe.probes import Example, Reading, Span

class Two:
    name = "two"
    version = "4"
    level = "sentence"
    definition = "Two of a kind."
    outputs = ("mild", "very-strong")

    def __init__(self, *, least: int = 1):
        self.least = least

    def examples(self):
        return [Example("a", 1, outputs={"mild": 1}), Example("b", 0, outputs={"mild": 0, "very-strong": 1})]

    def read(self, passage):
        spans = (Span(0, 1, 0.5, "mild"), Span(1, 2, 1.0, "very strong"), Span(2, 3, 0.5, "else"))
        return Reading(0.75, spans, None, {"mild": 0.25, "very-strong": None})
"""


def test_one_output_is_a_probe_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "two.py"
    path.write_text(FILE)
    mild, strong = load_probe(f"{path}:mild"), load_probe(f"{path}:very-strong(least=3)")
    assert (mild.name, mild.version, mild.level) == ("two.mild", "4", "sentence")
    assert mild.read(Passage("abc")) == Reading(0.25, (Span(0, 1, 0.5, "mild"),))
    assert strong.read(Passage("abc")) == Reading(None, (Span(1, 2, 1.0, "very strong"),))
    assert mild.examples() == (Example("a", 1), Example("b", 0))
    assert strong.examples() == ()  # one of one kind measures nothing
    assert probe_quality(strong) is None
    assert (mild.parameters, strong.parameters) == ({"least": 1}, {"least": 3})
    assert load_probe(f"not {path}:very-strong(least=3)").name == "not two.very-strong(least=3)"
    assert load_probe(str(path)).output("mild").name == "two.mild"
    with pytest.raises(ProbeError, match=r"no output 'mld'. Did you mean two.mild"):
        load_probe(f"{path}:mld")
    with pytest.raises(ProbeError, match=r"no output 'x'. It has only its main score"):
        load_probe("first-person-self-examination.x")
