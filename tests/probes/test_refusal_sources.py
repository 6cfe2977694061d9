"""The two sources of benchmarks/refusal_sources.py: halves share no answer, labels are as the page says."""

import csv
import json
from pathlib import Path

from benchmarks.refusal_sources import ASKED, KINDS, gptfuzz, unknown


def test_an_answer_counts_once_and_in_the_first_half(tmp_path: Path) -> None:
    files = {
        "evaluate.csv": [("q", " No. ", "0"), ("q", "No.", "0"), ("q", "Sure: ...", "1"), ("q", "  ", "0")],
        "train.csv": [("r", "No.", "0"), ("r", "Never.", "0"), ("r", "Here it is.", "1")],
    }
    for name, rows in files.items():
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("question", "Response", "label"), *rows])
    assert gptfuzz(tmp_path, 0) == ([("q", "No.")], [("q", "Sure: ...")])
    assert gptfuzz(tmp_path, 1) == ([("r", "Never.")], [("r", "Here it is.")])


def test_halves_of_unknownbench_share_no_question(tmp_path: Path) -> None:
    for model in ASKED:
        (tmp_path / model).mkdir()
        for kind in KINDS:
            lines = [json.dumps({"prompt": f"{kind} {number}?", model: "No such thing."}) for number in range(200)]
            (tmp_path / model / f"{model}_{kind}_unanswerable.json").write_text("\n".join([*lines, ""]), "utf-8")
    halves = [{prompt for prompt, _ in unknown(tmp_path, part)} for part in (0, 1)]
    assert all(halves)
    assert halves[0].isdisjoint(halves[1])
    assert len(list(unknown(tmp_path, 0))) == len(ASKED) * len(halves[0])
