"""Geometry of the interchange figures: effects on one axis for each run, given as SVG positions in percent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.report import figures, words

Json = Mapping[str, Any]

FIGURES = 12
_MEASURES = (("necessity", "Necessity"), ("sufficiency", "Sufficiency"), ("knockout", "Knock-out"))
_WIDEST = (-100.0, 220.0)


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high` percent; positions leave a margin of 2 % on either side."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """Position of `value` in percent of the width; what lies outside is drawn at the edge."""
        inside = min(max(value, self.low), self.high)
        return f"{2 + 96 * (inside - self.low) / (self.high - self.low):.2f}%"

    def ticks(self) -> list[tuple[str, str]]:
        """Position and label of each tick."""
        step = 50 if self.high - self.low > 120 else 25
        first = -(-self.low // step) * step
        values = [first + step * i for i in range(int((self.high - first) // step) + 1)]
        return [(self.at(value), f"{figures.number(value, 0)}\u00a0%") for value in values]


@dataclass(frozen=True)
class Dot:
    """A mark: horizontal position, vertical position in pixels, and whether it lies beyond the axis."""

    x: str
    y: int
    outside: bool


@dataclass(frozen=True)
class Strip:
    """One measure of one site: the mean effect with its interval, the pairs, and the other experts."""

    label: str
    value: str
    description: str
    point: str
    low: str | None
    high: str | None
    pairs: list[Dot]
    nulls: list[Dot]


@dataclass(frozen=True)
class SiteFigure:
    """The strips of one site, with the verdict; none where every effect is exactly zero or the site is not drawn."""

    site: str
    verdict: words.Verdict
    exactly_zero: bool
    effects: list[str]
    null: str
    strips: list[Strip]


@dataclass(frozen=True)
class RunView:
    """One interchange run, ready to print."""

    facts: list[tuple[str, str]]
    ticks: list[tuple[str, str]]
    zero: str
    minimum: str
    minimum_text: str
    sites: list[SiteFigure]
    drawn: int
    clipped: bool


def run_view(run: Json, rows: Sequence[Json], about: str) -> RunView:
    """Lay out a run. `rows` are the rows of its question that it tested, leading rows first."""
    axis = _axis(run, rows)
    sites = [_site(run, row, axis, draw=index < FIGURES) for index, row in enumerate(rows)]
    marks = [dot for figure in sites for strip in figure.strips for dot in (*strip.pairs, *strip.nulls)]
    return RunView(
        facts=_facts(run, about),
        ticks=axis.ticks(),
        zero=axis.at(0),
        minimum=axis.at(run["minimum_effect"]),
        minimum_text=figures.percent(run["minimum_effect"]),
        sites=sites,
        drawn=min(len(sites), FIGURES),
        clipped=any(dot.outside for dot in marks),
    )


def _facts(run: Json, about: str) -> list[tuple[str, str]]:
    gap = run["gap"]
    pairs = figures.count(int(run["pairs"]), "prompt pair")
    unused = int(run["left_out"])
    left = f". Not used, since both runs or neither showed it: {unused:,}" if unused else ""
    return [
        ("Pairs", f"{pairs}: \u201c{run['positive']}\u201d (with {about}) against \u201c{run['negative']}\u201d{left}"),
        ("Metric", f"{run['metric']} ({figures.count(int(run['continuation_tokens']), 'continuation token')})"),
        ("Alignment", f"{run['alignment']}"),
        ("What was swapped", f"{run['swap']} of one expert: gate weight times output"),
        (
            "Gap that counts as 100 %",
            f"{figures.number(gap['mean'], 3)} nats {figures.interval(gap['ci'], digits=3)}, the mean difference "
            "of the metric between the two prompts of a pair",
        ),
        ("Rule", f"{run['rule']}"),
        ("Minimum effect", figures.percent(run["minimum_effect"])),
        ("Intervals", f"95 %, bootstrap over pairs, {int(run['bootstrap']):,} draws, seed {run['seed']}"),
    ]


def _axis(run: Json, rows: Sequence[Json]) -> Axis:
    values = [0.0, 100.0, float(run["minimum_effect"])]
    for row in rows[:FIGURES]:
        swaps = row["interchange"]
        for key, _ in _MEASURES:
            values += [swaps[key]["percent"], *(swaps[key]["ci"] or ()), *swaps["null"][key]]
            values += _in_percent(swaps[key]["per_pair"], run)
    known = [value for value in values if value is not None]
    low, high = max(min(known), _WIDEST[0]), min(max(known), _WIDEST[1])
    return Axis(low - 4, high + 4)


def _in_percent(per_pair: Sequence[float | None], run: Json) -> list[float]:
    """Effects of single pairs (nats) as percent of the mean gap, the scale of the mean effect."""
    gap = run["gap"]["mean"]
    return [100 * value / gap for value in per_pair if value is not None] if gap else []


def _site(run: Json, row: Json, axis: Axis, *, draw: bool) -> SiteFigure:
    swaps = row["interchange"]
    strips = (
        [_strip(run, swaps, key, label, axis) for key, label in _MEASURES] if draw and not swaps["exactly_zero"] else []
    )
    return SiteFigure(
        site=words.site(row),
        verdict=words.verdict(row["verdict"]),
        exactly_zero=bool(swaps["exactly_zero"]),
        effects=[words.effect(swaps[key]) for key, _ in _MEASURES],
        null=figures.percent(words.largest_null(swaps)),
        strips=strips,
    )


def _strip(run: Json, swaps: Json, key: str, label: str, axis: Axis) -> Strip:
    measured, null = swaps[key], [value for value in swaps["null"][key] if value is not None]
    pairs = _in_percent(measured["per_pair"], run)
    low, high = measured["ci"] if measured["ci"] is not None else (None, None)
    others = f"{len(null)} other experts between {figures.percent(min(null))} and {figures.percent(max(null))}"
    return Strip(
        label=label,
        value=words.effect(measured),
        description=f"{label} {words.effect(measured)}; {len(pairs)} pairs; {others if null else 'no other experts'}.",
        point=axis.at(measured["percent"] or 0.0),
        low=None if low is None else axis.at(low),
        high=None if high is None else axis.at(high),
        pairs=[_dot(axis, value, 7 + 5 * (index % 3)) for index, value in enumerate(pairs)],
        nulls=[_dot(axis, value, 45) for value in null],
    )


def _dot(axis: Axis, value: float, y: int) -> Dot:
    return Dot(axis.at(value), y, not axis.low <= value <= axis.high)
