"""The files of probes/, which docs/probes.md points to, work as they stand and keep the contract."""

from pathlib import Path

import pytest

from moeprobe.probes import Passage, check_probe_quality, load_probe
from moeprobe.probes.sources import read_facts
from moeprobe.testing import check_probe

FILES = sorted((Path(__file__).parents[2] / "probes").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_file_is_sound(path: Path) -> None:
    probe = check_probe(str(path), speed=False)
    assert check_probe_quality(probe).mistakes == ()
    facts = read_facts(path.read_bytes(), str(path))
    assert (facts.name, facts.version, facts.level) == (probe.name, probe.version, probe.level)
    assert (facts.outputs, facts.parameters) == (probe.outputs, probe.settable)


def test_there_is_one_of_each_kind() -> None:
    by_name = {path.stem: load_probe(str(path)) for path in FILES}
    assert by_name["shouting"].inner.__class__.__name__ == "FunctionProbe"
    assert by_name["counting_off"].parameters == {"least": 2}
    assert by_name["certainty"].outputs == ("boosted", "hedged")


def test_a_parameter_changes_the_score() -> None:
    path = next(path for path in FILES if path.stem == "counting_off")
    text = "First, boil the water. Then, add the tea. It is good."
    assert load_probe(str(path)).read(Passage(text)).score == 0.5
    assert load_probe(f"{path}(least=4)").read(Passage(text)).score == 0.25


def test_each_output_is_a_probe() -> None:
    path = next(path for path in FILES if path.stem == "certainty")
    text = "It is certainly here. Perhaps it is there. So what? It is late."
    boosted = load_probe(f"{path}:boosted")
    reading = boosted.read(Passage(text))
    assert (boosted.name, reading.score) == ("certainty.boosted", 0.5)
    assert [text[span.start : span.end] for span in reading.spans] == ["It is certainly here."]
    for output in ("boosted", "hedged"):
        assert check_probe_quality(load_probe(f"{path}:{output}")).mistakes == ()
