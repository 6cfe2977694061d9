"""Traces altered at random, one after another, and what reading them may cost.

Run as a program it is the child of `test_hostile.py`: it limits its own memory, watches every file that is opened, and
prints what went wrong as JSON. Usage: mutations.py FOLDER COUNT SEED [FAULT].
"""

import json
import os
import random
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from forgery import forge_columns, forge_generations, forge_header, resign, resign_manifest
from store_samples import contents, make

from moeprobe.errors import MoeprobeError
from moeprobe.trace import count_experts, load_trace, validate
from moeprobe.trace.index import START, parse_line

FILES = ("run.json", "generations.jsonl", "shards.jsonl", "shards/000000.safetensors", "shards/000001.safetensors")
# Beyond what the imports take: the documented bound for files of a few kilobytes.
BOUND = 64 << 20
VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**300, -(10**300), 1e308, 0.5, "", "x", "../../etc/passwd",
    "/etc/passwd",
    "\0", "\ud800", "a" * 5000, [], [[]], {}, {"a": {}}, [1] * 1000, "moeprobe.trace/3", [None], [-1, 2**62],
    "F64", "U8",
]  # fmt: skip


def edit_json(rng: random.Random, value: Any) -> Any:
    """Another value somewhere inside."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        roll = rng.random()
        if roll < 0.15:
            return {name: one for name, one in value.items() if name != key}
        if roll < 0.25:
            return {**value, rng.choice(["extra", "../x", "layer", "name"]): rng.choice(VALUES)}
        return {**value, key: edit_json(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        roll = rng.random()
        if roll < 0.2:
            return value[:place] + value[place + 1 :]
        if roll < 0.3:
            return [*value, value[place]]
        return [*value[:place], edit_json(rng, value[place]), *value[place + 1 :]]
    if isinstance(value, int) and rng.random() < 0.5:
        return value + rng.choice([-1, 1, 255, 2**16, 2**40])
    return rng.choice(VALUES)


def flip(rng: random.Random, folder: Path) -> None:
    path = folder / rng.choice(FILES)
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 1, 2, 20])):
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    path.write_bytes(bytes(data))


def resize(rng: random.Random, folder: Path) -> None:
    path = folder / rng.choice(FILES)
    data = path.read_bytes()
    place = rng.randrange(len(data))
    ends = [
        data[:place],
        b"",
        data + data[place:],
        data[:place] + data[place + 1 :],
        data[:place] + b"\0" * 7 + data[place:],
    ]
    path.write_bytes(rng.choice([*ends, data + bytes(rng.randrange(1, 9))]))


def header_length(rng: random.Random, folder: Path) -> None:
    path = folder / rng.choice(FILES[3:])
    length = rng.choice([0, 1, 7, 2**16, 2**31, 4 << 30, 2**63, 2**64 - 1, rng.randrange(2**12)])
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    if rng.random() < 0.5:
        resign(folder)


def header(rng: random.Random, folder: Path) -> None:
    def change(entries: dict[str, Any]) -> None:
        edited = edit_json(rng, entries)
        entries.clear()
        entries.update(edited if isinstance(edited, dict) else {"x": edited})

    forge_header(folder, rng.randrange(2), change)


def manifest(rng: random.Random, folder: Path) -> None:
    body = json.loads((folder / "run.json").read_text())
    edited = edit_json(rng, {key: value for key, value in body.items() if key != "check"})
    (folder / "run.json").write_text(json.dumps({**(edited if isinstance(edited, dict) else {}), "check": ""}))
    resign_manifest(folder)


def generations(rng: random.Random, folder: Path) -> None:
    def change(records: list[Any]) -> None:
        place = rng.randrange(len(records))
        records[place] = edit_json(rng, records[place])
        if rng.random() < 0.1:
            records.insert(rng.randrange(len(records)), records[place])

    forge_generations(folder, change)


def index(rng: random.Random, folder: Path) -> None:
    """Lines of shards.jsonl with other values and right checks."""
    import hashlib

    old, new, text = START, START, ""
    chosen = rng.randrange(2)
    for number, line in enumerate((folder / "shards.jsonl").read_bytes().splitlines(keepends=True)):
        info, old = parse_line(line, old, "mutation")
        fields = edit_json(rng, json.loads(json.dumps(vars(info)))) if number == chosen else vars(info)
        body = json.dumps(fields if isinstance(fields, dict) else {"x": fields})[:-1]
        new = hashlib.sha256((new + body).encode()).hexdigest()[:16]
        text += f'{body}, "check": "{new}"}}\n'
    (folder / "shards.jsonl").write_text(text)
    resign_manifest(folder)


def column(rng: random.Random, folder: Path) -> None:
    """Values out of range, with right digests."""
    name, value = rng.choice([
        ("L3.experts", 300), ("L3.experts", 65535), ("L5.experts", 16), ("L3.weights", np.nan), ("L3.weights", np.inf),
        ("generation", -1), ("generation", 2**31 - 1), ("position", -7), ("phase", 2), ("segment", 255),
        ("char_end", 2**31 - 1), ("char_start", -(2**31)), ("token_id", -1), ("L5.logits", np.nan),
    ])  # fmt: skip

    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array.reshape(-1)[rng.randrange(array.size)] = value
        return array

    forge_columns(folder, rng.randrange(2), {name: change})


def swap(rng: random.Random, folder: Path) -> None:
    """Files of another run, or of each other."""
    first, second = (folder / name for name in FILES[3:])
    if rng.random() < 0.5:
        held = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(held)
    else:
        name = rng.choice(FILES)
        shutil.copy(folder.parent / "other.trace" / name, folder / name)


def link(rng: random.Random, folder: Path) -> None:
    """A link, a pipe, a folder, or nothing in the place of a file."""
    path = folder / rng.choice([*FILES, "shards"])
    outside = folder.parent / "outside"
    shutil.rmtree(outside, ignore_errors=True)
    outside.unlink(missing_ok=True)
    path.rename(outside)
    kind = rng.randrange(4)
    if kind == 0:
        path.symlink_to(rng.choice([outside, Path("/etc/passwd"), Path("/dev/zero")]))
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.mkdir()


def bomb(rng: random.Random, folder: Path) -> None:
    """Deep, long or wide JSON in the place of a file or of a line."""
    size = rng.choice([1_000, 100_000, 1_000_000])
    layers = '{"format": "moeprobe.trace/2", "layers": '
    text = rng.choice(["[" * size, "[" * size + "]" * size, '{"a":' * size, '"' + "\\u0000" * size, "9" * size,
                       "[" + "[]," * (size // 8) + "[]]", layers + "9" * size + "}", "1e" + "9" * size])  # fmt: skip
    name = rng.choice(FILES)
    path = folder / name
    if name.endswith("safetensors"):
        path.write_bytes(len(text).to_bytes(8, "little") + text.encode())
        resign(folder)
    elif name == "run.json" or rng.random() < 0.5:
        path.write_text(text)
    else:
        path.write_text(text + "\n" + path.read_text())
        if name == "generations.jsonl":
            resign_manifest(folder)


# Mutation -> whether `validate` must refuse the result whenever it differs from the original.
KINDS: dict[Callable[[random.Random, Path], None], bool] = {
    flip: True, resize: True, header_length: True, column: True, swap: True, link: True, bomb: True,
    header: False, manifest: False, generations: False, index: False,
}  # fmt: skip


class Watch:
    """Every path that Python opens while it is on must lie in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.on, self.outside = folder, False, set[str]()
        sys.addaudithook(self.see)

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = Path(os.fsdecode(arguments[0]))
            if not path.resolve().is_relative_to(self.folder):
                self.outside.add(str(path))


