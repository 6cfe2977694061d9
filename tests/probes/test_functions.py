"""A function with @probe is a probe: what it may return, and what is read of it without running it."""

from pathlib import Path

import pytest

from moeprobe.errors import ProbeError
from moeprobe.probes import Example, FunctionProbe, Passage, Reading, Span, checked, load_probe, probe
from moeprobe.probes.sources import read_facts

SOURCE = """
from moeprobe.probes import probe

NAME = "loud"

@probe(name=NAME, version="3", level="sentence", definition="In capitals.", outputs=("mild", "strong"),
       examples=[("NO", 1), ("no", 0)])
def loud(text, *, share: float = 0.5, words=("a",), strict=True, note=None):
    return text.isupper()
"""


def made(said: object, **facts: object) -> FunctionProbe:
    given: dict[str, object] = {
        "name": "said", "version": "1", "level": "generation", "definition": "What it was told.",
        "examples": [("a", 1), Example("b", 0)],
    }  # fmt: skip

    @probe(**{**given, **facts})  # type: ignore[arg-type]  # the facts vary from test to test
    def judge(text: str) -> object:
        """Says it."""
        return said

    return judge


@pytest.mark.parametrize(
    ("said", "reading"),
    [
        (None, Reading(None)),
        (True, Reading(1.0)),
        (False, Reading(0.0)),
        (0.25, Reading(0.25)),
        ([], Reading(0.0)),
        ([(0, 2)], Reading(1.0, (Span(0, 2, 1.0, "said"),))),
        ([Span(0, 1, 0.5, "own")], Reading(1.0, (Span(0, 1, 0.5, "own"),))),
        (Reading(0.75, label="x"), Reading(0.75, label="x")),
    ],
)
def test_what_a_function_may_return(said: object, reading: Reading) -> None:
    assert checked(made(said)).read(Passage("abc")) == reading


@pytest.mark.parametrize("said", ["yes", 2.0, float("nan"), [(0, 9)], [(0, 1, 2)], [3], [(2, 1)], {"score": 1}])
def test_what_it_may_not(said: object) -> None:
    with pytest.raises(ProbeError, match="said"):
        checked(made(said)).read(Passage("abc"))


def test_it_may_take_the_passage_and_can_still_be_called() -> None:
    facts = {"name": "asked", "version": "1", "level": "generation", "definition": "d", "examples": [("a", 1)]}

    @probe(**facts)  # type: ignore[arg-type]  # as above
    def annotated(whole: Passage) -> bool:
        return whole.prompt == "why?"

    @probe(**facts)  # type: ignore[arg-type]  # as above
    def named(passage):  # type: ignore[no-untyped-def]  # without annotations on purpose
        return passage.prompt == "why?"

    for one in (annotated, named):
        assert checked(one).read(Passage("x", "why?")).score == 1.0
        assert one(Passage("x", "")) is False


def test_examples_may_be_pairs_or_a_file(tmp_path: Path) -> None:
    assert list(checked(made(1.0)).examples()) == [Example("a", 1), Example("b", 0)]
    path = tmp_path / "e.jsonl"
    path.write_text('{"text": "c", "label": 1, "outputs": {"mild": 1}}\n')
    judge = checked(made(Reading(1.0, outputs={"mild": 0.5}), examples=path, held_out=[("d", 0)], outputs=("mild",)))
    assert list(judge.examples()) == [Example("c", 1, outputs={"mild": 1})]
    assert list(judge.held_out()) == [Example("d", 0)]
    with pytest.raises(ProbeError, match="example 1"):
        checked(made(1.0, examples=["a"])).examples()


def test_its_facts_are_read_without_running_it(tmp_path: Path) -> None:
    facts = read_facts(SOURCE.encode() + b"raise SystemExit\n", "x.py")
    assert (facts.name, facts.version, facts.level, facts.definition) == ("loud", "3", "sentence", "In capitals.")
    assert facts.outputs == ("mild", "strong")
    assert facts.parameters == {"share": 0.5, "strict": True}
    path = tmp_path / "loud.py"
    path.write_text(SOURCE)
    assert load_probe(str(path)).parameters == facts.parameters
    with pytest.raises(ProbeError, match="could not read version"):
        read_facts(SOURCE.replace('version="3"', "version=str(3)").encode(), "x.py")


def test_two_probes_in_a_file_need_a_choice(tmp_path: Path) -> None:
    path = tmp_path / "loud.py"
    path.write_text(SOURCE + SOURCE.replace("def loud", "def louder").replace('"loud"', '"louder"'))
    with pytest.raises(ProbeError, match=r"2 functions with @probe.*PROBE"):
        load_probe(str(path))
    with pytest.raises(ProbeError, match="2 functions with @probe"):
        read_facts(path.read_bytes(), "x.py")
    path.write_text(path.read_text() + "PROBE = louder\n")
    assert load_probe(str(path)).name == read_facts(path.read_bytes(), "x.py").name == "louder"
