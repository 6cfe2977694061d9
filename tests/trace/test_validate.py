"""validate: every kind of damage is named with its place, also where a forger made all digests anew."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from forgery import forge_columns, forge_generations, resign
from store_samples import make

from moeprobe.cli.main import cli
from moeprobe.errors import TraceError
from moeprobe.trace import Trace, load_trace, validate

Array = np.ndarray


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return make(tmp_path / "a.trace")


def test_a_whole_trace_is_valid(trace: Trace) -> None:
    assert validate(trace.path).problems == ()
    done = CliRunner().invoke(cli, ["validate", str(trace.path)])
    assert (done.exit_code, "6 generations" in done.output) == (0, True)
    done = CliRunner().invoke(cli, ["validate", str(trace.path), "--json"])
    assert json.loads(done.output) == {"path": str(trace.path), "valid": True, "shards": 3, "generations": 6,
                                       "rows": trace.manifest.rows, "problems": []}  # fmt: skip


def test_a_forger_who_changes_nothing_is_not_seen(trace: Trace) -> None:
    """The forgery itself works: what the tests below see is not a digest that it forgot."""
    before = trace.digest
    forge_columns(trace.path, 0, {})
    forge_generations(trace.path, lambda records: None)
    assert load_trace(trace.path).digest == before
    assert validate(trace.path).valid


def first_to(value: float) -> Callable[[Array], Array]:
    def change(array: Array) -> Array:
        array = array.copy()
        array.reshape(-1)[0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("column", "change", "said"),
    [
        ("L3.experts", first_to(300), r"L3 names expert 300"),
        ("L5.experts", first_to(16), r"L5 names expert 16"),
        ("L3.weights", first_to(np.nan), "NaN"),
        ("L3.weights", first_to(0.5), "do not add up"),
        ("L5.mask", lambda a: ~a, "do not add up"),
        ("L5.mask", lambda a: (a.view(np.uint8) + 1).view(np.bool_), "neither true nor false"),
        ("L5.logits", first_to(np.inf), "rules out"),
        ("generation", first_to(1), "generation has 1 at row 0"),
        ("generation", first_to(99), "outside 0 to 5"),
        ("position", first_to(1), "position has 1"),
        ("position", first_to(-1), "below 0"),
        ("phase", first_to(1), "phase has 1"),
        ("phase", first_to(2), "outside 0 to 1"),
        ("segment", first_to(1), "segment has 1"),
        ("segment", first_to(7), "outside 0 to 6"),
        ("char_start", first_to(9), "char_start has 9"),
        ("char_end", first_to(9), "char_end has 9"),
        ("token_id", first_to(-5), "below 0"),
        ("L5.logits", lambda a: a[:, :-1], r"L5.logits is F16 \[\d+, 15\]"),
        ("L5.logits", lambda a: a.astype(np.int32), "L5.logits is I32"),
        ("L3.experts", lambda a: a.astype(np.uint8), "L3.experts is U8"),
        ("position", lambda a: None, "position is missing"),
        ("evil", lambda a: np.zeros(4, np.uint8), "unknown column 'evil'"),
    ],
)
def test_forged_columns_are_refused(
    trace: Trace, column: str, change: Callable[[Array], Array | None], said: str
) -> None:
    forge_columns(trace.path, 0, {column: change})
    with pytest.raises(TraceError, match=said) as raised:
        load_trace(trace.path).verify()
    assert "000000.safetensors" in str(raised.value)
    assert len(validate(trace.path).problems) in (1, 2)  # the damaged shard, and the means that it spoils


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"index": 4}, "in order: it is number 4"),
        ({"shard": 2}, "begin at row 0 of shard 2"),
        ({"first_row": 1}, "begin at row 1"),
        ({"prompt_rows": 99}, "beyond the end|begin at row|add up"),
        ({"text": ""}, "char_end"),
        ({"label": []}, "'label'"),
        ({"messages": [3]}, "list of objects"),
        ({"trims": ["x"]}, "list of objects"),
        ({"prompt_text": "\ud800"}, "surrogate"),
        ({"generated": 10**300}, "'generated'"),
    ],
)
def test_forged_generations_are_refused(trace: Trace, changes: dict[str, object], said: str) -> None:
    place = next(one.index for one in trace.generations if one.answer_rows)
    forge_generations(trace.path, lambda records: records[place].update(changes))
    with pytest.raises(TraceError, match=said):
        load_trace(trace.path).verify()


def test_damage_is_named_by_column(trace: Trace) -> None:
    path = trace.path / "shards" / "000001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    done = CliRunner().invoke(cli, ["validate", str(trace.path)])
    assert done.exit_code == 1
    assert "000001.safetensors was altered" in done.output
    assert "Copy the trace again" in done.output
    assert "1 problem." in done.output
    # reading goes wrong as well: nothing is counted from a damaged shard
    with pytest.raises(TraceError, match="was altered"):
        read_all(load_trace(trace.path))


def read_all(trace: Trace) -> None:
    for shard in trace.shards():
        for name in ("phase", "segment"):
            getattr(shard, name)
        for info in trace.manifest.layers:
            shard.experts(info.name), shard.weights(info.name), shard.mask(info.name)  # reading is the point
        for signal in trace.manifest.signals:
            shard.signal(signal.name)


def test_all_damaged_shards_are_named(trace: Trace) -> None:
    for number in (0, 2):
        (trace.path / "shards" / f"00000{number}.safetensors").unlink()
    found = validate(trace.path).problems
    assert [("000000" in one, "000002" in one) for one in found] == [(True, False), (False, True)]


def test_swapped_shards_and_shards_of_another_run(trace: Trace, tmp_path: Path) -> None:
    other = make(tmp_path / "b.trace", seed=7)
    names = [trace.path / "shards" / f"00000{number}.safetensors" for number in (0, 1)]
    kept = [path.read_bytes() for path in names]
    for contents in (kept[::-1], [(other.path / "shards" / name.name).read_bytes() for name in names]):
        for path, data in zip(names, contents, strict=True):
            path.write_bytes(data)
        assert not validate(trace.path).valid
    for name in ("shards.jsonl", "generations.jsonl"):
        shutil.copy(other.path / name, trace.path / name)
        assert not validate(trace.path).valid


def test_shards_that_no_line_lists(trace: Trace) -> None:
    shutil.copy(trace.path / "shards" / "000000.safetensors", trace.path / "shards" / "000003.safetensors")
    assert ["000003.safetensors belongs to no shard" in one for one in validate(trace.path).problems] == [True]


@pytest.mark.parametrize(
    "name", ["shards/000000.safetensors", "shards", "run.json", "generations.jsonl", "shards.jsonl"]
)
def test_links_are_not_followed(trace: Trace, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    (trace.path / name).rename(outside)
    (trace.path / name).symlink_to(outside, target_is_directory=outside.is_dir())
    assert any("link" in one for one in validate(trace.path).problems)


def test_no_trace_at_all(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["validate", str(tmp_path), "--json"])
    assert done.exit_code == 1
    assert "no run.json" in json.loads(done.output)["problems"][0]


def test_a_header_of_four_gigabytes(trace: Trace) -> None:
    path = trace.path / "shards" / "000000.safetensors"
    path.write_bytes((4 << 30).to_bytes(8, "little") + path.read_bytes()[8:])
    resign(trace.path)
    with pytest.raises(TraceError, match="a header of 4,294,967,296 bytes; at most"):
        load_trace(trace.path).verify()
