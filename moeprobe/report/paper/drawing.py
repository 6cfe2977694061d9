"""Drawing and saving: which figures a findings file gives, under which names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moeprobe.errors import FindingsError, OutputError
from moeprobe.files import check_output, replacing
from moeprobe.report.paper.effects import effects_figure
from moeprobe.report.paper.layers import layers_figure
from moeprobe.report.paper.leading import leading_figure
from moeprobe.report.paper.map import map_figure
from moeprobe.visible import cleaned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = Mapping[str, Any]
FORMATS = ("svg", "png", "pdf")
DOTS = 300  # per inch, of PNG: what journals ask for
# Text stays text in SVG, a `$` of a label is no formula, and the same findings give the same bytes.
STYLE = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "svg.hashsalt": "moeprobe",
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}


def save_figures(findings: Sequence[Json], folder: Path, kind: str = "svg", *, force: bool = False) -> list[Path]:
    """Draw every figure that the findings allow and write each into `folder`, which is made if it is missing.

    Per question: ``NAME-map`` (t over layer and expert), ``NAME-leading`` (rate differences with intervals),
    ``NAME-layers`` (divergence by layer) and, where interchange was run, ``NAME-interchange`` (effects with intervals
    beside the comparison sites). No text of a generation is in any of them.

    Args:
        findings: objects in the form of docs/findings.md, validated by `moeprobe.findings`.
        folder: where to.
        kind: one of `FORMATS`.
        force: replace files that exist.

    Returns:
        The files, in order.

    Raises:
        FindingsError: matplotlib is missing, or `kind` is unknown.
        OutputError: a file exists and not `force`, or cannot be written.
    """
    if kind not in FORMATS:
        raise FindingsError(f"Figures cannot be written as {kind!r}; choose one of {', '.join(FORMATS)}.")
    matplotlib = _matplotlib()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be made: {error.strerror or error}.") from error
    planned = [(folder / f"{name}.{kind}", draw, arguments) for name, draw, arguments in _planned(findings)]
    for path, _, _ in planned:
        check_output(path, force=force)
    with matplotlib.rc_context(STYLE):
        for path, draw, arguments in planned:
            _save(draw(*arguments), path, kind)
    return [path for path, _, _ in planned]


def _planned(findings: Sequence[Json]) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Name, drawing function and its arguments of each figure; only what there is something to draw for."""
    for number, raw in enumerate(findings, 1):
        clean = cleaned({**raw, "questions": [{**one, "examples": []} for one in raw["questions"]]})
        for index, question in enumerate(clean["questions"], 1):
            rows = [row for row in clean["rows"] if row["probe"] == question["name"]]
            name = "-".join([*([f"{number}"] if len(findings) > 1 else []), f"{index}", _slug(str(question["name"]))])
            if any(row["t"] is not None for row in rows):
                yield f"{name}-map", map_figure, (clean, question, rows)
            if any(row["rate_difference_ci"] is not None for row in rows):
                yield f"{name}-leading", leading_figure, (clean, question, rows)
            if any(layer["jsd"] is not None for layer in question["layers"]):
                yield f"{name}-layers", layers_figure, (clean, question)
            for run in clean["interchange"]:
                if run["probe"] == question["name"]:
                    yield f"{name}-interchange", effects_figure, (clean, run, rows)


def _slug(name: str) -> str:
    """A file name of a question's name, which anyone may have written."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "question"


def _save(figure: "Figure", path: Path, kind: str) -> None:
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=DOTS, bbox_inches="tight", metadata=dates[kind])


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise FindingsError("Figures need matplotlib: pip install 'moeprobe[figures]'.") from error
    return matplotlib
