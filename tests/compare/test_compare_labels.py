"""Imported labels of two runs: each file is of its own run's answers, and a value means the same in both."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from moeprobe.compare import compare
from moeprobe.correlate import Labels, read_label_records
from moeprobe.errors import LabelError, StatsError
from moeprobe.stats.simulation import SimulatedTrace
from tests.compare.two_runs import WORLD, candidates, taken, two_runs

SMALL = replace(WORLD, generations=80, layers=1, experts=16, mean_length=40, planted=4, planted_layers=1)


@pytest.fixture(scope="module")
def runs() -> tuple[SimulatedTrace, SimulatedTrace]:
    """Run A has 3 prompts that B lacks and stands in another order; B has 4 of its own."""
    a, b = two_runs(5, SMALL)
    shifts = dict.fromkeys(candidates(a)[:2], 1.5)
    a, b = two_runs(5, SMALL, first={"register": shifts}, second={"register": {}})
    return taken(a, list(range(36))[::-1]), taken(b, list(range(3, 40)))


def labels(path: Path, trace: SimulatedTrace, by: str = "generation", **values: str) -> Labels:
    """The prompts' own labels as a file, each with what says which answer it is of."""
    lines = []
    for index, one in enumerate(trace.generations):
        which = {"generation": index, "prompt_id": one.prompt_id, "text": one.text}[by]
        said = values.get(f"l{one.label}", one.label)
        lines.append({by: which, "label": int(str(said)) if str(said) in "01" else said})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_label_records(path)


@pytest.mark.parametrize("by", ["generation", "prompt_id", "text"])
def test_the_prompts_labels_as_files_say_what_by_label_says(
    runs: tuple[SimulatedTrace, SimulatedTrace], tmp_path: Path, by: str
) -> None:
    own = labels(tmp_path / "said-a.jsonl", runs[0], by), labels(tmp_path / "said-b.jsonl", runs[1], by)
    expected, found = compare(*runs, by="label", draws=0).register, compare(*runs, labels=own, draws=0).register
    assert expected is not None
    assert found is not None
    for key in ("rows", "labels", "units", "tested", "counts", "overlap"):
        assert found[key] == expected[key], key
    assert found["labels"]["only_a_positive"] + found["labels"]["left_out"] == 0
    assert any(row["verdict"] != "neither" for row in found["rows"])
    assert found["name"] == "labels:said-a"
    grouping = found["grouping"]
    assert (grouping["labels"], grouping["labels_b"]) == ("said-a.jsonl", "said-b.jsonl")
    assert (grouping["digest"], grouping["digest_b"]) == (own[0].digest, own[1].digest)
    for one in own:
        assert f"{one.source} ({one.digest[:23]})" in found["definition"]


def test_an_answer_may_have_another_label_in_each_run(
    runs: tuple[SimulatedTrace, SimulatedTrace], tmp_path: Path
) -> None:
    words = {"l0": "complies", "l1": "refuses"}
    own = labels(tmp_path / "a.jsonl", runs[0], **words), labels(tmp_path / "b.jsonl", runs[1], **words)
    turned = list(own[1].records)
    number = next(n for n, one in enumerate(runs[1].generations) if one.prompt_id == runs[0].generations[0].prompt_id)
    other = {"complies": "refuses", "refuses": "complies"}[str(turned[number].label)]
    turned[number] = replace(turned[number], label=other)
    moved = own[0], replace(own[1], records=tuple(turned))
    found = compare(*runs, labels=moved, positive="refuses", name="refusals", draws=0)
    assert found.register is not None
    assert found.register["labels"]["changed_prompts"] == [runs[0].generations[0].prompt_id]
    assert found.register["name"] == "labels:refusals:refuses"
    assert any("differs between the runs" in note for note in found.notes)
    # a run that never refuses is not asked
    never = own[0], replace(own[1], records=tuple(replace(one, label="complies") for one in own[1].records))
    found = compare(*runs, labels=never, positive="refuses", draws=0)
    assert found.register is not None
    assert found.register["run_a"] is not None
    assert "is of the group label = refuses" in found.register["unasked_b"]


def test_what_does_not_fit_is_refused(runs: tuple[SimulatedTrace, SimulatedTrace], tmp_path: Path) -> None:
    a, b = labels(tmp_path / "a.jsonl", runs[0], "text"), labels(tmp_path / "b.jsonl", runs[1], "text")
    with pytest.raises(LabelError, match="no generation has this text"):
        compare(*runs, labels=(b, a), draws=0)
    score = replace(b, records=tuple(replace(one, kind="score", label=None, score=1.0) for one in b.records))
    with pytest.raises(LabelError, match="score"):
        compare(*runs, labels=(a, score), draws=0)
    for change in ({"window": (0, 5)}, {"sampled_by": "L0.E3"}):
        drawn = replace(a, records=(replace(a.records[0], **change), *a.records[1:]))  # type: ignore[arg-type]
        with pytest.raises(LabelError, match=r"a\.jsonl:1: a label of a window"):
            compare(*runs, labels=(drawn, b), draws=0)
    for wrong, said in (
        ({"labels": (a, b), "by": "label"}, "one register"), ({"positive": "1"}, "give --by or --labels-a"),
        ({"by": "label", "name": "x"}, "--name is what imported labels are called"),
        ({"only": "a=b"}, "--only chooses"),
    ):  # fmt: skip
        with pytest.raises(StatsError, match=said):
            compare(*runs, draws=0, **wrong)  # type: ignore[arg-type]
