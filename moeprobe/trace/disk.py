"""Every system call that reads or changes a trace on disk, in one place.

The writer goes through this module only, so that a test can stop it at each call as a kill or a power cut would.
"""

import io
import os
import shutil
import stat
from pathlib import Path

from moeprobe.errors import OutputError, TraceError
from moeprobe.files import sync_folder as _sync_folder

try:
    import fcntl
except ImportError:  # Windows: two runs into one folder are then not told apart
    fcntl = None  # type: ignore[assignment]  # a module or nothing


def make_folder(path: Path) -> None:
    path.mkdir()


def create(path: Path) -> int:
    """A new file; fails when anything stands there, a link included."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def open_to_append(path: Path) -> int:
    """An existing or new file, written at its end. A link is refused."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o666)


def write(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`; the system may take it in several pieces."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync(descriptor: int) -> None:
    os.fsync(descriptor)


def close(descriptor: int) -> None:
    os.close(descriptor)


def cut(path: Path, size: int) -> None:
    """Shorten a file to `size` bytes, on disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(old: Path, new: Path) -> None:
    """Rename; a file that stands under the new name is replaced in one step."""
    old.rename(new)


def sync_folder(path: Path) -> None:
    _sync_folder(path)


def remove(path: Path) -> None:
    path.unlink()


def remove_tree(path: Path) -> None:
    shutil.rmtree(path)


def replace(path: Path, data: bytes) -> None:
    """Put `data` under `path` in one step: a kill leaves the old content or the new, never half."""
    temporary = path.with_name(f".{path.name}.tmp")
    if temporary.is_symlink() or temporary.exists():
        remove(temporary)
    descriptor = create(temporary)
    try:
        write(descriptor, data)
        sync(descriptor)
    finally:
        close(descriptor)
    rename(temporary, path)
    sync_folder(path.parent)


def lock(descriptor: int, path: Path) -> None:
    """Hold a file until the process ends or closes it.

    Raises:
        OutputError: another process holds it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        raise OutputError(f"Another moeprobe is writing {path.parent} now. Wait for it, or choose another name.") from (
            problem
        )


def open_regular(path: Path, *, limit: int | None = None) -> tuple[io.FileIO, int]:
    """Open a file of a trace for reading.

    Args:
        path: the file. Neither it nor the folder it lies in beneath the trace may be a link: a trace from elsewhere
            must not make us read other files of this machine. A pipe or device is refused as well.
        limit: most bytes it may have.

    Returns:
        The open file, unbuffered, and its size in bytes.

    Raises:
        TraceError: missing, no plain file, or too large.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        if path.is_symlink() or (path.parent.name == "shards" and path.parent.is_symlink()):
            raise TraceError(
                f"{path} is reached through a link; a trace holds plain files. Copy the file to its place."
            )
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise TraceError(f"{path} is missing or cannot be read ({reason}). Copy the trace again.") from problem
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise TraceError(f"{path} is no plain file. Copy the trace again.")
    if limit is not None and status.st_size > limit:
        os.close(descriptor)
        raise TraceError(f"{path} has {status.st_size:,} bytes, more than the {limit:,} such a file may have.")
    return io.FileIO(descriptor, "rb"), status.st_size


def read_small(path: Path, limit: int) -> bytes:
    """All of a file of at most `limit` bytes.

    Raises:
        TraceError: as `open_regular`.
    """
    file, size = open_regular(path, limit=limit)
    with file:
        return file.read(size)
