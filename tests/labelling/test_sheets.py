"""Labelling sheets: what is drawn and how it is matched, and that nothing on a sheet tells what is in the key."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from moeprobe.errors import LabelError
from moeprobe.labelling import COLUMNS, Key, check_sheet, key_path, make_sheet, read_key, write_sheet
from moeprobe.labelling.cells import same_cell
from moeprobe.labelling.drawing import PLACE, TOKEN, TOKEN_TOUCHED, deciles
from moeprobe.probes import Example, Reading
from moeprobe.stats.simulation import World, simulate
from moeprobe.trace import Trace, load_trace
from moeprobe.visible import guarded

WORLD = World(generations=40, experts=8, k=2, layers=1, planted=1, mean_length=90.0, within=True, samples=2)
ASKED = "Does it shout?"


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return load_trace(simulate(4, WORLD).save(tmp_path_factory.mktemp("runs") / "a.trace"))


@pytest.fixture(scope="module")
def key(trace: Trace) -> Key:
    return make_sheet(trace, "L0.E3", number=60, width=9, question=ASKED)


class Shouts:
    """Scores a window by its share of words with a capital W; silent on windows that begin with one."""

    name, version, level, definition = "shouts", "1", "generation", "Words with a capital W."

    def examples(self):
        return [Example("W0001 ", 1), Example("w0001 ", 0)]

    def read(self, passage):
        words = passage.text.split()
        return Reading(None if passage.text[0] == "W" else sum(word[0] == "W" for word in words) / len(words))


def tokens_of(trace: Trace, generation: int):
    """Of one answer: starts, ends, ids, and the weights and choices of L0.E3, from the trace itself."""
    for shard in trace.shards():
        rows = np.flatnonzero((shard.generation == generation) & (shard.segment == 1))
        if rows.size:
            rows = rows[np.argsort(shard.position[rows])]
            hit = shard.experts(0)[rows] == 3
            weight = (shard.weights(0)[rows] * hit).sum(axis=1)
            return shard.char_start[rows], shard.char_end[rows], shard.token_id[rows], weight, hit.any(axis=1)
    raise AssertionError(generation)


def inside(trace: Trace, one):
    starts, ends, ids, weight, hit = tokens_of(trace, one.generation)
    own = np.flatnonzero((starts >= one.window[0]) & (ends <= one.window[1]))
    return own, ids, weight, hit, starts.size


def test_windows_are_what_the_key_says(trace: Trace, key: Key) -> None:
    assert len(key.windows) == 60
    assert sum(one.positive for one in key.windows) == 30
    for one in key.windows:
        own, _, weight, hit, _ = inside(trace, one)
        assert own.size == 9
        assert one.text == trace.generations[one.generation].text[slice(*one.window)]
        assert one.value == pytest.approx(weight[own].mean(), abs=1e-6)
        assert hit[own].any() == (one.value > 0)
        if not one.positive and one.match != TOKEN_TOUCHED:
            assert one.value == 0
    places = [(one.generation, *one.window) for one in key.windows]
    for generation, start, end in places:
        assert sum(g == generation and s < end and start < e for g, s, e in places) == 1, "windows overlap"


def test_negatives_are_matched_by_the_token_in_the_middle(trace: Trace, key: Key) -> None:
    pairs: dict[int, dict[bool, object]] = {}
    for one in key.windows:
        pairs.setdefault(one.pair, {})[one.positive] = one
    matched = 0
    for pair in pairs.values():
        drawn, negative = pair[True], pair[False]
        assert (drawn.match, negative.decile) == ("", 0)
        sides = [middles(trace, one) for one in (drawn, negative)]
        assert any(hit for _, hit in sides[0])
        if negative.match in (TOKEN, TOKEN_TOUCHED):
            matched += 1
            assert {token for token, hit in sides[0] if hit} & {token for token, hit in sides[1] if not hit}
        else:
            assert negative.match == PLACE
    assert matched > 20


def middles(trace: Trace, one):
    """Tokens that can be the middle of a window: the fifth of nine, at an end of the answer any on that side."""
    own, ids, _, hit, size = inside(trace, one)
    first, last = own[0], own[-1] + 1
    possible = range(first if first == 0 else first + 4, last if last == size else first + 5)
    return [(int(ids[at]), bool(hit[at])) for at in possible]


def test_deciles_are_even_and_equal_values_share_one(key: Key) -> None:
    drawn = [one.decile for one in key.windows if one.positive]
    assert {drawn.count(decile) for decile in range(1, 11)} == {3}
    values = np.random.default_rng(0).permutation(100).astype(float)
    assert deciles(values).tolist() == (values // 10 + 1).astype(int).tolist()
    assert len(set(deciles(np.array([1.0] * 5 + [2.0] * 5)).tolist())) == 2
    assert set(deciles(np.zeros(7)).tolist()) == {5}
    by_decile = {one.decile: one.value for one in sorted(key.windows, key=lambda one: one.value) if one.positive}
    assert list(by_decile) == sorted(by_decile)


def test_probe_windows_are_judged_as_the_labeller_sees_them(trace: Trace) -> None:
    judge = Shouts()
    made = make_sheet(trace, judge, number=30, width=5)
    assert made.question == "Does the text fit this? Words with a capital W."
    for one in made.windows:
        share = sum(word[0] == "W" for word in one.text.split()) / len(one.text.split())
        assert one.text[0] != "W", "the probe abstained"
        assert one.value == pytest.approx(share)
        assert one.positive == (share >= 0.5)
    assert {one.match for one in made.windows} == {"", PLACE}


def test_the_same_seed_makes_the_same_sheet_and_another_does_not(trace: Trace, key: Key) -> None:
    again = make_sheet(trace, "L0.E3", number=60, width=9, question=ASKED)
    assert again.to_json() == key.to_json()
    assert make_sheet(trace, "L0.E3", number=60, width=9, question=ASKED, seed=1).digest != key.digest


def leaks(rows: list[dict[str, str]], key: Key) -> list[str]:
    """What of a sheet, besides the words of the text, tells which windows were drawn for a hit."""
    truth = {one.id: one for one in key.windows}
    found = []
    if any(tuple(row) != COLUMNS for row in rows):
        found.append("columns")
    if any(row["label"] or row["question"] != ASKED for row in rows):
        found.append("label or question")
    positive = np.array([truth[row["id"]].positive for row in rows])
    value = np.array([truth[row["id"]].value for row in rows])
    pair = np.array([truth[row["id"]].pair for row in rows])
    told = {
        "order": np.arange(len(rows)),
        "id": np.array([int(row["id"][1:], 16) for row in rows]),
        "digits of the id": np.array([sum(map(int, filter(str.isdigit, row["id"]))) for row in rows]),
    }
    for name, numbers in told.items():
        if mannwhitneyu(numbers[positive], numbers[~positive]).pvalue < 1e-4:
            found.append(name)
        if abs(np.corrcoef(numbers, value)[0, 1]) > 0.5:
            found.append(f"{name} and value")
    if (np.abs(np.diff(pair)) == 0).mean() > 0.2:
        found.append("partners side by side")
    text = json.dumps(rows)
    found += [word for word in ("L0", "E3", "weight", "decile", "positive", "shouts", "p0", "p1") if word in text]
    return found


def test_nothing_on_the_sheet_predicts_the_key(trace: Trace, key: Key) -> None:
    for seed in range(10):
        made = make_sheet(trace, "L0.E3", number=60, width=9, question=ASKED, seed=seed)
        assert leaks(made.rows(), made) == []


@pytest.mark.parametrize(
    ("leak", "name"),
    [
        (lambda windows: sorted(windows, key=lambda one: -one.value), "order"),
        (lambda windows: sorted(windows, key=lambda one: one.pair), "partners side by side"),
        (lambda windows: [replace(one, id=f"w{one.decile}{i:05x}") for i, one in enumerate(windows)], "id"),
        (
            lambda windows: [replace(one, shown=(one.shown[0], f"weight {one.shown[1]}", "")) for one in windows],
            "weight",
        ),
    ],
)
def test_a_planted_leak_is_seen_by_the_same_check(key: Key, leak, name: str) -> None:
    planted = replace(key, windows=tuple(leak(key.windows)))
    assert name in leaks(planted.rows(), planted)


def test_the_order_of_sheets_is_even(trace: Trace) -> None:
    """Over 40 seeds the first row is a drawn window about half of the time, and at no place is it always."""
    drawn = np.array([
        [one.positive for one in make_sheet(trace, "L0.E3", number=10, width=9, question=ASKED, seed=seed).windows]
        for seed in range(40)
    ])  # fmt: skip
    assert drawn.shape == (40, 10)
    assert drawn.sum() == 200
    assert ((drawn.mean(axis=0) > 0.2) & (drawn.mean(axis=0) < 0.8)).all()


HOSTILE = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'=1",
    "＝1",
    " =1",
    "'quoted'",
    "<script>",
    'a"b,c;d',
    "a\nb",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_is_a_formula_and_every_cell_is_known_again(text: str) -> None:
    cell = guarded(text)
    assert not cell.lstrip().startswith(("=", "+", "-", "@", "＝"))
    assert same_cell(cell, text)
    assert same_cell(text, text), "a program that takes the quotation mark out"
    assert same_cell(cell.replace("\n", "\r\n"), text)
    assert not same_cell(cell + "x", text)


def test_files_of_a_sheet(key: Key, tmp_path: Path) -> None:
    hostile = tuple(
        replace(one, text=text, shown=("=2+2", text.replace("\t", " ").replace("\r", " "), "</script><b>"))
        for one, text in zip(key.windows, HOSTILE, strict=False)
    )
    made = replace(key, windows=hostile)
    for name in ("s.csv", "s.jsonl", "s.html"):
        where = write_sheet(made, tmp_path / name)
        assert where == key_path(tmp_path / name) == tmp_path / "s.key.json"
    rows = list(csv.reader(io.StringIO((tmp_path / "s.csv").read_text(encoding="utf-8-sig"), newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert all(not cell.lstrip().startswith(("=", "+", "-", "@")) for row in rows[1:] for cell in row)
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == [one.shown[1] for one in hostile]
    assert all(f"[{line['id']}]{line['text']}[{line['id']}]" in line["prompt"] for line in lines)
    assert all(line["label"] is None and ASKED in line["prompt"] for line in lines)
    page = (tmp_path / "s.html").read_text()
    assert "<script>" in page
    assert "</script><b>" not in page
    assert "<b>" not in page
    for name in ("s.csv", "s.jsonl", "s.html"):
        body = (tmp_path / name).read_text()
        assert not [word for word in ("L0.E3", "decile", str(key.windows[0].value), "sha256:") if word in body]
    assert read_key(tmp_path / "s.key.json").windows == hostile


@pytest.mark.parametrize("name", ["L18.E5.csv", "l18e5-sheet.html", "about-L2.E5.jsonl"])
def test_a_name_that_tells_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LabelError, match="names an expert, which the labeller must not know"):
        check_sheet(tmp_path / name, force=False)
    with pytest.raises(LabelError, match=r"a sheet is \.csv, \.jsonl or \.html"):
        check_sheet(tmp_path / "sheet.xlsx", force=False)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"question": None}, "What is the labeller asked"),
        ({"question": " "}, "The question is empty"),
        ({"question": "Is it L0.E3?"}, "The question names an expert"),
        ({"by": "L0.E99"}, r"no expert L0.E99. Its layers \(experts\): L0 \(8\)"),
        ({"by": "L7.E1"}, "no expert L7.E1"),
        ({"number": 1}, "1 windows make no sheet"),
        ({"width": 0}, "A window of 0 tokens"),
        ({"segment": "prompt"}, "Windows are of answers"),
        ({"segment": "thinking"}, "No generation of this trace has a token in segment 'thinking'"),
    ],
)
def test_sheets_that_cannot_be_made(trace: Trace, arguments, complaint: str) -> None:
    given = {"by": "L0.E3", "question": ASKED} | arguments
    with pytest.raises(LabelError, match=complaint):
        make_sheet(trace, given.pop("by"), **given)


def test_experts_without_two_kinds_of_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    always = load_trace(simulate(0, replace(WORLD, experts=1, k=1)).save(tmp_path / "all.trace"))
    with pytest.raises(LabelError, match="No window has a partner without a hit"):
        make_sheet(always, "L0.E0", question=ASKED)
    monkeypatch.setattr(Shouts, "read", lambda self, passage: Reading(float(passage.text == "W0001 ")))
    with pytest.raises(LabelError, match="shouts calls no window of 40 tokens positive"):
        make_sheet(always, Shouts())


def test_hidden_characters_are_shown_as_codes_and_kept_in_the_key(trace: Trace) -> None:
    generations = [replace(one, text="\u202e" + one.text[1:]) for one in trace.generations]
    other = load_trace(trace.path)
    other.__dict__["generations"] = generations
    made = make_sheet(other, "L0.E3", number=60, width=9, question=ASKED)
    shown = [one for one in made.windows if one.text.startswith("\u202e")]
    assert all(one.shown[1].startswith("⟨U+202E⟩") for one in shown)
    assert shown


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda body: body.update(schema="x"), "is no key of a labelling sheet"),
        (lambda body: body["windows"].pop(), "was altered: its windows are not those of its sheet"),
        (lambda body: body["windows"][0].update(id=body["windows"][1]["id"]), "two of one id"),
        (lambda body: body["windows"][0].update(shown=["a", "b"]), "'shown' must be three texts"),
        (lambda body: body["windows"][0].update(decile=11), "'decile' must be a whole number from 0 to 10"),
        (lambda body: body["windows"][0].update(window=[5, 5]), r"'window' must be \[start, end\]"),
        (lambda body: body["by"].update(kind="tarot"), "drawn by an expert or a probe, not by 'tarot'"),
        (lambda body: body.update(windows=[]), "no windows"),
        (lambda body: body.pop("question"), "'question' is missing"),
    ],
)
def test_keys_that_were_altered(key: Key, tmp_path: Path, change, complaint: str) -> None:
    body = json.loads(json.dumps(key.to_json()))
    change(body)
    (tmp_path / "k.json").write_text(json.dumps(body))
    with pytest.raises(LabelError, match=complaint):
        read_key(tmp_path / "k.json")
