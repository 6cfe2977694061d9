"""A probe's record on a file of labels, as findings carry it."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from moeprobe.errors import FindingsError, ProbeError
from moeprobe.fields import Fields
from moeprobe.findings.quality import check_quality
from moeprobe.probes import Example, Level, Passage, Reading, checked
from moeprobe.probes.attenuation import attenuation
from moeprobe.probes.given import given_labels
from moeprobe.probes.measured import measured_on_labels, measured_on_own


class Loud:
    """Positive where the text is in capitals."""

    version, definition = "1", "Text in capitals."
    level: Level = "generation"

    def __init__(self, name: str = "loud", own: Sequence[Example] = (Example("STOP IT", 1), Example("Stop it.", 0))):
        self.name, self.own = name, own

    def examples(self) -> Sequence[Example]:
        return self.own

    def read(self, passage: Passage) -> Reading:
        return Reading(float(passage.text.isupper()))


LINES: list[dict[str, object]] = [
    {"text": "GO AWAY", "label": 1}, {"text": "leave me alone", "label": 1}, {"text": "WHAT A PITY", "label": 1},
    {"text": "a quiet day", "label": 0}, {"text": "NASA", "label": 0}, {"text": "hush now", "label": 0},
    {"text": "so be it", "label": 0},
]  # fmt: skip


def saved(path: Path, *lines: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\r\n" for line in lines))
    return path


def test_the_figures_are_of_the_file(tmp_path: Path) -> None:
    file = saved(tmp_path / "said.jsonl", *LINES, {"text": "stop it!", "label": 0}, {"text": "hm", "label": None})
    found = measured_on_labels(Loud(), file)
    body = found.to_json()
    # by hand: 2 of 3 found; 3 of 4 passed; one text of the probe's own left out, one unlabelled
    assert (body["on"], body["examples"], body["left_out"]) == ("the labels given", 7, 1)
    assert body["recall"]["value"] == pytest.approx(2 / 3)  # type: ignore[index]
    assert body["specificity"]["value"] == 0.75  # type: ignore[index]
    assert body["labels"] == "said.jsonl"
    assert body["digest"] == "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.notes[0].startswith("Checked on said.jsonl: 1 of 8 labels given were left out")
    left = attenuation(found.quality, [True, False] * 20, on=found.on)
    assert left is not None
    assert "sensitivity 0.67 and specificity 0.75 on the labels given in said.jsonl (7);" in left.basis
    question = {"kind": "probe", "quality": body, "attenuation": left.to_json(), "design": {"kind": "two groups"}}
    check_quality(Fields(question, "question", FindingsError))


def test_without_a_file_it_is_what_the_probe_brings() -> None:
    found = measured_on_own(Loud())
    assert found is not None
    assert (found.on, found.notes) == ("its own examples", ())
    assert "labels" not in found.to_json()
    assert measured_on_own(Loud(own=())) is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"text": "LOUD", "label": 1}, {"text": "LOUDER", "label": 1}], "all labels are 1"),
        ([LINES[0], {"text": "stop it!", "label": 0}], "the probe loud, or a part of it, brings 1 of the texts itself"),
        ([LINES[0], LINES[3] | {"sampled_by": "probe loud"}], "drew the windows of the labels given itself"),
        ([LINES[0], LINES[3] | {"label": 2}], "said.jsonl:2: 'label' is 2"),
        ([{"text": "LOUD", "label": None}], "holds no examples"),
    ],
)
def test_what_tells_nothing_is_refused(tmp_path: Path, lines: list[dict[str, object]], said: str) -> None:
    with pytest.raises(ProbeError, match=said):
        measured_on_labels(Loud(), saved(tmp_path / "said.jsonl", *lines))
    with pytest.raises(ProbeError, match="Could not read"):
        measured_on_labels(Loud(), tmp_path / "none.jsonl")


def test_windows_of_another_are_taken_with_a_note(tmp_path: Path) -> None:
    lines = [line | {"sampled_by": "L2.E5"} for line in LINES]
    found = measured_on_labels(Loud(), saved(tmp_path / "said.jsonl", *lines))
    assert "drawn by L2.E5, not at random" in found.notes[0]


def test_parts_of_a_probe_draw_and_know_for_it(tmp_path: Path) -> None:
    loud = Loud("other", (Example("GOODBYE THEN", 1), Example("never mind", 0)))
    whole = checked(Loud()) & checked(loud)
    known = saved(tmp_path / "known.jsonl", *LINES, {"text": "Never mind!", "label": 0})
    assert given_labels(whole, known).known == 1
    assert given_labels(checked(Loud()), known).known == 0
    drawn = saved(tmp_path / "drawn.jsonl", *(line | {"sampled_by": "probe other"} for line in LINES))
    assert not given_labels(whole, drawn).by_itself
    with pytest.raises(ProbeError, match=r"by a part of its own \(probe other\)"):
        measured_on_labels(whole, drawn)
    assert measured_on_labels(Loud(), drawn).quality.examples == len(LINES)


@pytest.mark.parametrize("drawn", ["not loud", "loud.soft", "loud and not apology", "loud(least=3) within answer"])
def test_windows_of_a_probe_that_shares_a_part_are_refused(drawn: str, tmp_path: Path) -> None:
    file = saved(tmp_path / "drawn.jsonl", *(line | {"sampled_by": f"probe {drawn}"} for line in LINES))
    with pytest.raises(ProbeError, match="by a part of its own"):
        measured_on_labels(Loud(), file)


def test_a_pipe_cannot_hide_who_drew_the_windows(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    for drawn, said in (("probe loud", "drew the windows"), ("L2.E5", "no plain file")):
        os.mkfifo(pipe)
        body = "".join(json.dumps(line | {"sampled_by": drawn}) + "\n" for line in LINES)
        if os.fork() == 0:  # the writer: a pipe opens when both ends are there
            pipe.write_text(body)
            os._exit(0)
        with pytest.raises(ProbeError, match=said):
            measured_on_labels(Loud(), pipe)
        os.wait()
        pipe.unlink()
