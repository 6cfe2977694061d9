"""What a dose series found: every prompt at every dose, trends, the comparison with shams, and what doses cannot do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.judging.intervals import means, number, numbers
from moeprobe.judging.trend import Contrast, Trend, contrast, trend
from moeprobe.sites import Site

Floats = NDArray[np.float64]
# Activation changes above a few percent of the stream make models garble, whatever they stand for.
LARGE = 0.05


@dataclass(frozen=True)
class Series:
    """One expert under one kind of dose.

    Attributes:
        doses: (doses,) rising; for a bias -inf is barred and +inf forced.
        outcome: (prompts, doses).
        rate: (prompts, doses) share of the prompt's positions at which the expert was chosen.
        weight: (prompts, doses) mean weight where it was chosen (times the scale); NaN where it never was.
        size: (prompts, doses) norm of the change of the block's output over the norm of the stream behind the layer,
            mean over positions.
        target: (prompts, doses) mean weight, over all positions, of the expert under study; of a sham: whether it
            crowds that one out.
    """

    doses: tuple[float, ...]
    outcome: Floats
    rate: Floats
    weight: Floats
    size: Floats
    target: Floats

    @property
    def finite(self) -> list[int]:
        """Places of the doses a trend is over. A forced expert keeps the weight of its own score, so forcing is no
        higher dose than the largest bias; barring and forcing stand beside the trend."""
        return [place for place, dose in enumerate(self.doses) if np.isfinite(dose)]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON, (prompts, doses) as lists of lists."""
        doses = [dose_name(dose) if np.isinf(dose) else dose for dose in self.doses]
        arrays = {name: numbers(getattr(self, name)) for name in ("outcome", "rate", "weight", "size", "target")}
        return {"doses": doses, **arrays}


