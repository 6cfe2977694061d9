"""Tensors in one file, in the layout of safetensors, each with its checksum.

The files are plain safetensors files (`safetensors.numpy.load_file` reads them), but they are written and read here:
the checksum of each tensor is taken while it passes, the header is bounded by what is expected before it is parsed, and
one tensor is read without mapping the file. The header lists the checksums in its `__metadata__`; the SHA-256 of the
header stands in `shards.jsonl`. So each tensor can be checked by itself, and is, whenever it is read.

The checksum is CRC-32: it finds every altered byte, and other damage but for one in 4 billion. SHA-256 would cost more
than writing does (1.7 against 4.0 GiB/s, and a quarter of that on processors without SHA instructions), and protect
from nobody: who can forge a tensor can forge all checksums of the folder.
"""

import hashlib
import json
import math
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import TraceError
from moeprobe.fields import parse_json
from moeprobe.trace import disk

Array = NDArray[Any]
_CODES = {"uint8": "U8", "uint16": "U16", "int32": "I32", "float16": "F16", "float32": "F32", "bool": "BOOL"}
_DTYPES = {code: np.dtype(name) for name, code in _CODES.items()}
# What the header says of one tensor: name (at most 120 bytes, twice), dtype, shape, offsets and digest.
_HEADER_BYTES_PER_TENSOR = 512


@dataclass(frozen=True)
class Spec:
    """What a tensor must be: one of `dtypes` (safetensors codes such as "U8"), of exactly `shape`."""

    dtypes: tuple[str, ...]
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class Stamp:
    """What identifies a file of tensors: its size in bytes and the SHA-256 of its header."""

    bytes: int
    header_sha256: str


@dataclass(frozen=True)
class Planned:
    """A tensor about to be written; `make` gives its array, C-contiguous, when its turn comes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    make: Callable[[], Array]

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)


def write_tensors(path: Path, tensors: Mapping[str, Planned]) -> Stamp:
    """Write a new file, flushed to disk when this returns. Memory for one tensor.

    Raises:
        OSError: as the system says; FileExistsError when something stands there.
    """
    # Wide numbers first keeps every tensor aligned for readers that map the file.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    space = len(_header(tensors, dict.fromkeys(names, "crc32:00000000")))
    descriptor = disk.create(path)
    try:
        disk.write(descriptor, bytes(8 + space))
        checksums = _write_body(descriptor, names, tensors)
        text = _header(tensors, checksums)
        os.lseek(descriptor, 0, os.SEEK_SET)
        disk.write(descriptor, space.to_bytes(8, "little") + text)
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)
    return Stamp(8 + space + sum(one.nbytes for one in tensors.values()), hashlib.sha256(text).hexdigest())


def _write_body(descriptor: int, names: list[str], tensors: Mapping[str, Planned]) -> dict[str, str]:
    """Write the tensors one after another, and take their checksums while they are in the processor's cache."""
    checksums = {}
    for name in names:
        array = tensors[name].make()
        checksums[name] = _checksum(array)
        disk.write(descriptor, array.data.cast("B"))
    return checksums


def _header(tensors: Mapping[str, Planned], checksums: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(checksums)}
    place = 0
    for name in checksums:
        one = tensors[name]
        offsets = [place, place + one.nbytes]
        header[name] = {"dtype": _CODES[one.dtype.name], "shape": list(one.shape), "data_offsets": offsets}
        place = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    return text + b" " * (-len(text) % 8)


