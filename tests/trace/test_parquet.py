"""Export: what DuckDB and Polars count is what moeprobe counts."""

import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from store_samples import contents, make

from moeprobe.cli.main import cli
from moeprobe.errors import OutputError
from moeprobe.trace import Trace, count_experts, export_parquet

parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra parquet)")
DOCS = Path(__file__).parents[2] / "docs" / "trace.md"


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return make(tmp_path / "run.trace")


@pytest.fixture
def file(trace: Trace, tmp_path: Path) -> Path:
    assert export_parquet(trace, tmp_path / "run.parquet") == trace.manifest.rows
    return tmp_path / "run.parquet"


def wanted(trace: Trace, layer: str) -> dict[tuple[str, int], int]:
    """(label, expert) -> choices in the answers."""
    counts = count_experts(trace, by="label", segment="answer")
    table = counts.selected[layer]
    return {(str(counts.groups[g]), int(e)): int(table[g, e]) for g, e in zip(*np.nonzero(table), strict=True)}


def test_every_value_is_there(trace: Trace, file: Path) -> None:
    table = parquet.read_table(file)
    assert parquet.ParquetFile(file).num_row_groups == trace.manifest.shards
    arrays = contents(trace)["arrays"]
    for name in ("generation", "position", "token_id"):
        assert table[name].to_pylist() == arrays[name]
    for info in trace.manifest.layers:
        for what in ("experts", "weights"):
            rows = zip(arrays[f"{info.name}.{what}"], arrays[f"{info.name}.mask"], strict=True)
            shown = [[value if mask is None or mask[place] else None for place, value in enumerate(row)]
                     for row, mask in rows]  # fmt: skip
            assert table[f"{info.name}.{what}"].to_pylist() == shown
            assert table.schema.field(f"{info.name}.{what}").type.list_size == info.k
    np.testing.assert_array_equal(np.array(table["L3.margin"].to_pylist(), float), np.array(arrays["L3.margin"], float))
    assert [str(value) for value in table["L5.logits"].to_pylist()] == arrays["L5.logits"]
    generations = trace.generations
    for name in ("prompt_id", "label", "pair"):
        values = [getattr(generations[index], name) for index in arrays["generation"]]
        assert table[name].to_pylist() == [None if value is None else str(value) for value in values]
    one = generations[0]
    assert "".join(table["token"].to_pylist()[: one.rows]) == one.prompt_text + one.text[:-1]


def example(language: str, file: Path) -> str:
    """The example of the docs, on our file."""
    block = DOCS.read_text().split(f"<!-- {language} -->\n```")[1].split("\n", 1)[1].split("```")[0]
    assert "run.parquet" in block
    return block.replace("run.parquet", str(file))


@pytest.mark.parametrize("layer", ["L3", "L5", "encoder.L1"])
def test_duckdb_counts_the_same(trace: Trace, file: Path, layer: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(example("duckdb", file).replace("L14", layer)).fetchall()
    assert {(label, expert): number for label, expert, number in found} == wanted(trace, layer)


@pytest.mark.parametrize("layer", ["L3", "L5", "encoder.L1"])
def test_polars_counts_the_same(trace: Trace, file: Path, layer: str) -> None:
    pytest.importorskip("polars")
    space: dict[str, object] = {}
    exec(example("polars", file).replace("L14", layer), space)  # noqa: S102  # the example of our own docs
    rows = space["counts"].rows()  # type: ignore[attr-defined]  # a polars frame
    assert {(label, expert): number for label, expert, number in rows} == wanted(trace, layer)


def test_existing_files_are_kept(trace: Trace, file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(OutputError, match="--force"):
        export_parquet(trace, file)
    export_parquet(trace, file, force=True)
    assert len(file.read_bytes()) == len(before)
    assert sorted(path.name for path in file.parent.iterdir()) == ["run.parquet", "run.trace"]


def test_without_pyarrow(trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = CliRunner().invoke(cli, ["export", str(trace.path), "-o", str(tmp_path / "x.parquet")])
    assert isinstance(done.exception, OutputError)
    assert "moeprobe[parquet]" in str(done.exception)


def test_the_command(trace: Trace, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["export", str(trace.path), "-o", str(tmp_path / "x.parquet")])
    assert done.exit_code == 0, done.output
    assert f"{trace.manifest.rows} rows" in done.output
