"""The store: round trip, atomicity, and a reader that takes nothing on trust."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from moeprobe.errors import OutputError, TraceError
from moeprobe.files import sha256
from moeprobe.trace import Generation, LayerInfo, Manifest, Routing, ShardData, Trace, TraceWriter, load_trace


def manifest(**changes: object) -> Manifest:
    base = Manifest(
        layers=(LayerInfo(3, 300, 2, 1.0, False, "model.layers.3.mlp.experts"),), shards=(), generations=0, rows=0,
        generations_sha256="",
        complete=False, created="2026-01-01T00:00:00+00:00", moeprobe="0", model={"id": "toy"}, tokenizer={},
        decoding={}, engine={}, versions={}, prompts={},
    )  # fmt: skip
    return replace(base, **changes)


def shard(first: int = 0, rows: int = 4, experts: np.ndarray | None = None) -> ShardData:
    columns = {name: np.arange(rows) for name in ("token_id", "position", "char_start", "char_end")}
    columns |= {"generation": np.full(rows, first), "phase": np.zeros(rows), "segment": np.ones(rows)}
    ids = np.array([[1, 299]] * rows) if experts is None else experts
    return ShardData(columns, {3: Routing(ids, np.full((rows, 2), 0.1, np.float32))})


def generation(index: int = 0, shard_number: int = 0, rows: int = 4) -> Generation:
    return Generation(index, f"p{index}", 0, "ab", "cd", "eos", 3, 9, 2, rows - 2, shard_number, 0)


def make(path: Path) -> Trace:
    with TraceWriter(path) as writer:
        writer.add(shard(0), [generation(0)], manifest())
        writer.add(shard(1), [generation(1, 1)], manifest())
        writer.finish()
    return load_trace(path)


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return make(tmp_path / "a.trace")


def test_round_trip(trace: Trace) -> None:
    assert trace.manifest.rows == 8
    assert [one.prompt_id for one in trace.generations] == ["p0", "p1"]
    first, second = trace.shards()
    assert first.experts(3).dtype == np.uint16
    assert first.experts(3).tolist() == [[1, 299]] * 4
    assert first.weights(3).tolist() == np.full((4, 2), np.float32(0.1)).tolist()
    assert first.mask(3) is None
    assert second.generation.tolist() == [1] * 4
    trace.verify()


def test_weights_are_kept_exactly(tmp_path: Path) -> None:
    data = shard()
    exact = np.array([[0.5, 0.25]] * 4, np.float32)
    data.routing[3] = Routing(data.routing[3].experts, exact)  # type: ignore[index]
    with TraceWriter(tmp_path / "h.trace") as writer:
        writer.add(data, [generation()], manifest())
        writer.finish()
    stored = load_file(tmp_path / "h.trace" / "shards" / "000000.safetensors")["L3.weights"]
    assert stored.dtype == np.float16
    wide = load_file(make(tmp_path / "w.trace").path / "shards" / "000000.safetensors")["L3.weights"]
    assert wide.dtype == np.float32  # 0.1 does not survive float16


def test_masks_come_back(tmp_path: Path) -> None:
    data = shard()
    mask = np.array([[True, False]] * 4)
    data.routing[3] = replace(data.routing[3], mask=mask)  # type: ignore[index]
    with TraceWriter(tmp_path / "m.trace") as writer:
        writer.add(data, [generation()], manifest())
        writer.finish()
    loaded = load_trace(tmp_path / "m.trace")
    assert next(loaded.shards()).mask(3).tolist() == mask.tolist()  # type: ignore[union-attr]
    assert len(loaded.selection_frame()) == 4


def test_frames_agree_with_the_arrays(trace: Trace) -> None:
    frame = trace.selection_frame([3])
    assert len(frame) == 8 * 2
    assert set(frame["site"]) == {"L3.E1", "L3.E299"}
    assert frame["rank"].tolist()[:4] == [0, 1, 0, 1]
    assert trace.generation_frame()["text"].tolist() == ["cd", "cd"]
    with pytest.raises(TraceError, match="no routing of L7"):
        trace.selection_frame([7])


def test_reprs_are_one_line_and_escaped(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "x.trace") as writer:
        writer.add(shard(), [generation()], manifest(model={"id": "<script>"}))
        writer.finish()
    loaded = load_trace(tmp_path / "x.trace")
    assert "\n" not in repr(loaded)
    assert "1 generations" in repr(loaded)
    assert "<script>" not in loaded._repr_html_()
    assert "&lt;script&gt;" in loaded._repr_html_()


def test_existing_traces_are_kept(trace: Trace) -> None:
    with pytest.raises(OutputError, match="--force"):
        TraceWriter(trace.path)
    with TraceWriter(trace.path, force=True) as writer:
        writer.add(shard(), [generation()], manifest())
        assert load_trace(trace.path).manifest.generations == 2  # the old one stands until the new one is whole
        writer.finish()
    assert load_trace(trace.path).manifest.generations == 1
    assert [path.name for path in trace.path.parent.iterdir()] == ["a.trace"]


def test_force_does_not_delete_what_is_no_trace(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(OutputError, match="is no trace"):
        TraceWriter(tmp_path / "thesis", force=True)
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


def interrupted(path: Path, shards: int) -> None:
    with TraceWriter(path) as writer:
        for number in range(shards):
            writer.add(shard(number), [generation(number, number)], manifest())
        raise KeyboardInterrupt


def test_interrupted_runs_never_get_the_final_name(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    with pytest.raises(KeyboardInterrupt):
        interrupted(path, 0)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        interrupted(path, 1)
    assert not path.exists()
    partial = tmp_path / "a.trace.partial"
    with pytest.raises(TraceError, match="interrupted run"):
        load_trace(partial)
    assert len(load_trace(partial, incomplete=True).generations) == 1
    with pytest.raises(OutputError, match="interrupted run"):
        TraceWriter(path)
    with TraceWriter(path, force=True):
        pass


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("moeprobe.trace.writer.write_shard", full)

    def run() -> None:
        with TraceWriter(tmp_path / "a.trace") as writer:
            writer.add(shard(), [generation()], manifest())

    with pytest.raises(OutputError, match="No space left"):
        run()
    assert list(tmp_path.iterdir()) == []


def edit_manifest(trace: Trace, **changes: object) -> None:
    path = trace.path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "moeprobe.trace/99"}, "moeprobe.trace/99.*reads"),
        ({"layers": []}, "at least one layer"),
        ({"layers": [{"layer": 3, "experts": 4, "k": 9, "weight_sum": 1, "shared": False, "module": "m"}]}, "'k'"),
        ({"rows": 9}, "9 rows are announced"),
        ({"rows": -1}, "whole number"),
        ({"complete": "yes"}, "true or false"),
        ({"shards": [{"name": "../../etc/passwd", "rows": 8, "sha256": "x"}]}, "no shard name"),
        ({"shards": [{"name": "00000\u0661.safetensors", "rows": 8, "sha256": "x"}]}, "no shard name"),
        ({"segments": ["answer", "prompt"]}, "segment codes"),
        ({"model": 3}, "'model' must be an object"),
        ({"captured": [1]}, "list of texts"),
    ],
)
def test_impossible_manifests_are_refused(trace: Trace, changes: dict[str, object], said: str) -> None:
    edit_manifest(trace, **changes)
    with pytest.raises(TraceError, match=said):
        load_trace(trace.path)


def edit_shard(trace: Trace, **changes: np.ndarray | None) -> None:
    path = trace.path / "shards" / "000000.safetensors"
    tensors = {**load_file(path), **changes}
    save_file({name: array for name, array in tensors.items() if array is not None}, path)


def read_everything(trace: Trace) -> None:
    loaded = load_trace(trace.path)
    assert loaded.generations
    for one in loaded.shards():
        for name in ("token_id", "generation", "position", "phase", "segment", "char_start", "char_end"):
            getattr(one, name)
        one.experts(3), one.weights(3), one.mask(3)  # reading is the point


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"token_id": None}, "token_id is missing"),
        ({"evil": np.zeros(4)}, "unknown column 'evil'"),
        ({"L3.experts": np.zeros((4, 2), np.uint8)}, r"U8 \[4, 2\], expected U16"),
        ({"L3.experts": np.zeros((4, 3), np.uint16)}, r"\[4, 3\]"),
        ({"L3.experts": np.full((4, 2), 300, np.uint16)}, "expert 300"),
        ({"L3.weights": np.full((4, 2), np.nan, np.float32)}, "NaN"),
        ({"generation": np.full(4, 7, np.int32)}, "outside"),
        ({"generation": np.full(4, -1, np.int32)}, "outside"),
        ({"segment": np.full(4, 99, np.uint8)}, "outside"),
        ({"position": np.zeros(5, np.int32)}, r"\[5\]"),
    ],
)
def test_impossible_shards_are_refused(trace: Trace, changes: dict[str, np.ndarray], said: str) -> None:
    edit_shard(trace, **changes)
    with pytest.raises(TraceError, match=said):
        read_everything(trace)
    with pytest.raises(TraceError, match="altered"):
        trace.verify()


def test_no_single_cut_or_flip_goes_through_as_another_error(trace: Trace) -> None:
    """Truncations and byte flips: MoeprobeError or a change that `verify` sees, never another exception."""
    generator = np.random.default_rng(0)
    for name in ("run.json", "generations.jsonl", "shards/000000.safetensors"):
        path = trace.path / name
        good = path.read_bytes()
        for trial in range(60):
            bad = bytearray(good)
            place = int(generator.integers(len(bad)))
            if trial % 2:
                bad[place] ^= int(generator.integers(1, 256))
            else:
                del bad[place:]
            path.write_bytes(bytes(bad))
            try:
                read_everything(trace)
            except TraceError:
                continue
            if name.startswith("shards"):
                with pytest.raises(TraceError, match="altered"):
                    load_trace(trace.path).verify()
        path.write_bytes(good)
    read_everything(trace)


def test_generation_lines_are_checked(trace: Trace) -> None:
    path = trace.path / "generations.jsonl"
    good = path.read_text().splitlines()
    for wrong, said in (
        (good[:1], "does not list generations"),
        ([good[1], good[0]], "does not list generations"),
        ([good[0], good[1].replace('"shard": 1', '"shard": 5')], "shard that is not there"),
        ([good[0], good[1].replace('"first_row": 0', '"first_row": 3')], "beyond the end"),
        ([good[0], good[1].replace('"prompt_rows": 2', '"prompt_rows": 3')], "do not add up"),
        ([good[0], good[1].replace('"label": null', '"label": []')], "label"),
        ([good[0], good[1].replace('"messages": null', '"messages": 1')], "messages"),
    ):
        path.write_text("\n".join(wrong) + "\n")
        with pytest.raises(TraceError, match="altered"):
            load_trace(trace.path).generations  # noqa: B018  # reading is the point
        edit_manifest(trace, generations_sha256=sha256(path))  # a forger would do this as well
        with pytest.raises(TraceError, match=said):
            load_trace(trace.path).generations  # noqa: B018  # reading is the point


def test_rows_must_belong_to_their_generation(trace: Trace) -> None:
    edit_shard(trace, generation=np.full(4, 1, np.int32))
    shards = json.loads((trace.path / "run.json").read_text())["shards"]
    shards[0]["sha256"] = sha256(trace.path / "shards" / "000000.safetensors")
    edit_manifest(trace, shards=shards)
    with pytest.raises(TraceError, match="rows of generation 0 belong to another"):
        load_trace(trace.path).verify()


def test_force_leaves_other_folders_alone(trace: Trace) -> None:
    backup = trace.path.with_name("a.trace.old")
    backup.mkdir()
    (backup / "notes.txt").write_text("mine")
    with TraceWriter(trace.path, force=True) as writer:
        writer.add(shard(), [generation()], manifest())
        writer.finish()
    assert (backup / "notes.txt").exists()
    partial = trace.path.with_name("a.trace.partial")
    partial.mkdir()
    (partial / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"partial is no trace"):
        TraceWriter(trace.path, force=True)
    assert (partial / "thesis.txt").exists()


def test_a_link_goes_on_pointing_at_the_trace(trace: Trace, tmp_path: Path) -> None:
    link = tmp_path / "link.trace"
    link.symlink_to(trace.path, target_is_directory=True)
    with TraceWriter(link, force=True) as writer:
        writer.add(shard(), [generation()], manifest())
        writer.finish()
    assert link.is_symlink()
    assert load_trace(link).manifest.generations == 1


def test_not_a_trace(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no run.json"):
        load_trace(tmp_path)


def test_missing_shard(trace: Trace) -> None:
    shutil.rmtree(trace.path / "shards")
    with pytest.raises(TraceError, match="damaged"):
        read_everything(trace)
