"""`moeprobe probes check` and `moeprobe probes agree`."""

import json
from pathlib import Path

import pytest

from moeprobe.trace import Trace
from tests.cli.conftest import Run
from tests.probes.trained.register_samples import register

PROBE = """
from moeprobe.probes import Example, Reading


class Shouting:
    name = "shouting"
    version = "1"
    level = "generation"
    definition = "Text in capitals."

    def examples(self):
        return [Example("STOP IT", 1), Example("Stop it.", 0), Example("NOW", 1), Example("NASA", 0)]

    def held_out(self):
        return [Example("GO AWAY", 1), Example("Go away.", 0)]

    def read(self, passage):
        if not passage.text.strip():
            return Reading(None)
        return Reading(sum(letter.isupper() for letter in passage.text) / len(passage.text))
"""


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    path = tmp_path / "shouting.py"
    path.write_text(PROBE)
    return path


def labels(tmp_path: Path, *lines: dict[str, object]) -> Path:
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_own_held_out_and_given_are_told_apart(run: Run, probe: Path, tmp_path: Path) -> None:
    hostile = "\x1b[31mred\u202e <script>"
    given = labels(
        tmp_path, {"text": "LOUD", "label": 1}, {"text": hostile, "label": 1}, {"text": " ", "label": 0},
        {"text": "quiet", "label": 0}
    )  # fmt: skip
    code, out, _ = run("probes", "check", probe, "--labels", given)
    assert code == 0
    for said in ("its own examples: 4 texts", "held-out examples: 2 texts", "the labels given: 4 texts"):
        assert said in out
    assert "  0 but scored 1.00: NASA" in out
    assert "  0 but no answer: " in out
    assert "the same read again, in another order and by a fresh instance" in out
    assert "ms per 1,000 tokens" in out
    assert "\x1b" not in out
    assert "\u202e" not in out
    body = json.loads(run("probes", "check", probe, "--labels", given, "--json")[1])
    assert [one["on"] for one in body["measured"]] == ["its own examples", "held-out examples", "the labels given"]
    assert body["measured"][0]["specificity"]["value"] == 0.5
    assert body["measured"][2]["mistakes"][0]["example"]["text"] == hostile
    assert len(body["measured"][2]["abstentions"]) == 1
    assert (body["steady"], body["unsteady"]) == (True, [])
    assert body["speed"]["words"] == 14


def test_the_bar_is_for_the_most_trustworthy_text(run: Run, probe: Path, tmp_path: Path) -> None:
    assert run("probes", "check", probe, "--min-balanced-accuracy", "0.9")[0] == 0  # held out: 1.0; own: .75
    given = labels(tmp_path, {"text": "LOUD", "label": 0}, {"text": "QUIET", "label": 1})
    code, out, err = run("probes", "check", probe, "--labels", given, "--min-balanced-accuracy", "0.9")
    assert code == 1
    assert "balanced accuracy" in out
    assert "the balanced accuracy on the labels given is 0.500, below 0.9" in err
    assert run("probes", "check", probe, "--min-balanced-accuracy", "2")[0] == 2


def test_memory_is_an_error(run: Run, probe: Path) -> None:
    probe.write_text(
        PROBE.replace("def read(self, passage):", "seen = []\n\n    def read(self, passage):\n"
        "        self.seen = [*self.seen, passage.text]\n"
        "        if len(set(self.seen)) > 3:\n            return Reading(0.5)")
    )  # fmt: skip
    code, out, err = run("probes", "check", probe)
    assert code == 1
    assert "texts got two" in out
    assert "two answers to" in err


def test_agreement(run: Run, probe: Path, tmp_path: Path, compiled_trace: Trace) -> None:
    other = tmp_path / "calm.py"
    other.write_text(PROBE.replace('"shouting"', '"loud"').replace("/ len(passage.text)", "/ len(passage.text) > 0.9"))
    other.write_text(
        other.read_text().replace("return Reading(sum(", "return Reading(0.0 + (sum(").replace("> 0.9)", "> 0.9))")
    )
    texts = ["AAA", "aaa", "AAb", "BBB", "bbb", "BbBB", "ccc", "CCC", ""]
    given = labels(tmp_path, *({"text": text, "label": 0} for text in texts))
    code, out, err = run("probes", "agree", probe, other, "--labels", given)
    assert code == 0, err
    # yes and yes 3, no and no 3, only the first 2: kappa (6/8 - 1/2) / (1 - 1/2), chance 5/8 * 3/8 + 3/8 * 5/8 = 15/32
    assert "9 texts, 8 judged by both" in out
    assert "Cohen's kappa 0.529" in out
    assert "same answer on 75.0%" in out
    assert "0.67 and 0.00: AAb" in out
    body = json.loads(run("probes", "agree", probe, other, "refusal", "--labels", given, "--json")[1])
    assert [(one["first"], one["second"]) for one in body] == [
        ("shouting", "loud"), ("shouting", "refusal"), ("loud", "refusal")
    ]  # fmt: skip
    assert body[0]["value"] == pytest.approx((6 / 8 - 15 / 32) / (17 / 32))
    assert body[0]["table"] == [[3, 0], [2, 3]]
    assert {one["text"] for one in body[0]["differ"]} == {"AAb", "BbBB"}
    code, out, err = run("probes", "agree", probe, other, "--trace", compiled_trace.path)
    assert code == 0, err
    assert f"{len(compiled_trace.generations)} texts" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["refusal"], "at least two probes"),
        (["refusal", "refusal"], "either --labels FILE or --trace RUN"),
        (["refusal", "refusal", "--labels", "a", "--trace", "b"], "either --labels FILE or --trace RUN"),
    ],
)
def test_agree_wants_two_probes_and_one_source(run: Run, arguments: list[str], said: str) -> None:
    code, _, err = run("probes", "agree", *arguments)
    assert code == 2
    assert said in err


