"""Scores of inspect_ai logs as labels, read by inspect_ai's own reader."""

import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moeprobe.correlate import read_inspect_log
from moeprobe.designs.imported import imported_groups
from moeprobe.designs.inspect_logs import read_labels_of
from moeprobe.errors import LabelError
from moeprobe.stats.simulation import World, simulate

TRACE = simulate(3, World(generations=8, experts=4, layers=1, k=1, planted=1, mean_length=20.0))
TEXTS = [one.text for one in TRACE.generations]


def log_file(path: Path, *, values: Any, metadata: Any = None, texts: Any = None) -> Path:
    """A log as an evaluation writes it: one sample for each generation, scores of two scorers."""
    pytest.importorskip("inspect_ai")
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSample, EvalSpec, write_eval_log
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score

    samples = [
        EvalSample(
            id=index + 1, epoch=1, input="q", target="t", metadata=(metadata or [{}] * 8)[index],
            output=ModelOutput.from_content("m", (texts or TEXTS)[index]),
            scores={"refuses": Score(value=value), "length": Score(value=0.25)} if value is not ... else {},
        )
        for index, value in enumerate(values)
    ]  # fmt: skip
    spec = EvalSpec(
        created="2026-01-01T00:00:00+00:00", task="t", dataset=EvalDataset(), model="m", config=EvalConfig()
    )
    write_eval_log(EvalLog(status="success", eval=spec, samples=samples), str(path))
    return path


VALUES: list[Any] = ["C", "I", True, False, 1, 0, "N", ...]


@pytest.mark.parametrize("name", ["a.eval", "a.json"])
def test_scores_are_labels_of_the_answers(tmp_path: Path, name: str) -> None:
    labels = read_inspect_log(log_file(tmp_path / name, values=VALUES), "refuses")
    groups = imported_groups(TRACE.generations, labels)
    assert groups.member.tolist() == [1, 0, 1, 0, 1, 0, -1, -1]
    assert (groups.name, groups.abstained) == ("labels:a", 2)
    assert "scorer refuses" in groups.definition
    assert groups.grouping["scorer"] == "refuses"
    assert read_labels_of(tmp_path / name, "refuses") == labels


def test_metadata_decides_which_generation(tmp_path: Path) -> None:
    order = [3, 2, 1, 0, 7, 6, 5, 4]
    for key in ("generation", "prompt_id"):
        where = [{key: index if key == "generation" else TRACE.generations[index].prompt_id} for index in order]
        path = log_file(tmp_path / f"{key}.json", values=VALUES, metadata=where, texts=[TEXTS[i] for i in order])
        member = imported_groups(TRACE.generations, read_inspect_log(path, "refuses")).member.tolist()
        assert [member[index] for index in order] == [1, 0, 1, 0, 1, 0, -1, -1]
    wrong = log_file(tmp_path / "wrong.json", values=VALUES, metadata=where)
    with pytest.raises(LabelError, match="sample 1: the text of generation 3 is another than the label's"):
        imported_groups(TRACE.generations, read_inspect_log(wrong, "refuses"))
    other = log_file(tmp_path / "other.json", values=VALUES, texts=["x"] * 8)
    with pytest.raises(LabelError, match="sample 1: no generation has this text"):
        imported_groups(TRACE.generations, read_inspect_log(other, "refuses"))


def test_numbers_are_scores(tmp_path: Path) -> None:
    path = log_file(tmp_path / "a.json", values=[0.1, 0.9, 1.0, 0.0, 1, True, float("nan"), "N"])
    groups = imported_groups(TRACE.generations, read_inspect_log(path, "refuses"))
    assert groups.scores == (0.1, 0.9, 1.0, 0.0, 1.0, 1.0, None, None)
    with pytest.raises(LabelError, match="must be a number from 0 to 1"):
        read_inspect_log(log_file(tmp_path / "b.json", values=[3.5] * 8), "refuses")
    with pytest.raises(LabelError, match="holds several values"):
        read_inspect_log(log_file(tmp_path / "c.json", values=[{"a": 1}] * 8), "refuses")


def test_logs_that_do_not_say(tmp_path: Path) -> None:
    path = log_file(tmp_path / "a.json", values=VALUES)
    with pytest.raises(LabelError, match="holds scores of length, refuses. Whose are the labels"):
        read_inspect_log(path)
    with pytest.raises(LabelError, match="no scores of 'me'. It holds those of length, refuses"):
        read_inspect_log(path, "me")
    with pytest.raises(LabelError, match="holds no scores"):
        read_inspect_log(log_file(tmp_path / "b.json", values=[...] * 8))
    for body in (b"{", b"PK\x03\x04", b"[1]", b'{"version": 2}', b""):
        for name in ("bad.json", "bad.eval"):
            (tmp_path / name).write_bytes(body)
            with pytest.raises(LabelError, match="cannot be read as a log of inspect_ai|holds no samples"):
                read_inspect_log(tmp_path / name)
    with pytest.raises(LabelError, match="Could not read"):
        read_inspect_log(tmp_path / "missing.json")


def test_their_reader_sees_an_archive_only_as_it_was_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """128 KiB here would be 320 MiB in memory. The reader stands in for inspect_ai's: it says what it was given."""
    given: list[tuple[Path, list[str]]] = []

    def read(path: str) -> Any:
        given.append((Path(path), zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []))
        return SimpleNamespace(samples=[])

    monkeypatch.setitem(sys.modules, "inspect_ai.log", SimpleNamespace(read_eval_log=read))
    for name, size in (("bomb.eval", 160 << 20), ("bomb.json", 160 << 20), ("log.eval", 9), ("log.json", 9)):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry in ("header.json", "samples/1.json"):
                archive.writestr(entry, bytes(size))
        assert (tmp_path / name).stat().st_size < 1 << 20
        told = (
            "holds 320 MiB when unpacked; at most 256 MiB are read. Split the log" if size > 9 else "holds no samples"
        )
        with pytest.raises(LabelError, match=told):
            read_labels_of(tmp_path / name)
    assert [one.name for one, _ in given] == ["log.eval", "log.json"]
    for one, names in given:
        assert tmp_path not in one.parents
        assert not one.exists()
        assert names == ["header.json", "samples/1.json"]
    (tmp_path / "plain.json").write_text("{}")
    (tmp_path / "no.eval").write_text("{}")
    with pytest.raises(LabelError, match="holds no samples"):
        read_labels_of(tmp_path / "plain.json")
    with pytest.raises(LabelError, match="BadZipFile: File is not a zip file"):
        read_labels_of(tmp_path / "no.eval")
    assert [one for one, _ in given[2:]] == [tmp_path / "plain.json"]


def test_without_inspect_ai_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.eval").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    with pytest.raises(LabelError, match=r"not installed: pip install 'moeprobe\[inspect\]'. Labels of your own"):
        read_labels_of(tmp_path / "a.eval")
    (tmp_path / "a.jsonl").write_text('{"generation": 0, "label": 1}')
    with pytest.raises(LabelError, match="is no log of inspect_ai .* Leave --scorer out"):
        read_labels_of(tmp_path / "a.jsonl", "me")
