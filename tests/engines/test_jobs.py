"""How much room a trace may still take."""

from collections import namedtuple
from pathlib import Path

import pytest

from moeprobe.engines import jobs as jobs_module
from moeprobe.engines.decoding import Decoding
from moeprobe.engines.jobs import check_disk, make_jobs, size_of
from moeprobe.errors import OutputError
from moeprobe.models import LoadedModel
from moeprobe.prompts import Prompt


def test_a_resumed_run_needs_room_for_the_rest_only(
    compiled: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Prompts of different lengths: the share of the first generations is not their number over all.
    prompts = [Prompt("a", prompt="question " * 40), Prompt("b", prompt="question")]
    decoding = Decoding(max_new_tokens=4)
    jobs = make_jobs(compiled, prompts, decoding)
    size = size_of(compiled, ["L2", "L3"], jobs, decoding, ())
    first, second = (len(job.ids) + 4 for job in jobs)
    assert first > 3 * second
    assert size.tokens == first + second
    assert [size.worst_after(done) for done in (0, 1, 2)] == [
        size.worst,
        size.worst // (first + second) * second,
        0,
    ]
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(
        jobs_module.shutil, "disk_usage", lambda _: usage(10**9, 0, size.worst // (first + second) * second)
    )
    check_disk(tmp_path / "a", size, 1)
    check_disk(tmp_path / "a", size, done=2)
    with pytest.raises(OutputError, match="The trace may take"):
        check_disk(tmp_path / "a", size)
    monkeypatch.setattr(jobs_module.shutil, "disk_usage", lambda _: usage(10**9, 0, 1))
    with pytest.raises(OutputError, match="The rest of the trace, after 1 generations, may take"):
        check_disk(tmp_path / "a", size, 1)
    check_disk(tmp_path / "a", size, 2)
