"""screen, coalition, behaviour and rescue as a user types them, on the compiled model."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moeprobe.cli.main import cli
from tests.conftest import COMPILED_PROMPTS

PAIRS = ["-m", "compiled", "--pairs", str(COMPILED_PROMPTS), "--positive", "triggered"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["interchange", *arguments], catch_exceptions=True)


def fine(*arguments: str) -> str:
    done = run(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_a_screen_and_the_test_of_what_it_found(tmp_path: Path) -> None:
    out = tmp_path / "screen.json"
    told = fine("screen", *PAIRS, "--wanted", "2", "--audit", "4", "-o", str(out))
    assert "L2.E5" in told
    assert "were selected by their estimates" in told
    record = json.loads(out.read_text())
    found = json.loads(
        fine("test", *PAIRS, "--screen", str(out), "--top", "1", "--null", "3", "--bootstrap", "200", "--json")
    )
    assert found["tested"] == ["L2.E5"]
    assert found["sites"]["L2.E5"]["necessary"]
    assert not set(found["pair_ids"]) & set(record["pairs"])  # tested on pairs that the screen has not seen
    assert set(found["pair_ids"]) == set(record["pairs_left"])
    again = run("screen", *PAIRS, "-o", str(out))
    assert again.exit_code == 1
    assert "--force" in str(again.exception)


def test_a_screen_knows_its_pairs_under_other_names_and_its_model(tmp_path: Path) -> None:
    """By name alone, a renamed copy of the pair file was tested on the pairs that the sites were chosen on."""
    out, copied = tmp_path / "screen.json", tmp_path / "copied.jsonl"
    fine("screen", *PAIRS, "--wanted", "1", "--audit", "0", "--all-pairs", "-o", str(out))
    lines = [json.loads(line) for line in Path(PAIRS[3]).read_text().splitlines() if line.strip()]
    copied.write_text("".join(json.dumps({**line, "pair": f"other {line['pair']}"}) + "\n" for line in lines))
    renamed = [str(copied) if one == PAIRS[3] else one for one in PAIRS]
    assert "seen every pair" in str(run("test", *renamed, "--screen", str(out), "--json").exception)
    record = json.loads(out.read_text())
    record["model"]["config_digest"] = "sha256:0"
    out.write_text(json.dumps(record))
    assert "screen is of another model" in str(run("test", *PAIRS, "--screen", str(out), "--json").exception)


def test_a_screen_of_all_pairs_leaves_none_to_test(tmp_path: Path) -> None:
    out = tmp_path / "screen.json"
    fine("screen", *PAIRS, "--wanted", "1", "--audit", "0", "--all-pairs", "-o", str(out))
    done = run("test", *PAIRS, "--screen", str(out), "--json")
    assert done.exit_code == 1
    assert "none is left" in str(done.exception)


def test_a_coalition_of_one(tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    options = ["--among", "L1-L2.E4-E6", "--width", "3", "--null", "2", "--effect", "necessity"]
    told = fine("coalition", *PAIRS, *options, "-o", str(out))
    assert "1 of 6 sites together carry 100 % of the gap" in told
    assert json.loads(out.read_text())["members"] == ["L2.E5"]


@pytest.mark.parametrize(("command", "message"), [
    (["screen"], "Name a findings file"),
    (["screen", "-m", "compiled"], "Name a findings file"),
    (["screen", "-m", "compiled", "--pairs", "no.jsonl", "--toward", "a"], "no.jsonl"),
    (["coalition", *PAIRS], "--among"),
    (["test", *PAIRS, "--json"], "--site"),
    (["test", *PAIRS, "--site", "L2.E5"], "-o OUT.json"),
])  # fmt: skip
def test_wrong_usage(command: list[str], message: str) -> None:
    done = run(*command)
    assert done.exit_code in (1, 2)
    assert message in done.output + str(done.exception)
    assert "Traceback" not in done.output


def test_swaps_in_generated_text(tmp_path: Path) -> None:
    """The compiled model's register words are judged by a probe written for this test."""
    probe = tmp_path / "spoken.py"
    probe.write_text(PROBE)
    options = ["compiled", "--site", "L2.E5", "--pairs", str(COMPILED_PROMPTS), "--positive", "triggered"]
    options += ["--probe", str(probe), "--limit", "4", "--max-new-tokens", "6"]
    out = tmp_path / "b.json"
    told = fine("behaviour", *options, "-o", str(out))
    found = json.loads(out.read_text())
    assert found["effects"]["necessity"]["points"] == 100
    assert found["effects"]["sufficiency"]["points"] == 100
    assert found["effects"]["placebo_necessity"]["points"] == 0
    assert "necessity" in told
    rescued = json.loads(fine("rescue", *options, "--json"))
    assert rescued["effects"]["rescue"]["points"] == 100
    assert rescued["effects"]["random_site"]["points"] == 0


PROBE = """
from moeprobe.probes import Example, Passage, Reading


class Sorry:
    name = "sorry"
    version = "1"
    level = "generation"
    definition = "Begins with sorry."

    def examples(self):
        return [Example("sorry", 1), Example("the", 0)]

    def read(self, passage: Passage) -> Reading:
        return Reading(1.0 if passage.text.startswith("sorry") else 0.0)
"""


def test_choices_are_those_of_the_library() -> None:
    """Option values are written out, so that --help imports neither torch nor transformers; they must not drift."""
    from moeprobe.cli.interchange import options, screen, test
    from moeprobe.interchange.arms import ARMS, SWAPS
    from moeprobe.interchange.screening import KINDS
    from moeprobe.pairs.alignment import NAMES
    from moeprobe.pairs.metrics import METRICS

    assert tuple(METRICS) == options.METRICS
    assert tuple(NAMES) == options.ALIGNMENTS
    modules = sys.modules["moeprobe.cli.interchange.test"], sys.modules["moeprobe.cli.interchange.screen"]
    assert modules[1].KINDS == KINDS
    assert set(modules[0].KNOCKOUTS) == {arm.source for arm in ARMS.values() if arm.knockout} - {"zero"}
    swap = next(option for option in test.params if option.name == "swap")
    assert list(swap.type.choices) == list(SWAPS)
    assert screen.name == "screen"
