"""Zip archives that lie: what a stranger's file unpacks to is measured, not believed."""

import struct
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from moeprobe.designs import archives
from moeprobe.designs.archives import rewritten
from moeprobe.errors import LabelError

BIG = 64 << 20  # of zeros: 64 KiB when packed


def packed(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, body in entries.items():
            archive.writestr(name, body)
    return path


def patched(path: Path, change: Callable[[bytearray, int, int], None]) -> Path:
    """The archive with its first entry's own header (at the first number) and directory record (the second) changed."""
    data = bytearray(path.read_bytes())
    change(data, data.find(b"PK\x03\x04"), data.find(b"PK\x01\x02"))
    path.write_bytes(data)
    return path


def claims(size: int, check: int) -> Callable[[bytearray, int, int], None]:
    """That the first entry unpacks to `size` bytes with this CRC-32, in both places."""

    def change(data: bytearray, header: int, record: int) -> None:
        for place in (header + 14, record + 16):
            struct.pack_into("<I", data, place, check)
            struct.pack_into("<I", data, place + 8, size)

    return change


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "new").mkdir()
    return tmp_path / "new"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_honest_archive_keeps_every_byte(tmp_path: Path, folder: Path, method: int) -> None:
    noise = bytes(range(256)) * 3000  # several steps
    bodies = {"header.json": b"{}", "samples/é.json": noise, "empty": b"", "zeros": bytes(1 << 20)}
    new = rewritten(packed(tmp_path / "a.eval", bodies, method), folder)
    assert new == folder / "a.eval"
    with zipfile.ZipFile(new) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == bodies
        assert archive.testzip() is None


def refused_in_little_memory(lying: Path, folder: Path) -> None:
    tracemalloc.start()
    with pytest.raises(LabelError, match="'a' unpacks to more than the 10 bytes that the zip's directory says"):
        rewritten(lying, folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_directory_that_lies_about_sizes(tmp_path: Path, folder: Path) -> None:
    """It says 10 bytes, and the check sum of 10 bytes; a reader that trusts no size unpacks 64 MiB."""
    lying = patched(packed(tmp_path / "a.eval", {"a": bytes(BIG), "b": b"b"}), claims(10, zlib.crc32(bytes(10))))
    with zipfile.ZipFile(lying) as archive:
        assert archive.infolist()[0].file_size == 10
        assert archive.read("a") == bytes(10)  # the standard library believes it and sees nothing wrong
    refused_in_little_memory(lying, folder)
    with pytest.raises(LabelError, match="'a' is damaged: it is not what the zip's directory says"):
        rewritten(patched(packed(tmp_path / "a.eval", {"a": b"abc"}), claims(4, zlib.crc32(b"abc"))), folder)
    with pytest.raises(LabelError, match="'a' is damaged"):
        rewritten(patched(packed(tmp_path / "a.eval", {"a": b"abc"}), claims(3, zlib.crc32(b"abd"))), folder)


def test_what_it_admits_is_believed(tmp_path: Path, folder: Path) -> None:
    admits = patched(packed(tmp_path / "a.eval", {"a": b"a"}), claims((256 << 20) + (1 << 20), 0))
    with pytest.raises(LabelError, match="holds 257 MiB when unpacked; at most 256 MiB are read. Split the log"):
        rewritten(admits, folder)


def test_too_many_entries_are_refused_before_the_directory_is_read(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = packed(tmp_path / "a.eval", {str(number): b"" for number in range(40)})
    monkeypatch.setattr(archives, "MAX_ENTRIES", 40)
    assert rewritten(many, folder).exists()
    monkeypatch.setattr(archives, "MAX_ENTRIES", 39)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(LabelError, match="holds 40 files; at most 39 are read"):
        rewritten(many, folder)


def test_entries_that_lie_in_each_other(tmp_path: Path, folder: Path) -> None:
    """Many records of the directory may point to one packed body, and each is cheap."""
    first = packed(tmp_path / "a.eval", {"a": bytes(range(256)) * 99, "b": b""}, zipfile.ZIP_STORED)

    def change(data: bytearray, header: int, record: int) -> None:
        other = data.find(b"PK\x01\x02", record + 1)
        data[other + 16 : other + 28] = data[record + 16 : record + 28]  # its check sum and sizes
        struct.pack_into("<I", data, other + 42, header)

    with pytest.raises(LabelError, match="its entries lie in each other"):
        rewritten(patched(first, change), folder)


def test_only_what_was_measured_is_handed_on(tmp_path: Path, folder: Path) -> None:
    """A second archive in front, which another reader may find first, and an entry that nobody lists, are gone."""
    hidden = packed(tmp_path / "hidden", {"header.json": b"hidden"}).read_bytes()
    path = packed(tmp_path / "a.eval", {"header.json": b"shown"})
    path.write_bytes(hidden + path.read_bytes())
    new = rewritten(path, folder)
    assert b"hidden" not in new.read_bytes()
    assert zipfile.ZipFile(new).read("header.json") == b"shown"


def test_an_archive_that_is_damaged(tmp_path: Path, folder: Path) -> None:
    def unknown(data: bytearray, header: int, record: int) -> None:
        struct.pack_into("<H", data, record + 10, 12)

    def elsewhere(data: bytearray, header: int, record: int) -> None:
        struct.pack_into("<I", data, record + 42, 3)

    for change, told in ((unknown, "packed in a way .number 12."), (elsewhere, "does not begin where")):
        with pytest.raises(LabelError, match=told):
            rewritten(patched(packed(tmp_path / "a.eval", {"a": b"abc" * 99}), change), folder)
    (tmp_path / "no.eval").write_bytes(b"PK\x03\x04")
    with pytest.raises(zipfile.BadZipFile):
        rewritten(tmp_path / "no.eval", folder)


def zstandard_archive(path: Path, size: int, said: int) -> Path:
    """One entry of zeros, packed as inspect_ai packs its logs; the directory says `said` bytes."""
    library = pytest.importorskip("zstandard")
    body = b"".join(
        library.ZstdCompressor().compress(bytes(part)) for part in (size // 3, size - size // 3)
    )  # 2 frames
    packed(path, {"a": body}, zipfile.ZIP_STORED)

    def change(data: bytearray, header: int, record: int) -> None:
        claims(said, zlib.crc32(bytes(said)))(data, header, record)
        struct.pack_into("<H", data, header + 8, 93)
        struct.pack_into("<H", data, record + 10, 93)

    return patched(path, change)


def test_zstandard(tmp_path: Path, folder: Path) -> None:
    assert zipfile.ZipFile(rewritten(zstandard_archive(tmp_path / "a.eval", 999, 999), folder)).read("a") == bytes(999)
    lying = zstandard_archive(tmp_path / "b.eval", BIG, 10)
    assert lying.stat().st_size < 1 << 14
    refused_in_little_memory(lying, folder)


def test_without_zstandard_the_extra_is_named(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(data: bytearray, header: int, record: int) -> None:
        struct.pack_into("<H", data, record + 10, 93)

    path = patched(packed(tmp_path / "a.eval", {"a": b"a"}), change)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(LabelError, match=r"packed with zstandard.*pip install 'moeprobe\[inspect\]'"):
        rewritten(path, folder)
