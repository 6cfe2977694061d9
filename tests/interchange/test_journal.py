"""Journals: nothing measured is lost, and nothing foreign is taken for one's own."""

import json
from pathlib import Path

import pytest

from moeprobe.errors import InterchangeError, OutputError
from moeprobe.interchange.journal import Journal, digest
from moeprobe.interchange.measure import PairEffects

ASKED = {"model": "m", "sites": ["L1.E0"]}


def effects(name: str) -> PairEffects:
    return PairEffects(name, 1.25, 0.5, {"L1.E0": {"necessity": 0.1, "sufficiency": -0.2}})


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    Journal(path, ASKED, resume=False).keep([effects("a"), effects("b")])
    whole = path.read_text()
    path.write_text(whole + '{"pair": "c", "sensi')  # a kill in the middle of a line
    again = Journal(path, ASKED, resume=True)
    assert again.done == {"a": effects("a"), "b": effects("b")}
    again.keep([effects("c")])
    assert list(Journal(path, ASKED, resume=True).done) == ["a", "b", "c"]
    again.remove()
    assert not path.exists()


def test_a_journal_is_not_dropped_or_mixed(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    first = Journal(path, ASKED, resume=False)
    assert not path.exists()  # an experiment that cannot begin leaves nothing
    first.keep([effects("a")])
    with pytest.raises(InterchangeError, match="--resume"):
        Journal(path, ASKED, resume=False)
    with pytest.raises(InterchangeError, match="another experiment"):
        Journal(path, {**ASKED, "sites": ["L1.E1"]}, resume=True)


@pytest.mark.parametrize("text", ["", "x", "[1]\n", '{"schema": "other"}\n', "\ud800"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InterchangeError, match="no journal"):
        Journal(path, ASKED, resume=True)


@pytest.mark.parametrize("line", ["{}", "[]", '{"pair": 1, "sensitive": "x", "control": 1, "effects": {}}', "nonsense"])
def test_damaged_lines_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "j.jsonl"
    Journal(path, ASKED, resume=False).keep([effects("a")])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InterchangeError, match="Line 3"):
        Journal(path, ASKED, resume=True)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Could not write"):
        Journal(tmp_path / "no" / "j.jsonl", ASKED, resume=False).keep([effects("a")])


def test_the_digest_does_not_hang_on_order() -> None:
    assert digest({"a": 1, "b": [2]}) == digest(json.loads('{"b": [2], "a": 1}')) != digest({"a": 1, "b": [3]})
