"""The profile over layers: a small bar chart for each measure, as SVG positions, and the same in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.report import figures
from moeprobe.report.voice import Voice

Json = Mapping[str, Any]

TALL = 72  # pixels of a chart
BASE = 70
LEAST_LAYERS = 2  # below, a profile shows nothing that the tables do not
CHANCE_T = 0.8  # mean of |t| where nothing is there: sqrt(2 / pi) for many degrees of freedom


@dataclass(frozen=True)
class Bar:
    """One layer of one chart; `faint` where the value is within what chance gives or was not tested for it."""

    x: str
    width: str
    y: float
    height: float
    faint: bool


@dataclass(frozen=True)
class Chart:
    """One measure over all layers."""

    label: str
    note: str
    top: str
    bars: list[Bar]
    line: float | None
    description: str


@dataclass(frozen=True)
class Profile:
    """The charts of one question and the names below them; no charts where the model has a single layer of experts."""

    charts: list[Chart]
    ticks: list[tuple[str, str]]


def profile(asked: Json, rows: Sequence[Json], layers: Sequence[Json], voice: Voice) -> Profile:
    """Lay out every measure that has a value in some layer."""
    numbers = sorted(int(layer["layer"]) for layer in layers)
    if len(numbers) < LEAST_LAYERS:
        return Profile([], [])
    by_layer: dict[int, list[Json]] = {number: [] for number in numbers}
    for row in rows:
        by_layer.setdefault(int(row["layer"]), []).append(row)
    whole = {int(one["layer"]): one for one in asked["layers"]}
    alpha = asked["design"]["alpha"]
    charts = [
        _divergence(numbers, whole, alpha),
        _effect(numbers, by_layer),
        _found(numbers, by_layer),
        *_entropy(numbers, whole, voice, alpha),
        _swapped(numbers, by_layer),
    ]
    step = -(-len(numbers) // 12)
    ticks = [(_middle(i, len(numbers)), f"L{number}") for i, number in enumerate(numbers) if i % step == 0]
    return Profile([chart for chart in charts if chart is not None], ticks)


def _divergence(numbers: Sequence[int], whole: Mapping[int, Json], alpha: float) -> Chart | None:
    values = {number: one["jsd"] for number, one in whole.items() if one.get("jsd") is not None}
    unsure = {number for number in values if (whole[number].get("jsd_q") or 0.0) >= alpha}
    return _chart(
        "Divergence, bits",
        f"how differently the two sides share out a layer\u2019s choices; pale: q of {alpha:g} or more",
        numbers,
        values,
        unsure,
        4,
    )


def _effect(numbers: Sequence[int], by_layer: Mapping[int, Sequence[Json]]) -> Chart | None:
    values = {}
    for number in numbers:
        sizes = [abs(row["t"]) for row in by_layer[number] if row["t"] is not None]
        if sizes:
            values[number] = sum(sizes) / len(sizes)
    return _chart(
        "Mean effect, |t|",
        "mean over all experts of the layer; dashed: about what chance alone gives (0.8)",
        numbers,
        values,
        set(),
        2,
        line=CHANCE_T,
    )


def _found(numbers: Sequence[int], by_layer: Mapping[int, Sequence[Json]]) -> Chart | None:
    tested = {number: [row for row in by_layer[number] if row["p"] is not None] for number in numbers}
    values = {
        number: 100 * sum(row["association"] == "associated" for row in rows) / len(rows)
        for number, rows in tested.items()
        if rows
    }
    return _chart("Associated, % of tested", "experts of the layer with q below the level", numbers, values, set(), 1)


def _entropy(numbers: Sequence[int], whole: Mapping[int, Json], voice: Voice, alpha: float) -> list[Chart | None]:
    known = {
        number: one["entropy1"] - one["entropy0"]
        for number, one in whole.items()
        if one.get("entropy1") is not None and one.get("entropy0") is not None
    }
    unsure = {number for number in known if (whole[number].get("entropy_q") or 0.0) >= alpha}
    return [
        _chart(
            f"Entropy, {voice.one} less {voice.other}",
            f"is a token\u2019s weight spread more evenly over its experts? pale: q of {alpha:g} or more",
            numbers,
            known,
            unsure,
            4,
        )
    ]


def _swapped(numbers: Sequence[int], by_layer: Mapping[int, Sequence[Json]]) -> Chart | None:
    values = {}
    for number in numbers:
        effects = [row["interchange"] for row in by_layer[number] if row["interchange"] is not None]
        sizes = [one[name]["percent"] for one in effects for name in ("necessity", "sufficiency")]
        known = [size for size in sizes if size is not None]
        if known:
            values[number] = max(known)
    return _chart(
        "Interchange, % of the gap",
        "largest necessity or sufficiency of a single expert of the layer; no bar: none was tested",
        numbers,
        values,
        set(),
        0,
    )


def _chart(
    label: str,
    note: str,
    numbers: Sequence[int],
    values: Mapping[int, float],
    faint: set[int],
    digits: int,
    line: float | None = None,
) -> Chart | None:
    """A chart of bars from a common zero; None where no layer has a value."""
    if not values:
        return None
    low, high = min(0.0, *values.values()), max(0.0, line or 0.0, *values.values())
    scale = (BASE - 4) / ((high - low) or 1.0)
    zero = BASE + low * scale
    bars = []
    for index, number in enumerate(numbers):
        value = values.get(number)
        if value is None:
            continue
        size = max(abs(value) * scale, 1.0)
        y = zero - size if value >= 0 else zero
        share = 100 / len(numbers)
        bars.append(Bar(f"{index * share:.2f}%", f"{0.84 * share:.2f}%", round(y, 1), round(size, 1), number in faint))
    top = f"{figures.number(low, digits)} to {figures.number(high, digits)}"
    return Chart(label, note, top, bars, None if line is None else round(zero - line * scale, 1), _said(values, digits))


def _said(values: Mapping[int, float], digits: int) -> str:
    """The three layers that stand out, in words."""
    leading = sorted(values, key=lambda number: -abs(values[number]))[:3]
    listed = ", ".join(f"L{number} {figures.number(values[number], digits)}" for number in leading)
    return f"Largest of {figures.count(len(values), 'layer')}: {listed}."


def _middle(index: int, total: int) -> str:
    return f"{100 * (index + 0.42) / total:.2f}%"
