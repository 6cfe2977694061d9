"""A disk that stops at a chosen system call, as a kill does, and may then forget what was not flushed: a power cut.

It takes the place of the functions of `moeprobe.trace.disk`. From the kill on no call reaches the disk, so that no
handler of the dying program can tidy up, which a killed one cannot either.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from moeprobe.trace import disk

CHANGES = (
    "make_folder",
    "create",
    "open_to_append",
    "write",
    "sync",
    "cut",
    "rename",
    "sync_folder",
    "remove",
    "remove_tree",
)


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Disk:
    """Counts calls and stops at one of them.

    Args:
        stop: number of the call to stop at, from 0; None: never.
        torn: None: the call is not made; else the share of it that is done (of a write: of its bytes).
        power: seed of a power cut; None: only the process dies, the system keeps what it was given.
    """

    stop: int | None = None
    torn: float | None = None
    power: int | None = None
    calls: int = 0
    dead: bool = False
    paths: dict[int, Path] = field(default_factory=dict)  # by file descriptor
    flushed: dict[Path, int] = field(default_factory=dict)  # bytes that a power cut leaves
    pending: list[tuple[Path, Callable[[], Any]]] = field(default_factory=list)  # folder, how to undo

    def call(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
        if self.dead:
            raise Killed
        if self.calls == self.stop:
            self.dead = True
            self._part(name, real, *args)
            raise Killed
        self.calls += 1
        return getattr(self, f"_{name}", lambda real, *args: real(*args))(real, *args)

    def _part(self, name: str, real: Callable[..., Any], *args: Any) -> None:
        """What the last call still did."""
        if self.torn is None:
            return
        if name == "write":
            data = memoryview(args[1])
            self._write(real, args[0], data[: int(len(data) * self.torn)])
        elif name == "remove_tree":
            entries = sorted(path for path in Path(args[0]).rglob("*") if path.is_file())
            for entry in entries[: int(len(entries) * self.torn)]:
                entry.unlink()
        elif self.torn >= 1:
            getattr(self, f"_{name}", lambda real, *args: real(*args))(real, *args)

    def _create(self, real: Callable[..., Any], path: Path) -> int:
        descriptor: int = real(path)
        self.paths[descriptor] = path
        self.flushed[path] = 0
        self.pending.append((path.parent, lambda: path.unlink(missing_ok=True)))
        return descriptor

    def _open_to_append(self, real: Callable[..., Any], path: Path) -> int:
        there = path.exists()
        descriptor: int = real(path)
        self.paths[descriptor] = path
        self.flushed.setdefault(path, path.stat().st_size if there else 0)
        if not there:
            self.pending.append((path.parent, lambda: path.unlink(missing_ok=True)))
        return descriptor

    def _write(self, real: Callable[..., Any], descriptor: int, data: Any) -> None:
        real(descriptor, data)

    def _sync(self, real: Callable[..., Any], descriptor: int) -> None:
        del real  # the tests need no real flush
        self.flushed[self.paths[descriptor]] = os.fstat(descriptor).st_size

    def _make_folder(self, real: Callable[..., Any], path: Path) -> None:
        real(path)
        self.pending.append((path.parent, lambda: shutil.rmtree(path, ignore_errors=True)))

    def _rename(self, real: Callable[..., Any], old: Path, new: Path) -> None:
        before = new.read_bytes() if new.is_file() else None
        real(old, new)

        def undo() -> None:
            if new.exists():
                new.rename(old)
            if before is not None:
                new.write_bytes(before)

        self.pending.append((new.parent, undo))
        moved = {path: size for path, size in self.flushed.items() if path == old or old in path.parents}
        for path, size in moved.items():
            del self.flushed[path]
            self.flushed[new / path.relative_to(old)] = size

    def _sync_folder(self, real: Callable[..., Any], path: Path) -> None:
        del real
        self.pending = [one for one in self.pending if one[0] != path]

    def _remove(self, real: Callable[..., Any], path: Path) -> None:
        before = path.read_bytes()
        real(path)
        self.flushed.pop(path, None)
        self.pending.append((path.parent, lambda: path.write_bytes(before)))

    def lose(self) -> None:
        """The power cut: cut every file to somewhere between what was flushed and what was written, and undo the latest
        changes of folders that were not flushed, from a random one on."""
        if self.power is None:
            return
        rng = random.Random(self.power)
        for path, size in self.flushed.items():
            if path.is_file() and path.stat().st_size > size:
                kept = rng.choice([size, size, rng.randint(size, path.stat().st_size)])
                os.truncate(path, kept)
        for _, undo in reversed(self.pending[rng.randint(0, len(self.pending)) :]):
            with suppress(FileNotFoundError):  # it lay in a folder whose own name came or went
                undo()


@contextmanager
def dying(stop: int | None = None, torn: float | None = None, power: int | None = None) -> Iterator[Disk]:
    """Run the block on such a disk; it may end with `Killed`."""
    made = Disk(stop, torn, power)
    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            real = getattr(disk, name)
            patch.setattr(disk, name, lambda *args, name=name, real=real: made.call(name, real, *args))
        with suppress(Killed):
            yield made
    made.lose()
