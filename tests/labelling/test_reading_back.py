"""Sheets read back: as spreadsheet programs leave them, nothing altered taken, and figures against other programs."""

import csv
import io
import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import permutation_test
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from statsmodels.stats.inter_rater import fleiss_kappa
from statsmodels.stats.proportion import proportion_confint

from moeprobe.designs.label_records import read_label_records
from moeprobe.errors import LabelError
from moeprobe.labelling import COLUMNS, Key, KeyWindow, associate, judge_sheet, read_answers, write_sheet
from moeprobe.labelling.answers import Answers
from moeprobe.labelling.association import _exchangeable
from moeprobe.probes import read_labels

NAMES = [f"w{index:07x}" for index in range(40)]


def window(index: int) -> KeyWindow:
    text = f'text; {index}, "said"\nand more'
    return KeyWindow(
        id=NAMES[index], generation=index // 2, prompt_id=f"p{index // 2}", unit=f"p{index // 2}",
        window=(4 * (index % 2), 4 * (index % 2) + 4), text=text, shown=("=before ", text, " -after"),
        positive=index < 20, value=(40 - index) / 40 if index < 20 else 0.0, decile=index // 2 + 1 if index < 20 else 0,
        pair=index % 20, match="" if index < 20 else "token",
    )  # fmt: skip


KEY = Key(tuple(map(window, range(40))), "expert", "L1.E2", None, "Is it?", {}, {})


def labelled(path: Path, labels, *, delimiter=",", encoding="utf-8-sig", end="\r\n", change=lambda rows: rows) -> Path:
    """The sheet as a spreadsheet program writes it after a person filled it in."""
    write_sheet(KEY, path.with_name("sheet.csv"))
    table = list(csv.DictReader(io.StringIO(path.with_name("sheet.csv").read_text(encoding="utf-8-sig"), newline="")))
    for row, label in zip(table, labels, strict=True):
        row["label"] = label
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(change(table))
    path.write_bytes(out.getvalue().encode(encoding))
    return path


WORDS = ["yes", "No", " 1 ", "0", "TRUE", "False", "y", "n", "", "-"] * 4
MEANT = [1, 0, 1, 0, 1, 0, 1, 0, None, None] * 4


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_of_spreadsheet_programs(tmp_path: Path, delimiter: str, encoding: str, end: str) -> None:
    path = labelled(tmp_path / "ann.csv", WORDS, delimiter=delimiter, encoding=encoding, end=end)
    answers = read_answers(path, KEY)
    assert (answers.labeller, list(answers.by_id.values())) == ("ann", MEANT)


def swapped(rows):
    """Rows and columns in another order, a column more, spaces and quotation marks changed."""
    return [
        {"notes": "hm", **{name: row[name] for name in reversed(COLUMNS)}, "before": row["before"].strip().lstrip("'")}
        for row in reversed(rows)
    ]


def test_order_spaces_and_further_columns_do_not_matter(tmp_path: Path) -> None:
    table = labelled(tmp_path / "ann.csv", WORDS)
    rows = swapped(list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig"), newline=""))))
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    table.write_text(out.getvalue())
    answers = read_answers(table, KEY)
    assert [answers.by_id[name] for name in NAMES] == MEANT


def other(rows, **fields):
    return [{**rows[0], **fields}, *rows[1:]]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: other(rows, id="w9999999"), "row 2: the id 'w9999999' is not on this sheet"),
        (lambda rows: [rows[0], *rows], "row 3: the id w0000000 stands twice"),
        (lambda rows: other(rows, text="another"), "row 2: the text of window w0000000 was altered"),
        (lambda rows: other(rows, before=""), "the before of window w0000000 was altered"),
        (lambda rows: other(rows, label="maybe"), "row 2: the label 'maybe' is none"),
        (lambda rows: other(rows, label="2"), "row 2: the label '2' is none"),
        (lambda rows: rows[1:], "1 of 40 windows are missing, for example w0000000"),
        (lambda rows: [{**row, "label": ""} for row in rows], "no window is labelled"),
    ],
)
def test_what_was_altered_is_named_with_its_row(tmp_path: Path, change, complaint: str) -> None:
    with pytest.raises(LabelError, match=complaint) as caught:
        read_answers(labelled(tmp_path / "ann.csv", WORDS, change=change), KEY)
    assert "ann.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "the column 'id' is missing"),
        (b"id,text,label\n", "the column 'before' is missing"),
        (b"id,id,before,text,after,label\n", "the column 'id' is there twice"),
        (b"PK\x03\x04\x00\x00", "zero bytes: it is no CSV file"),
        (b"id,before\xff", "is not UTF-8 text"),
        (b'id,before,text,after,label\n"w', "is no CSV file"),
    ],
)
def test_files_that_are_no_sheet(tmp_path: Path, body: bytes, complaint: str) -> None:
    (tmp_path / "x.csv").write_bytes(body)
    with pytest.raises(LabelError, match=complaint):
        read_answers(tmp_path / "x.csv", KEY)
    with pytest.raises(LabelError, match="Could not read"):
        read_answers(tmp_path / "missing.csv", KEY)


