"""Mutated traces: no error but MoeprobeError, no file outside the folder, memory within the bound, no damage unseen."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).with_name("mutations.py")
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited as Linux does")


def mutate(folder: Path, count: int, seed: int, *fault: str) -> dict[str, Any]:
    command = [sys.executable, str(CHILD), str(folder), str(count), str(seed), *fault]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


def test_a_sample_of_mutations(tmp_path: Path) -> None:
    found = mutate(tmp_path, 400, 1)
    assert found["wrong"] == []
    assert found["refused"] > 300


@pytest.mark.slow
def test_ten_thousand_mutations(tmp_path: Path) -> None:
    found = mutate(tmp_path, 10_000, 2)
    print(found)
    assert found["wrong"] == []
    assert found["refused"] > 7_000


@pytest.mark.parametrize("fault", ["ranges", "checksums", "links", "memory"])
def test_a_planted_fault_is_found(tmp_path: Path, fault: str) -> None:
    assert mutate(tmp_path, 150, 1, fault)["failures"]
