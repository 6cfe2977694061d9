"""Atomic writing, sites and error texts."""

from pathlib import Path

import pytest

from moeprobe.errors import OutputError
from moeprobe.files import check_output, replacing, sha256, write_text


def test_write_text_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "one")
    write_text(path, "zwei\u00e4")
    assert path.read_text(encoding="utf-8") == "zwei\u00e4"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"No space left.*Nothing was changed"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"Could not write .*none"):
        write_text(tmp_path / "none" / "a.txt", "x")


def test_check_output(tmp_path: Path) -> None:
    check_output(tmp_path / "new", force=False)
    check_output(tmp_path, force=True)
    with pytest.raises(OutputError, match="--force"):
        check_output(tmp_path, force=False)
    with pytest.raises(OutputError, match="no folder .*none"):
        check_output(tmp_path / "none" / "x", force=True)


def test_an_input_is_no_output(tmp_path: Path) -> None:
    source = tmp_path / "findings.json"
    source.write_text("{}")
    (tmp_path / "link").symlink_to(source)
    for output in (source, tmp_path / "link", tmp_path / "x" / ".." / "findings.json"):
        with pytest.raises(OutputError, match="being read"):
            check_output(output, force=True, inputs=[source])


def test_names_no_file_system_takes(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Cannot write"):
        check_output(tmp_path / ("x" * 300), force=False)


def test_writing_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_sha256_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
