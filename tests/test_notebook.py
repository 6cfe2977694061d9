"""The committed notebook is the one that is written, runs, and says today what it says on paper."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbclient and ipykernel are not installed")
pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebook_maker", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(notebook: Any) -> list[str]:
    """What each cell showed as text; numbers to 3 digits, since processors round differently."""
    shown = []
    for cell in notebook.cells:
        for one in cell.get("outputs", ()):
            text = str(one.get("data", {}).get("text/plain") or one.get("text", ""))
            shown.append(re.sub(r"\d+\.\d+(?:e[-+]\d+)?", lambda match: f"{float(match[0]):.2e}", text))
    return shown


def test_the_notebook_runs_and_says_what_it_says_on_paper(maker: ModuleType, tmp_path: Path) -> None:
    committed = nbformat.read(FOLDER / maker.NAME, as_version=4)
    assert [cell.source for cell in committed.cells] == [source for _, source in maker.CELLS]
    executed = maker.execute(maker.notebook(), tmp_path)
    assert texts(executed) == texts(committed)
    said = "\n".join(texts(committed))
    assert "necessary and sufficient" in said
    assert "L2.E5 causes" in said
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_cell_that_fails_is_not_hidden(maker: ModuleType, tmp_path: Path) -> None:
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(Exception, match="ZeroDivisionError"):
        maker.execute(broken, tmp_path)
