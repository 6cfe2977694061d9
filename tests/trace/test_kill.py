"""A kill at any system call: nothing that reads as complete is not, and every run goes on to what it would have been.

`make test-slow` tries all calls; the normal suite a sample of them.
"""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from killing import Disk, Killed, dying
from store_samples import batch, contents, make, manifest

from moeprobe.errors import MoeprobeError, TraceError
from moeprobe.trace import Trace, TraceWriter, load_trace, validate, writer
from moeprobe.trace.journal import Journal

BATCHES = 3
# How the last call ends, and what the machine forgets: (share of the call that is done, seed of a power cut).
ENDS = [(None, None), (0.0, None), (0.4, None), (1.0, None), (None, 1), (0.4, 2), (1.0, 3), (1.0, 4)]


def run(path: Path, *, force: bool = False, resume: bool = False) -> None:
    with TraceWriter(path, force=force, resume=resume) as made:
        base = made.continue_as(manifest())
        for number in range(made.batches, BATCHES):
            made.add(*batch(2 * number, 2), base)
        made.finish()


def fresh(path: Path) -> None:
    del path


def interrupted(path: Path) -> None:
    with dying(60):
        run(path)
    assert path.with_name("a.trace.partial").exists()


def old(path: Path) -> None:
    make(path, 1, seed=9)


def old_and_interrupted(path: Path) -> None:
    old(path)
    with dying(60):
        run(path, force=True)


SCENES: dict[str, tuple[Callable[[Path], None], dict[str, bool]]] = {
    "fresh": (fresh, {}),
    "resumed": (interrupted, {"resume": True}),
    "replacing": (old, {"force": True}),
    "starting over": (old_and_interrupted, {"force": True}),
}


class Store:
    """What may be read after a kill."""

    def __init__(self, folder: Path) -> None:
        self.whole = contents(make(folder / "whole.trace", BATCHES))
        self.old = contents(make(folder / "old.trace", 1, seed=9))

    def check(self, path: Path) -> None:
        """Raises AssertionError where a trace lies, or where the run cannot go on."""
        if path.exists():
            assert self.valid(path) in (self.whole, self.old)
        partial = path.with_name(path.name + ".partial")
        if partial.exists():
            self.check_partial(partial)
        if path.exists() and contents(load_trace(path)) != self.whole:
            shutil.rmtree(path)
        if not path.exists():
            run(path, resume=True)
        assert self.valid(path) == self.whole
        assert not path.with_name(path.name + ".partial").exists()

    def check_partial(self, partial: Path) -> None:
        """What was interrupted is a beginning of the run, whole batches only, and never passes for complete."""
        if validate(partial).valid:
            assert contents(load_trace(partial)) == self.whole
            return
        assert not complete(partial), f"reads as complete, but is not: {validate(partial).problems}"
        try:
            begun = load_trace(partial, incomplete=True)
        except TraceError:
            assert not (partial / "run.json").exists()
            return
        begun.verify()
        found = contents(begun)
        assert found["generations"] == self.whole["generations"][: len(found["generations"])]
        for name, values in found["arrays"].items():
            assert values == self.whole["arrays"][name][: len(values)]

    @staticmethod
    def valid(path: Path) -> dict[str, Any]:
        try:
            trace: Trace = load_trace(path)
            trace.verify()
        except MoeprobeError as problem:
            raise AssertionError(f"a trace with its final name is not whole: {problem}") from problem
        return contents(trace)


def complete(path: Path) -> bool:
    """Whether it opens without being asked for an interrupted run."""
    try:
        load_trace(path)
    except TraceError:
        return False
    return True


def calls(path: Path, scene: str) -> int:
    """How many system calls the run makes."""
    prepare, options = SCENES[scene]
    prepare(path)
    with dying() as disk:
        run(path, **options)
    return disk.calls


def kill(path: Path, scene: str, stop: int, end: tuple[float | None, int | None]) -> Disk:
    prepare, options = SCENES[scene]
    prepare(path)
    with dying(stop, *end) as disk:
        run(path, **options)
    assert disk.dead
    return disk


def points(folder: Path, every: int) -> Iterator[tuple[str, int, tuple[float | None, int | None]]]:
    """All kill points, or each `every`-th."""
    scenes = [[(scene, stop) for stop in range(calls(folder / scene / "a.trace", scene))] for scene in SCENES
              if (folder / scene).mkdir() is None]  # fmt: skip
    for number, (place, end) in enumerate(itertools.product(itertools.chain(*scenes), ENDS)):
        if number % every == 0:
            yield *place, end


