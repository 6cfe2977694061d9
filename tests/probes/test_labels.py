"""Label files: what is malformed is named with its line."""

import json
from pathlib import Path

import pytest

from moeprobe.errors import ProbeError
from moeprobe.probes import Example, Reading, read_labels
from moeprobe.probes.quality import measure
from moeprobe.probes.trained import example_groups


def test_reads_lines_in_order(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes(
        '\ufeff{"text": "a\u2028b", "label": 1}\r\n\n{"text": "", "label": 0, "prompt": "p", "note": "n"}'.encode()
    )
    assert read_labels(path) == [Example("a\u2028b", 1), Example("", 0, "p", "n")]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"[1]", "expected a JSON object"),
        (b'{"text": "\\udc00", "label": 1}', "half of a surrogate pair"),
        (b'{"label": 1}', "'text' is missing"),
        (b'{"text": 3, "label": 1}', "'text' is missing or no text"),
        (b'{"text": "a"}', "'label' is None"),
        (b'{"text": "a", "label": 2}', "'label' is 2"),
        (b'{"text": "a", "label": true}', "'label' is True"),
        (b'{"text": "a", "label": "1"}', "'label' is '1'"),
        (b'{"text": "a", "label": 1, "prompt": null}', "'prompt'"),
        (b'{"text": "a", "label": 1, "lable": 1}', "unknown key 'lable'"),
    ],
)
def test_names_file_and_line(tmp_path: Path, line: bytes, complaint: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes(b'{"text": "fine", "label": 0}\n\n' + line + b"\n")
    with pytest.raises(ProbeError, match=r"labels\.jsonl:3: ") as caught:
        read_labels(path)
    assert complaint in str(caught.value)


def test_what_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ProbeError, match=r"bad.jsonl is not UTF-8 text"):
        read_labels(tmp_path / "bad.jsonl")


def test_lines_of_a_labelling_sheet_are_read_and_abstentions_skipped(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    place = '"generation": 3, "prompt_id": "p", "sample": 0, "window": [0, 1], "sampled_by": "L1.E2", "labeller": "a"'
    path.write_text(f'{{"text": "a", "label": 1, {place}}}\n{{"text": "b", "label": null, "generation": 4}}\n')
    assert read_labels(path) == [Example("a", 1, unit="p")]


def test_an_empty_or_missing_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n \n", encoding="utf-8")
    with pytest.raises(ProbeError, match="no examples"):
        read_labels(tmp_path / "empty.jsonl")
    with pytest.raises(ProbeError, match=r"Could not read .*missing.jsonl"):
        read_labels(tmp_path / "missing.jsonl")


def test_windows_of_one_prompt_or_answer_are_one_cluster(tmp_path: Path) -> None:
    """`labels read` writes no prompt: each window would be taken for an independent text."""
    path = tmp_path / "windows.jsonl"
    lines = [
        {"text": "a", "label": 1, "generation": 3, "prompt_id": "c-01", "window": [0, 4], "sampled_by": "L2.E5"},
        {"text": "b", "label": 0, "generation": 4, "prompt_id": "c-01", "window": [5, 9], "sampled_by": "L2.E5"},
        {"text": "c", "label": 1, "generation": 5},
        {"text": "d", "label": 0, "generation": 5},
        {"text": "e", "label": 0, "prompt": "Why?", "generation": 5},
        {"text": "f", "label": 0},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    found = read_labels(path)
    assert [one.cluster for one in found] == ["c-01", "c-01", "generation 5", "generation 5", "Why?", ""]
    assert [one.prompt for one in found] == ["", "", "", "", "Why?", ""]  # an id is no prompt: no probe is shown it
    assert example_groups(found).tolist() == [0, 0, 1, 1, 2, 3]
    assert measure("x", found, [Reading(0.7)] * 6, "the labels given").prompts == 4
    for key, value in (("prompt_id", 7), ("generation", "3")):
        path.write_text(json.dumps({"text": "a", "label": 1, key: value}))
        with pytest.raises(ProbeError, match=f"windows.jsonl:1: '{key}'"):
            read_labels(path)
