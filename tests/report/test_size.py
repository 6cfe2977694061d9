"""The report of a large run stays small: 40 layers of 256 experts, 200 generations of 1,000 tokens."""

import importlib.util
from pathlib import Path
from typing import Any

from moeprobe.report import render

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "report_size.py"


def _document(**options: int) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("report_size", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.document(**options))


def test_a_large_run_is_at_most_three_megabytes() -> None:
    made = _document()
    assert (len(made["rows"]), len(made["questions"][0]["examples"])) == (10_240, 200)
    assert sum(len(one["tokens"]) for one in made["questions"][0]["examples"]) == 200_000
    assert len(render([made]).encode()) <= 3_000_000


def test_the_size_follows_the_text() -> None:
    small, large = (len(render([_document(layers=2, generations=n)]).encode()) for n in (10, 40))
    assert large > small + 30 * 1000
