"""The layer x expert map: the test statistic of each expert, on a diverging scale that the colour-blind can read."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moeprobe.report.paper.heading import heading
from moeprobe.report.verdicts import CAUSAL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = Mapping[str, Any]
SCALE = "PuOr_r"  # ColorBrewer (Harrower & Brewer 2003): safe with red-green and blue-yellow blindness
INCHES = (7.0, 3.2)


def map_figure(findings: Json, question: Json, rows: Sequence[Json]) -> "Figure":
    """Moderated t (of circular shifts z) of each expert; grey: untestable. Rings: associated. Diamonds: causal."""
    from matplotlib.figure import Figure

    layers = sorted(int(layer["layer"]) for layer in findings["model"]["layers"])
    width = max(int(layer["experts"]) for layer in findings["model"]["layers"])
    place = {layer: line for line, layer in enumerate(layers)}
    values = np.full((len(layers), width), np.nan)
    for row in rows:
        if row["t"] is not None and int(row["expert"]) < width and int(row["layer"]) in place:
            values[place[int(row["layer"])], int(row["expert"])] = row["t"]
    most = float(np.nanmax(np.abs(values)))
    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("0.85")
    drawn = axes.imshow(values, cmap=SCALE, vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
    for marker, size, members, label in (
        ("o", 22, [row for row in rows if row["association"] == "associated"], "associated"),
        ("D", 34, [row for row in rows if row["verdict"] in CAUSAL], "causal by interchange"),
    ):
        at = [(int(row["expert"]), place[int(row["layer"])]) for row in members if int(row["layer"]) in place]
        if at:
            across, down = zip(*at, strict=True)
            axes.scatter(across, down, s=size, marker=marker, facecolors="none", edgecolors="black", linewidths=0.8,
                         label=f"{label} ({len(at)})")  # fmt: skip
    step = max(1, -(-len(layers) // 12))
    axes.set_yticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    axes.set_xlabel("expert")
    axes.set_ylabel("layer")
    axes.set_title(heading(question["name"], findings))
    figure.colorbar(drawn, ax=axes, label="t (above 0: chosen more)", shrink=0.9)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=2)
    return figure
