"""`probes new` writes what works: each level and kind is checked, and its test run, as a user would."""

import ast
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprobe.errors import MoeprobeError
from moeprobe.probes import check_probe_quality, load_probe
from moeprobe.probes.contract import is_name
from moeprobe.probes.new import KINDS, new_probe
from moeprobe.probes.probe import LEVELS
from moeprobe.probes.sources import read_facts


def test_every_template_works_and_passes_its_test(tmp_path: Path) -> None:
    for level, kind in product(LEVELS, KINDS):
        name = f"{level}-as-{kind}"
        path, test = new_probe(name, level=level, kind=kind, path=tmp_path / f"{level}_{kind}.py")  # type: ignore[arg-type]  # of LEVELS
        probe = load_probe(str(path))
        assert (probe.name, probe.level, probe.parameters) == (name, level, {"least": 1})
        quality = check_probe_quality(probe)
        assert (quality.examples, quality.mistakes, quality.abstentions) == (12, (), ())
        assert test.name == f"test_{path.name}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "24 passed" in done.stdout


def test_a_written_test_catches_a_broken_rule(tmp_path: Path) -> None:
    path, test = new_probe("mine", path=tmp_path / "mine.py")
    path.write_text(path.read_text().replace("if cue and not", "if not cue and not"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 1


WORD = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)


@settings(deadline=None)  # it writes files, and a busy disk is no mistake
@given(
    st.lists(WORD, min_size=1, max_size=6).map("-".join).filter(is_name)
    | st.sampled_from(["class", "2nd-person", "none", "re", "probe", "example", "0", "import", "x" * 80, "test"]),
    st.sampled_from(KINDS),
)
def test_every_valid_name_gives_valid_python(tmp_path_factory: pytest.TempPathFactory, name: str, kind: object) -> None:
    path, test = new_probe(name, kind=kind, path=tmp_path_factory.mktemp("new") / "p.py")  # type: ignore[arg-type]  # of KINDS
    ast.parse(test.read_text())
    assert read_facts(path.read_bytes(), "p.py").name == name
    assert load_probe(str(path)).name == name


@pytest.mark.parametrize("file", ['it\'s "mine".py', "two words.py", "täst.py", "a\\b.py", "new\nline.py", "x'''y.py"])
def test_hostile_file_names_stay_text(tmp_path: Path, file: str) -> None:
    path, test = new_probe("mine", path=tmp_path / file)
    ast.parse(path.read_text())
    literal = next(
        node.value for node in ast.walk(ast.parse(test.read_text()))
        if isinstance(node, ast.Constant) and str(node.value).endswith(".py")
    )  # fmt: skip
    assert literal == path.name
    assert load_probe(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("Second Person", "Try 'second-person'"),
        ("a_b", "Try 'a-b'"),
        ("", "cannot name a probe"),
        ("not", "none of and, or, not"),
        ("x" * 81, "cannot name a probe"),
        ("../../evil", "Try 'evil'"),
        ("refusal", "already (built-in)"),
    ],
)
def test_a_name_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MoeprobeError) as caught:
        new_probe(name)
    assert complaint in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for taken in ("mine.py", "test_mine.py"):
        (tmp_path / taken).write_text("kept")
        with pytest.raises(MoeprobeError, match=rf"^{taken} exists already"):
            new_probe("mine")
        assert [item.name for item in tmp_path.iterdir()] == [taken]
        (tmp_path / taken).unlink()
    with pytest.raises(MoeprobeError, match=r"ends in \.py"):
        new_probe("mine", path=Path("mine.txt"))
    with pytest.raises(MoeprobeError, match="Could not write"):
        new_probe("mine", path=Path("nowhere/mine.py"))


def test_a_file_never_shadows_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [new_probe(name)[0].name for name in ("json", "numpy", "second-person")] == [
        "json_probe.py", "numpy_probe.py", "second_person.py",
    ]  # fmt: skip