def use(folder: Path) -> bool:
    """Read a trace in all ways. Returns whether `validate` finds nothing wrong."""
    try:
        trace = load_trace(folder, incomplete=True)
        count_experts(trace, by="label")
        contents(trace)
    except MoeprobeError:
        pass
    return validate(folder).valid


def plant(fault: str) -> None:
    """Take out one check, to see whether the fuzzing would notice."""
    from moeprobe.trace import disk, shard, tensors

    if fault == "ranges":
        shard.Shard.experts = lambda self, layer: self._file.read(f"{self._info(layer).name}.experts")  # type: ignore[method-assign]
    elif fault == "checksums":
        tensors._checksum = lambda array: "crc32:00000000"
        tensors._altered = lambda *args: MoeprobeError("never")
        real = tensors._check
        tensors._check = lambda header, *args: real(  # type: ignore[assignment]
            {**header, "__metadata__": dict.fromkeys(header["__metadata__"], "crc32:00000000")}, *args
        )
        read = tensors.TensorFile.read

        def lenient(self: Any, name: str) -> Any:
            self._checksums = dict.fromkeys(self._checksums, "crc32:00000000")
            return read(self, name)

        tensors.TensorFile.read = lenient  # type: ignore[method-assign]
    elif fault == "links":
        disk.Path.is_symlink = lambda self: False  # type: ignore[method-assign]
        disk.os.O_NOFOLLOW = 0  # type: ignore[misc]
    elif fault == "memory":
        tensors._HEADER_BYTES_PER_TENSOR = 1 << 40
        real_read = tensors.disk.open_regular

        def greedy(path: Path, **options: Any) -> Any:
            file, size = real_read(path, **options)
            np.ones(min(int.from_bytes(file.read(8), "little"), 1 << 30), np.uint8)  # trusts the length it reads
            file.seek(0)
            return file, size

        tensors.disk.open_regular = greedy
    else:
        raise SystemExit(f"unknown fault {fault}")


def main(folder: Path, count: int, seed: int, fault: str | None) -> None:
    original = make(folder / "original.trace", 2)
    make(folder / "other.trace", 2, seed=5)
    truth = contents(original)
    assert use(original.path)
    if fault is not None:
        plant(fault)
    target = folder / "mutated.trace"
    watch = Watch(folder)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BOUND, used + BOUND))
    wrong: list[str] = []
    refused = 0
    for number in range(count):
        rng = random.Random(seed * 1_000_003 + number)
        kind = rng.choice(list(KINDS))
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(original.path, target)
        kind(rng, target)
        what = f"mutation {number} ({kind.__name__})"
        try:
            watch.on = True
            valid = use(target)
        except BaseException as problem:  # noqa: BLE001  # whatever comes out is the finding
            wrong.append(f"{what}: {type(problem).__name__} {problem}"[:300])
            continue
        finally:
            watch.on = False
        refused += not valid
        if valid and KINDS[kind] and contents(load_trace(target)) != truth:
            wrong.append(f"{what}: altered, but valid")
    wrong += [f"opened {path}" for path in sorted(watch.outside)]
    print(json.dumps({"count": count, "refused": refused, "wrong": wrong[:40], "failures": len(wrong)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else None)
