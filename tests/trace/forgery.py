"""Changing a trace as a forger would: every digest, check and total that depends on the change is made anew."""

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from moeprobe.trace.index import START, parse_line
from moeprobe.trace.manifest import signed

Change = Callable[[np.ndarray], np.ndarray | None]
NONE = np.zeros(0, np.uint8)


def resign(folder: Path) -> None:
    """Sizes and header digests of the shards, checks of shards.jsonl, digests of run.json."""
    check, new, text = START, START, ""
    for line in (folder / "shards.jsonl").read_bytes().splitlines(keepends=True):
        info, check = parse_line(line, check, "forgery")
        data = (folder / "shards" / info.name).read_bytes()
        length = min(int.from_bytes(data[:8], "little"), len(data))
        digest = hashlib.sha256(data[8 : 8 + length]).hexdigest()
        made, new = replace(info, bytes=len(data), header_sha256=digest).to_line(new)
        text += made
    (folder / "shards.jsonl").write_text(text)
    resign_manifest(folder)


def resign_manifest(folder: Path, **changes: Any) -> None:
    body = {**json.loads((folder / "run.json").read_text()), **changes}
    del body["check"]
    for name in ("shards", "generations"):
        body[f"{name}_sha256"] = hashlib.sha256((folder / f"{name}.jsonl").read_bytes()).hexdigest()
    (folder / "run.json").write_text(signed(json.dumps(body, indent=1).removesuffix("\n}")))


def forge_columns(folder: Path, number: int, changes: Mapping[str, Change]) -> None:
    """Change columns of a shard; None takes one out."""
    path = folder / "shards" / f"{number:06d}.safetensors"
    arrays = load_file(path)
    for name, change in changes.items():
        changed = change(arrays.get(name, NONE))
        arrays.pop(name, None)
        if changed is not None:
            arrays[name] = np.ascontiguousarray(changed)
    write_arrays(path, arrays)
    resign(folder)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    codes = {np.dtype(kind): code for kind, code in (
        ("uint8", "U8"), ("uint16", "U16"), ("int32", "I32"), ("float16", "F16"), ("float32", "F32"), ("bool", "BOOL"),
    )}  # fmt: skip
    header: dict[str, Any] = {
        "__metadata__": {name: f"crc32:{zlib.crc32(arrays[name].tobytes()):08x}" for name in names}
    }
    place = 0
    for name in names:
        array = arrays[name]
        offsets = [place, place + array.nbytes]
        header[name] = {"dtype": codes[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        place = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(arrays[name].tobytes() for name in names))


def forge_header(folder: Path, number: int, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of a shard as JSON."""
    path = folder / "shards" / f"{number:06d}.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    resign(folder)


def forge_generations(folder: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    path = folder / "generations.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    change(records)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    resign_manifest(folder)