@dataclass(frozen=True)
class DoseResult:
    """A dose series with its shams.

    Attributes:
        site: the expert.
        shams: the experts it is compared with.
        prompts: names.
        metric: the metric as a record.
        side: which prompts of the pairs were run.
        series, trends: by site and kind ("bias", "scale").
        contrasts: the site against its shams, by kind.
        notes: what a reader must know: doses that reach nothing, saturation, changes too large to be natural.
        bootstrap, seed: of the intervals.
    """

    site: Site
    shams: tuple[Site, ...]
    prompts: tuple[str, ...]
    metric: Mapping[str, Any]
    side: str
    series: Mapping[Site, Mapping[str, Series]]
    trends: Mapping[Site, Mapping[str, Trend]]
    contrasts: Mapping[str, Contrast | None]
    notes: tuple[str, ...]
    bootstrap: int
    seed: int

    @classmethod
    def of(
        cls,
        site: Site,
        shams: Sequence[Site],
        prompts: tuple[str, ...],
        series: Mapping[Site, Mapping[str, Series]],
        *,
        metric: Mapping[str, Any],
        side: str,
        bootstrap: int,
        seed: int,
    ) -> "DoseResult":
        """Trends, contrasts and notes from the measured series."""
        draw = {"bootstrap": bootstrap, "seed": seed}
        trends = {
            one: {
                kind: trend([found.doses[place] for place in found.finite], found.outcome[:, found.finite], **draw)
                for kind, found in kinds.items()
            }
            for one, kinds in series.items()
        }
        contrasts = {
            kind: contrast(own, [trends[sham][kind] for sham in shams], **draw) for kind, own in trends[site].items()
        }
        notes = [note for kind, found in series[site].items() for note in _notes(site, kind, found)]
        notes += _crowding(site, [series[sham]["bias"] for sham in shams if "bias" in series[sham]])
        found = (series, trends, contrasts, tuple(notes))
        return cls(site, tuple(shams), prompts, metric, side, *found, bootstrap, seed)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        sites = {
            str(one): {kind: {**found.to_json(), **self.trends[one][kind].to_json()} for kind, found in kinds.items()}
            for one, kinds in self.series.items()
        }
        against = {kind: None if found is None else found.to_json() for kind, found in self.contrasts.items()}
        return {
            "site": str(self.site),
            "shams": [str(sham) for sham in self.shams],
            "prompts": list(self.prompts),
            "side": self.side,
            "metric": dict(self.metric),
            "series": sites,
            "against_shams": against,
            "notes": list(self.notes),
            "bootstrap": self.bootstrap,
            "seed": self.seed,
        }

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Head and lines: every dose of the site, and the mean outcome of its shams."""
        head = ("kind", "dose", "outcome", "95 % CI", "chosen %", "weight", "change %", "shams' outcome")
        lines: list[tuple[str, ...]] = []
        for kind, found in self.series[self.site].items():
            outcome = means(found.outcome, bootstrap=self.bootstrap, seed=self.seed)
            weight = means(found.weight, bootstrap=100, seed=self.seed).mean
            for place, dose in enumerate(found.doses):
                others = [self.series[sham][kind].outcome[:, place].mean() for sham in self.shams]
                lines.append((
                    kind, dose_name(dose), f"{outcome.mean[place]:.4f}",
                    f"[{outcome.low[place]:.4f}, {outcome.high[place]:.4f}]",
                    f"{100 * found.rate[:, place].mean():.1f}",
                    "-" if number(weight[place]) is None else f"{weight[place]:.3f}",
                    f"{100 * found.size[:, place].mean():.2f}",
                    f"{np.mean(others):.4f}" if others else "-",
                ))  # fmt: skip
        return head, lines

    def sentences(self) -> list[str]:
        """The trends and notes in words."""
        result = []
        for kind, own in self.trends[self.site].items():
            low, high = own.ci
            text = (
                f"{self.site}, {kind}: slope {own.mean:+.4g} per unit [{low:.4g}, {high:.4g}], "
                f"Page's test p = {own.p:.2g}, monotone in {own.monotone} of {len(self.prompts)} prompts, "
                f"flat in {own.flat}."
            )
            against = self.contrasts[kind]
            if against is not None:
                low, high = against.ci
                text += (
                    f" Minus the {len(self.shams)} shams: {against.difference:+.4g} [{low:.4g}, {high:.4g}]; "
                    f"place {against.rank} of {against.of}."
                )
            result.append(text)
        return [*result, *self.notes]


def dose_name(dose: float) -> str:
    """A dose in words: "bar", "force", or the number with its sign where it has one."""
    return {-np.inf: "bar", np.inf: "force"}.get(dose, f"{dose:g}")


def _notes(site: Site, kind: str, found: Series) -> list[str]:
    rate, doses = found.rate.mean(axis=0), found.doses
    places, notes = found.finite, []
    if kind == "scale":
        if not rate.any():
            notes.append(f"{site} is never chosen in these prompts, so scaling its contribution cannot do anything.")
    else:
        own = places[[doses[place] for place in places].index(0.0)]
        top, bottom = places[-1], places[0]
        if (found.rate[:, places] == found.rate[:, [own]]).all():
            notes.append(f"No bias from {doses[bottom]:g} to {doses[top]:g} changes how often {site} is chosen.")
        full = [doses[place] for place in places if rate[place] >= 1]
        none = [doses[place] for place in places if rate[place] <= 0]
        if full and full[0] < doses[top]:
            notes.append(
                f"From a bias of {full[0]:g} on, {site} is chosen everywhere: more changes its weight at most."
            )
        if none and none[-1] > doses[bottom]:
            notes.append(f"Up to a bias of {none[-1]:g}, {site} is never chosen: less changes nothing.")
        if not full:
            notes.append(
                f"A bias of {doses[top]:g} does not reach everywhere: {site} is chosen at {100 * rate[top]:.1f} % then."
            )
    large = [dose_name(doses[place]) for place in range(len(doses)) if found.size[:, place].mean() > LARGE]
    if large:
        notes.append(
            f"Under a {kind} of {', '.join(large)} the block's output changes by more than {100 * LARGE:g} % of the "
            "stream; changes of that size can garble a model, whatever the expert stands for."
        )
    return notes


def _crowding(site: Site, shams: Sequence[Series]) -> list[str]:
    """Experts compete for places and weight: a sham that is biased upward may push the site itself aside."""
    if not shams:
        return []
    finite = shams[0].finite
    weights = np.stack([sham.target.mean(axis=0)[finite] for sham in shams])
    usual, least = float(weights[0, [shams[0].doses[place] for place in finite].index(0.0)]), float(weights.min())
    if least > 0.9 * usual:
        return []
    fall = f"falls from {usual:.3g} to {least:.3g} under the worst of them"
    return [
        f"Biased shams crowd {site} out: its mean weight over all positions {fall}. What a sham's bias does is then "
        f"{site}'s own absence in part; a scale has no such side effect."
    ]
