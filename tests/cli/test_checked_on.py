"""`moeprobe correlate --checked-on`: a probe measured on labels that the user gives."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from moeprobe.correlate import correlate, correlate_probes
from moeprobe.errors import StatsError
from moeprobe.findings import load_findings
from moeprobe.probes import load_probe
from moeprobe.stats.simulation import World, simulate
from moeprobe.trace import Trace, load_trace
from tests.cli.conftest import Run

PROBE = """
from moeprobe.probes import Example, Reading


class Even:
    name = "{name}"
    version, level, definition = "1", "generation", "The digits of the text sum to an even number."

    def examples(self):
        return [Example("first 11", 1), Example("second 12", 0), Example("third 13", 1), Example("fourth 14", 0)]

    def read(self, passage):
        return Reading(float(sum(map(int, filter(str.isdigit, passage.text))) % 2 == {rest}))
"""
# even, odd, even, odd: the last two are labelled as the probe does not read them
TEXTS = {"alpha beta 2": 1, "gamma delta 3": 0, "epsilon zeta 4": 1, "eta theta 5": 0, "iota kappa 6": 0, "mu nu 7": 1}


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    world = World(generations=30, layers=1, experts=8, k=2, mean_length=30.0, planted=2)
    return load_trace(simulate(3, world).save(tmp_path_factory.mktemp("checked") / "a.trace"))


@pytest.fixture
def even(tmp_path: Path) -> Path:
    path = tmp_path / "even.py"
    path.write_text(PROBE.format(name="even", rest=0))
    return path


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    path = tmp_path / "odd.py"
    path.write_text(PROBE.format(name="odd", rest=1))
    return path


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return labels(tmp_path / "said.jsonl")


def labels(path: Path, **more: object) -> Path:
    lines = [{"text": text, "label": label, "prompt": text, **more} for text, label in TEXTS.items()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def asked(run: Run, trace: Trace, *arguments: object) -> dict[str, Any]:
    code, out, err = run("correlate", trace.path, *arguments, "--draws", 0, "--no-text", "--json")
    assert (code, err) == (0, "")
    body: dict[str, Any] = json.loads(out)
    return body


def test_the_findings_carry_the_record_on_the_file(run: Run, trace: Trace, even: Path, said: Path) -> None:
    before = asked(run, trace, "--probe", even)["questions"][0]
    assert before["quality"]["on"] == "its own examples"
    assert "labels" not in before["quality"]
    body = asked(run, trace, "--probe", even, "--checked-on", said)
    question = body["questions"][0]
    found = question["quality"]
    assert (found["on"], found["examples"], found["labels"]) == ("the labels given", 6, "said.jsonl")
    assert found["digest"] == "sha256:" + hashlib.sha256(said.read_bytes()).hexdigest()
    assert found["left_out"] == 0
    for key in ("recall", "specificity", "balanced_accuracy"):
        assert found[key]["value"] == pytest.approx(2 / 3)
    assert question["attenuation"]["factor"]["value"] < before["attenuation"]["factor"]["value"]
    assert "on the labels given in said.jsonl (6);" in question["attenuation"]["basis"]
    assert any(note.startswith("even: The probe is not shown to sort better than guessing") for note in body["notes"])
    # nothing else moves: what the groups are is the probe's own
    assert question["grouping"] == before["grouping"]


def test_the_figures_are_those_of_probes_check(run: Run, trace: Trace, even: Path, said: Path) -> None:
    said.write_text(said.read_text() + json.dumps({"text": "First 11!", "label": 0}) + "\n")
    found = asked(run, trace, "--probe", even, "--checked-on", said)["questions"][0]["quality"]
    body = json.loads(run("probes", "check", even, "--labels", said, "--json")[1])
    assert found["left_out"] == body["labels"]["left_out"] == 1
    checked = body["measured"][-1]
    for key in ("precision", "recall", "auc"):
        assert found[key] == {"value": checked[key]["value"], "ci": [checked[key]["low"], checked[key]["high"]]}


def test_the_file_is_written_read_and_shown(run: Run, trace: Trace, even: Path, said: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "f.json", tmp_path / "f.html"
    assert run("correlate", trace.path, "--probe", even, "--checked-on", said, "--draws", 0, "-o", out)[0] == 0
    assert load_findings(out).questions[0]["quality"]["labels"] == "said.jsonl"
    assert run("report", out, "-o", page)[0] == 0
    assert "texts labelled in said.jsonl" in page.read_text().replace("\xa0", " ")
    code, _, err = run("correlate", trace.path, "--probe", even, "--checked-on", said, "-o", said, "--force")
    assert code == 1
    assert "is what is being read" in err
    assert json.loads(said.read_text().splitlines()[0])["label"] == 1


def test_each_of_several_probes_has_its_own_file(
    run: Run, trace: Trace, even: Path, odd: Path, said: Path, tmp_path: Path
) -> None:
    other = labels(tmp_path / "o=ther.jsonl")
    probes = ("--probe", even, "--probe", odd)
    first, second = asked(run, trace, *probes, "--checked-on", f"{odd}={other}")["questions"]
    assert (first["quality"]["on"], second["quality"]["labels"]) == ("its own examples", "o=ther.jsonl")
    assert second["quality"]["recall"]["value"] == pytest.approx(1 / 3)
    given = ("--checked-on", f"even={said}", "--checked-on", f"odd={other}")
    first, second = asked(run, trace, *probes, *given)["questions"]
    assert [one["quality"]["labels"] for one in (first, second)] == ["said.jsonl", "o=ther.jsonl"]
    assert asked(run, trace, "--probe", even, "--checked-on", other)["questions"][0]["quality"]["examples"] == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--by", "label", "--checked-on", "SAID"], "--checked-on goes with --probe"),
        (["--labels", "SAID", "--checked-on", "SAID"], "--checked-on goes with --probe"),
        (["--probe", "EVEN", "--checked-on", "odd=SAID"], "no such probe is asked (even)"),
        (["--probe", "EVEN", "--probe", "ODD", "--checked-on", "SAID"], "which probe is it for (even, odd)"),
        (["--probe", "EVEN", "--checked-on", "SAID", "--checked-on", "even=SAID"], "two files for even"),
        (["--probe", "EVEN", "--checked-on", "x=" + 300 * "y"], "there is no such file"),
    ],
)
def test_a_file_for_nobody_is_a_misuse(
    run: Run, trace: Trace, even: Path, odd: Path, said: Path, arguments: list[str], words: str
) -> None:
    names = {"EVEN": even, "ODD": odd, "SAID": said}
    for name, path in names.items():
        arguments = [one.replace(name, str(path)) for one in arguments]
    code, out, err = run("correlate", trace.path, *arguments)
    assert (code, out) == (2, "")
    assert words in err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"sampled_by": "probe even"}, "drew the windows of the labels given itself"),
        ({"label": 1}, "all labels are 1"),
        ({"text": "first 11"}, "the probe even, or a part of it, brings 6 of the texts itself"),
        ({"label": "yes"}, "said.jsonl:1: 'label' is 'yes', not 0 or 1"),
    ],
)
def test_labels_that_tell_nothing_are_refused(
    run: Run, trace: Trace, even: Path, said: Path, line: dict[str, object], words: str, tmp_path: Path
) -> None:
    labels(said, **line)
    out = tmp_path / "f.json"
    code, printed, err = run("correlate", trace.path, "--probe", even, "--checked-on", said, "-o", out)
    assert (code, printed) == (1, "")
    assert words in err
    assert not out.exists()


def test_the_library_refuses_the_same(trace: Trace, even: Path, said: Path) -> None:
    probe = load_probe(str(even))
    question = correlate(trace, probe=probe, checked_on=said, draws=0, text=False)[0]
    assert question["quality"]["labels"] == "said.jsonl"
    with pytest.raises(StatsError, match="Only a probe can be checked on labels"):
        correlate(trace, by="label", checked_on=said)
    with pytest.raises(StatsError, match=r"check 'odd' on, which is not asked \(even\)"):
        correlate_probes(trace, [probe], checked_on={"odd": said})


def test_scores_keep_the_record_and_have_no_factor(run: Run, trace: Trace, even: Path, said: Path) -> None:
    question = asked(run, trace, "--probe", even, "--checked-on", said, "--design", "scores")["questions"][0]
    assert question["quality"]["labels"] == "said.jsonl"
    assert question["attenuation"] is None
