"""Geometry of the interchange figures: effects on one axis for each run, given as SVG positions in percent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.report import figures, others, swaps, verdicts, words
from moeprobe.report.voice import Voice

Json = Mapping[str, Any]

FIGURES = 12
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
    """One measure of one site: the mean effect with its interval, the pairs, and the comparison sites."""

    label: str
    value: str
    description: str
    point: str
    low: str | None
    high: str | None
    pairs: list[Dot]
    nulls: list[Dot]


@dataclass(frozen=True)
class Tested:
    """A site that a run tested: its name, what it is, its verdict, its effects, and a sentence on them."""

    site: str
    noun: str
    verdict: str
    effects: Json
    summary: str = ""


@dataclass(frozen=True)
class SiteFigure:
    """The strips of one site, with the verdict; none where every effect is exactly zero or the site is not drawn."""

    site: str
    verdict: verdicts.Badge
    exactly_zero: bool
    effects: list[str]
    null: str
    strips: list[Strip]
    summary: str
    notes: list[str]
    more: list[tuple[str, str]]


@dataclass(frozen=True)
class RunView:
    """One interchange run, ready to print. `sites` are experts, `others` all that is no single expert."""

    facts: list[tuple[str, str]]
    ticks: list[tuple[str, str]]
    zero: str
    minimum: str
    minimum_text: str
    sites: list[SiteFigure]
    others: list[SiteFigure]
    drawn: int
    clipped: bool


def run_view(run: Json, rows: Sequence[Json], voice: Voice) -> RunView:
    """Lay out a run. `rows` are the rows of its question that it tested, leading rows first."""
    experts = [Tested(words.site(row), "expert", row["verdict"], row["interchange"]) for row in rows]
    rest = [
        Tested(
            str(one["site"]), others.noun(str(one["site"])), one["verdict"], one["interchange"],
            others.summary(one, voice, run),
        )
        for one in run["others"]
    ]  # fmt: skip
    axis = _axis(run, [*experts[:FIGURES], *rest[:FIGURES]])
    sites, further = (
        [_site(run, one, axis, draw=index < FIGURES) for index, one in enumerate(group)] for group in (experts, rest)
    )
    marks = [dot for figure in (*sites, *further) for strip in figure.strips for dot in (*strip.pairs, *strip.nulls)]
    return RunView(
        facts=_facts(run, voice),
        ticks=axis.ticks(),
        zero=axis.at(0),
        minimum=axis.at(run["minimum_effect"]),
        minimum_text=figures.percent(run["minimum_effect"]),
        sites=sites,
        others=further,
        drawn=FIGURES,
        clipped=any(dot.outside for dot in marks),
    )


def _facts(run: Json, voice: Voice) -> list[tuple[str, str]]:
    gap = run["gap"]
    pairs = figures.count(int(run["pairs"]), "prompt pair")
    unused = int(run["left_out"])
    left = f". Not used, since both runs or neither showed it: {unused:,}" if unused else ""
    return [
        ("Pairs", f"{pairs}: {_against(run, voice)}{left}"),
        *_halves(run),
        ("Metric", f"{run['metric']}"),
        ("Alignment", f"{run['alignment']}"),
        ("Positions", f"{run['coverage']}"),
        ("What was swapped", swaps.SWAPPED.get(run["swap"], ("", str(run["swap"])))[1]),
        ("Donors", _donors(run)),
        (
            "Gap that counts as 100 %",
            f"{figures.number(gap['mean'], 3)} {run['unit']} {figures.interval(gap['ci'], digits=3)}, the mean "
            "difference of the metric between the two prompts of a pair",
        ),
        ("Rule", f"{run['rule']}"),
        ("Minimum effect", figures.percent(run["minimum_effect"])),
        ("Intervals", f"95 %, bootstrap over pairs, {int(run['bootstrap']):,} draws, seed {run['seed']}"),
    ]


def _against(run: Json, voice: Voice) -> str:
    """The two prompts of a pair."""
    if voice.sorted_by_probe(run):
        return f"one with {voice.about} ({run['positive']}) against one without ({run['negative']})"
    return f"\u201c{run['positive']}\u201d (with {voice.about}) against \u201c{run['negative']}\u201d"


def _halves(run: Json) -> list[tuple[str, str]]:
    """Held-out confirmation, where it was run."""
    halves = run["confirmation"]
    if halves is None:
        return []
    chosen, screened = len(halves["chosen"]), len(halves["screened"])
    return [
        (
            "Chosen on one half",
            f"Of {figures.count(screened, 'site')}, the {chosen} leading on {len(halves['chosen_on'])} pairs were "
            f"chosen, and judged on the other {len(halves['tested_on'])}. All effects here are of these.",
        )
    ]


def _donors(run: Json) -> str:
    """Which donors were swapped in beside the pair's own prompt."""
    names = {
        "placebo": "a placebo (another prompt of the recipient\u2019s own class)",
        "random": "a random one (the other class, another pair)",
        "noise": "noise as long as the swap",
    }
    found = [text for name, text in names.items() if f"{name}_necessity" in run["arms"]]
    return f"the other prompt of the pair; beside it {', '.join(found) if found else 'none: no placebo was run'}"


