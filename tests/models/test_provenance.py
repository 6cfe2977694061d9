"""Fingerprints and provenance: what they notice, and what they say they cannot."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from moeprobe.files import sha256
from moeprobe.models import engine_section, fingerprints, load_model, versions_section
from moeprobe.models.compiled import save
from moeprobe.models.fingerprints import file_digests, hub_checksums, hub_folder, memory_digest, sampled, weight_hashes
from moeprobe.models.provenance import model_section


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m"
    save(path)
    return path


def test_small_files_are_hashed_whole_and_large_ones_sampled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = file_digests(folder)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(whole)
    for name, digest in whole.items():
        assert digest == "sha256:" + hashlib.sha256((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(fingerprints, "HASHED_BYTES", (folder / "model.safetensors").stat().st_size - 1)
    parts = file_digests(folder)
    assert parts.pop("model.safetensors") == "sampled:" + sampled(folder / "model.safetensors")
    assert parts.items() < whole.items()
    assert weight_hashes(folder) == {"model.safetensors": whole["model.safetensors"]}


def large(path: Path, change: str = "", place: int = 0) -> str:
    """Sampled digest of a file with tensors of 400 kB, one number of one of them changed."""
    generator = torch.Generator().manual_seed(0)
    tensors = {f"t{n}": torch.randn(100_000, generator=generator) for n in range(5)}
    if change:
        tensors[change][place] += 1
    save_file(tensors, path)
    return sampled(path)


def test_a_sample_sees_every_tensor(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    before = large(path)
    assert before == large(path)
    for name in ("t0", "t3", "t4"):
        for place in (0, 1023, 99_999, 100_000 - 1024):  # the first and the last block of 4 KiB
            assert large(path, name, place) != before, (name, place)
    # What it says it cannot see: one number between the blocks. The whole hash sees it.
    whole = sha256(path)
    assert large(path, "t2", 20_000) == before
    assert sha256(path) != whole


def test_a_sample_sees_header_and_size(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {"a": torch.zeros(50_000), "b": torch.zeros(50_000)}
    save_file(tensors, path)
    before = sampled(path)
    save_file({"a": tensors["a"], "c": tensors["b"]}, path)
    assert sampled(path) != before
    save_file(tensors, path, metadata={"format": "pt"})
    assert sampled(path) != before


@pytest.mark.parametrize(
    "head", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"{", b"\x10" + b"\0" * 7 + b'{"a": [1, 2, 3]}']
)
def test_any_file_can_be_sampled(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "model.gguf"
    body = np.random.default_rng(0).bytes(1 << 16)
    path.write_bytes(head + body)
    before = sampled(path)
    assert len(before) == 64
    path.write_bytes(head + body + b"x")
    assert sampled(path) != before


def test_a_trained_model_has_another_sample(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = load_file(folder / "model.safetensors")
    seen = {sampled(folder / "model.safetensors")}
    for name in list(tensors)[::7]:
        other = {**tensors, name: tensors[name] * 1.001 + 1e-6}
        save_file(other, path, metadata={"format": "pt"})
        seen.add(sampled(path))
    assert len(seen) == 1 + len(list(tensors)[::7])


def test_memory_digests_tell_numbers_names_and_formats_apart() -> None:
    model = load_model("compiled").model
    before = memory_digest(model)
    assert before == memory_digest(load_model("compiled").model)
    assert load_model("compiled").provenance["memory"] == f"sha256:{before}"
    assert before != load_model("compiled:qwen3_moe:strict").provenance["memory"].removeprefix("sha256:")
    assert before != memory_digest(load_model("compiled", dtype="bfloat16").model)
    with torch.no_grad():
        next(iter(model.parameters())).view(-1)[0] += 1e-6
    assert before != memory_digest(model)


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub that holds one model, laid out as huggingface_hub does. Returns the snapshot."""
    from huggingface_hub import constants

    root = tmp_path / "hub" / "models--someone--tiny"
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = root / "snapshots" / commit
    for part in (snapshot, root / "refs", root / "blobs"):
        part.mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    for path in folder.iterdir():
        # The hub's checksums: SHA-256 of large files, git's SHA-1 of small ones.
        body = path.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
        blob = root / "blobs" / (sha256(path) if path.suffix == ".safetensors" else git)
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(blob)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


def test_a_model_of_the_hub_keeps_commit_and_checksums(hub: Path, folder: Path) -> None:
    assert hub_folder("someone/tiny", None) == hub
    assert hub_folder("someone/else", None) is None
    assert hub_folder("no such name!", None) is None
    found = hub_checksums(hub)
    assert found["model.safetensors"] == "sha256:" + sha256(folder / "model.safetensors")
    assert found["config.json"].startswith("git:")
    assert hub_checksums(folder) == {}
    model = load_model("compiled").model
    section = model_section("someone/tiny", model, None, None, whole=True)
    assert section["hub"] == found
    assert section["files"] == file_digests(folder)
    assert section["weights_sha256"] == weight_hashes(folder)
    assert section["memory"] is None


def test_sections_are_complete_and_json(folder: Path) -> None:
    loaded = load_model(str(folder), device_map="cpu")
    assert loaded.provenance["weights_sha256"] is None
    engine = engine_section(loaded.model, cache="static", assistant=loaded.provenance)
    text = json.dumps({"model": loaded.provenance, "engine": engine, "versions": versions_section()}, allow_nan=False)
    assert str(folder.parent) not in text.replace(json.dumps(str(folder)), "")  # no path but the name that was given
    assert (engine["dtypes"], engine["cache"]) == ({"float32": loaded.model.num_parameters()}, "static")
    assert list(engine["devices"]) == ["cpu"]
    assert engine["quantisation"] is None
    assert engine["assistant"]["family"] == "qwen3_moe"
    assert engine["threads"] == torch.get_num_threads()
    assert {"torch", "transformers", "tokenizers", "safetensors", "numpy", "python", "moeprobe"} <= set(
        versions_section()
    )


def test_precision_switches_are_seen() -> None:
    model = load_model("compiled").model
    before = engine_section(model)["precision"]
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")
    try:
        now = engine_section(model)["precision"]
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")
    assert (before["deterministic"], before["matmul"]) == (False, "highest")
    assert (now["deterministic"], now["matmul"]) == (True, "medium")


def test_a_device_map_is_summed_up() -> None:
    model = load_model("compiled").model
    model.hf_device_map = {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": "cpu", "lm_head": "disk"}
    assert engine_section(model)["devices"] == {"cpu": 1, "cuda:0": 2, "disk": 1}
