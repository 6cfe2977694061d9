"""Writing a new probe from a template: a file that works, and its test."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from string import Template
from typing import Literal

from moeprobe.errors import OutputError, ProbeError
from moeprobe.probes.contract import is_name
from moeprobe.probes.listing import list_probes
from moeprobe.probes.probe import Level

Kind = Literal["class", "function"]
KINDS: tuple[Kind, ...] = ("class", "function")
_TEMPLATES = Path(__file__).parent / "templates"
# Level: what it means, which stretch the rule marks, and what that is in the test's text.
_LEVELS: dict[Level, tuple[str, str, str]] = {
    "token": (
        "single words are marked",
        "sentence.start + cue.start(), sentence.start + cue.end()",
        "amazing",
    ),
    "sentence": ("whole sentences are marked", "sentence.start, sentence.end", "The view was amazing!"),
    "generation": (
        "only the text as a whole is judged; spans show a reader why",
        "sentence.start, sentence.end",
        "The view was amazing!",
    ),
}


def new_probe(
    name: str, *, level: Level = "generation", kind: Kind = "class", path: Path | None = None
) -> tuple[Path, Path]:
    """Write a probe that works, and a test beside it; nothing is overwritten.

    Args:
        name: of the probe: lower-case words joined by hyphens.
        level: the finest piece that it will judge.
        kind: a class, or a function with `@probe`.
        path: of the file, ending in .py; by default the name with underscores, in the current folder.

    Returns:
        The probe's file and the test's.

    Raises:
        ProbeError: the name is none, or is taken.
        OutputError: one of the files exists or cannot be written.
    """
    _check_name(name)
    path = path or Path(f"{_module(name)}.py")
    if path.suffix != ".py":
        raise OutputError(f"{path}: a probe's file ends in .py.")
    test = path.with_name(f"test_{path.name}")
    for one in (path, test):
        if one.exists() or one.is_symlink():
            raise OutputError(f"{one} exists already and is not overwritten. Choose another name, or -o FILE.")
    words, mark, marked = _LEVELS[level]
    camel = "".join(word.capitalize() for word in name.split("-"))
    values = {
        "name": name, "level": level, "level_words": words, "mark": mark, "marked": marked,
        "class_name": f"{'P' if camel[0].isdigit() else ''}{camel}Probe",
        "function_name": f"judge_{name.replace('-', '_')}",
        "shown": _in_words(path), "shown_test": _in_words(test),
        "file_literal": json.dumps(path.name),
    }  # fmt: skip
    for one, template in ((path, kind), (test, "test")):
        text = Template((_TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")).substitute(values)
        try:
            with one.open("x", encoding="utf-8", newline="\n") as handle:
                handle.write(text)
        except OSError as error:
            raise OutputError(f"Could not write {one}: {error.strerror or error}.") from error
    return path, test


def _check_name(name: str) -> None:
    if not is_name(name):
        better = "-".join(re.findall(r"[a-z0-9]+", name.lower()))[:80].strip("-")
        advice = f" Try {better!r}." if better != name and is_name(better) else ""
        raise ProbeError(
            f"{name!r} cannot name a probe: use lower-case words joined by hyphens, and none of and, or, not, within, "
            f"thinking, answer.{advice}"
        )
    taken = [one for one in list_probes() if one.name == name]
    if taken:
        raise ProbeError(f"There is a probe {name!r} already ({taken[0].source}). Choose another name.")


def _module(name: str) -> str:
    """A file name that shadows no module where it lies beside a program: `re` becomes re_probe."""
    stem = name.replace("-", "_")
    spec = importlib.util.find_spec(stem) if stem.isidentifier() else None
    elsewhere = spec is not None and Path(spec.origin or "").parent.resolve() != Path.cwd()
    return f"{stem}_probe" if stem in sys.stdlib_module_names or elsewhere else stem


def _in_words(path: Path) -> str:
    """A path as it may stand inside a docstring; a placeholder where it holds what Python would read."""
    shown = path.as_posix()
    return shown if re.fullmatch(r"[\w./ -]{1,200}", shown) else "THIS_FILE.py"
