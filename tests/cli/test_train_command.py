"""`moeprobe probes train`: from a file of labels to a probe that other commands take."""

import json
from itertools import product
from pathlib import Path

import pytest

from tests.cli.conftest import Run

OPENINGS = {
    1: ("would you kindly", "please be so good as to", "may I ask you to"),
    0: ("go on and", "quick now,", "at once"),
}
OBJECTS = ["lantern", "harbour", "violin", "cabbage", "sextant", "umbrella", "glacier", "hammock", "parsley", "turbine"]


def lines(objects: list[str] = OBJECTS) -> list[dict[str, object]]:
    return [
        {
            "text": f"{opening} {' '.join(sorted(set(thing + other) - set('y')))} {thing}",
            "label": label,
            "prompt": thing,
        }
        for label, openings in OPENINGS.items()
        for opening, (thing, other) in product(openings, zip(objects, objects[1:] + objects[:1], strict=True))
    ]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return write(tmp_path / "labels.jsonl", lines())


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


def train(run: Run, labels: Path, *more: object) -> tuple[int, str, str]:
    return run("probes", "train", "--labels", labels, "--name", "polite", "-o", labels.parent / "polite", *more)


def test_trains_prints_and_is_taken_by_other_commands(run: Run, labels: Path) -> None:
    status, out, err = train(run, labels, "--definition", "Asks politely.")
    assert (status, err) == (0, "")
    assert "balanced accuracy  1.000" in out
    assert "30 positive and 30 negative examples, 10 prompts" in out
    assert "kindly" in out
    folder = labels.parent / "polite"
    assert out.splitlines()[-1] == f"Written to {folder}. Use it as --probe {folder}"
    assert sorted(path.name for path in folder.iterdir()) == ["examples.jsonl", "probe.json", "weights.safetensors"]
    status, out, _ = run("probes", "show", folder)
    assert status == 0
    assert "Asks politely." in out
    status, out, _ = run("probes", "check", folder, "--labels", labels, "--json")
    assert status == 0
    assert '"value": 1.0' in json.dumps(json.loads(out))


def test_prints_pure_json(run: Run, labels: Path) -> None:
    status, out, err = train(run, labels, "--json", "--level", "sentence", "--folds", 3, "--seed", 4)
    found = json.loads(out)
    assert status == 0
    assert (found["level"], found["folds"], found["groups"], found["on"]) == ("sentence", 3, 10, "cross-validation")
    assert found["quality"]["balanced_accuracy"]["value"] == 1.0
    assert {one["side"] for one in found["telling"]} == {0, 1}
    assert found["warnings"] == []
    assert err == ""


def test_warns(run: Run, tmp_path: Path) -> None:
    few = [*lines(OBJECTS[:5]), {"text": "", "label": 1}]
    crowd = [{**one, "prompt": "violin"} if one.get("prompt") in OBJECTS[:3] else one for one in few]
    status, _, err = train(run, write(tmp_path / "few.jsonl", crowd))
    assert status == 0
    assert "1 examples without text were left out" in err
    assert "only 15 positive and 15 negative" in err
    assert "18 of 30 examples belong to one prompt" in err
    assert "3 folds instead of 5" in err


@pytest.mark.parametrize(
    ("records", "complaint"),
    [
        ([{"text": "a b", "label": 1}, {"text": "c d", "label": 1}], "2 positive and 0 negative"),
        ([*lines(), {**lines()[0], "label": 0}], "occur with label 0 and with label 1"),
        ([{"text": " ", "label": 1}, {"text": "", "label": 0}], "0 positive and 0 negative"),
        ([{"text": "x", "label": 2}], "labels.jsonl:1"),
        ([*lines(), {"text": "\ud800 go", "label": 0}], "half of a surrogate pair"),
        ([{**one, "prompt": "one"} for one in lines()], "belong to 1 prompt"),
    ],
)
def test_refuses_bad_labels(run: Run, tmp_path: Path, records: list[dict[str, object]], complaint: str) -> None:
    status, out, err = train(run, write(tmp_path / "labels.jsonl", records))
    assert (status, out) == (1, "")
    assert complaint in err
    assert "Traceback" not in err
    assert not (tmp_path / "polite").exists()


def test_takes_a_megabyte_and_control_characters(run: Run, tmp_path: Path) -> None:
    huge: list[dict[str, object]] = [
        {"text": "kindly " * 150_000, "label": 1},
        {"text": "\x1b[31m go", "label": 0},
    ]
    status, out, err = train(run, write(tmp_path / "labels.jsonl", lines() + huge))
    assert (status, err) == (0, "")
    assert "\x1b" not in out
    out.encode()


def test_replaces_only_when_told(run: Run, labels: Path) -> None:
    assert train(run, labels)[0] == 0
    status, _, err = train(run, labels)
    assert status == 1
    assert "--force" in err
    assert train(run, labels, "--force")[0] == 0


def test_says_a_name_that_is_none(run: Run, labels: Path) -> None:
    status, _, err = run("probes", "train", "--labels", labels, "--name", "So Polite", "-o", labels.parent / "x")
    assert status == 1
    assert "lower-case words" in err
