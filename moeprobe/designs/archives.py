"""Zip archives of strangers, written anew: a reader is then given what was unpacked here, within bounds, and no more.

A zip's directory says how large its entries are, and not every reader holds it to that: what unpacks without a bound
can be filled by a file of a few kilobytes. Readers may also differ in which directory they find. So nothing of the
original is handed on but the content.
"""

import importlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from moeprobe.errors import LabelError
from moeprobe.fields import MAX_JSON_BYTES

MAX_ENTRIES = 100_000
_CHUNK = 1 << 16
_STORED, _DEFLATED, _ZSTANDARD = 0, 8, 93
_HEADER, _IN_DIRECTORY = b"PK\x03\x04", b"PK\x01\x02"
_FIXED = 30  # bytes of an entry's own header before its name


def rewritten(path: Path, folder: Path) -> Path:
    """Unpack an archive in small steps and write it into `folder`, under its name, uncompressed.

    Raises:
        LabelError: more than MAX_ENTRIES entries or MAX_JSON_BYTES; an entry that is longer or shorter than the
            directory says, is damaged, lies in another, or is packed in an unknown way.
        zipfile.BadZipFile: no zip.
    """
    _count_entries(path)
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        size = sum(one.file_size for one in entries)
        if size > MAX_JSON_BYTES:
            raise LabelError(
                f"{path} holds {size >> 20} MiB when unpacked; at most {MAX_JSON_BYTES >> 20} MiB are read. Split the "
                "log."
            )
        if sum(one.compress_size for one in entries) > path.stat().st_size:
            raise LabelError(f"{path} is no sound zip: its entries lie in each other. Make the file anew.")
        with zipfile.ZipFile(folder / path.name, "w") as copy:
            # Where two have one name, the later one counts.
            for entry in {one.filename: one for one in entries}.values():
                with copy.open(zipfile.ZipInfo(entry.filename), "w") as target:
                    for part in _content(file, entry, path):
                        target.write(part)
    return folder / path.name


def _count_entries(path: Path) -> None:
    """Before the directory is read, which takes far more memory than disk."""
    found, kept = 0, b""
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            found += (kept + part).count(_IN_DIRECTORY)
            kept = part[-len(_IN_DIRECTORY) + 1 :]
    if found > MAX_ENTRIES:
        raise LabelError(f"{path} holds {found} files; at most {MAX_ENTRIES} are read. Split the log.")


def _content(file: BinaryIO, entry: zipfile.ZipInfo, path: Path) -> Iterator[bytes]:
    """The bytes of one entry, no more than the directory says."""
    size, check = 0, 0
    for part in _unpacked(_Packed(file, entry, path), entry.compress_type, f"{path}: {entry.filename!r}"):
        size, check = size + len(part), zlib.crc32(part, check)
        if size > entry.file_size:
            raise LabelError(
                f"{path}: {entry.filename!r} unpacks to more than the {entry.file_size} bytes that the zip's directory "
                "says. Such a file can fill the memory; it is not read."
            )
        yield part
    if size != entry.file_size or check != entry.CRC:
        raise LabelError(f"{path}: {entry.filename!r} is damaged: it is not what the zip's directory says.")


class _Packed:
    """The packed bytes of one entry, as a file to read from."""

    def __init__(self, file: BinaryIO, entry: zipfile.ZipInfo, path: Path) -> None:
        file.seek(entry.header_offset)
        header = file.read(_FIXED)
        if len(header) < _FIXED or not header.startswith(_HEADER):
            raise LabelError(
                f"{path}: {entry.filename!r} is damaged: it does not begin where the zip's directory says."
            )
        file.seek(sum(struct.unpack_from("<HH", header, _FIXED - 4)), 1)  # its name and extra field
        self.file, self.left = file, entry.compress_size

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the entry's end."""
        part = self.file.read(min(size, self.left))
        self.left -= len(part)
        return part


def _unpacked(packed: _Packed, method: int, where: str) -> Iterator[bytes]:
    """Pieces of at most _CHUNK bytes, each unpacked when it is asked for."""
    if method == _DEFLATED:
        tool = zlib.decompressobj(-zlib.MAX_WBITS)
        while not tool.eof and (part := tool.unconsumed_tail or packed.read(_CHUNK)):
            yield tool.decompress(part, _CHUNK)
        while part := tool.decompress(b"", _CHUNK):
            yield part
    elif method in (_STORED, _ZSTANDARD):
        source = packed if method == _STORED else _zstandard(packed, where)
        while part := source.read(_CHUNK):
            yield part
    else:
        raise LabelError(f"{where} is packed in a way (number {method}) that is not read here.")


def _zstandard(packed: _Packed, where: str) -> BinaryIO:
    try:
        library = importlib.import_module("zstandard")  # inspect_ai brings it
    except ImportError as error:
        raise LabelError(
            f"{where} is packed with zstandard, as inspect_ai packs its logs: pip install 'moeprobe[inspect]'."
        ) from error
    reader: BinaryIO = library.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
    return reader
