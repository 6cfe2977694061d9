"""`shards.jsonl`: one line per shard, appended when the shard and its generations are safely on disk.

While a run goes on this is its journal: what has no line here was not written. Each line carries a check over itself
and all lines before it, so a line that a kill tore in two is seen, and a line taken from elsewhere as well.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeprobe.errors import TraceError
from moeprobe.fields import Fields, parse_json
from moeprobe.trace import disk
from moeprobe.trace.manifest import MAX_LAYERS, digest
from moeprobe.trace.tensors import Stamp

NAME = "shards.jsonl"
START = hashlib.sha256(b"moeprobe.trace/2 shards").hexdigest()[:16]
# Each of at most MAX_LAYERS layers has two numbers in a line.
MAX_LINE = 1 << 20
# 2**31 rows of the largest weights a float32 can hold, in steps of 2**-32.
MAX_GATE = 2**200
_CHECK = ', "check": "'


@dataclass(frozen=True)
class ShardInfo:
    """One shard.

    Attributes:
        shard: its number, from 0; its file is `shards/NNNNNN.safetensors`.
        rows, generations: how many it holds.
        bytes, header_sha256: size of its file, and SHA-256 of the file's header, which holds that of each column.
        text_bytes: size of `generations.jsonl` once this shard's generations stand in it.
        batch: number of the batch it came from; a large batch is cut into several shards.
        last: whether the batch ends with it.
        gate: per layer, as run.json lists them: sum of all gate weights in steps of 2**-32, and number of tokens that
            were routed. Whole numbers, so that sums over shards are the same in any order.
    """

    shard: int
    rows: int
    generations: int
    bytes: int
    header_sha256: str
    text_bytes: int
    batch: int
    last: bool
    gate: tuple[tuple[int, int], ...]

    @property
    def name(self) -> str:
        """Name of the file inside `shards/`."""
        return shard_name(self.shard)

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.bytes, self.header_sha256)

    def to_line(self, previous: str) -> tuple[str, str]:
        """The line, and its check, which the next line needs.

        Args:
            previous: check of the line before; `START` for the first.
        """
        body = json.dumps(vars(self), allow_nan=False)[:-1]
        check = _check(previous, body)
        return f'{body}{_CHECK}{check}"}}\n', check


def shard_name(number: int) -> str:
    """ "000012.safetensors"."""
    return f"{number:06d}.safetensors"


def parse_line(line: bytes, previous: str, where: str) -> tuple[ShardInfo, str]:
    """Read one line; returns it and its check.

    Raises:
        TraceError: torn, altered, or from another trace; the message names `where`.
    """
    text = line.decode("ascii", "replace")
    body, found, check = text.rpartition(_CHECK)
    if not found or check != _check(previous, body) + '"}\n':
        raise TraceError(f"{where} is cut off or was altered. Copy the trace again, or record it again.")
    fields = Fields(parse_json(body + "}", where, TraceError), where, TraceError)
    gate = fields.items("gate")
    if len(gate) > MAX_LAYERS or not all(_is_pair(item) for item in gate):
        raise TraceError(f"{where}: 'gate' must list a sum and a number of tokens for each layer.")
    info = ShardInfo(
        shard=fields.integer("shard"),
        rows=fields.integer("rows", 1, 2**31 - 1),
        generations=fields.integer("generations", 1, 2**31 - 1),
        bytes=fields.integer("bytes", 8),
        header_sha256=digest(fields, "header_sha256"),
        text_bytes=fields.integer("text_bytes"),
        batch=fields.integer("batch"),
        last=fields.flag("last"),
        gate=tuple((total, tokens) for total, tokens in gate),
    )
    return info, check[:-3]


def read_index(path: Path, *, torn: bool = False) -> Iterator[tuple[ShardInfo, str]]:
    """The lines of `shards.jsonl` in order, each with its check; memory for one line.

    Args:
        path: the file.
        torn: leave out the last line if a kill tore it in two.

    Raises:
        TraceError: a line that is damaged, out of order, or (unless `torn`) cut off.
    """
    check, generations = START, 0
    for number, line in enumerate(lines(path, MAX_LINE)):
        where = f"{path}, line {number + 1}"
        if torn and not line.endswith(b"\n"):
            return
        info, check = parse_line(line, check, where)
        generations += info.generations
        if info.shard != number or generations > 2**31 - 1:
            raise TraceError(f"{where}: shard {info.shard} where {number} should follow. Record the run again.")
        yield info, check


def lines(path: Path, limit: int) -> Iterator[bytes]:
    """Lines of a file with their line ends, none longer than `limit` bytes.

    Raises:
        TraceError: a longer line.
    """
    file, _ = disk.open_regular(path)
    pending = bytearray()
    with file:
        while block := file.read(1 << 16):
            for piece in block.splitlines(keepends=True):
                pending += piece
                if len(pending) > limit:
                    raise TraceError(
                        f"{path}: a line of more than {limit >> 20} MiB; moeprobe writes none. Record the run again."
                    )
                if piece.endswith(b"\n"):
                    yield bytes(pending)
                    pending.clear()
    if pending:
        yield bytes(pending)


def _check(previous: str, body: str) -> str:
    return hashlib.sha256((previous + body).encode("ascii", "replace")).hexdigest()[:16]


def _is_pair(item: Any) -> bool:
    if not isinstance(item, list) or len(item) != 2:
        return False
    total, tokens = item
    return type(total) is int and abs(total) <= MAX_GATE and type(tokens) is int and 0 <= tokens <= 2**53
