"""The store: round trip, atomicity, and a reader that takes nothing on trust."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from store_samples import LAYERS, SIGNALS, batch, contents, make, manifest

from moeprobe.errors import MoeprobeError, OutputError, TraceError
from moeprobe.trace import (
    Generation,
    LayerInfo,
    Manifest,
    Routing,
    ShardData,
    Signal,
    Trace,
    TraceWriter,
    load_trace,
    writer,
)
from moeprobe.trace.manifest import signed
from moeprobe.trace.shard import _floats, widened


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return make(tmp_path / "a.trace")


def plain(rows: int = 4, weights: float = 0.1) -> tuple[ShardData, list[Generation], Manifest]:
    """One generation, one layer, one weight."""
    columns = {name: np.arange(rows) for name in ("token_id", "position")}
    columns |= {name: np.zeros(rows, int) for name in ("generation", "phase", "segment", "char_start", "char_end")}
    data = ShardData(columns, {"L3": Routing(np.array([[1, 299]] * rows), np.full((rows, 2), weights, np.float32))})
    one = Generation(0, "p0", 0, "ab", "", "eos", 1, 9, rows, 0)
    return data, [one], manifest(layers=(LAYERS[0],), signals=())


def write(path: Path, data: ShardData, generations: list[Generation], header: Manifest) -> Trace:
    with TraceWriter(path) as made:
        made.add(data, generations, header)
        made.finish()
    return load_trace(path)


def test_round_trip(trace: Trace) -> None:
    assert [one.prompt_id for one in trace.generations] == [f"p{index}" for index in range(6)]
    for number, shard in enumerate(trace.shards()):
        data, _ = batch(2 * number)
        assert shard.rows == data.rows
        for name, values in data.columns.items():
            assert getattr(shard, name).tolist() == values.astype(int).tolist()
        for name, routing in data.routing.items():
            assert shard.experts(name).tolist() == routing.experts.tolist()
            assert shard.weights(name).tolist() == routing.weights.tolist()
            mask = shard.mask(name)
            assert (None if mask is None else mask.tolist()) == (
                None if routing.mask is None else routing.mask.tolist()
            )
        for name, values in data.signals.items():
            np.testing.assert_array_equal(shard.signal(name), values)
    assert shard.experts(3).dtype == np.uint16
    assert shard.experts("L5").dtype == np.uint8
    trace.verify()


def test_stacks_are_told_apart(trace: Trace) -> None:
    assert [info.name for info in trace.manifest.layers] == ["L3", "L5", "encoder.L1"]
    assert [info.name for info in trace.manifest.main_layers] == ["L3", "L5"]
    shard = next(trace.shards())
    with pytest.raises(TraceError, match="no routing of L1. It holds L3, L5, encoder.L1"):
        shard.experts(1)
    mask = shard.mask("encoder.L1")
    assert mask is not None
    np.testing.assert_array_equal(mask[:, 0], shard.phase == 0)  # decoded tokens never went through the encoder


def test_shards_are_plain_safetensors(trace: Trace) -> None:
    arrays = load_file(trace.path / "shards" / "000000.safetensors")
    shard = next(trace.shards())
    np.testing.assert_array_equal(arrays["L3.experts"], shard.experts("L3"))
    np.testing.assert_array_equal(arrays["L5.logits"], shard.signal("L5.logits"))
    assert arrays["L5.logits"].dtype == np.float16  # whole numbers lose nothing
    assert arrays["L3.margin"].dtype == np.float32
    assert arrays["L3.sensitive"].dtype == np.bool_


def test_weight_sums_are_means_over_routed_tokens(trace: Trace) -> None:
    parts = [batch(first)[0] for first in (0, 2, 4)]
    for info in trace.manifest.layers:
        routings = [part.routing[info.name] for part in parts]
        weights = np.concatenate([one.weights for one in routings]).astype(np.float64)
        mask = np.concatenate([np.ones(one.weights.shape, bool) if one.mask is None else one.mask for one in routings])
        tokens = mask.any(axis=1).sum()
        assert info.weight_sum == pytest.approx((weights * mask).sum() / tokens, abs=1e-6)
    assert trace.manifest.layers[2].weight_sum == 1.0


def test_weights_are_kept_exactly(tmp_path: Path) -> None:
    for weight, dtype in ((0.5, np.float16), (0.1, np.float32), (1e5, np.float32), (2.0**-24, np.float16)):
        path = tmp_path / f"{weight}.trace"
        loaded = write(path, *plain(weights=weight))
        assert load_file(path / "shards" / "000000.safetensors")["L3.weights"].dtype == dtype
        assert (next(loaded.shards()).weights(3) == np.float32(weight)).all()


@pytest.mark.parametrize("low", [0, 1 << 13, 1 << 16])
def test_every_float16_survives_and_nothing_else_is_narrowed(low: int) -> None:
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    for values in (finite, finite[np.abs(finite) >= 2.0**-14], np.append(every, np.float16(1))):
        stored = _floats(values.astype(np.float32)).make()
        assert stored.dtype == np.float16
        np.testing.assert_array_equal(stored, values)
        np.testing.assert_array_equal(widened(stored), values.astype(np.float32))
    for values in (finite[finite >= 2.0**-14], finite[finite > 0]):
        np.testing.assert_array_equal(widened(values), values.astype(np.float32))
    rng = np.random.default_rng(low)
    bits = rng.integers(0, 1 << 32, 4000, dtype=np.uint32) // max(low, 1) * max(low, 1)
    for one in bits.view(np.float32).reshape(-1, 1):
        with np.errstate(over="ignore"):
            fits = np.array_equal(one.astype(np.float16).astype(np.float32), one, equal_nan=True)
        narrowed = _floats(one)
        assert narrowed.dtype == (np.float16 if fits else np.float32) or np.isnan(one).all()
        np.testing.assert_array_equal(narrowed.make().astype(np.float32), one)


def test_frames_agree_with_the_arrays(trace: Trace) -> None:
    frame = trace.selection_frame(["L5"])
    assert len(frame) == sum(batch(first)[0].routing["L5"].mask.sum() for first in (0, 2, 4))
    every = trace.selection_frame()
    assert set(every["site"].str.rpartition(".")[0]) == {"L3", "L5", "encoder.L1"}
    assert len(every[every["site"].str.startswith("encoder")]) == sum(one.prompt_rows for one in trace.generations)
    assert trace.selection_frame([3])["rank"].tolist()[:4] == [0, 1, 0, 1]
    tokens = every[(every["generation"] == 0) & (every["site"].str.startswith("L3.")) & (every["rank"] == 0)]
    one = trace.generations[0]
    assert "".join(tokens["token"]) == one.prompt_text + one.text[:-1]
    assert trace.generation_frame()["text"].tolist() == [one.text for one in trace.generations]
    with pytest.raises(TraceError, match="no routing of L7"):
        trace.selection_frame([7])


def test_reprs_are_one_line_and_escaped(tmp_path: Path) -> None:
    loaded = make(tmp_path / "x.trace", model={"id": "<script>"})
    assert "\n" not in repr(loaded)
    assert "6 generations" in repr(loaded)
    assert "<script>" not in loaded._repr_html_()
    assert "&lt;script&gt;" in loaded._repr_html_()
    assert "L5.logits" in loaded._repr_html_()


def test_large_batches_are_cut_at_the_ends_of_generations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(tmp_path / "whole.trace", 2, size=6)
    assert whole.manifest.shards == 2
    monkeypatch.setattr(writer, "SHARD_BYTES", 12 * writer.row_bytes(manifest()))
    loaded = make(tmp_path / "cut.trace", 2, size=6)
    rows = [shard.rows for shard in loaded.shards()]
    assert len(rows) > 6
    assert max(rows) <= 12
    loaded.verify()
    assert contents(loaded)["arrays"] == contents(whole)["arrays"]
    assert [info.last for info in loaded.infos()].count(True) == 2
    monkeypatch.setattr(writer, "SHARD_BYTES", 1)  # a generation is never cut
    assert make(tmp_path / "single.trace", 2, size=6).manifest.shards == 12


def test_memory_and_bytes_do_not_grow_with_the_run(tmp_path: Path) -> None:
    """What is written per batch is the same for the hundredth as for the first: nothing is written again."""
    written: list[int] = []

    def counting(descriptor: int, data: Any, write: Any = writer.disk.write) -> None:
        written[-1] += len(data)
        write(descriptor, data)

    with pytest.MonkeyPatch.context() as patch, TraceWriter(tmp_path / "a.trace") as made:
        patch.setattr(writer.disk, "write", counting)
        for number in range(60):
            written.append(0)
            made.add(*batch(number, 1), manifest())
    assert max(written[40:]) < 1.2 * max(written[1:21])


def test_existing_traces_are_kept(trace: Trace) -> None:
    with pytest.raises(OutputError, match="--force"):
        TraceWriter(trace.path)
    with TraceWriter(trace.path, force=True) as made:
        made.add(*batch(), manifest())
        assert load_trace(trace.path).manifest.generations == 6  # the old one stands until the new one is whole
        made.finish()
    assert load_trace(trace.path).manifest.generations == 2
    assert [path.name for path in trace.path.parent.iterdir()] == ["a.trace"]


def test_force_does_not_delete_what_is_no_trace(tmp_path: Path, trace: Trace) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(OutputError, match="is no trace"):
        TraceWriter(tmp_path / "thesis", force=True)
    assert (tmp_path / "thesis" / "chapter1.tex").exists()
    (trace.path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is no trace"):
        TraceWriter(trace.path, force=True)
    partial = tmp_path / "b.trace.partial"
    partial.mkdir()
    (partial / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"partial is no trace"):
        TraceWriter(tmp_path / "b.trace", force=True)
    assert (partial / "thesis.txt").exists()


def test_force_leaves_other_folders_alone(trace: Trace) -> None:
    backup = trace.path.with_name("a.trace.old")
    backup.mkdir()
    (backup / "notes.txt").write_text("mine")
    with TraceWriter(trace.path, force=True) as made:
        made.add(*batch(), manifest())
        made.finish()
    assert (backup / "notes.txt").exists()


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    def run() -> None:
        with TraceWriter(tmp_path / "a.trace") as made:
            monkeypatch.setattr("moeprobe.trace.disk.write", full)
            made.add(*batch(), manifest())

    with pytest.raises(OutputError, match=r"No space left.*--resume"):
        run()
    assert list(tmp_path.iterdir()) == []


def test_a_link_goes_on_pointing_at_the_trace(trace: Trace, tmp_path: Path) -> None:
    link = tmp_path / "link.trace"
    link.symlink_to(trace.path, target_is_directory=True)
    with TraceWriter(link, force=True) as made:
        made.add(*batch(), manifest())
        made.finish()
    assert link.is_symlink()
    assert load_trace(link).manifest.generations == 2


def test_not_a_trace(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no run.json"):
        load_trace(tmp_path)


def edited(data: ShardData, **columns: np.ndarray) -> ShardData:
    return replace(data, columns={**data.columns, **columns})


def rerouted(data: ShardData, **changes: Any) -> ShardData:
    return replace(data, routing={**data.routing, "L3": replace(data.routing["L3"], **changes)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: edited(d, position=d.columns["position"][1:]), "position is of shape"),
        (lambda d: edited(d, generation=d.columns["generation"][::-1]), "do not lie in order"),
        (lambda d: replace(d, routing={}), "no routing of L3"),
        (lambda d: replace(d, signals={}), "L3.margin is missing"),
        (lambda d: rerouted(d, experts=d.routing["L3"].experts + 299), "but there are 300 experts"),
        (lambda d: rerouted(d, experts=d.routing["L3"].experts - 300), "but there are 300 experts"),
        (lambda d: rerouted(d, experts=d.routing["L3"].experts[:, :1]), r"L3 experts is of shape \(\d+, 1\)"),
        (lambda d: rerouted(d, weights=d.routing["L3"].weights * np.nan), "NaN"),
        (lambda d: rerouted(d, mask=np.ones((1, 2), bool)), "mask is of shape"),
        (lambda d: replace(d, signals={**d.signals, "L5.logits": d.signals["L5.logits"] + np.inf}), "rules out"),
    ],
)
def test_what_does_not_fit_is_not_written(tmp_path: Path, change: Any, said: str) -> None:
    data, generations = batch()
    with TraceWriter(tmp_path / "a.trace") as made:
        with pytest.raises(TraceError, match=said):
            made.add(change(data), generations, manifest())
        with pytest.raises(OutputError, match="earlier batch"):
            made.add(data, generations, manifest())
        with pytest.raises(OutputError, match="no trace was written"):
            made.finish()


def test_batches_of_other_layers_are_refused(tmp_path: Path) -> None:
    for other, said in (
        (manifest(layers=LAYERS[:2]), "other layers"),
        (manifest(layers=(replace(LAYERS[0], k=3), *LAYERS[1:])), "other layers"),
        (manifest(signals=SIGNALS[:2]), "other signals"),
    ):
        with TraceWriter(tmp_path / "a.trace", force=True) as made:
            made.add(*batch(0), manifest())
            with pytest.raises(TraceError, match=said):
                made.add(*batch(2), other)


def test_texts_that_no_reader_takes_are_refused() -> None:
    one = batch(0, 1)[1][0]
    for text, said in (("\ud800", "surrogate"), ("x" * (16 << 20), "more than")):
        with pytest.raises(TraceError, match=said):
            replace(one, text=text).to_json()
    for text in ("\\ud800", "\U0001f600", "\u2028"):  # spelled out, a real pair, and a line separator
        assert "\n" not in replace(one, text=text).to_json()


@pytest.mark.parametrize(
    "name", ["", "../x", "token_id", "L3.experts", "encoder.L3.mask", "a..b", "__metadata__", "a" * 101]
)
def test_names_of_signals(name: str) -> None:
    with pytest.raises(TraceError, match="signal"):
        Signal(name, None, "float", False, "")


def test_unknown_signals_are_named(trace: Trace) -> None:
    with pytest.raises(TraceError, match=r"no signal 'entropy'. It holds L3.margin"):
        next(trace.shards()).signal("entropy")


def edit_manifest(trace: Trace, **changes: object) -> None:
    path = trace.path / "run.json"
    body = {**json.loads(path.read_text()), **changes}
    del body["check"]
    path.write_text(signed(json.dumps(body, indent=1).removesuffix("\n}")))  # as a forger would


LAYER = {"layer": 3, "experts": 4, "k": 2, "weight_sum": 1, "shared": False, "module": "m", "stack": ""}
SIGNAL = {"name": "entropy", "width": None, "kind": "float", "nan": False, "meaning": ""}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "moeprobe.trace/99"}, "newer moeprobe wrote it: upgrade"),
        ({"format": "moeprobe.trace/1"}, "record the run again"),
        ({"format": "x"}, "no trace of moeprobe"),
        ({"layers": []}, "1 to 10000 layers"),
        ({"layers": [LAYER, LAYER]}, "each layer once"),
        ({"layers": [{**LAYER, "k": 9}]}, "'k'"),
        ({"layers": [{**LAYER, "stack": "../x"}]}, "no name of a stack"),
        ({"layers": [{**LAYER, "weight_sum": 10**400}]}, "finite number"),
        ({"signals": [{**SIGNAL, "name": "L3.experts"}]}, "cannot be called"),
        ({"signals": [{**SIGNAL, "width": 10**9}]}, "whole number"),
        ({"signals": [{**SIGNAL, "kind": "pickle"}]}, "kind is 'pickle'"),
        ({"rows": -1}, "whole number"),
        ({"shards_sha256": "../../etc/passwd"}, "no SHA-256"),
        ({"complete": "yes"}, "true or false"),
        ({"segments": ["answer", "prompt"]}, "segment codes"),
        ({"model": 3}, "'model' must be an object"),
        ({"captured": [1]}, "list of texts"),
        ({"merged": [1]}, "list of objects"),
    ],
)
def test_impossible_manifests_are_refused(trace: Trace, changes: dict[str, object], said: str) -> None:
    edit_manifest(trace, **changes)
    with pytest.raises(TraceError, match=said):
        load_trace(trace.path)


@pytest.mark.parametrize("changes", [{"rows": 9}, {"shards": 2}, {"generations": 7}])
def test_totals_must_add_up(trace: Trace, changes: dict[str, object]) -> None:
    edit_manifest(trace, **changes)
    with pytest.raises(MoeprobeError, match="are announced|points at|ends after 6"):
        list(load_trace(trace.path).iter_generations())


def test_layer_of_the_main_stack(trace: Trace) -> None:
    assert LayerInfo(3, 8, 2, 1.0, False, "m").name == "L3"
    assert LayerInfo(3, 8, 2, 1.0, False, "m", "encoder").name == "encoder.L3"
    assert next(trace.shards()).experts(3).tolist() == next(trace.shards()).experts("L3").tolist()


def test_no_byte_of_the_manifest_can_change(trace: Trace) -> None:
    path = trace.path / "run.json"
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(TraceError):
            load_trace(trace.path)