def _axis(run: Json, tested: Sequence[Tested]) -> Axis:
    values = [0.0, 100.0, float(run["minimum_effect"])]
    for one in tested:
        for key in _measures(one.effects):
            measured = one.effects[key]
            values += [measured["percent"], *(measured["ci"] or ()), *one.effects["null"].get(key, ())]
            values += _in_percent(measured["per_pair"], run)
    known = [value for value in values if value is not None]
    low, high = max(min(known), _WIDEST[0]), min(max(known), _WIDEST[1])
    return Axis(low - 4, high + 4)


def _measures(effects: Json) -> list[str]:
    return [name for name in swaps.EFFECTS if name in effects]


def _in_percent(per_pair: Sequence[float | None], run: Json) -> list[float]:
    """Effects of single pairs (in the unit of the metric) as percent of the mean gap, the scale of the mean effect."""
    gap = run["gap"]["mean"]
    return [100 * value / gap for value in per_pair if value is not None] if gap else []


def _site(run: Json, one: Tested, axis: Axis, *, draw: bool) -> SiteFigure:
    effects = one.effects
    strips = [_strip(run, one, key, axis) for key in _measures(effects)] if draw and not effects["exactly_zero"] else []
    cells = [
        text
        for name in ("necessity", "sufficiency")
        for text in (swaps.effect(effects[name]), swaps.minus_placebo(effects, name))
    ]
    cells.append(swaps.effect(effects["knockout"]) if "knockout" in effects else figures.NONE)
    return SiteFigure(
        site=one.site,
        verdict=verdicts.badge(one.verdict, effects),
        exactly_zero=bool(effects["exactly_zero"]),
        effects=cells,
        null=figures.percent(swaps.largest_null(effects)),
        strips=strips,
        summary=one.summary,
        notes=swaps.notes(effects, one.noun),
        more=swaps.more(effects),
    )


def _strip(run: Json, one: Tested, key: str, axis: Axis) -> Strip:
    measured, null = one.effects[key], [value for value in one.effects["null"].get(key, ()) if value is not None]
    pairs, label = _in_percent(measured["per_pair"], run), swaps.EFFECTS[key]
    low, high = measured["ci"] if measured["ci"] is not None else (None, None)
    like = f"compared with no {one.noun}"
    if null:
        like = f"{len(null)} {one.noun}s like it, {figures.percent(min(null))} to {figures.percent(max(null))}"
    return Strip(
        label=label,
        value=swaps.effect(measured),
        description=f"{label} {swaps.effect(measured)}; {len(pairs)} pairs; {like}.",
        point=axis.at(measured["percent"] or 0.0),
        low=None if low is None else axis.at(low),
        high=None if high is None else axis.at(high),
        pairs=[_dot(axis, value, 7 + 5 * (index % 3)) for index, value in enumerate(pairs)],
        nulls=[_dot(axis, value, 45) for value in null],
    )


def _dot(axis: Axis, value: float, y: int) -> Dot:
    return Dot(axis.at(value), y, not axis.low <= value <= axis.high)
