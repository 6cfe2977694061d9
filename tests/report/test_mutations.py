"""One field of a file at a time is something else: reading and showing it works, or ends in a sentence."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_samples
from report_results import COMMANDS

from moeprobe.errors import MoeprobeError
from moeprobe.findings import load_findings
from moeprobe.report import as_csv, render
from moeprobe.report.results import load_result

VALUES = (None, -7, 1e308, "x", [], {})
FINDINGS, RESULTS = 300, 50


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _places(value, (*path, key))


def _mutations(whole: Any, number: int) -> Iterator[tuple[str, Any]]:
    """Fields by the shape of their paths, so that thousands of rows do not outweigh what stands there once."""
    rng = random.Random(6)
    shapes: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for path in _places(whole):
        shapes.setdefault(tuple("#" if isinstance(key, int) else key for key in path), []).append(path)
    for shape in rng.choices(list(shapes), k=number):
        path, value = rng.choice(shapes[shape]), rng.choice(VALUES)
        changed = copy.deepcopy(whole)
        at = changed
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        yield f"{path} = {value!r}", changed


def _tracebacks(whole: Any, number: int, path: Path, show: Any) -> tuple[list[str], int]:
    """What ended in anything but a sentence, and how many were refused."""
    bad, refused = [], 0
    for what, changed in _mutations(whole, number):
        path.write_text(json.dumps(changed), encoding="utf-8")
        try:
            show(path)
        except MoeprobeError:
            refused += 1
        except Exception as error:  # noqa: BLE001 -- any other is what this looks for
            bad.append(f"{what}: {error!r}")
    return bad, refused


def _findings(path: Path) -> None:
    found = load_findings(path)
    render([found.to_json()])
    as_csv([found])


def _result(path: Path) -> None:
    render([], [load_result(path)])


def test_findings_with_a_changed_field_are_shown_or_refused(tmp_path: Path) -> None:
    bad, refused = _tracebacks(report_samples.toy(), FINDINGS, tmp_path / "f.json", _findings)
    assert bad == []
    assert FINDINGS // 4 < refused < FINDINGS  # both happen, so both were looked at


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_result_with_a_changed_field_is_shown_or_refused(made: Path, name: str, tmp_path: Path) -> None:
    whole = json.loads((made / f"{name}.json").read_text(encoding="utf-8"))
    bad, refused = _tracebacks(whole, RESULTS, tmp_path / "r.json", _result)
    assert bad == []
    assert 0 < refused < RESULTS