class TensorFile:
    """A file of tensors. Opening checks the header; `read` reads and checks one tensor.

    Memory: the header, at most 512 bytes for each expected tensor plus 4 KiB, and the tensors that are read, which
    are together no larger than the file.

    Args:
        path: the file.
        stamp: size and header digest it must have.
        expected: every tensor that may be in it.

    Raises:
        TraceError: missing, altered, or other tensors than expected.
    """

    def __init__(self, path: Path, stamp: Stamp, expected: Mapping[str, Spec]) -> None:
        self.path, self._stamp = path, stamp
        text = self._read_header(_HEADER_BYTES_PER_TENSOR * len(expected) + 4096)
        header = parse_json(text.decode("utf-8", "replace"), f"{path}, header", TraceError)
        self._entries = _check(header, expected, str(path))
        self._checksums: dict[str, str] = header["__metadata__"]
        self._start = 8 + len(text)
        end = max(entry[2] for entry in self._entries.values())
        if self._start + end != stamp.bytes:
            raise TraceError(f"{path}: the header speaks of {self._start + end:,} bytes, the file has {stamp.bytes:,}.")

    @property
    def names(self) -> frozenset[str]:
        """Names of the tensors."""
        return frozenset(self._entries)

    def read(self, name: str) -> Array:
        """One tensor.

        Raises:
            TraceError: it was altered since it was written, or the file changed while it was read.
        """
        spec, start, _ = self._entries[name]
        array = np.empty(spec.shape, dtype=_DTYPES[spec.dtypes[0]])
        file, size = disk.open_regular(self.path)
        with file:
            view = array.data.cast("B")
            file.seek(self._start + start)
            while view:
                count = file.readinto(view)
                if not count:
                    raise TraceError(f"{self.path} ends inside {name}. Copy the trace again, or record it again.")
                view = view[count:]
        if size != self._stamp.bytes or _checksum(array) != self._checksums[name]:
            raise _altered(self.path, f"column {name}")
        if array.dtype == np.bool_ and array.size and int(array.view(np.uint8).max()) > 1:
            raise TraceError(f"{self.path}: {name} holds bytes that are neither true nor false. The shard is damaged.")
        return array

    def _read_header(self, limit: int) -> bytes:
        file, size = disk.open_regular(self.path)
        with file:
            if size != self._stamp.bytes:
                raise TraceError(
                    f"{self.path} was altered since it was written: it has {size:,} bytes instead of "
                    f"{self._stamp.bytes:,}. Copy the trace again, or record it again."
                )
            length = int.from_bytes(file.read(8), "little")
            if length > min(limit, size - 8):
                raise TraceError(
                    f"{self.path}: a header of {length:,} bytes; at most {limit:,} fit these layers. The shard is "
                    "damaged or of another run."
                )
            text = file.read(length)
        if len(text) != length or hashlib.sha256(text).hexdigest() != self._stamp.header_sha256:
            raise _altered(self.path, "its header")
        return text


def _altered(path: Path, what: str) -> TraceError:
    return TraceError(
        f"{path} was altered since it was written ({what} does not match its checksum). "
        "Copy the trace again, or record it again."
    )


def _checksum(array: Array) -> str:
    return f"crc32:{zlib.crc32(array.data.cast('B')):08x}"


def _check(header: object, expected: Mapping[str, Spec], where: str) -> dict[str, tuple[Spec, int, int]]:
    """Place of every tensor: name -> (dtype and shape, first byte, end)."""
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
        raise TraceError(f"{where}: its header lists no checksums, so moeprobe did not write it.")
    checksums = header["__metadata__"]
    entries = {name: _entry(name, value, expected, where) for name, value in header.items() if name != "__metadata__"}
    missing = sorted(name for name, spec in expected.items() if not spec.optional and name not in entries)
    if missing:
        raise TraceError(f"{where}: {missing[0]} is missing. The shard is damaged or of another run.")
    if set(checksums) != set(entries) or not all(isinstance(value, str) for value in checksums.values()):
        raise TraceError(f"{where}: its checksums are not those of its columns. The shard is damaged.")
    place = 0
    for name, (_, start, end) in sorted(entries.items(), key=lambda item: (item[1][1], item[1][2])):
        if start != place:
            raise TraceError(
                f"{where}: {name} begins at byte {start}, expected {place}: columns overlap or leave gaps."
            )
        place = end
    return entries


def _entry(name: str, value: object, expected: Mapping[str, Spec], where: str) -> tuple[Spec, int, int]:
    wanted = expected.get(name)
    if wanted is None:
        raise TraceError(f"{where}: unknown column {name[:100]!r}. The shard is of another run or version.")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise TraceError(f"{where}: {name} is not described by dtype, shape and data_offsets.")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if dtype not in wanted.dtypes or shape != list(wanted.shape):
        raise TraceError(
            f"{where}: {name} is {str(dtype)[:20]} {str(shape)[:60]}, expected {'/'.join(wanted.dtypes)} "
            f"{list(wanted.shape)}."
        )
    plain = isinstance(offsets, list) and len(offsets) == 2 and all(type(offset) is int for offset in offsets)
    size = math.prod(wanted.shape) * _DTYPES[dtype].itemsize
    if not plain or offsets[0] < 0 or offsets[1] - offsets[0] != size:
        raise TraceError(f"{where}: {name} has offsets {str(offsets)[:60]}, expected {size} bytes.")
    return Spec((dtype,), wanted.shape), offsets[0], offsets[1]
