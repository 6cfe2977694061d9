"""The two append-only files of a run, `generations.jsonl` and `shards.jsonl`, and taking them up again after a kill."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from moeprobe.errors import TraceError
from moeprobe.trace import disk, generation, index
from moeprobe.trace.index import ShardInfo, read_index, shard_name
from moeprobe.trace.manifest import MAX_MANIFEST_BYTES, LayerInfo, Manifest, parse_manifest
from moeprobe.trace.shard import Shard, ShardData, widened

# Gate weights are summed in steps of 2**-32, as in moeprobe.stats: whole numbers add up the same in any order.
GATE_STEPS = 2**32


def gate_sums(data: ShardData, layers: Sequence[LayerInfo]) -> tuple[tuple[int, int], ...]:
    """Per layer: sum of the gate weights of the choices that exist, in steps of 2**-32, and tokens routed there."""
    sums = []
    for info in layers:
        routing = data.routing[info.name]
        weights = widened(np.ascontiguousarray(routing.weights))
        if routing.mask is None:
            total, tokens = weights.sum(dtype=np.float64), data.rows
        else:
            total = np.where(routing.mask, weights, 0).sum(dtype=np.float64)
            tokens = int(np.any(routing.mask, axis=1).sum())
        sums.append((round(float(total) * GATE_STEPS), tokens))
    return tuple(sums)


def with_weight_sums(layers: Sequence[LayerInfo], gate: Sequence[tuple[int, int]]) -> tuple[LayerInfo, ...]:
    """The layers with their mean sums of gate weights, rounded to six digits; 0 where no token was routed."""
    means = [round(total / GATE_STEPS / tokens, 6) if tokens else 0.0 for total, tokens in gate]
    return tuple(replace(info, weight_sum=mean) for info, mean in zip(layers, means, strict=True))


class Tally:
    """Running totals over the lines of `shards.jsonl`."""

    def __init__(self) -> None:
        self.shards = self.batches = self.generations = self.rows = self.text_bytes = 0
        self.gate: tuple[tuple[int, int], ...] = ()

    def add(self, info: ShardInfo) -> None:
        """Add one shard."""
        self.shards += 1
        self.batches = info.batch + int(info.last)
        self.generations += info.generations
        self.rows += info.rows
        self.text_bytes = info.text_bytes
        before = self.gate or ((0, 0),) * len(info.gate)
        if len(before) != len(info.gate):
            raise TraceError(f"Shard {info.shard} sums {len(info.gate)} layers, the ones before {len(before)}.")
        self.gate = tuple((a + c, b + d) for (a, b), (c, d) in zip(before, info.gate, strict=True))

    def manifest(self, header: Manifest) -> Manifest:
        """`header` with these totals."""
        gate = self.gate or ((0, 0),) * len(header.layers)
        if len(gate) != len(header.layers):
            raise TraceError(f"shards.jsonl sums {len(gate)} layers, but run.json names {len(header.layers)}.")
        return replace(
            header,
            layers=with_weight_sums(header.layers, gate),
            shards=self.shards,
            generations=self.generations,
            rows=self.rows,
        )


class Journal:
    """The append-only files of NAME.partial, held open and locked while a run goes on.

    Opening cuts off whatever a kill left behind the last whole batch, and removes shards that have no line.

    Args:
        folder: NAME.partial; it may be empty.

    Attributes:
        header: run.json, or None when no batch is on disk yet.

    Raises:
        OutputError: another process writes the folder.
        TraceError: what stands there is damaged beyond what a kill does.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tally = Tally()
        self._check = index.START
        self._text_hash, self._index_hash = hashlib.sha256(), hashlib.sha256()
        self.header: Manifest | None = None
        self._index = disk.open_to_append(folder / index.NAME)
        self._text = -1
        try:
            disk.lock(self._index, folder / index.NAME)
            self._text = disk.open_to_append(folder / generation.NAME)
            if not (folder / "shards").is_dir():
                disk.make_folder(folder / "shards")
            disk.sync_folder(folder)
            disk.sync_folder(folder.parent)
            self._recover()
        except BaseException:
            self.close()
            raise

    @property
    def batches(self) -> int:
        return self._tally.batches

    @property
    def generations(self) -> int:
        return self._tally.generations

    @property
    def rows(self) -> int:
        return self._tally.rows

    @property
    def shards(self) -> int:
        return self._tally.shards

    def append(self, texts: list[list[bytes]], infos: list[ShardInfo]) -> None:
        """Append a batch: first the lines of its generations, one list for each shard; then the shards' own lines."""
        text = b"".join(line for part in texts for line in part)
        disk.write(self._text, text)
        disk.sync(self._text)
        self._text_hash.update(text)
        end, lines = self._tally.text_bytes, b""
        for place, (part, info) in enumerate(zip(texts, infos, strict=True)):
            end += sum(map(len, part))
            whole = replace(info, text_bytes=end, last=place == len(infos) - 1)
            line, self._check = whole.to_line(self._check)
            lines += line.encode("ascii")
            self._tally.add(whole)
        disk.write(self._index, lines)
        disk.sync(self._index)
        self._index_hash.update(lines)

    def completed(self, header: Manifest) -> Manifest:
        """The manifest of the finished run."""
        return replace(
            self._tally.manifest(header),
            complete=True,
            shards_sha256=self._index_hash.hexdigest(),
            generations_sha256=self._text_hash.hexdigest(),
        )

    def close(self) -> None:
        """Close the files and let go of the lock."""
        for descriptor in (self._text, self._index):
            if descriptor >= 0:
                os.close(descriptor)
        self._text = self._index = -1

    @staticmethod
    def check_free(folder: Path) -> None:
        """Refuse a folder that another process writes.

        Raises:
            OutputError: it does.
        """
        if (folder / index.NAME).is_file():
            descriptor = disk.open_to_append(folder / index.NAME)
            try:
                disk.lock(descriptor, folder / index.NAME)
            finally:
                os.close(descriptor)

    def _recover(self) -> None:
        keep, ends = self._read_lines()
        for name, size in ((index.NAME, keep), (generation.NAME, ends)):
            found = (self._folder / name).stat().st_size
            if found < size:
                raise TraceError(
                    f"{self._folder / name} has {found:,} bytes, but {size:,} were written. Restore it from a copy, or "
                    "add --force to start over."
                )
            if found > size:
                disk.cut(self._folder / name, size)
        self._text_hash = _hash_of(self._folder / generation.NAME)
        self._index_hash = _hash_of(self._folder / index.NAME)
        self._remove_leftovers()
        if self._tally.shards:
            self.header = read_manifest(self._folder)
            self._check_shards(self.header)

    def _read_lines(self) -> tuple[int, int]:
        """Take in the lines of whole batches. Returns how much of the two files they take."""
        place = keep = 0
        waiting: list[tuple[ShardInfo, str]] = []
        for info, check in read_index(self._folder / index.NAME, torn=True):
            place += len(info.to_line("")[0])  # the check has the same length whatever came before
            waiting.append((info, check))
            if info.last:
                for one, self._check in waiting:
                    self._tally.add(one)
                waiting, keep = [], place
        return keep, self._tally.text_bytes

    def _check_shards(self, header: Manifest) -> None:
        """Every listed shard is there, whole in size and with its own header."""
        manifest = self._tally.manifest(header)
        for info, _ in read_index(self._folder / index.NAME):
            Shard(self._folder / "shards" / info.name, info, manifest)

    def _remove_leftovers(self) -> None:
        """Shards of a batch that was not finished, and a half-written manifest."""
        for entry in sorted((self._folder / "shards").iterdir()):
            stem, dot, ending = entry.name.partition(".")
            ours = stem.isascii() and stem.isdigit() and dot + ending == ".safetensors"
            if ours and (int(stem) >= self._tally.shards or entry.name != shard_name(int(stem))):
                disk.remove(entry)
        if (self._folder / ".run.json.tmp").exists():
            disk.remove(self._folder / ".run.json.tmp")


def read_manifest(folder: Path) -> Manifest:
    """The run.json of a trace.

    Raises:
        TraceError: missing, damaged, or of another format version.
    """
    path = folder / "run.json"
    data = disk.read_small(path, MAX_MANIFEST_BYTES)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise TraceError(f"{path} is not UTF-8 text (byte {problem.start}). Copy the trace again.") from problem
    return parse_manifest(text, str(path))


def _hash_of(path: Path) -> "hashlib._Hash":
    file, _ = disk.open_regular(path)
    with file:
        return hashlib.file_digest(file, "sha256")