def test_lines_of_a_model_or_of_the_page(tmp_path: Path) -> None:
    write_sheet(KEY, tmp_path / "model.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "model.jsonl").read_text().splitlines()]
    said = [1, 0, "yes", "no", None, True, False, "1"] * 5
    lines = [json.dumps({**row, "label": label}) for row, label in zip(rows, said, strict=True)]
    (tmp_path / "model.jsonl").write_text("\n".join(lines))
    assert list(read_answers(tmp_path / "model.jsonl", KEY).by_id.values()) == [1, 0, 1, 0, None, 1, 0, 1] * 5
    for bad, complaint in (({"label": [1]}, "model.jsonl:1: the label"), ({"text": 3}, "'text' must be a text")):
        (tmp_path / "model.jsonl").write_text("\n".join([json.dumps({**rows[0], **bad}), *lines[1:]]))
        with pytest.raises(LabelError, match=complaint):
            read_answers(tmp_path / "model.jsonl", KEY)


def said_by(name: str, labels) -> Answers:
    return Answers(name, dict(zip(NAMES, labels, strict=True)))


RNG = np.random.default_rng(5)
TRUTH = (RNG.random(40) < 0.5).astype(int)
THREE = [np.where(RNG.random(40) < 0.15, 1 - TRUTH, TRUTH).tolist() for _ in range(3)]


def test_agreement_is_that_of_sklearn_and_statsmodels() -> None:
    answers = [said_by(name, labels) for name, labels in zip("abc", THREE, strict=True)]
    answers[2] = said_by("c", [None, *THREE[2][1:]])
    outcome = judge_sheet(KEY, answers, draws=10)
    assert [(one.first, one.second) for one in outcome.pairwise] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert outcome.pairwise[0].agreement.value == pytest.approx(cohen_kappa_score(THREE[0], THREE[1]))
    assert outcome.pairwise[1].agreement.value == pytest.approx(cohen_kappa_score(THREE[0][1:], THREE[2][1:]))
    counts = [[row.count(0), row.count(1)] for row in list(map(list, zip(*THREE, strict=True)))[1:]]
    assert outcome.fleiss == pytest.approx(fleiss_kappa(np.array(counts)))
    assert outcome.fleiss_windows == 39
    most = [int(sum(row) >= 2) for row in zip(*THREE, strict=True)]
    assert list(outcome.labels)[1:] == most[1:]
    assert outcome.labels[0] == (THREE[0][0] if THREE[0][0] == THREE[1][0] else None)
    assert outcome.with_probe == ()


def test_agreement_with_the_probe() -> None:
    outcome = judge_sheet(replace(KEY, kind="probe", name="loud", version="1"), [said_by("a", THREE[0])], draws=0)
    (found,) = outcome.with_probe
    assert (found.first, found.second) == ("a", "probe loud")
    assert found.agreement.value == pytest.approx(cohen_kappa_score(THREE[0], [1] * 20 + [0] * 20))
    assert outcome.association.p is None
    assert outcome.to_json()["with_probe"][0]["agreement"]["n"] == 40


def test_association_is_that_of_sklearn_and_scipy() -> None:
    """With one window of each prompt the prompts are dealt out like any sample."""
    rng = np.random.default_rng(3)
    values, labels = rng.random(30).round(1), (rng.random(30) < 0.5).astype(np.int64)
    found = associate(values, labels, [f"p{index}" for index in range(30)], draws=20_000)
    assert found.auc.value == pytest.approx(roc_auc_score(labels, values))

    def area_beyond(dealt):
        return abs(roc_auc_score(dealt, values) - 0.5)

    wanted = permutation_test(
        (labels,), lambda dealt: area_beyond(dealt), permutation_type="pairings", n_resamples=2000,
        alternative="greater", vectorized=False, rng=1,
    ).pvalue  # fmt: skip
    assert found.p == pytest.approx(wanted, abs=0.03)


def test_windows_of_one_prompt_are_dealt_out_together() -> None:
    """Four prompts of two windows: all 24 orders by hand."""
    values = np.array([0.9, 0.8, 0.7, 0.1, 0.3, 0.2, 0.6, 0.4])
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 1])
    units = [f"p{index // 2}" for index in range(8)]
    ranks = values.argsort().argsort() - 3.5
    sums = [float((labels.reshape(4, 2)[list(order)].ravel() * ranks).sum()) for order in permutations(range(4))]
    centre, own = np.mean(sums), float((labels * ranks).sum())
    wanted = np.mean([abs(one - centre) >= abs(own - centre) - 1e-9 for one in sums])
    found = associate(values, labels, units, draws=40_000)
    assert found.p == pytest.approx(wanted, abs=0.01)
    assert (found.units, found.windows) == (4, 8)
    alone = associate(values[:6], labels[:6], ["a", "b", "b", "c", "c", "c"], draws=100)
    assert (alone.p, alone.draws) == (None, 0)
    assert [one.shape for one in _exchangeable([0, 1, 1, 2, 2, 3])] == [(2, 1), (2, 2)]


