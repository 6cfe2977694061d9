"""What interchange measured: necessity and sufficiency with intervals, beside the comparison sites."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moeprobe.findings.causes import CAUSAL_EFFECTS
from moeprobe.findings.verdicts import in_words
from moeprobe.report.paper.heading import heading
from moeprobe.report.table import order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = Mapping[str, Any]
SITES = 20


def effects_figure(findings: Json, run: Json, rows: Sequence[Json]) -> "Figure":
    """One panel for each direction; dots with 95 % intervals, ticks for comparison sites, a line at the minimum."""
    from matplotlib.figure import Figure

    tested = [(row["site"], row["verdict"], row["interchange"]) for row in order(rows) if row["interchange"]]
    tested += [(other["site"], other["verdict"], other["interchange"]) for other in run["others"]]
    tested = tested[:SITES]
    figure = Figure(figsize=(7.0, 0.9 + 0.24 * len(tested)), layout="constrained")
    panels = figure.subplots(1, len(CAUSAL_EFFECTS), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, CAUSAL_EFFECTS, strict=True):
        for line, (_, _, swaps) in enumerate(tested):
            _strip(axes, line, swaps[name], swaps["null"].get(name, ()))
        axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
        axes.axvline(run["minimum_effect"], color="0.6", linewidth=0.8, linestyle=":", zorder=0)
        axes.set_xlabel("percent of the gap (95 %)")
        axes.set_title(name)
    panels[0].set_yticks(range(len(tested)), [f"{site}: {in_words(verdict)}" for site, verdict, _ in tested])
    panels[0].invert_yaxis()
    figure.suptitle(f"{heading(run['probe'], findings)}, {run['pairs']} pairs", x=0.01, ha="left", fontsize=9)
    return figure


def _strip(axes: Any, line: int, effect: Json, null: Sequence[float | None]) -> None:
    known = [value for value in null if value is not None]
    axes.plot(known, [line] * len(known), marker="|", color="0.5", markersize=7, linestyle="none")
    if effect["percent"] is None:
        return
    if effect["ci"] is not None:
        axes.plot(effect["ci"], [line, line], color="black", linewidth=1)
    axes.plot([effect["percent"]], [line], marker="o", markersize=4, color="black", linestyle="none")
