"""The evidence of one finding, ready to print: positions in drawings, and the same in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.report import figures
from moeprobe.report.details import robust
from moeprobe.report.voice import Voice
from moeprobe.report.windows import WindowPair, window_pairs

Json = Mapping[str, Any]

SIDES = ("positive", "negative")
# Drawings are 1000 units wide, with a margin on either side; they are stretched to the width of the page.
WIDTH, MARGIN = 1000, 20
HEIGHT = 120


@dataclass(frozen=True)
class Scale:
    """A linear axis from `low` to `high`."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """An axis without width, or of less than floats tell apart, is widened to both sides."""
        least = max(1e-9 * max(abs(self.low), abs(self.high)), 1e-12)
        if self.high - self.low < least:
            middle = self.low / 2 + self.high / 2
            object.__setattr__(self, "low", middle - least / 2)
            object.__setattr__(self, "high", middle + least / 2)

    def at(self, value: float) -> int:
        """Place of `value` in a drawing; what lies outside is drawn at the edge."""
        inside = min(max(value, self.low), self.high)
        return round(MARGIN + (WIDTH - 2 * MARGIN) * (inside - self.low) / (self.high - self.low))

    def percent(self, value: float) -> str:
        return f"{self.at(value) / WIDTH:.1%}"

    def ticks(self) -> list[float]:
        """Four to eight round values."""
        rough = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [(first + i) * step for i in range(int((self.high - first * step) / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Strip:
    """Units of one side on an axis: `dots` and `whisker` are SVG paths, `middle` the place of the mean."""

    label: str
    css: str
    value: str
    dots: str
    whisker: str
    middle: int
    words: str


@dataclass(frozen=True)
class Chart:
    """Strips that share an axis; `zero` is the place of 0, or None where the axis begins there."""

    strips: list[Strip]
    ticks: list[tuple[str, str]]
    zero: int | None


@dataclass(frozen=True)
class Split:
    """A part of the change in mean weight."""

    label: str
    value: str
    bar: tuple[int, int]
    whisker: str


@dataclass(frozen=True)
class Line:
    """One side over the positions: paths of the rate and of its interval."""

    label: str
    css: str
    path: str
    band: str


@dataclass(frozen=True)
class Timeline:
    """Rates over positions, with the same as a table."""

    lines: list[Line]
    top: str
    ticks: list[tuple[str, str]]
    rows: list[tuple[str, list[str]]]
    words: str


@dataclass(frozen=True)
class Evidence:
    """Everything below a finding."""

    heading: str
    charts: list[Chart]
    note: str
    splits: list[Split]
    split_zero: int
    split_words: str
    holds: list[tuple[str, str]]
    timeline: Timeline
    windows: list[WindowPair]
    windows_note: str


def evidence_view(row: Json, question: Json, voice: Voice) -> Evidence | None:
    """The evidence of a row, None where the findings hold none for it."""
    found = row["evidence"]
    if found is None or question["units"] is None or question["positions"] is None:
        return None
    heading, charts, note = _units(row, question, voice)
    splits, zero, said = _split(row)
    return Evidence(
        heading=heading,
        charts=charts,
        note=note,
        splits=splits,
        split_zero=zero,
        split_words=said,
        holds=robust(row, question, voice).lines,
        timeline=_timeline(found["timeline"], question["positions"], voice),
        windows=window_pairs(found["windows"], voice),
        windows_note=_windows_note(found["windows"]),
    )


def _units(row: Json, question: Json, voice: Voice) -> tuple[str, list[Chart], str]:
    """A dot for each unit, and the effect with its interval."""
    rates, units = row["evidence"]["rates"], question["units"]
    effect = _effect(row, voice, [])
    if voice.scores:
        scores = [*(units["positive"]["scores"] or ()), *(units["negative"]["scores"] or ())]
        return "Every unit: its score and its rate", [
            _scatter(scores, [*rates["positive"], *rates["negative"]], voice)
        ], (
            f"Across: {voice.theme}. Upwards: the selection rate. For one unit of score it changes by "
            f"{figures.change(row['rate_difference'], fine=True)} points "
            f"{figures.change_interval(row['rate_difference_ci'], fine=True)}."
        )  # fmt: skip
    names = units["positive"]["names"]
    if voice.pairs or voice.inside:
        inside = [one - zero for one, zero in zip(rates["positive"], rates["negative"], strict=True)]
        what = "inside each pair" if voice.pairs else f"inside each {voice.unit}"
        return (
            f"The difference {what}",
            [_effect(row, voice, inside, names)],
            (
                f"Each dot is one {voice.unit}: the selection rate {_side(voice, 0)} minus that {_side(voice, 1)}, in "
                "points."
            ),
        )
    top = max([*rates["positive"], *rates["negative"], 0.01])
    axis = Scale(0.0, top)
    strips = [
        _strip(_side(voice, number), ("with", "without")[number], rates[side], units[side]["names"], axis, voice)
        for number, side in enumerate(SIDES)
    ]
    ticks = [(axis.percent(tick), f"{_digits(100 * tick)}\u00a0%") for tick in axis.ticks()]
    return (
        f"Every {voice.unit}, and the difference",
        [Chart(strips, ticks, None), effect],
        f"Each dot is one {voice.unit}: the share of its tokens for which the expert was chosen. The long mark is the "
        "mean.",
    )


def _side(voice: Voice, number: int) -> str:
    if voice.inside:
        return ("on marked tokens", "on the others")[number]
    return f"{(voice.one, voice.other)[number]} {voice.about}"


def _strip(label: str, css: str, values: Sequence[float], names: Sequence[str], axis: Scale, voice: Voice) -> Strip:
    mean = sum(values) / len(values) if values else 0.0
    at = axis.at(mean)
    return Strip(
        label=label[:1].upper() + label[1:],
        css=css,
        value=figures.share(mean) if values else figures.NONE,
        dots=_dots(values, axis),
        whisker=f"M{at} 3V31" if values else "",
        middle=at,
        words=_spread(values, names, voice, figures.share),
    )


def _effect(row: Json, voice: Voice, inside: Sequence[float], names: Sequence[str] = ()) -> Chart:
    """The difference with its interval; inside units a dot for each."""
    difference, bounds = row["rate_difference"] or 0.0, row["rate_difference_ci"]
    every = [0.0, difference, *(bounds or ()), *inside]
    low, high = min(every), max(every)
    room = max(high - low, 0.01) * 0.04
    axis = Scale(low - room, high + room)
    middle = axis.at(difference)
    whisker = "" if bounds is None else f"M{axis.at(bounds[0])} 17H{axis.at(bounds[1])}"
    words = _spread(inside, names, voice, lambda value: f"{figures.points(value)} points") if inside else ""
    strip = Strip(
        label="Difference",
        css="effect",
        value=f"{figures.points(row['rate_difference'])} points {figures.interval(bounds, 100, 1)}",
        dots=_dots(inside, axis),
        whisker=whisker,
        middle=middle,
        words=words,
    )
    ticks = [(axis.percent(tick), _signed(100 * tick)) for tick in axis.ticks()]
    return Chart([strip], ticks, axis.at(0.0))


def _scatter(scores: Sequence[float], rates: Sequence[float], voice: Voice) -> Chart:
    spread = max(scores) - min(scores)
    across = Scale(min(scores), max(scores) if spread else min(scores) + 1.0)
    top = max([*rates, 0.01])
    dots = "".join(
        f"M{across.at(score)} {4 + round((HEIGHT - 8) * (1 - rate / top))}h0"
        for score, rate in zip(scores, rates, strict=True)
    )
    half = sorted(zip(scores, rates, strict=True))
    lower, upper = half[: len(half) // 2], half[len(half) // 2 :]
    words = (
        f"{len(rates)} {voice.unit}s; mean rate {figures.share(_mean([rate for _, rate in upper]))} in the upper half "
        f"of the scores, {figures.share(_mean([rate for _, rate in lower]))} in the lower half; largest "
        f"{figures.share(top)}."
    )
    strip = Strip(f"Rate, 0 to {figures.share(top)}", "scatter", "", dots, "", 0, words)
    ticks = [(across.percent(tick), f"{tick:g}") for tick in across.ticks()]
    return Chart([strip], ticks, None)


def _dots(values: Sequence[float], axis: Scale) -> str:
    """A dot for each value: a stroke of no length with round ends. Three heights keep neighbours apart."""
    return "".join(f"M{axis.at(value)} {10 + 7 * (index % 3)}h0" for index, value in enumerate(values))


def _spread(values: Sequence[float], names: Sequence[str], voice: Voice, show: Any) -> str:
    """Median, quartiles and extremes in words, the extremes by name."""
    if not values:
        return f"no {voice.unit}"
    ordered = sorted(zip(values, names, strict=True))
    plain = [value for value, _ in ordered]
    quartiles = f"{show(_quantile(plain, 0.25))} to {show(_quantile(plain, 0.75))}"
    (low, lowest), (high, highest) = ordered[0], ordered[-1]
    return (
        f"{figures.count(len(values), voice.unit)}: median {show(_quantile(plain, 0.5))}, half from {quartiles}; "
        f"least {show(low)} ({lowest}), most {show(high)} ({highest})."
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between the values around."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _split(row: Json) -> tuple[list[Split], int, str]:
    """What the change in mean weight is made of: chosen more often, and larger when chosen."""
    parts = (
        ("Chosen more or less often", "entry", "entry_ci"),
        ("Larger or smaller weight when chosen", "valuation", "valuation_ci"),
        ("Both together, \u0394W", "dW", "dW_ci"),
    )
    every = [0.0]
    for _, key, interval in parts:
        every += [row[key], *(row[interval] or ())]
    room = max(max(every) - min(every), 1e-9) * 0.04
    axis = Scale(min(every) - room, max(every) + room)
    zero = axis.at(0.0)
    splits = [
        Split(
            label=label,
            value=f"{figures.number(row[key], 4, sign=True)} {figures.interval(row[interval], digits=4)}",
            bar=(min(zero, axis.at(row[key])), max(abs(axis.at(row[key]) - zero), 2)),
            whisker="" if row[interval] is None
            else f"M{axis.at(row[interval][0])} 11H{axis.at(row[interval][1])}",
        )
        for label, key, interval in parts
    ]  # fmt: skip
    return splits, zero, _split_words(row["entry"], row["valuation"])


def _split_words(entry: float, valuation: float) -> str:
    total = abs(entry) + abs(valuation)
    if not total:
        return "The mean gate weight does not change."
    share = abs(entry) / total
    main = "how often it is chosen" if share >= 0.5 else "how much weight it gets when it is chosen"
    against = " The two work against each other." if entry * valuation < 0 else ""
    return (
        f"{figures.share(max(share, 1 - share))} of the change in its mean gate weight comes from {main}.{against} "
        "Words are not held fixed here."
    )


def _timeline(timeline: Json, positions: Json, voice: Voice) -> Timeline:
    edges = positions["edges"]
    known = [
        value for side in SIDES for name in ("rate", "high") for value in timeline[side][name] if value is not None
    ]  # fmt: skip
    top = max([*known, 0.01])
    lines = [
        Line(
            label=_side(voice, number),
            css=("with", "without")[number],
            path=_steps(timeline[side]["rate"], top),
            band=_band(timeline[side]["low"], timeline[side]["high"], top),
        )
        for number, side in enumerate(SIDES)
    ]
    rows = [
        (_place(edges, i), [_cell(timeline[side], positions[side], i) for side in SIDES]) for i in range(len(edges) - 1)
    ]
    bins = len(edges) - 1
    shown = range(0, bins + 1, max(1, math.ceil(bins / 6)))
    return Timeline(
        lines=lines,
        top=figures.share(top),
        ticks=[(f"{i / bins:.1%}", f"{edges[i] + 1:,}" if i < bins else f"{edges[i]:,}") for i in shown],
        rows=rows,
        words=_timeline_words(timeline, edges),
    )


def _place(edges: Sequence[int], index: int) -> str:
    """The tokens of a part, counted from 1: ``13 to 24``, or ``5`` where it is a single one."""
    first, last = edges[index] + 1, edges[index + 1]
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def _cell(line: Json, counted: Json, index: int) -> str:
    rate, low, high = (line[name][index] for name in ("rate", "low", "high"))
    bounds = None if low is None else (low, high)
    interval = f" {figures.interval(bounds, 100, 1)}" if bounds else ""
    return f"{figures.share(rate)}{interval}, {counted['tokens'][index]:,} tokens"


def _timeline_words(timeline: Json, edges: Sequence[int]) -> str:
    """Where the two sides differ beyond their intervals."""
    apart = [
        index
        for index in range(len(edges) - 1)
        if None not in (timeline["positive"]["low"][index], timeline["negative"]["low"][index])
        and (
            timeline["positive"]["low"][index] > timeline["negative"]["high"][index]
            or timeline["negative"]["low"][index] > timeline["positive"]["high"][index]
        )
    ]
    bins = len(edges) - 1
    if not apart:
        return f"In none of {figures.count(bins, 'part')} of the text do the two 95 % intervals lie apart."
    if len(apart) == bins:
        return "In all parts of the text the two 95 % intervals lie apart."
    where = ", ".join(_place(edges, i) for i in apart[:4])
    more = f" and {len(apart) - 4} more" if len(apart) > 4 else ""
    return f"The two 95 % intervals lie apart in {len(apart)} of {bins} parts: at tokens {where}{more}."


def _steps(rates: Sequence[float | None], top: float) -> str:
    """A step for each bin; a gap where there is no rate."""
    made, pen = [], False
    for index, rate in enumerate(rates):
        if rate is None:
            pen = False
            continue
        left, right, y = *_ends(index, len(rates)), _height(rate, top)
        made.append(f"{'L' if pen else 'M'}{left} {y}H{right}")
        pen = True
    return "".join(made)


def _band(low: Sequence[float | None], high: Sequence[float | None], top: float) -> str:
    made = []
    for index, (bottom, upper) in enumerate(zip(low, high, strict=True)):
        if bottom is not None and upper is not None:
            left, right = _ends(index, len(low))
            made.append(f"M{left} {_height(upper, top)}H{right}V{_height(bottom, top)}H{left}z")
    return "".join(made)


def _ends(index: int, bins: int) -> tuple[int, int]:
    return round(WIDTH * index / bins), round(WIDTH * (index + 1) / bins)


def _height(rate: float, top: float) -> int:
    return round(2 + (HEIGHT - 4) * (1 - min(rate / top, 1.0)))


def _windows_note(windows: Sequence[Json]) -> str:
    """What a reader must not conclude from the strongest windows."""
    if not windows:
        return ""
    without = sum(one["matched"] is None for one in windows)
    missing = f" {without} of them {'has' if without == 1 else 'have'} no match." if without else ""
    return (
        "These are the places with the largest gate weights, not typical ones. Beside each stands a place where the "
        "expert was not chosen: at the same token, of the other side where there is one, else at the same position. "
        f"What sets the two apart may be what it reacts to, or chance.{missing}"
    )


def _digits(value: float) -> str:
    return f"{value:g}".replace("-", "\u2212")


def _signed(value: float) -> str:
    rounded = round(value, 6)
    return "0" if rounded == 0 else f"{rounded:+g}".replace("-", "\u2212")
