"""Going on with an interrupted run: only what a kill loses is lost, and only the same run is continued."""

import json
from pathlib import Path
from typing import Any

import pytest
from store_samples import batch, contents, make, manifest

from moeprobe.engines import Decoding, record
from moeprobe.errors import MoeprobeError, OutputError, TraceError
from moeprobe.models import load_model
from moeprobe.trace import Trace, TraceWriter, load_trace, validate, writer
from tests.engines.tiny_moe import prompts, save_model


def interrupted(path: Path, batches: int) -> Path:
    """NAME.partial with so many batches."""

    def run() -> None:
        with TraceWriter(path) as made:
            for number in range(batches):
                made.add(*batch(2 * number), manifest())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    return path.with_name(path.name + ".partial")


def resumed(path: Path, batches: int = 3, **changes: Any) -> Trace:
    with TraceWriter(path, resume=True) as made:
        base = made.continue_as(manifest(created="2026-02-02T00:00:00+00:00", **changes))
        for number in range(made.batches, batches):
            made.add(*batch(2 * number), base)
        made.finish()
    return load_trace(path)


def test_interrupted_runs_never_get_the_final_name(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    partial = interrupted(path, 0)
    assert list(tmp_path.iterdir()) == []
    interrupted(path, 1)
    assert not path.exists()
    with pytest.raises(TraceError, match="--resume"):
        load_trace(partial)
    opened = load_trace(partial, incomplete=True)
    assert len(opened.generations) == 2
    assert len(list(opened.shards())) == 1
    assert [problem for problem in validate(partial).problems if "interrupted" not in problem] == []
    assert not validate(partial).valid
    with pytest.raises(OutputError, match=r"--resume to go on with it, or --force"):
        TraceWriter(path)
    with TraceWriter(path, force=True):
        pass
    assert not any(path.suffix == ".old" for path in tmp_path.iterdir())


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, batches: int) -> None:
    whole = make(tmp_path / "whole.trace")
    interrupted(tmp_path / "a.trace", batches)
    trace = resumed(tmp_path / "a.trace")
    trace.verify()
    assert contents(trace) == contents(whole)
    assert trace.manifest.created == ("2026-01" if batches else "2026-02") + trace.manifest.created[7:]
    assert len(trace.manifest.resumed) == (1 if batches else 0)
    for name in ("generations.jsonl", "shards.jsonl", "shards/000002.safetensors"):
        assert (trace.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert [entry.name for entry in trace.path.iterdir() if entry.name.startswith(".")] == []


def test_resuming_twice_keeps_both_times(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    interrupted(path, 1)
    for _ in range(2):
        with TraceWriter(path, resume=True) as made:  # left without `finish`: interrupted
            made.add(*batch(2 * made.batches), made.continue_as(manifest()))
    assert len(load_trace(path.with_name("a.trace.partial"), incomplete=True).manifest.resumed) == 2
    assert contents(resumed(path)) == contents(make(tmp_path / "whole.trace"))


def test_a_batch_of_several_shards_is_lost_or_kept_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", 1)
    whole = make(tmp_path / "whole.trace")
    partial = interrupted(tmp_path / "a.trace", 2)
    index = partial / "shards.jsonl"
    lines = index.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    index.write_bytes(b"".join(lines[:3]))  # a kill between the two lines of the second batch
    trace = resumed(tmp_path / "a.trace")
    assert contents(trace) == contents(whole)


@pytest.mark.parametrize("left", [b"", b'{"shard": 2, "ro', b"\0" * 100])
def test_torn_ends_are_cut_off(tmp_path: Path, left: bytes) -> None:
    partial = interrupted(tmp_path / "a.trace", 2)
    for name in ("shards.jsonl", "generations.jsonl"):
        with (partial / name).open("ab") as file:
            file.write(left)
    (partial / "shards" / "000002.safetensors").write_bytes(left)
    (partial / ".run.json.tmp").write_bytes(left)
    assert load_trace(partial, incomplete=True).manifest.generations == 4
    trace = resumed(tmp_path / "a.trace")
    trace.verify()
    assert contents(trace) == contents(make(tmp_path / "whole.trace"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("shards/000000.safetensors", Path.unlink, "missing"),
        ("shards/000000.safetensors", cut, "altered"),
        ("shards/000001.safetensors", flip, "its header"),
        ("generations.jsonl", cut, "were written"),
        ("shards.jsonl", flip, "altered"),
        ("run.json", cut, "run.json"),
        ("run.json", Path.unlink, "run.json"),
    ],
)
def test_a_damaged_rest_is_not_continued(tmp_path: Path, name: str, damage: Any, said: str) -> None:
    partial = interrupted(tmp_path / "a.trace", 2)
    damage(partial / name)
    with pytest.raises(TraceError, match=said):
        resumed(tmp_path / "a.trace")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"id": "toy", "config_digest": "sha256:9"}}, r"another model.config_digest: 'sha256:1' then"),
        ({"tokenizer": {"digest": "x"}}, "another tokenizer.digest"),
        ({"decoding": {"seed": 1}}, "another decoding.seed: 0 then, 1 now"),
        ({"decoding": {"seed": 0, "new": True}}, "another decoding.new"),
        ({"engine": {"dtype": "bfloat16"}}, "another engine.dtype"),
        ({"engine": {"dtype": "float32", "layers": ["L3"]}}, r"another engine.layers: None then, \['L3'\] now"),
        ({"prompts": {"digest": "y"}}, "another prompts.digest"),
        ({"versions": {"torch": "3"}}, "another versions.torch: '2' then, '3' now"),
        ({"segments": (*manifest().segments, "more")}, "other segments"),
        ({"signals": ()}, "other signals"),
        ({"layers": manifest().layers[:2]}, "other layers"),
    ],
)
def test_another_run_is_not_continued(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    partial = interrupted(tmp_path / "a.trace", 2)
    before = {path: path.read_bytes() for path in partial.rglob("*") if path.is_file()}
    with pytest.raises(MoeprobeError, match=said):
        resumed(tmp_path / "a.trace", **changes)
    assert {path: path.read_bytes() for path in partial.rglob("*") if path.is_file()} == before


def test_what_does_not_matter_may_differ(tmp_path: Path) -> None:
    interrupted(tmp_path / "a.trace", 1)
    changes = {"model": {"id": "./toy", "config_digest": "sha256:1"}, "versions": {"torch": "2", "python": "3.14"}}
    trace = resumed(tmp_path / "a.trace", **changes)
    trace.verify()
    assert trace.manifest.shards == 3


def test_two_processes_do_not_write_one_run(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    with TraceWriter(path) as made:
        made.add(*batch(0), manifest())
        for options in ({"resume": True}, {"force": True}):
            with pytest.raises(OutputError, match="Another moeprobe is writing"):
                TraceWriter(path, **options)
        made.finish()
    load_trace(path).verify()


def test_a_run_killed_before_its_name_is_given_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest says complete, but the folder is still called NAME.partial."""
    whole = make(tmp_path / "whole.trace")
    path = tmp_path / "a.trace"
    whole.path.rename(path.with_name("a.trace.partial"))
    assert json.loads((path.with_name("a.trace.partial") / "run.json").read_text())["complete"]
    trace = resumed(path)
    trace.verify()
    assert trace.manifest.generations == 6


def test_other_layers_are_not_handed_back(tmp_path: Path) -> None:
    """Neither from a complete trace nor from an interrupted one; the same layers are."""
    loaded = load_model(str(save_model(tmp_path / "model")), device_map="cpu")

    def run(name: str, **options: Any) -> Trace:
        decoding = Decoding(max_new_tokens=3, batch_size=2)
        return record(loaded, prompts(4), tmp_path / name, decoding=decoding, **options)

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    whole = run("whole.trace", layers=[0, 2])
    assert whole.manifest.engine["layers"] == ["L0", "L2"]
    with pytest.raises(KeyboardInterrupt):
        run("half.trace", layers=[0, 2], progress=stop)
    for name, place in (("whole.trace", "whole.trace"), ("half.trace", "half.trace.partial")):
        for layers in (None, [0], [1, 2]):
            with pytest.raises(OutputError, match=rf"{place} had another engine.layers: .*'L2'.* now.*--force"):
                run(name, layers=layers, resume=True)
    for name in ("whole.trace", "half.trace"):
        trace = run(name, layers=[0, 2], resume=True)
        assert [info.name for info in trace.manifest.layers] == ["L0", "L2"]
        assert contents(trace)["arrays"] == contents(whole)["arrays"]