def attack(folder: Path, every: int, *, first: bool = False) -> tuple[int, list[str]]:
    """Kill at many points, or (`first`) until something goes wrong. Returns how many, and what went wrong."""
    wrong: list[str] = []
    place = folder / "killed" / "a.trace"
    with pytest.MonkeyPatch.context() as patch:
        # The harness keeps account of what is flushed; flushing for real would take most of the time.
        patch.setattr(writer.disk, "sync", lambda descriptor: None)
        patch.setattr(writer.disk, "sync_folder", lambda path: None)
        store = Store(folder)
        tried = list(points(folder, every))
        for scene, stop, end in tried:
            place.parent.mkdir()
            kill(place, scene, stop, end)
            try:
                store.check(place)
            except (AssertionError, MoeprobeError, OSError) as problem:
                wrong.append(f"{scene}, call {stop}, {end}: {type(problem).__name__} {problem}"[:600])
            shutil.rmtree(place.parent)
            if wrong and first:
                break
    return len(tried), wrong


def test_a_sample_of_kill_points(tmp_path: Path) -> None:
    count, wrong = attack(tmp_path, every=37)
    assert wrong == []
    assert count > 60


@pytest.mark.slow
def test_every_kill_point(tmp_path: Path) -> None:
    count, wrong = attack(tmp_path, every=1)
    print(f"{count} kill points")
    assert wrong == []
    assert count >= 1000


def index_first(patch: pytest.MonkeyPatch) -> None:
    """The index speaks of a batch whose generations are not written yet."""
    append = Journal.append

    def planted(self: Journal, texts: Any, infos: Any) -> None:
        self._text, self._index = self._index, self._text  # the two writes in the wrong order
        names = self._text, self._index
        held: list[tuple[int, bytes]] = []
        with pytest.MonkeyPatch.context() as inner:
            real, sync = writer.disk.write, writer.disk.sync
            inner.setattr(writer.disk, "write", lambda descriptor, data: held.append((descriptor, bytes(data))))
            inner.setattr(writer.disk, "sync", lambda descriptor: None)
            append(self, texts, infos)
        self._text, self._index = names[1], names[0]
        (_, text), (_, lines) = held
        for descriptor, data in ((self._index, lines), (self._text, text)):
            real(descriptor, data)
            sync(descriptor)

    patch.setattr(Journal, "append", planted)


def never_flushed(patch: pytest.MonkeyPatch) -> None:
    """A shard is not flushed before its line is."""
    write = writer.write_tensors

    def planted(path: Path, tensors: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(writer.disk, "sync", lambda descriptor: None)
            return write(path, tensors)

    patch.setattr(writer, "write_tensors", planted)


def named_too_early(patch: pytest.MonkeyPatch) -> None:
    """The folder gets its final name before the manifest says complete."""

    def planted(self: TraceWriter) -> Path:
        assert self._header is not None
        if self.path.exists():
            writer.disk.remove_tree(self.path)
        writer.disk.rename(self.partial, self.path)
        self._header = self._journal.completed(self._header)
        writer.disk.replace(self.path / "run.json", self._header.to_json().encode("ascii"))
        self._journal.close()
        return self.path

    patch.setattr(TraceWriter, "finish", planted)


def written_in_place(patch: pytest.MonkeyPatch) -> None:
    """The manifest is overwritten where it stands."""

    def planted(path: Path, data: bytes) -> None:
        if path.exists():
            writer.disk.remove(path)
        descriptor = writer.disk.create(path)
        writer.disk.write(descriptor, data)
        writer.disk.sync(descriptor)
        writer.disk.close(descriptor)

    patch.setattr(writer.disk, "replace", planted)


@pytest.mark.parametrize("fault", [index_first, never_flushed, named_too_early, written_in_place])
def test_a_planted_fault_is_found(tmp_path: Path, fault: Callable[[pytest.MonkeyPatch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        _, wrong = attack(tmp_path, every=7, first=True)
    assert wrong


def test_the_dying_disk_stops_and_forgets(tmp_path: Path) -> None:
    """The harness itself: nothing happens after the kill, and what was flushed stays."""
    with dying(5, None, 1) as disk:
        run(tmp_path / "a.trace")
    assert disk.dead
    with pytest.raises(Killed):
        disk.call("remove", Path.unlink, tmp_path)
    names = {path.name for path in tmp_path.rglob("*")}
    assert names <= {"a.trace.partial", "shards", "shards.jsonl", "generations.jsonl", "run.json", ".run.json.tmp"}
