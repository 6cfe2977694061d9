"""Writing a trace: everything lands under NAME.partial and gets its final name only when it is whole.

A batch is on disk when its lines stand in `shards.jsonl`; before those are written, its shards and the lines of its
generations have been flushed. So a kill at any moment loses the batch in flight and nothing else.
"""

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import numpy as np

from moeprobe.errors import OutputError, TraceError
from moeprobe.files import check_output
from moeprobe.trace import disk, generation, index
from moeprobe.trace.generation import Generation
from moeprobe.trace.index import ShardInfo, shard_name
from moeprobe.trace.journal import Journal, gate_sums
from moeprobe.trace.manifest import Manifest
from moeprobe.trace.same import check_same_layers, check_same_run
from moeprobe.trace.shard import ShardData, row_bytes, tensors_of
from moeprobe.trace.tensors import write_tensors

# A batch is cut into shards of at most this size, at the end of a generation; only a single generation may be larger.
SHARD_BYTES = 128 << 20
_FILES = {"run.json", ".run.json.tmp", index.NAME, generation.NAME, "shards"}


class TraceWriter:
    """Collects shards in `PATH.partial`; `finish` renames that folder to PATH.

    Use as a context manager. When the run stops early (an error, Ctrl-C, a kill) nothing appears under PATH. What was
    recorded up to then stays readable in `PATH.partial`, marked incomplete, and `resume` goes on from there.

    Memory: one shard (at most 128 MiB, or one generation) beside what is handed in.

    Args:
        path: the final name of the trace.
        force: replace a trace (or an interrupted one) that stands there.
        resume: go on with `PATH.partial` if it is there; call `continue_as` before `add`.

    Raises:
        OutputError: something stands under the name already, another process writes it, or the disk refuses.
        TraceError: with `resume`, when what stands there is damaged.
    """

    def __init__(self, path: Path, *, force: bool = False, resume: bool = False) -> None:
        check_output(path, force=force)
        # Resolved: "." has no name to put ".partial" behind, and a link should go on pointing at the trace.
        path = path.resolve()
        self.path, self.partial = path, path.with_name(path.name + ".partial")
        for folder in (self.path, self.partial):
            if folder.exists() and not is_trace(folder):
                raise OutputError(f"{folder} is no trace, so it will not be replaced. Choose another name.")
        if self.partial.exists() and not (force or resume):
            raise OutputError(
                f"An interrupted run lies in {self.partial}. Add --resume to go on with it, or --force to start over."
            )
        self._failed = False
        with self._disk():
            if self.partial.exists() and not resume:
                self._discard()
            if not self.partial.exists():
                disk.make_folder(self.partial)
            self._journal = Journal(self.partial)
        self._header = self._journal.header

    @property
    def batches(self) -> int:
        """How many calls of `add` are on disk; a resumed run goes on with the batch of this number."""
        return self._journal.batches

    @property
    def generations(self) -> int:
        """Generations written so far."""
        return self._journal.generations

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return self._journal.rows

    @property
    def shards(self) -> int:
        """Shards written so far."""
        return self._journal.shards

    def continue_as(self, manifest: Manifest) -> Manifest:
        """Check that an interrupted run, if there is one, is the run that `manifest` describes.

        Args:
            manifest: of the run about to be made; its layers and signals are checked later, by `add`.

        Returns:
            The manifest to go on with: that of the interrupted run, with the present time in `resumed`; or `manifest`
            itself when nothing was recorded yet.

        Raises:
            OutputError: it is another run; the message names the field.
        """
        if self._header is None:
            return manifest
        check_same_run(self._header, manifest, str(self.partial))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._header = replace(self._header, resumed=(*self._header.resumed, now), complete=False)
        with self._disk():
            self._write_header()
        return self._header

    def add(self, data: ShardData, generations: list[Generation], manifest: Manifest) -> None:
        """Write a batch: its shards, then the lines of its generations, then its lines in the index.

        The order matters: a line never points at a shard that is not there.

        Args:
            data: rows of all generations of the batch, in their order.
            generations: their records; `shard` and `first_row` are filled in here.
            manifest: what is recorded. The first batch's is kept; later ones must name the same layers and signals.

        Raises:
            TraceError: arrays that do not fit the manifest, or generations that do not fit the rows.
            OutputError: the disk refuses, or an earlier batch failed.
        """
        if self._failed:
            raise OutputError(f"An earlier batch of {self.partial} failed. Go on with --resume.")
        self._failed = True
        check_batch(data, generations, self.generations)
        with self._disk():
            if self._header is None:
                self._header = replace(manifest, complete=False)
                self._write_header()
            check_same_layers(self._header, manifest, str(self.partial))
            texts: list[list[bytes]] = []
            infos: list[ShardInfo] = []
            for piece, records in cut(data, generations, SHARD_BYTES // row_bytes(self._header)):
                number = self.shards + len(infos)
                texts.append([line_of(one, number, row) for one, row in zip(records, _starts(records), strict=True)])
                infos.append(self._write_shard(number, piece, len(records)))
            disk.sync_folder(self.partial / "shards")
            self._journal.append(texts, infos)
        self._failed = False

    def finish(self) -> Path:
        """Mark the trace complete and give it its final name."""
        if self._header is None or self._failed:
            raise OutputError(f"Nothing was recorded for {self.path}, so no trace was written.")
        with self._disk():
            self._header = self._journal.completed(self._header)
            self._write_header()
            old = None
            if self.path.exists():
                # Two renames, so that at no moment neither the old nor the new trace exists.
                old = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.old")
                disk.rename(self.path, old)
            disk.rename(self.partial, self.path)
            disk.sync_folder(self.path.parent)
            self._journal.close()
            if old is not None:
                with contextlib.suppress(OSError):
                    disk.remove_tree(old)
        return self.path

    def __enter__(self) -> "TraceWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()
        if kind is not None and not self.shards:
            with contextlib.suppress(OSError):
                disk.remove_tree(self.partial)

    def _write_header(self) -> None:
        if self._header is not None:
            disk.replace(self.partial / "run.json", self._header.to_json().encode("ascii"))

    def _write_shard(self, number: int, data: ShardData, generations: int) -> ShardInfo:
        if self._header is None:
            raise OutputError("A shard before its header. This is a bug in moeprobe.")
        stamp = write_tensors(self.partial / "shards" / shard_name(number), tensors_of(data, self._header))
        return ShardInfo(
            shard=number,
            rows=data.rows,
            generations=generations,
            bytes=stamp.bytes,
            header_sha256=stamp.header_sha256,
            text_bytes=0,
            batch=self.batches,
            last=False,
            gate=gate_sums(data, self._header.layers),
        )

    def _discard(self) -> None:
        """Take the interrupted run out of the way in one step: half of it removed could be taken for a shorter run."""
        Journal.check_free(self.partial)
        old = self.partial.with_name(f".{self.partial.name}.{secrets.token_hex(4)}.old")
        disk.rename(self.partial, old)
        disk.sync_folder(old.parent)
        disk.remove_tree(old)

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise OutputError(
                f"Could not write {self.partial}: {problem.strerror or problem}. What was finished before is kept; "
                "mend the cause and add --resume."
            ) from problem


def is_trace(folder: Path) -> bool:
    """Whether moeprobe made the folder: nothing in it but what a trace holds."""
    return folder.is_dir() and {entry.name for entry in folder.iterdir()} <= _FILES


def line_of(one: Generation, shard: int, first_row: int) -> bytes:
    """The line of a generation whose rows begin there."""
    return (replace(one, shard=shard, first_row=first_row).to_json() + "\n").encode("ascii")


def check_batch(data: ShardData, generations: list[Generation], first: int) -> None:
    """Refuse generations that do not follow the ones before, or whose rows are not those of `data`, in order.

    Raises:
        TraceError: they do not fit.
    """
    rows = [one.rows for one in generations]
    numbers = np.arange(first, first + len(generations))
    if not rows or min(rows) < 1 or [one.index for one in generations] != numbers.tolist():
        raise TraceError(
            f"A batch must hold generations {first} onwards, each with rows. This is a bug in the recorder."
        )
    if not np.array_equal(data.columns["generation"], np.repeat(numbers, rows)):
        raise TraceError(f"The rows of generations {first} onwards do not lie in order. This is a bug in the recorder.")


def cut(data: ShardData, generations: list[Generation], most: int) -> Iterator[tuple[ShardData, list[Generation]]]:
    """Pieces of at most `most` rows, at the ends of generations; a generation of more rows is a piece of its own."""
    start = first = rows = 0
    for place, one in enumerate(generations):
        if place > first and rows + one.rows > most:
            yield data.part(slice(start, start + rows)), generations[first:place]
            start, first, rows = start + rows, place, 0
        rows += one.rows
    yield data.part(slice(start, start + rows)), generations[first:]


def _starts(records: list[Generation]) -> list[int]:
    ends = np.cumsum([one.rows for one in records])
    return [0, *ends[:-1].tolist()]
