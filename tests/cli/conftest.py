"""The command line, called as a user calls it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moeprobe.cli.main import main
from moeprobe.trace import Trace

# Arguments of the command -> (exit status, standard output, standard error).
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()  # what a test's preparation printed (progress bars of transformers) is not the command's
        monkeypatch.setattr(sys, "argv", ["moeprobe", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


@pytest.fixture(scope="module")
def findings(compiled_trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from moeprobe.correlate import correlate
    from moeprobe.correlate.document import findings_of

    path = tmp_path_factory.mktemp("findings") / "f.json"
    answer = correlate(compiled_trace, by="label", positive="triggered")
    findings_of(compiled_trace, [answer], beside=path).write(path)
    return path


@pytest.fixture
def own_findings(findings: Path, compiled_trace: Trace, tmp_path: Path) -> Path:
    body = json.loads(findings.read_text())
    body["trace"]["path"] = str(compiled_trace.path)
    (tmp_path / "f.json").write_text(json.dumps(body))
    return tmp_path / "f.json"


SORRY = """
from moeprobe.probes import Example, Reading


class Sorry:
    name = "sorry"
    version = "1"
    level = "generation"
    definition = "Says sorry."

    def examples(self):
        return [Example("sorry", 1), Example("fine", 0)]

    def read(self, passage):
        return Reading(1.0 if "sorry" in passage.text else 0.0)
"""


@pytest.fixture
def sorry(tmp_path: Path) -> Path:
    """A probe of one's own that fits the compiled model's answers."""
    path = tmp_path / "sorry.py"
    path.write_text(SORRY)
    return path
