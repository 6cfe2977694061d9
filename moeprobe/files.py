"""Writing files so that a final name never holds half of one."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from moeprobe.errors import OutputError


def check_output(path: Path, *, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Check an output before any work is done for it.

    Args:
        path: where the result will be written.
        force: the user said --force.
        inputs: files that are read; the output must not be one of them.

    Raises:
        OutputError: `path` exists and not `force`, it is an input, or its folder does not exist or cannot be written.
    """
    try:
        folder = path.resolve().parent
        if not folder.is_dir():
            raise OutputError(f"There is no folder {path.parent} to write {path.name} into. Make it first.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"The folder {folder} cannot be written to. Choose another place.")
        if any(path.resolve() == source.resolve() for source in inputs):
            raise OutputError(f"{path} is what is being read, so it cannot be the output. Choose another name.")
        exists = path.exists() or path.is_symlink()
    except OSError as error:
        raise OutputError(f"Cannot write to {str(path)[:200]}: {error.strerror or error}.") from error
    if exists and not force:
        raise OutputError(f"{path} exists already. Choose another name, or add --force to replace it.")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 under a temporary name, flush it to disk, then rename it to `path`.

    Raises:
        OutputError: the folder is missing, not writable, or the disk is full. Nothing is left under `path` then,
            and what stood there before still stands.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success rename it to `path`, on any failure remove it.

    Raises:
        OutputError: in place of an OSError, naming `path`.
    """
    path = path.resolve()  # a link goes on pointing at the file, which gets the new content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"Could not write {path}: {error.strerror or error}. Nothing was changed there.") from error
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename survives a power cut. Does nothing where the system can't."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