def test_no_association_is_called_at_its_rate() -> None:
    """Labels that go with the prompt, not with the weight: p below .05 in about 5 % (a naive one: far more)."""
    rng = np.random.default_rng(11)
    units = [f"p{index // 4}" for index in range(80)]
    found = []
    for _ in range(200):
        values = np.repeat(rng.normal(size=20), 4) + 0.3 * rng.normal(size=80)
        labels = (np.repeat(rng.normal(size=20), 4) + 0.3 * rng.normal(size=80) > 0).astype(np.int64)
        found.append(associate(values, labels, units, draws=199).p)
    assert 0.01 <= np.mean(np.array(found) <= 0.05) <= 0.1


def test_shares_by_decile() -> None:
    labels = [1] * 10 + [0] * 30
    outcome = judge_sheet(KEY, [said_by("a", labels)], draws=0)
    shares = {one.decile: (one.windows, one.positive) for one in outcome.deciles}
    assert shares == {0: (20, 0), **{decile: (2, 2 * (decile <= 5)) for decile in range(1, 11)}}
    apart = replace(KEY, windows=tuple(replace(one, unit=one.id) for one in KEY.windows))
    (negatives, *_) = judge_sheet(apart, [said_by("a", labels)], draws=0).deciles
    low, high = proportion_confint(0, 20, method="wilson")
    assert (negatives.share.low, negatives.share.high) == pytest.approx((low, high))


def test_all_labels_alike_go_with_nothing() -> None:
    outcome = judge_sheet(KEY, [said_by("a", [1] * 40)])
    assert outcome.association is None
    assert outcome.to_json()["association"] is None
    with pytest.raises(LabelError, match="told apart by the names of their files"):
        judge_sheet(KEY, [said_by("a", [1] * 40)] * 2)


def test_the_labels_go_on_to_correlate_and_to_probes_check(tmp_path: Path) -> None:
    outcome = judge_sheet(KEY, [said_by("a", MEANT)], draws=0)
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in outcome.lines()))
    records = read_label_records(path).records
    assert [one.label for one in records] == [None if label is None else str(label) for label in MEANT]
    assert {one.sampled_by for one in records} == {"L1.E2"}
    assert [one.window for one in records] == [one.window for one in KEY.windows]
    assert [one.label for one in read_labels(path)] == [label for label in MEANT if label is not None]
