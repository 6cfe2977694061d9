"""Label files: what is malformed is named with its line."""

from pathlib import Path

import pytest

from moeprobe.errors import ProbeError
from moeprobe.probes import Example, read_labels


def test_reads_lines_in_order(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes(
        '\ufeff{"text": "a\u2028b", "label": 1}\r\n\n{"text": "", "label": 0, "prompt": "p", "note": "n"}'.encode()
    )
    assert read_labels(path) == [Example("a\u2028b", 1), Example("", 0, "p", "n")]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "no JSON object"),
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


def test_an_empty_or_missing_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n \n", encoding="utf-8")
    with pytest.raises(ProbeError, match="no examples"):
        read_labels(tmp_path / "empty.jsonl")
    with pytest.raises(ProbeError, match=r"Could not read .*missing.jsonl"):
        read_labels(tmp_path / "missing.jsonl")
