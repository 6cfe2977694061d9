"""The leading experts of a question: differences of the selection rate with their intervals."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moeprobe.report import figures
from moeprobe.report.paper.heading import heading
from moeprobe.report.table import order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = Mapping[str, Any]
EXPERTS = 20


def leading_figure(findings: Json, question: Json, rows: Sequence[Json]) -> "Figure":
    """Rate difference with its 95 % interval of the leading experts, in the order of the page. Filled: associated."""
    from matplotlib.figure import Figure

    shown = [row for row in order(rows) if row["rate_difference_ci"] is not None][:EXPERTS]
    figure = Figure(figsize=(4.5, 0.6 + 0.2 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    for line, row in enumerate(shown):
        middle = 100 * row["rate_difference"]
        low, high = (100 * end for end in row["rate_difference_ci"])
        axes.plot([low, high], [line, line], color="black", linewidth=1)
        face = "black" if row["association"] == "associated" else "white"
        axes.plot([middle], [line], marker="o", markersize=4, color="black", markerfacecolor=face, linestyle="none")
    axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
    names = [f"{row['site']}  (q {figures.chance(row['q'])})" for row in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.invert_yaxis()
    per = " per unit of score" if question["design"]["kind"] == "scores" else ""
    axes.set_xlabel(f"difference of the selection rate, points{per} (95 %)")
    axes.set_title(heading(question["name"], findings))
    return figure
