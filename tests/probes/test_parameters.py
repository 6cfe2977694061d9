"""Parameters: set in a spec, checked, recorded, and never guessed."""

from pathlib import Path

import pytest

from moeprobe.errors import ProbeError
from moeprobe.probes import Passage, checked, load_probe
from moeprobe.probes.parameters import chosen, spelled

FILE = """
from moeprobe.probes import Example, Reading

class Counted:
    name = "counted"
    version = "1"
    level = "generation"
    definition = "So many letters."

    def __init__(self, *, least: int = 3, share: float = 0.5, word: str = "a", strict: bool = False):
        self._kept = (least, share, word, strict)

    def examples(self):
        return [Example("aaaa", 1), Example("a", 0)]

    def read(self, passage):
        return Reading(1.0 if len(passage.text) >= self._kept[0] else 0.0, label=repr(self._kept))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "counted.py"
    path.write_text(FILE)
    return path


def test_defaults_are_recorded(path: Path) -> None:
    assert load_probe(str(path)).parameters == {"least": 3, "share": 0.5, "word": "a", "strict": False}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("(least=5)", (5, 0.5, "a", False)),
        ("(share=1)", (3, 1.0, "a", False)),
        (' ( word = "b, c" , strict=true )', (3, 0.5, "b, c", True)),
        ("(word=x,share=1e-3,least=-2)", (-2, 0.001, "x", False)),
        ("()", (3, 0.5, "a", False)),
    ],
)
def test_a_spec_sets_them(path: Path, given: str, kept: tuple[object, ...]) -> None:
    probe = load_probe(f"{path}{given}")
    assert probe.read(Passage("aaa")).label == repr(kept)
    assert tuple(probe.parameters.values()) == kept
    assert (probe.name, probe.version) == ("counted", "1")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("(leest=5)", "no parameter 'leest'. Did you mean 'least'"),
        ("(zzz=5)", "It has least, share, word, strict"),
        ("(least=5.5)", "least is 5.5; give a whole number"),
        ("(least=true)", "least is True"),
        ("(word=3)", "word is 3; give a text"),
        ("(strict=1)", "strict is 1; give a truth value"),
        ("(share=nan)", "share is nan"),
        ("(share=x)", "share is 'x'"),
        ("(least=1, least=2)", "set twice"),
        ("(least 1)", 'expected "="'),
        ("(least=)", "expected a value"),
        ("(least=1", 'expected "," or ")"'),
    ],
)
def test_what_is_wrong_is_said(path: Path, given: str, complaint: str) -> None:
    with pytest.raises(ProbeError) as caught:
        load_probe(f"{path}{given}")
    assert complaint in str(caught.value)


def test_an_object_that_was_made_keeps_its_own(path: Path) -> None:
    path.write_text(FILE + "PROBE = Counted(least=7)\n")
    assert "7" in str(load_probe(str(path)).read(Passage("a")).label)
    assert load_probe(str(path)).parameters == {}  # it keeps none under its own name, so none is claimed
    with pytest.raises(ProbeError, match="PROBE = MyProbe, the class"):
        load_probe(f"{path}(least=2)")


def test_a_probe_without_parameters_takes_none() -> None:
    with pytest.raises(ProbeError, match="refusal has no parameters, so least"):
        load_probe("refusal(least=2)")


def test_a_member_of_the_probes_own_wins_and_is_checked(path: Path) -> None:
    probe = load_probe(str(path)).inner
    probe.parameters = {"trained-on": "x", "n": 3}  # type: ignore[attr-defined]  # an optional member
    assert checked(probe).parameters == {"trained-on": "x", "n": 3}
    for wrong in ([1], {"a": None}, {"a": float("inf")}, {1: 2}):
        probe.parameters = wrong  # type: ignore[attr-defined]  # wrong on purpose
        with pytest.raises(ProbeError, match="parameters is"):
            checked(probe)


def test_spelled_is_read_back(path: Path) -> None:
    values = {"least": 4, "share": 0.25, "word": "x y", "strict": True}
    assert load_probe(f"{path}{spelled(values)}").parameters == values
    assert chosen(values, {}, "p") == values
