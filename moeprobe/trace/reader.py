"""Reading a trace. A trace may come from anywhere, so everything is checked before it is used."""

import functools
import html
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from moeprobe.errors import TraceError
from moeprobe.fields import read_text
from moeprobe.files import sha256
from moeprobe.trace.generation import Generation, parse_generation
from moeprobe.trace.manifest import Manifest, ShardInfo, parse_manifest
from moeprobe.trace.shard import Shard

if TYPE_CHECKING:
    import pandas


def load_trace(path: str | Path, *, incomplete: bool = False) -> "Trace":
    """Open a trace directory.

    Args:
        path: the directory that `moeprobe trace` wrote.
        incomplete: accept an interrupted run (`NAME.partial`), with what it holds.

    Raises:
        TraceError: no trace there, another format version, an interrupted run, or a damaged file.
    """
    folder = Path(path)
    if not (folder / "run.json").is_file():
        raise TraceError(f"{folder} is no trace: it holds no run.json. `moeprobe trace` writes one.")
    manifest = parse_manifest(read_text(folder / "run.json", TraceError), str(folder / "run.json"))
    if not manifest.complete and not incomplete:
        raise TraceError(
            f"{folder} is the rest of an interrupted run ({manifest.generations} generations). "
            "Run `moeprobe trace` again, or open it with incomplete=True."
        )
    return Trace(folder, manifest)


class Trace:
    """A recorded run.

    Attributes:
        path: its directory.
        manifest: what was run and recorded.

    Example:
        >>> trace = moeprobe.load_trace("run.trace")            # doctest: +SKIP
        >>> trace.generation_frame()                            # one row per generation
        >>> trace.selection_frame(layers=[18])                  # one row per (token, layer, choice)
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of run.json, which itself holds the digest of every shard."""
        return "sha256:" + sha256(self.path / "run.json")

    @functools.cached_property
    def generations(self) -> list[Generation]:
        """All generations; the position in the list is the value of the shards' `generation` column."""
        where = self.path / "generations.jsonl"
        self._check_generations_file()
        lines = [line for line in read_text(where, TraceError).split("\n") if line]
        records = [parse_generation(line, f"{where}, line {number}") for number, line in enumerate(lines, 1)]
        # An interrupted run can hold lines of a shard whose manifest was not written any more.
        records = records[: self.manifest.generations] if not self.manifest.complete else records
        if [record.index for record in records] != list(range(self.manifest.generations)):
            raise TraceError(f"{where} does not list generations 0 to {self.manifest.generations - 1} in order.")
        self._check_rows(records, where)
        return records

    def shards(self) -> Iterator[Shard]:
        """The shards in order; each is opened when it is reached."""
        for info in self.manifest.shards:
            yield self._open(info)

    def verify(self) -> None:
        """Compare every file with its recorded SHA-256, and the generations' row ranges with the shards' own column.

        Raises:
            TraceError: a file was altered, or does not belong to the others; the message names it.
        """
        self._check_generations_file()
        for info in self.manifest.shards:
            path = self.path / "shards" / info.name
            if not path.is_file() or sha256(path) != info.sha256:
                raise TraceError(f"{path} is missing or was altered since it was written. Record the run again.")
        columns = [shard.generation for shard in self.shards()]
        for one in self.generations:
            rows = columns[one.shard][one.first_row : one.first_row + one.rows]
            if (rows != one.index).any():
                raise TraceError(f"{self.path}: rows of generation {one.index} belong to another one in its shard.")

    def generation_frame(self) -> "pandas.DataFrame":
        """One row per generation: ids, label, texts, stop reason, numbers of routed tokens."""
        from moeprobe.trace.frames import generation_frame

        return generation_frame(self)

    def selection_frame(self, layers: list[int] | None = None) -> "pandas.DataFrame":
        """One row per (token, layer, choice): generation, position, phase, segment, token, site, rank, weight.

        Args:
            layers: layer indices; all recorded layers when None. The frame has tokens * layers * k rows.
        """
        from moeprobe.trace.frames import selection_frame

        return selection_frame(self, layers)

    def __repr__(self) -> str:
        manifest = self.manifest
        layers = f"{len(manifest.layers)} MoE layer" + ("s" if len(manifest.layers) != 1 else "")
        state = "" if manifest.complete else ", interrupted"
        model = str(manifest.model.get("id"))
        size = f"{manifest.generations} generations, {manifest.rows:,} tokens"
        return f"<Trace {str(self.path)!r}: {size}, {layers} of {model!r}{state}>"

    def _repr_html_(self) -> str:
        manifest = self.manifest
        rows = {
            "Model": manifest.model.get("id"),
            "Generations": f"{manifest.generations:,}",
            "Routed tokens": f"{manifest.rows:,}",
            "MoE layers": ", ".join(f"L{info.layer} ({info.k} of {info.experts})" for info in manifest.layers),
            "Recorded": ", ".join(manifest.captured),
            "Written": manifest.created,
        }
        body = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in rows.items()
        )
        return f"<table><caption>moeprobe trace {html.escape(str(self.path))}</caption>{body}</table>"

    def _check_generations_file(self) -> None:
        """An interrupted run has no digest yet: lines are added after each shard."""
        path = self.path / "generations.jsonl"
        if self.manifest.complete and (not path.is_file() or sha256(path) != self.manifest.generations_sha256):
            raise TraceError(f"{path} is missing or was altered since it was written. Record the run again.")

    def _open(self, info: ShardInfo) -> Shard:
        return Shard(
            self.path / "shards" / info.name,
            self.manifest.layers,
            info.rows,
            self.manifest.generations,
            len(self.manifest.segments),
        )

    def _check_rows(self, records: list[Generation], where: Path) -> None:
        if sum(record.rows for record in records) != self.manifest.rows:
            raise TraceError(f"{where}: its generations do not add up to the {self.manifest.rows} rows of the shards.")
        for record in records:
            if record.shard >= len(self.manifest.shards):
                raise TraceError(f"{where}: generation {record.index} points at a shard that is not there.")
            if record.first_row + record.rows > self.manifest.shards[record.shard].rows:
                raise TraceError(f"{where}: generation {record.index} points beyond the end of its shard.")
