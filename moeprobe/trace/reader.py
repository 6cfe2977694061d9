"""Reading a trace. A trace may come from anywhere, so everything is checked before it is used."""

import functools
import hashlib
import html
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from moeprobe.errors import TraceError
from moeprobe.trace import disk, generation, index
from moeprobe.trace.generation import Generation, read_generations
from moeprobe.trace.index import ShardInfo, read_index
from moeprobe.trace.journal import Tally, read_manifest
from moeprobe.trace.manifest import Manifest
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
    manifest = read_manifest(folder)
    if manifest.complete:
        return Trace(folder, manifest)
    if not incomplete:
        raise TraceError(
            f"{folder} is the rest of an interrupted run. Go on with it by `moeprobe trace --resume` and the same "
            "options, or open what is there with incomplete=True."
        )
    tally = Tally()
    for info, _ in read_index(folder / index.NAME, torn=True):
        tally.add(info)
    return Trace(folder, tally.manifest(manifest))


class Trace:
    """A recorded run.

    Memory: the iterators hold one shard or one generation at a time; `generations` holds all of them.

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
        """SHA-256 of run.json, which itself holds the digests of the other files."""
        return "sha256:" + _sha256(self.path / "run.json")

    @functools.cached_property
    def generations(self) -> list[Generation]:
        """All generations; the position in the list is the value of the shards' `generation` column."""
        return list(self.iter_generations())

    def iter_generations(self) -> Iterator[Generation]:
        """The generations in order, one at a time.

        Raises:
            TraceError: the file was altered, or does not fit the shards.
        """
        self._check_file(generation.NAME, self.manifest.generations_sha256)
        shards, used = self.infos(), 0
        info: ShardInfo | None = None
        for one in read_generations(self.path / generation.NAME, self.manifest.generations):
            if info is None or one.shard != info.shard:
                self._check_filled(info, used)
                info = next(shards, None)
            if info is None or one.shard != info.shard:
                raise TraceError(f"{self.path}: generation {one.index} points at a shard that is not there.")
            used = one.first_row + one.rows
            if used > info.rows:
                raise TraceError(f"{self.path}: generation {one.index} points beyond the end of its shard.")
            yield one
        self._check_filled(info, used)
        if next(shards, None) is not None:
            raise TraceError(
                f"{self.path}: its generations do not add up to the {self.manifest.rows} rows of the shards."
            )

    def infos(self) -> Iterator[ShardInfo]:
        """What `shards.jsonl` says of each shard, in order.

        Raises:
            TraceError: the file was altered, or does not fit run.json.
        """
        self._check_file(index.NAME, self.manifest.shards_sha256)
        tally = Tally()
        for info, _ in read_index(self.path / index.NAME, torn=not self.manifest.complete):
            if tally.shards == self.manifest.shards:
                break
            if len(info.gate) != len(self.manifest.layers):
                raise TraceError(f"{self.path}: shard {info.shard} sums other layers than run.json names.")
            tally.add(info)
            yield info
        found = (tally.shards, tally.generations, tally.rows)
        wanted = (self.manifest.shards, self.manifest.generations, self.manifest.rows)
        if found != wanted:
            raise TraceError(
                f"{self.path / 'run.json'}: {wanted[2]} rows of {wanted[1]} generations are announced in {wanted[0]} "
                f"shards, but shards.jsonl lists {found[2]} of {found[1]} in {found[0]}. Copy the trace again."
            )

    def pieces(self) -> Iterator[tuple[ShardInfo, list[Generation]]]:
        """Each shard's line with the generations whose rows it holds, in order; memory for those of one shard.

        Raises:
            TraceError: the two do not fit.
        """
        generations = self.iter_generations()
        for info in self.infos():
            records = list(islice(generations, info.generations))
            held = sum(one.rows for one in records)
            if len(records) != info.generations or held != info.rows or any(one.shard != info.shard for one in records):
                raise TraceError(
                    f"{self.path / index.NAME}, line {info.shard + 1}: {info.rows} rows of {info.generations} "
                    "generations, which is not what generations.jsonl lists. Copy the trace again."
                )
            yield info, records
        if next(generations, None) is not None:
            raise TraceError(f"{self.path}: generations.jsonl lists more generations than shards.jsonl.")

    def shards(self) -> Iterator[Shard]:
        """The shards in order; each is opened when it is reached."""
        for info in self.infos():
            yield self.open(info)

    def open(self, info: ShardInfo) -> Shard:
        """One shard."""
        return Shard(self.path / "shards" / info.name, info, self.manifest)

    def verify(self) -> None:
        """Read everything once: all digests, and every value against what it may be. See `moeprobe.trace.validate`.

        Raises:
            TraceError: the first thing that is wrong; the message names the place.
        """
        from moeprobe.trace.validation import check_trace

        check_trace(self)

    def generation_frame(self) -> "pandas.DataFrame":
        """One row per generation: ids, label, texts, stop reason, numbers of routed tokens."""
        from moeprobe.trace.frames import generation_frame

        return generation_frame(self)

    def selection_frame(self, layers: "list[int] | list[str] | None" = None) -> "pandas.DataFrame":
        """One row per (token, layer, choice): generation, position, phase, segment, token, site, rank, weight.

        Args:
            layers: layers as numbers (main stack) or names; all recorded layers when None. The frame has
                tokens * layers * k rows.
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
            "MoE layers": ", ".join(f"{info.name} ({info.k} of {info.experts})" for info in manifest.layers),
            "Recorded": ", ".join([*manifest.captured, *(signal.name for signal in manifest.signals)]),
            "Written": manifest.created,
        }
        body = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in rows.items()
        )
        return f"<table><caption>moeprobe trace {html.escape(str(self.path))}</caption>{body}</table>"

    def _check_file(self, name: str, digest: str) -> None:
        """An interrupted run has no digest yet: lines are added after each batch."""
        if self.manifest.complete and _sha256(self.path / name) != digest:
            raise TraceError(
                f"{self.path / name} was altered since it was written. Copy the trace again, or record it again."
            )

    def _check_filled(self, info: ShardInfo | None, used: int) -> None:
        if info is not None and used != info.rows:
            raise TraceError(
                f"{self.path}: its generations do not add up to the {info.rows} rows of shard {info.shard}, but to "
                f"{used}. Copy the trace again."
            )


def _sha256(path: Path) -> str:
    file, _ = disk.open_regular(path)
    with file:
        return hashlib.file_digest(file, "sha256").hexdigest()
