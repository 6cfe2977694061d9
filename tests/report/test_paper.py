"""Figures for a paper: what is drawn is what the findings say, and the files are clean."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import report_samples
from click.testing import CliRunner

from moeprobe.cli.main import cli
from moeprobe.errors import FindingsError, OutputError
from moeprobe.report.paper import save_figures
from moeprobe.report.paper.effects import effects_figure
from moeprobe.report.paper.leading import leading_figure
from moeprobe.report.paper.map import map_figure

pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")


def test_each_figure_that_can_be_drawn_is_written_once(tmp_path: Path) -> None:
    made = report_samples.smollm()
    names = [path.name for path in save_figures([made], tmp_path / "figures")]
    assert names == ["1-refusal-map.svg", "1-refusal-leading.svg", "1-refusal-interchange.svg"]
    untested = [path.name for path in save_figures([report_samples.untested()], tmp_path / "other")]
    assert not any("interchange" in name for name in untested)


def test_the_map_holds_each_t_at_its_place() -> None:
    made = report_samples.smollm()
    drawn = map_figure(made, made["questions"][0], made["rows"]).axes[0].images[0].get_array()
    assert drawn.shape == (1, 16)
    for row in made["rows"]:
        assert drawn[0, row["expert"]] == row["t"]


def test_the_intervals_drawn_are_those_of_the_rows() -> None:
    made = report_samples.smollm()
    axes = leading_figure(made, made["questions"][0], made["rows"]).axes[0]
    first = axes.get_yticklabels()[0].get_text().split()[0]
    row = next(row for row in made["rows"] if row["site"] == first)
    assert list(axes.lines[0].get_xdata()) == [100 * end for end in row["rate_difference_ci"]]
    assert list(axes.lines[1].get_xdata()) == [100 * row["rate_difference"]]


def test_the_effects_drawn_are_those_of_the_run() -> None:
    made = report_samples.smollm()
    necessity, sufficiency = effects_figure(made, made["interchange"][0], made["rows"]).axes
    row = next(row for row in made["rows"] if row["site"] == "L18.E5")["interchange"]
    for axes, name in ((necessity, "necessity"), (sufficiency, "sufficiency")):
        null, interval, point = axes.lines[:3]
        assert list(null.get_xdata()) == row["null"][name]
        assert list(interval.get_xdata()) == row[name]["ci"]
        assert list(point.get_xdata()) == [row[name]["percent"]]


def test_svg_is_text_that_repeats_and_holds_no_script(tmp_path: Path) -> None:
    made = report_samples.smollm()
    hostile = "</text><script>alert(1)</script> $\\frac{1}{2}$"
    made["model"]["id"] = hostile
    first = [path.read_bytes() for path in save_figures([made], tmp_path / "a")]
    assert first == [path.read_bytes() for path in save_figures([made], tmp_path / "b")]
    for content in first:
        tree = ElementTree.fromstring(content)  # noqa: S314 -- our own file
        tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert "script" not in tags
        assert any("$\\frac{1}{2}$" in (element.text or "") for element in tree.iter())


def test_a_hostile_name_becomes_a_harmless_file_name(tmp_path: Path) -> None:
    made = report_samples.untested()
    old = made["questions"][0]["name"]
    made["questions"][0]["name"] = "../../Ü/..\x1b[2J"
    for row in made["rows"]:
        assert row["probe"] == old
        row["probe"] = made["questions"][0]["name"]
    for path in save_figures([made], tmp_path / "figures"):
        assert path.parent == tmp_path / "figures"
        assert path.name.isascii()
        assert path.exists()


def test_what_exists_is_kept_and_an_unknown_format_is_refused(tmp_path: Path) -> None:
    made = report_samples.untested()
    (kept, *_) = save_figures([made], tmp_path)
    kept.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        save_figures([made], tmp_path)
    assert kept.read_text() == "mine"
    with pytest.raises(FindingsError, match="choose one of svg, png, pdf"):
        save_figures([made], tmp_path, "gif")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('none')\n")
    code = (
        "from pathlib import Path\nfrom moeprobe.errors import FindingsError\n"
        "from moeprobe.report.paper import save_figures\n"
        "try:\n    save_figures([], Path('out'))\nexcept FindingsError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
    )  # fmt: skip
    assert "pip install 'moeprobe[figures]'" in done.stdout


def test_the_command_writes_png(tmp_path: Path) -> None:
    import json

    (tmp_path / "f.json").write_text(json.dumps(report_samples.smollm()), encoding="utf-8")
    arguments = ["report", str(tmp_path / "f.json"), "--figures", str(tmp_path / "figures"), "--figure-format", "png"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    written = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert written == ["1-refusal-interchange.png", "1-refusal-leading.png", "1-refusal-map.png"]
    assert all((tmp_path / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in written)