def test_windows_that_the_probe_drew_say_only_how_often_its_answers_are_right(
    run: Run, probe: Path, tmp_path: Path
) -> None:
    texts = [("LOUD", 1), ("LOUDER", 1), ("BBC", 0), ("quiet", 0), ("so very calm", 0), ("hush now", 1)]
    lines = [{"text": text, "label": label, "sampled_by": "probe shouting"} for text, label in texts]
    given = labels(tmp_path, *lines)
    code, out, _ = run("probes", "check", probe, "--labels", given, "--json")
    assert code == 0
    body = json.loads(out)
    found = body["measured"][-1]
    assert found["precision"]["value"] == pytest.approx(2 / 3)
    assert found["negative_predictive_value"]["value"] == pytest.approx(2 / 3)
    for name in ("recall", "specificity", "balanced_accuracy", "f1", "auc"):
        assert found[name]["value"] is None
    assert body["measured"][0]["recall"]["value"] is not None
    assert (body["labels"]["by_itself"], body["labels"]["sampled_by"]) == (True, ["probe shouting"])
    assert "drew these windows itself" in run("probes", "check", probe, "--labels", given)[1]
    code, _, err = run("probes", "check", probe, "--labels", given, "--min-balanced-accuracy", "0")
    assert code == 1
    assert "drew the windows of the labels given itself" in err
    given = labels(tmp_path, *({**line, "sampled_by": "L2.E5"} for line in lines))
    code, out, _ = run("probes", "check", probe, "--labels", given, "--min-balanced-accuracy", "0.5")
    assert code == 0
    assert "drawn by L2.E5, not at random" in out


def test_texts_that_the_probe_brings_are_no_test_of_it(run: Run, probe: Path, tmp_path: Path) -> None:
    lines = [{"text": "stop it!", "label": 0}, {"text": "LOUD", "label": 1}, {"text": "quiet", "label": 0}]
    given = labels(tmp_path, *lines)
    code, out, _ = run("probes", "check", probe, "--labels", given)
    assert code == 0
    assert "the labels given: 2 texts" in out
    assert "1 of 3 labels given were left out" in out
    code, _, err = run("probes", "check", probe, "--labels", given, "--min-balanced-accuracy", "0.5")
    assert code == 1
    assert "1 of the labels given are texts that the probe brings itself" in err
    given = labels(tmp_path, lines[0], {"text": "now", "label": 1})
    code, out, _ = run("probes", "check", probe, "--labels", given, "--json")
    assert code == 0
    body = json.loads(out)
    assert [one["on"] for one in body["measured"]] == ["its own examples", "held-out examples"]
    assert body["labels"]["left_out"] == 2


def test_a_composed_probe_is_not_measured_by_texts_that_its_parts_bring(run: Run, probe: Path, tmp_path: Path) -> None:
    given = labels(tmp_path, {"text": "STOP IT", "label": 1}, {"text": "Stop it.", "label": 0})
    code, _, err = run("probes", "check", f"{probe} and not refusal", "--labels", str(given))
    assert code == 1
    assert "the probe shouting and not refusal, or a part of it, brings 2 of the texts itself" in err


def test_a_trained_probe_is_not_measured_by_what_it_learnt(run: Run, tmp_path: Path) -> None:

    lines = [{"text": one.text, "label": one.label, "prompt": one.prompt} for one in register()]
    given = labels(tmp_path, *lines)
    assert run("probes", "train", "--labels", given, "--name", "polite", "-o", tmp_path / "polite")[0] == 0
    asked = {"text": "Something else was said of it.", "label": 0, "prompt": lines[0]["prompt"]}
    given = labels(tmp_path, *lines, asked)
    body = json.loads(run("probes", "check", tmp_path / "polite", "--labels", given, "--json")[1])
    assert [one["on"] for one in body["measured"]] == ["cross-validation"]
    assert body["labels"]["left_out"] == len(lines) + 1
    assert run("probes", "check", tmp_path / "polite", "--labels", given, "--min-balanced-accuracy", "0.1")[0] == 1
