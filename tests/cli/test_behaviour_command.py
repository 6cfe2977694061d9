"""`moeprobe interchange behaviour` and `rescue` on the compiled model, judged by a probe of one's own."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Run

PROMPTS = Path(__file__).parents[2] / "moeprobe" / "demo" / "prompts" / "compiled.jsonl"
SORRY = """
from moeprobe.probes import Example, Reading

class Sorry:
    name, version, level, definition = "sorry", "1", "generation", "Begins with sorry."
    def examples(self):
        return [Example("sorry", 1), Example("the", 0)]
    def read(self, passage):
        return Reading(float(passage.text.startswith("sorry")))

probe = Sorry
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    probe = tmp_path / "sorry.py"
    probe.write_text(SORRY)
    return ["compiled", "--pairs", PROMPTS, "--positive", "triggered", "--probe", probe, "--limit", 3,
            "--max-new-tokens", 5]  # fmt: skip


def test_behaviour(run: Run, arguments: list[object], tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    code, text, err = run("interchange", "behaviour", *arguments, "--site", "L2.E5", "-o", out)
    assert (code, err) == (0, "")
    assert re.search(r"necessity +3 of 3 +0 of 3 +-100 +\[-100, \d+\] +closes the whole gap", text)
    found = json.loads(out.read_text())
    assert found["schema"] == "moeprobe.behaviour/1"
    assert found["effects"]["sufficiency"]["per_pair"] == [1, 1, 1]
    assert found["effects"]["placebo_sufficiency"]["per_pair"] == [0, 0, 0]


def test_a_probe_of_one_part_of_the_answer(run: Run, arguments: list[object]) -> None:
    place = arguments.index("--probe") + 1
    arguments[place] = f"'{arguments[place]}' within answer"
    code, text, err = run("interchange", "behaviour", *arguments, "--site", "L2.E5")
    assert (code, err) == (0, "")
    assert "judged by sorry within answer" in text
    assert re.search(r"^necessity +3 of 3 +0 of 3 ", text, re.MULTILINE)
    arguments[place] = str(arguments[place]).replace("within answer", "within thinking")
    code, text, err = run("interchange", "behaviour", *arguments, "--site", "L2.E5")
    assert (code, text) == (1, "")
    assert "had nothing to read in any answer" in err


def test_rescue_says_where_it_has_nothing_to_compare_with(run: Run, arguments: list[object]) -> None:
    code, text, _ = run("interchange", "rescue", *arguments, "--site", "L1.E1")
    assert code == 0
    assert "nothing else runs and writes" in text
    assert "random site" not in text
    code, text, _ = run("interchange", "rescue", *arguments, "--site", "L2.E5", "--json")
    assert code == 0
    found = json.loads(text)
    assert found["random_sites"].startswith("L")
    assert found["beyond"]["random_site"]["points"] == 100


def test_errors_are_sentences(run: Run, arguments: list[object]) -> None:
    for site, message in (("L2.E99", "L2.E7"), ("L2.router", "cannot be done to L2.router")):
        code, out, err = run("interchange", "behaviour", *arguments, "--site", site)
        assert (code, out) == (1, "")
        assert message in err
