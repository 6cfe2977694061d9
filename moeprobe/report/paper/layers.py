"""The layer profile of a question."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moeprobe.report.paper.heading import heading

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = Mapping[str, Any]


def layers_figure(findings: Json, question: Json) -> "Figure":
    """Jensen-Shannon divergence between the groups' shares of selections, by layer. Filled: q below alpha."""
    from matplotlib.figure import Figure

    lines = [layer for layer in question["layers"] if layer["jsd"] is not None]
    alpha = question["design"]["alpha"]
    figure = Figure(figsize=(4.5, 2.2), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(lines))
    below = [layer["jsd_q"] is not None and layer["jsd_q"] < alpha for layer in lines]
    colours = ["black" if good else "white" for good in below]
    axes.bar(places, [layer["jsd"] for layer in lines], color=colours, edgecolor="black", linewidth=0.6)
    step = max(1, -(-len(lines) // 16))
    axes.set_xticks(list(places)[::step], [str(layer["layer"]) for layer in lines[::step]])
    axes.set_xlabel(f"layer (filled: q below {alpha:g}, permutation test)")
    axes.set_ylabel("JSD, bits")
    axes.set_title(heading(question["name"], findings))
    return figure
