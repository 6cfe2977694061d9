"""Imported labels: which generation each is about, what is refused with its line, and the same answer as by hand."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from moeprobe.correlate import frame_labels, read_label_records, regroup
from moeprobe.correlate.testing import set_aside
from moeprobe.designs.groups import LEFT_OUT, NEGATIVE, POSITIVE
from moeprobe.designs.imported import coverage_notes, imported_groups
from moeprobe.designs.label_records import Labels, label_record
from moeprobe.errors import LabelError, StatsError
from moeprobe.gathering.judged import JudgedTrace
from moeprobe.gathering.selection import Selection, bare_spans, overlapping
from moeprobe.gathering.strata import lay_out
from moeprobe.stats.simulation import World, simulate
from tests.correlate.asking import WORD, Capitals, ask, changed, written

WORLD = World(generations=30, experts=16, layers=2, k=4, planted=4, planted_layers=1, mean_length=120.0, within=True)
TRACE = simulate(3, WORLD)
TEXTS = [one.text for one in TRACE.generations]
HALF = [index % 2 for index in range(30)]


def lines(tmp_path: Path, *records, name: str = "said.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


def groups_of(tmp_path: Path, *records, trace=TRACE, **options):
    return imported_groups(trace.generations, read_label_records(lines(tmp_path, *records)), **options)


def pair(**more):
    """Two lines, one of each kind; the second changed by `more`."""
    return {"generation": 0, "label": 1}, {"generation": 1, "label": 0} | more


def test_every_way_to_say_which_generation(tmp_path: Path) -> None:
    ids = [one.prompt_id for one in TRACE.generations]
    records = [
        {"generation": 0, "label": 1},
        {"prompt_id": ids[1], "label": 0},
        {"prompt_id": ids[2], "sample": 0, "label": True},
        {"text": TEXTS[3], "label": "false"},
        {"generation": 4, "prompt_id": ids[4], "text": TEXTS[4], "label": None},
        {"generation": 5, "label": "0", "note": "n", "labeller": "me", "prompt": "p"},
    ]
    groups = groups_of(tmp_path, *records)
    assert groups.member.tolist() == [POSITIVE, NEGATIVE, POSITIVE, NEGATIVE, LEFT_OUT, NEGATIVE] + [LEFT_OUT] * 24
    assert (groups.name, groups.kind, groups.abstained, groups.unlabelled) == ("labels:said", "label", 1, 24)
    assert (groups.positive, groups.negative) == ("label = 1", "label = 0")
    assert "6 labels of 6 generations, 1 of them abstentions" in groups.definition
    assert groups.quality is None


def test_the_rows_are_those_of_a_label_in_the_prompts(tmp_path: Path) -> None:
    path = lines(tmp_path, *({"generation": index, "label": half} for index, half in enumerate(HALF)))
    mine = ask(TRACE, labels=read_label_records(path), name="half")
    theirs = ask(changed(TRACE, label=HALF), by="label")
    assert [{**row, "probe": ""} for row in mine[1]] == [{**row, "probe": ""} for row in theirs[1]]
    assert {row["probe"] for row in mine[1]} == {"labels:half"}
    written([ask(TRACE, labels=read_label_records(path), text=True)], tmp_path)


def marks(text: str) -> list[list[object]]:
    return [[at, at + WORD, 0.9, "W"] for at in range(0, len(text), WORD) if text[at] == "W"]


def test_token_labels_are_those_of_a_probe_that_marks_the_same(tmp_path: Path) -> None:
    records = [{"generation": index, "spans": marks(text)} for index, text in enumerate(TEXTS)]
    question, rows, _ = ask(TRACE, labels=read_label_records(lines(tmp_path, *records)), design="within")
    wanted = ask(TRACE, probe=Capitals(), design="within")[1]
    assert [row["t"] for row in rows] == [row["t"] for row in wanted]
    assert any(row["t"] is not None for row in rows)
    assert question["positive"] == "tokens that the labels mark"
    assert question["definition"].startswith("Imported labels: said.jsonl (sha256:")


def test_scores_are_groups_or_numbers(tmp_path: Path) -> None:
    scores = [round(index / 29, 3) for index in range(30)]
    labels = read_label_records(lines(tmp_path, *({"generation": i, "score": s} for i, s in enumerate(scores))))
    groups = imported_groups(TRACE.generations, labels)
    assert groups.scores == tuple(scores)
    assert groups.member.tolist() == [int(score >= 0.5) for score in scores]
    assert ask(TRACE, labels=labels, design="scores")[0]["design"]["kind"] == "scores"
    assert ask(TRACE, labels=labels)[0]["positive"] == "score >= 0.5"


def test_text_values_need_a_positive_one(tmp_path: Path) -> None:
    values = ["refuses", "complies", "unclear"]
    records = [{"generation": index, "label": values[index % 3]} for index in range(30)]
    with pytest.raises(StatsError, match="Which value of the labels in said.jsonl is the positive one"):
        groups_of(tmp_path, *records)
    groups = groups_of(tmp_path, *records, positive="refuses", negative="complies")
    assert groups.name == "labels:said:refuses"
    assert groups.member.tolist() == [1, 0, -1] * 10
    assert any("10 labels have other values than refuses and complies" in note for note in groups.notes)
    with pytest.raises(StatsError, match="no generation has this value"):
        groups_of(tmp_path, *records, positive="sorry")


def test_a_text_that_stands_twice_is_labelled_twice(tmp_path: Path) -> None:
    twice = changed(TRACE, text=[TEXTS[1] if index == 7 else text for index, text in enumerate(TEXTS)])
    groups = groups_of(tmp_path, {"generation": 0, "label": 1}, {"text": TEXTS[1], "label": 0}, trace=twice)
    assert np.flatnonzero(groups.member == NEGATIVE).tolist() == [1, 7]
    assert any("1 labelled text stands in several generations (2)" in note for note in groups.notes)
    one = {"text": TEXTS[1], "prompt_id": twice.generations[7].prompt_id, "label": 0}
    only = groups_of(tmp_path, {"generation": 0, "label": 1}, one, trace=twice)
    assert np.flatnonzero(only.member == NEGATIVE).tolist() == [7]


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ({"generation": 30}, "there is no generation 30; the trace has 30"),
        ({"generation": 0}, r"generation 0 has a label already, from .*said.jsonl:1"),
        ({"generation": None, "prompt_id": "nobody"}, "no prompt of this trace has the id 'nobody'"),
        ({"generation": None, "text": "never written"}, "no generation has this text, character by character"),
        ({"text": "never written"}, "the text of generation 1 is another than the label's"),
        ({"prompt_id": "p0"}, "generation 1 is of prompt 'p1', not of 'p0'"),
        ({"prompt_id": "p1", "sample": 3}, "generation 1 is not sample 3 of its prompt"),
        ({"generation": None, "prompt_id": "p1", "sample": 3}, "has no sample 3 that fits; it has 1 answers"),
        ({"generation": None}, "does not say which text it is about"),
        ({"sample": 0}, '"sample" is the number of an answer to a prompt'),
        ({"generation": "1"}, "'generation' must be a whole number"),
        ({"generation": -1}, "'generation' must be a whole number"),
        ({"label": 2}, "the label 2 is a number"),
        ({"label": ""}, "'label' must be 0, 1, a text or null"),
        ({"label": [1]}, "'label' must be 0, 1, a text or null"),
        ({"label": "L18.E5"}, "names an expert: it comes from the routing"),
        ({"score": 0.5}, 'both "label" and "score" are given'),
        ({"spans": [[0, 10**7]]}, r"the span \[0, 10000000\] lies outside the answer of generation 1"),
        ({"spans": [[5, 5]]}, r"the span \[5, 5\] is none"),
        ({"spans": [[-1, 5]]}, r"the span \[-1, 5\] is none"),
        ({"spans": [[0, 5, 2.0]]}, "must be a number from 0 to 1"),
        ({"spans": [[0, 5, 1.0, "L1.E2"]]}, "names an expert"),
        ({"spans": [[0]]}, r"a span is \[start, end\]"),
        ({"spans": 3}, "'spans' must be a list"),
        ({"label": None, "spans": []}, '"label" is null .* but "spans" marks'),
        ({"window": [3, 3]}, "'window' must be"),
        ({"window": [0, 3], "spans": []}, 'a "window" is judged as a whole'),
        ({"window": [0, 3]}, "some labels are of a window, others of whole answers"),
        ({"expert": "L18.E5"}, "the key 'expert' names experts or routing"),
        ({"lable": 1}, "unknown key 'lable'"),
    ],
)
def test_what_does_not_fit_is_named_with_its_line(tmp_path: Path, second, complaint: str) -> None:
    with pytest.raises(LabelError, match=complaint) as caught:
        groups_of(tmp_path, *pair(**second))
    assert "said.jsonl" in str(caught.value)
    if "windows" not in complaint and "some labels" not in complaint:
        assert "said.jsonl:2" in str(caught.value)


def test_files_that_are_no_labels(tmp_path: Path) -> None:
    for body, complaint in (
        (b"", "holds no labels"),
        (b'{"generation": 0, "label": null}\n', "all 1 labels are abstentions"),
        (b"\xff", "not UTF-8"),
        (b"{", "not valid JSON"),
        (b'{"generation": 0, "label": NaN}', "NaN is no JSON number"),
        (b'{"text": "\\ud800", "label": 1}', "half of a surrogate pair"),
        (b'{"generation": 0, "label": 1}\n{"generation": 1, "score": 1}', r":2 gives a score, but .*:1 gives a label"),
    ):
        (tmp_path / "bad.jsonl").write_bytes(body)
        with pytest.raises(LabelError, match=complaint):
            read_label_records(tmp_path / "bad.jsonl")
    with pytest.raises(LabelError, match="Could not read"):
        read_label_records(tmp_path / "missing.jsonl")


def test_a_prompt_with_several_answers_needs_the_sample(tmp_path: Path) -> None:
    trace = simulate(6, replace(WORLD, samples=2))
    first = trace.generations[0].prompt_id
    with pytest.raises(LabelError, match="has 2 answers. Say which one"):
        groups_of(tmp_path, {"prompt_id": first, "label": 1}, {"generation": 5, "label": 0}, trace=trace)
    groups = groups_of(
        tmp_path, {"prompt_id": first, "sample": 1, "label": 1}, {"generation": 5, "label": 0}, trace=trace
    )
    (found,) = np.flatnonzero(groups.member == POSITIVE).tolist()
    assert (trace.generations[found].prompt_id, trace.generations[found].sample) == (first, 1)


def test_a_span_on_no_token_is_counted_and_said(tmp_path: Path) -> None:
    longer = changed(TRACE, text=[text + " tail" for text in TEXTS])  # characters that no recorded token covers
    end = len(TEXTS[0])
    groups = groups_of(
        tmp_path, {"generation": 0, "spans": [[0, 6], [end + 1, end + 5]]}, {"generation": 1, "spans": []}, trace=longer
    )
    assert coverage_notes(longer, groups) == (
        f"1 of 2 marked stretches covers no recorded token: [{end + 1}, {end + 5}] of generation 0. Answers keep "
        "their labels all the same.",
    )
    assert coverage_notes(TRACE, groups_of(tmp_path, *pair())) == ()


def test_a_token_without_characters_covers_no_span() -> None:
    """[5, 5) lies between the ends of [4, 7), but shows none of its characters; found as `overlapping` finds it."""
    spans = [np.array([[4, 7], [7, 9], [9, 9]]), np.zeros((0, 2), dtype=np.int64), np.array([[0, 2], [4, 7]])]
    generation, first, last = np.array([[0, 5, 5], [0, 8, 10], [1, 0, 9], [2, 1, 3], [2, 3, 4], [2, 7, 8]]).T
    assert bare_spans(spans, generation, first, last).tolist() == [[0, 4, 7], [0, 9, 9], [2, 4, 7]]
    rng = np.random.default_rng(0)
    for _ in range(50):
        number = np.sort(rng.integers(0, 3, 8))
        start = rng.integers(0, 20, 8)
        stop = start + rng.integers(0, 4, 8)
        marks_ = [np.sort(rng.integers(0, 20, (4, 2)), axis=1) for _ in range(3)]
        wanted = [
            [index, *mark]
            for index, own in enumerate(marks_)
            for mark in own.tolist()
            if not any(
                overlapping([np.array([mark])], np.zeros(1, dtype=np.int64), start[[row]], stop[[row]])[0]
                for row in np.flatnonzero(number == index)
            )
        ]
        assert bare_spans(marks_, number, start, stop).tolist() == wanted


@pytest.mark.parametrize("design", ["within", "groups"])
def test_a_span_on_no_token_is_said_once(tmp_path: Path, design: str) -> None:
    longer = changed(TRACE, text=[text + " tail" for text in TEXTS])
    records = [{"generation": index, "spans": marks(text)[: 9 * (index % 2)]} for index, text in enumerate(TEXTS)]
    records[1]["spans"] = [*marks(TEXTS[1]), [len(TEXTS[1]) + 1, len(TEXTS[1]) + 4]]
    notes = ask(longer, labels=read_label_records(lines(tmp_path, *records)), design=design)[2]
    said = [note for note in notes if "marked stretches" in note]
    assert len(said) == 1
    assert ("count for nothing" in said[0]) == (design == "within")


def test_a_data_frame_says_the_same(tmp_path: Path) -> None:
    frame = pd.DataFrame({"generation": range(30), "label": [1.0, 0.0] * 14 + [np.nan, 1.0], "note": [None] * 30})
    groups = imported_groups(TRACE.generations, frame_labels(frame), name="half")
    records = [{"generation": i, "label": None if i == 28 else 1 - i % 2} for i in range(29)]
    wanted = groups_of(tmp_path, *records, {"generation": 29, "label": 1}, name="half")
    assert groups.member.tolist() == wanted.member.tolist()
    assert (groups.abstained, wanted.abstained) == (1, 1)
    spans = pd.DataFrame({"text": TEXTS, "spans": [marks(text) for text in TEXTS]})
    assert (
        imported_groups(TRACE.generations, frame_labels(spans), name="w").spans
        == groups_of(tmp_path, *({"generation": index, "spans": marks(text)} for index, text in enumerate(TEXTS))).spans
    )
    nested = np.empty(1, dtype=object)
    nested[0] = np.array([0, 5])
    for cell in (np.array([[0, 5]]), nested):  # as Parquet gives them
        assert frame_labels(pd.DataFrame({"generation": [0], "spans": [cell]})) == frame_labels(
            pd.DataFrame({"generation": [0], "spans": [[[0, 5]]]})
        )
    with pytest.raises(LabelError, match=r"a data frame, row 0: the key 'router' names"):
        frame_labels(frame.assign(router=1))


def test_regroup_wants_the_same_file(tmp_path: Path) -> None:
    path = lines(tmp_path, *({"generation": index, "label": half} for index, half in enumerate(HALF)))
    labels = read_label_records(path)
    question = ask(TRACE, labels=labels, name="half")[0]
    json.dumps(question["grouping"])
    again = regroup(TRACE.generations, question, labels=labels)
    assert again.member.tolist() == HALF
    assert again.name == question["name"]
    with pytest.raises(LabelError, match=r"asked with imported labels \(said.jsonl\). Give the file again: --labels"):
        regroup(TRACE.generations, question)
    path.write_text(path.read_text().replace('"label": 1', '"label": true', 1))
    with pytest.raises(LabelError, match="said.jsonl is not what the question was asked with"):
        regroup(TRACE.generations, question, labels=read_label_records(path))
    for asked, given in (("judge", None), ("judge", "length"), (None, "judge")):  # one log may hold several scorers
        grouping = question["grouping"] | {"scorer": asked}
        with pytest.raises(LabelError, match=f"scores of {asked} in said.jsonl, but these are those of {given}"):
            regroup(TRACE.generations, question | {"grouping": grouping}, labels=replace(labels, scorer=given))
    other = ask(changed(TRACE, label=HALF), by="label")[0]
    with pytest.raises(LabelError, match="was not asked with imported labels"):
        regroup(TRACE.generations, other, labels=labels)


@pytest.mark.parametrize("name", ["L18.E5", "top_expert", "", "a b", "<b>", "x" * 81])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(LabelError, match="cannot be called"):
        groups_of(tmp_path, *pair(), name=name)


def windows(width: int = 10) -> list[dict[str, object]]:
    """Each answer in windows of ten words; those that begin with a capital W are positive."""
    size = width * WORD
    return [
        {"generation": index, "window": [at, at + size], "text": text[at : at + size], "label": int(text[at] == "W")}
        for index, text in enumerate(TEXTS)
        for at in range(0, len(text) - size, 2 * size)
    ]


def test_only_tokens_of_judged_windows_are_compared(tmp_path: Path) -> None:
    labels = read_label_records(lines(tmp_path, *windows()))
    question, rows, notes = ask(TRACE, labels=labels, design="within")
    design = question["design"]
    used = [index for index in range(30) if len({one["label"] for one in windows() if one["generation"] == index}) == 2]
    assert design["units"] == len(used)
    for label, arm in ((1, "positive"), (0, "negative")):
        own = sum(one["label"] == label and one["generation"] in used for one in windows())
        assert design[arm]["tokens_used"] == 10 * own
    assert any("Only tokens of labelled windows are compared" in note for note in notes)
    assert len(rows) == 32
    with pytest.raises(StatsError, match="labels are of stretches of answers"):
        ask(TRACE, labels=labels, design="within", segment="prompt")


def test_windows_compared_as_groups_count_by_hand(tmp_path: Path) -> None:
    """One window for each answer: the rates are those of its tokens alone."""
    first = [{**one, "label": HALF[int(str(one["generation"]))]} for one in windows() if one["window"][0] == 0]
    _, rows, _ = ask(TRACE, labels=read_label_records(lines(tmp_path, *first)), design="groups")
    chosen = {}
    for shard in TRACE.shards():
        for one in np.unique(shard.generation).tolist():
            own = np.flatnonzero((shard.generation == one) & (shard.segment == 1) & (shard.char_start < 10 * WORD))
            chosen[one] = (shard.experts(0)[own] == 3).any(axis=1).mean()
    used = {int(str(one["generation"])) for one in first}
    difference = np.mean([chosen[i] for i in used if HALF[i]]) - np.mean([chosen[i] for i in used if not HALF[i]])
    (row,) = [row for row in rows if row["site"] == "L0.E3"]
    assert row["rate_difference"] == pytest.approx(difference)


def test_the_position_of_a_judged_token_is_its_place_in_the_answer(tmp_path: Path) -> None:
    """Windows in the middle of answers: a word of the answers here is a token, so the text tells the place."""
    middle = [{**one, "label": HALF[int(str(one["generation"]))]} for one in windows() if one["window"][0] == 20 * WORD]
    labels = read_label_records(lines(tmp_path, *middle))
    question, rows, _ = ask(TRACE, labels=labels, design="groups", text=True)
    edges = question["positions"]["edges"]
    assert (edges[0], edges[-1]) == (20, 30)
    assert all(min(question["positions"][side]["tokens"]) > 0 for side in ("positive", "negative"))
    shown = [one["window"] for row in rows if row["evidence"] for one in row["evidence"]["windows"]]
    assert shown
    for one in shown:
        assert 20 <= one["position"] < 30
        text = TEXTS[one["generation"]]
        at = one["position"] * WORD
        assert one["tokens"][one["centre"]] == text[at : at + WORD]
    groups = imported_groups(TRACE.generations, labels)
    stretches = [np.array(found, dtype=np.int64).reshape(-1, 2) for found in groups.judged or ()]
    selection = Selection("answer", np.full(30, 99), np.arange(30), 30)
    judged = JudgedTrace(TRACE, stretches, "answer")
    places = np.concatenate([part.place for part in lay_out(judged, selection, None).parts])
    assert set(places.tolist()) == set(range(20, 30))
    one, two = (lay_out(judged, selection, strata) for strata in (("token",), ("token", "position")))
    for alone, beside in zip(one.parts, two.parts, strict=True):
        assert alone.stratum.tolist() == beside.stratum.tolist(), "all stand in one bin of positions, 16 to 31"


def test_windows_of_both_kinds_are_left_out_of_groups_with_a_note(tmp_path: Path) -> None:
    labels = read_label_records(lines(tmp_path, *windows()))
    groups = imported_groups(TRACE.generations, labels, design="groups")
    assert any("windows of both kinds are left out of the groups" in note for note in groups.notes)
    assert groups.asks == "auto"
    assert imported_groups(TRACE.generations, labels).asks == "within"
    overlap = [{"generation": 0, "window": [0, 9], "label": 1}, {"generation": 0, "window": [8, 12], "label": 0}]
    with pytest.raises(LabelError, match="overlapping windows of generation 0 has a label already"):
        groups_of(tmp_path, *overlap)
    with pytest.raises(LabelError, match=r"text of generation 0 at the window \[0, 9\] is another"):
        groups_of(tmp_path, *({"generation": 0, "window": [0, 9], "text": "zzz", "label": label} for label in (1, 0)))


def test_windows_drawn_by_an_expert_are_said_to_be(tmp_path: Path) -> None:
    groups = groups_of(tmp_path, *({**one, "sampled_by": "L0.E3"} for one in windows()))
    assert any("drawn by L0.E3. Rates are those of the sample" in note for note in groups.notes)
    labels = read_label_records(tmp_path / "said.jsonl")
    rows = ask(TRACE, labels=labels, design="within")[1]
    (row,) = [row for row in rows if row["site"] == "L0.E3"]
    assert (row["association"], row["q"], row["marginal"]["q"]) == ("untestable", None, None)
    assert row["reason"] == "the labelled windows were drawn by this expert"
    assert any(other["q"] is not None for other in rows)


def test_a_coalition_with_the_expert_that_windows_were_drawn_by_is_not_tested() -> None:
    found = set_aside(
        [None, None, "rare"], [["L0.E3", "L0.E4"], ["L0.E4"], ["L0.E5"]], SimpleNamespace(drawn_by=("L0.E3",))
    )
    assert found == ["the labelled windows were drawn by this expert", None, "rare"]


def test_windows_labelled_by_chance_give_few_calls() -> None:
    """Windows of one answer have any label (within), or all that of their answer (groups); 15 runs of each."""
    world = World(generations=40, experts=32, layers=2, k=4, planted=1, delta=0.0, mean_length=80.0)
    found = {"within": 0, "groups": 0}
    for seed in range(15):
        trace, rng = simulate(600 + seed, world), np.random.default_rng(seed)
        for design in found:
            records = [
                label_record({"generation": index, "window": [at, at + 60], "label": said}, "here")
                for index, one in enumerate(trace.generations)
                for at in range(0, len(one.text) - 60, 120)
                for said in [int(rng.random() < 0.5) if design == "within" else index % 2]
            ]
            labels = Labels(tuple(records), "chance.jsonl", "sha256:0")
            found[design] += any(
                row["association"] == "associated" for row in ask(trace, labels=labels, design=design)[1]
            )
    assert max(found.values()) <= 3, "5 % of 15 runs; 4 or more come by chance in 1 of 200"
