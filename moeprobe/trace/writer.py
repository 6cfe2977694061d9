"""Writing a trace: everything lands under NAME.partial and gets its final name only when it is whole."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from moeprobe.errors import OutputError
from moeprobe.files import check_output, replacing, sha256, sync_folder, write_text
from moeprobe.trace.generation import Generation
from moeprobe.trace.manifest import Manifest, ShardInfo
from moeprobe.trace.shard import ShardData, write_shard


class TraceWriter:
    """Collects shards in `PATH.partial`; `finish` renames that folder to PATH.

    Use as a context manager. When the run stops early (an error, Ctrl-C) nothing appears under PATH. What was
    recorded up to then stays readable in `PATH.partial`, marked incomplete, if at least one shard was written.

    Args:
        path: the final name of the trace.
        force: replace a trace (or an interrupted one) that stands there.

    Raises:
        OutputError: something stands under the name already, or the disk refuses.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        check_output(path, force=force)
        # Resolved: "." has no name to put ".partial" behind, and a link should go on pointing at the trace.
        path = path.resolve()
        self.path, self.partial = path, path.with_name(path.name + ".partial")
        for folder in (self.path, self.partial):
            if folder.exists() and not _is_trace(folder):
                raise OutputError(f"{folder} is no trace, so it will not be replaced. Choose another name.")
        if self.partial.exists() and not force:
            raise OutputError(f"An interrupted run lies in {self.partial}. Move it away, or add --force to start over.")
        with self._disk():
            if self.partial.exists():
                shutil.rmtree(self.partial)
            (self.partial / "shards").mkdir(parents=True)
        self.shards: list[ShardInfo] = []
        self.generations = 0
        self.manifest: Manifest | None = None

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return sum(shard.rows for shard in self.shards)

    def add(self, data: ShardData, generations: list[Generation], manifest: Manifest) -> None:
        """Write one shard, then the lines of its generations, then the manifest so far (marked incomplete).

        The order matters: a line never points at a shard that is not there.
        """
        name = f"{len(self.shards):06d}.safetensors"
        final = self.partial / "shards" / name
        with self._disk():
            with replacing(final) as temporary:
                write_shard(temporary, data, manifest.layers)
                _flush(temporary)
            with (self.partial / "generations.jsonl").open("a", encoding="ascii") as handle:
                handle.writelines(generation.to_json() + "\n" for generation in generations)
                handle.flush()
                os.fsync(handle.fileno())
            self.shards.append(ShardInfo(name=name, rows=data.rows, sha256=sha256(final)))
            self.generations += len(generations)
            self._write_manifest(manifest, complete=False)

    def finish(self) -> Path:
        """Mark the trace complete and give it its final name."""
        if self.manifest is None:
            raise OutputError(f"Nothing was recorded for {self.path}, so no trace was written.")
        with self._disk():
            self._write_manifest(self.manifest, complete=True)
            sync_folder(self.partial)
            old = None
            if self.path.exists():
                # Two renames, so that at no moment neither the old nor the new trace exists.
                old = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.old")
                self.path.rename(old)
            self.partial.rename(self.path)
            sync_folder(self.path.parent)
            if old is not None:
                shutil.rmtree(old, ignore_errors=True)
        return self.path

    def __enter__(self) -> "TraceWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not self.shards:
            shutil.rmtree(self.partial, ignore_errors=True)

    def _write_manifest(self, manifest: Manifest, *, complete: bool) -> None:
        self.manifest = replace(
            manifest,
            shards=tuple(self.shards),
            rows=self.rows,
            generations=self.generations,
            generations_sha256=sha256(self.partial / "generations.jsonl") if complete else "",
            complete=complete,
        )
        write_text(self.partial / "run.json", self.manifest.to_json())

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise OutputError(f"Could not write {self.partial}: {problem.strerror or problem}.") from problem


def _is_trace(folder: Path) -> bool:
    """Whether moeprobe made the folder: a manifest, or nothing yet but an empty place for shards."""
    if (folder / "run.json").is_file():
        return True
    return folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {"shards", "generations.jsonl"}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
