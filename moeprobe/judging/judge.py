"""From effects of sites over pairs to percentages, p, ranks and verdicts by the stated rule of `findings.causes`.

A site must show two things in a direction. The swap itself must move the metric towards the other side. And it must do
so more than a placebo donor of the recipient's own class: any disturbance moves a metric, for example the likelihood
of a run's own continuation. Neither suffices. The swap alone takes disturbance for cause. Swap minus placebo alone
takes the placebo's harm for cause: the partner in a pair shares its topic, the placebo donor does not, so a site that
carries the topic looks necessary because the placebo does damage. Both are columns of one family (`signflip`), and the
p of a direction is the larger of the two; a false verdict then needs a false rejection in that family.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import InterchangeError
from moeprobe.findings.causes import ALPHA, CAUSAL_EFFECTS, DECIDING, EFFECTS, MIN_PAIRS, judgement, material_effect
from moeprobe.judging.competitive import rank
from moeprobe.judging.ratio import Ratios, check_gap, oriented, ratios, resamples
from moeprobe.judging.signflip import FLIPS, flip_p, flip_signs, step_down_p
from moeprobe.stats.multiplicity import adjust

Floats = NDArray[np.float64]
Site = TypeVar("Site", bound=Hashable)
Effects = Mapping[Site, Mapping[str, Floats]]
CONTROLS = ("placebo", "random", "noise")
Adjustment = Literal["family-wise", "held out"]


@dataclass(frozen=True)
class Criteria:
    """What a verdict asks for.

    Attributes:
        minimum_effect: percent of the gap that an effect must exceed to count.
        material: percent of the gap that must be excluded before "no effect shown"; None: `material_effect`.
        alpha: of the sign flips and of the rank among comparison sites. Intervals are 95 % whatever it is.
        bootstrap: resamples of the pairs.
        flips: random sign patterns, where there are more than 13 pairs.
        seed: of resamples and sign patterns.
        placebo: refuse effects without a placebo donor; without one the verdict rests on the swap alone.
    """

    minimum_effect: float = 2.0
    material: float | None = None
    alpha: float = ALPHA
    bootstrap: int = 10_000
    flips: int = FLIPS
    seed: int = 0
    placebo: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.minimum_effect < self.thresholds["material_effect"]:
            raise InterchangeError("The minimum effect must be at least 0 and below the material effect.")
        if not 0 < self.alpha < 1 or min(self.bootstrap, self.flips) < 1:
            raise InterchangeError("alpha must lie between 0 and 1, and there must be at least one draw and one flip.")

    @property
    def thresholds(self) -> dict[str, float]:
        """As written into every row, so that its verdict can be recomputed from it."""
        material = material_effect(self.minimum_effect) if self.material is None else self.material
        return {"minimum_effect": self.minimum_effect, "material_effect": material, "alpha": self.alpha}


@dataclass(frozen=True)
class Judged:
    """What `judge` found.

    Attributes:
        gap: from `check_gap`.
        rows: `rows[].interchange` of docs/findings.md, by tested site.
    """

    gap: dict[str, Any]
    rows: dict[Any, dict[str, Any]]


def judge(
    effects: Effects[Site],
    gap: Floats,
    nulls: Mapping[Site, Sequence[Site] | None],
    criteria: Criteria | None = None,
    *,
    signed: bool = False,
    adjustment: Adjustment = "family-wise",
) -> Judged:
    """Effects, intervals, p, ranks and verdict flags of all tested sites.

    Args:
        effects: for every tested site and every comparison site its effects (pairs,) by name, positive in the
            direction sensitive minus control: necessity, sufficiency; where they were run also knockout and the
            controls placebo_necessity, random_necessity, noise_necessity and the same of sufficiency.
        gap: (pairs,) metric of the sensitive minus metric of the control run.
        nulls: comparison sites of each tested site. Empty: there are none, which allows no verdict. None: the site is
            alone of its kind and not compared.
        criteria: what a verdict asks for.
        signed: whether the gap may have either sign; effects are then read in its direction.
        adjustment: "family-wise" over all tested sites and both directions; "held out": false discovery rate, for
            sites that were chosen on other pairs (`confirm`).

    Raises:
        InterchangeError: shapes that do not fit, values that are not finite, no site, no clear gap, no placebo.
    """
    criteria, tested = criteria or Criteria(), list(nulls)
    _check(effects, gap, nulls, criteria)
    weights = resamples(len(gap), criteria.bootstrap, criteria.seed)
    found = check_gap(gap, weights, signed=signed)
    columns = {(site, *key): values for site in tested for key, values in _columns(effects[site]).items()}
    turned = oriented(np.column_stack(list(columns.values())), gap)
    shares = ratios(turned, oriented(gap, gap), weights)
    index = {key: number for number, key in enumerate(columns)}
    percents = _percents(effects, gap, nulls)
    chances = _chances(turned, oriented(gap, gap), index, tested, criteria, adjustment)
    rows = {}
    for site in tested:
        summary: dict[str, Any] = {
            "pairs": len(gap),
            "enough_pairs": len(gap) >= MIN_PAIRS,
            "thresholds": criteria.thresholds,
            "adjustment": adjustment,
            "exactly_zero": exactly_zero(effects[site]),
            "null": _null(effects, percents, nulls[site]),
        }
        for name in EFFECTS:
            if name in effects[site]:
                values = effects[site][name]
                summary[name] = {**_share(shares, index[site, name, "swap"], values), "per_pair": values.tolist()}
        for name in CAUSAL_EFFECTS:
            contrasts = {
                what: _share(shares, index[site, name, what], columns[site, name, what])
                for (one, other, what) in columns
                if (one, other) == (site, name) and what != "swap"
            }
            summary[name] |= {**chances[site, name], "contrasts": contrasts}
            summary[name]["rank"] = _rank(percents, site, nulls[site], name)
        rows[site] = summary | judgement(summary)
    return Judged(found, rows)


def exactly_zero(effects: Mapping[str, Floats]) -> bool:
    """Whether no swap and no knock-out changed the metric of any pair by a single bit."""
    return not any(effects[name].any() for name in EFFECTS if name in effects)


def deciding(effects: Mapping[str, Floats], name: str) -> list[Floats]:
    """What must exceed the minimum effect in a direction: the swap and, where they were run, the deciding contrasts."""
    columns = _columns(effects)
    return [columns[name, what] for what in ("swap", *DECIDING) if (name, what) in columns]


def _columns(effects: Mapping[str, Floats]) -> dict[tuple[str, str], Floats]:
    """Everything of a site that gets a percentage: (effect, "swap" or the name of a contrast) -> (pairs,)."""
    result = {(name, "swap"): effects[name] for name in EFFECTS if name in effects}
    for name in CAUSAL_EFFECTS:
        controls = {control: effects.get(f"{control}_{name}") for control in CONTROLS}
        for control, values in controls.items():
            if values is not None:
                result[name, f"minus_{control}"] = effects[name] - values
        if controls["random"] is not None and controls["placebo"] is not None:
            # Both donors come from another pair: what is left is the class, without the topic that a pair shares.
            result[name, "random_minus_placebo"] = controls["random"] - controls["placebo"]
    return result


def _chances(
    turned: Floats,
    gap: Floats,
    index: Mapping[tuple[Any, ...], int],
    tested: Sequence[Any],
    criteria: Criteria,
    adjustment: Adjustment,
) -> dict[tuple[Any, str], dict[str, float]]:
    """p of every site and direction: p above the minimum effect, p_zero (two-sided, against 0), and what p is the
    larger of: p_swap, p_minus_placebo, p_random_minus_placebo (held out: before adjustment)."""
    signs = flip_signs(len(gap), criteria.seed, criteria.flips)
    keys = [(site, name) for site in tested for name in CAUSAL_EFFECTS]
    asked = ["swap", *(what for what in DECIDING if all((*key, what) in index for key in keys))]
    values = np.column_stack([turned[:, [index[*key, what] for key in keys]] for what in asked])
    beyond = values - criteria.minimum_effect / 100 * gap[:, None]
    if adjustment == "family-wise":
        each = step_down_p(beyond, signs).reshape(len(asked), -1)
        p, p_zero = each.max(axis=0), step_down_p(values, signs, two_sided=True).reshape(len(asked), -1).max(axis=0)
    else:
        each = flip_p(beyond, signs).reshape(len(asked), -1)
        two = np.minimum(1, 2 * np.minimum(flip_p(values, signs), flip_p(-values, signs)))
        p, p_zero = adjust(each.max(axis=0)), adjust(two.reshape(len(asked), -1).max(axis=0))
    names = ["p", "p_zero", *(f"p_{what}" for what in asked)]
    table = np.vstack([p, p_zero, each])
    return {key: dict(zip(names, map(float, table[:, i]), strict=True)) for i, key in enumerate(keys)}


def _share(shares: Ratios, column: int, values: Floats) -> dict[str, Any]:
    ci = [float(shares.low[column]), float(shares.high[column])]
    return {"percent": float(shares.percent[column]), "ci": ci, "mean": float(values.mean())}


def _percents(
    effects: Effects[Site], gap: Floats, nulls: Mapping[Site, Sequence[Site] | None]
) -> dict[Site, dict[tuple[str, str], float]]:
    """Percentages of all tested and comparison sites, by effect and by "swap" or contrast."""
    every = dict.fromkeys([*nulls, *(other for others in nulls.values() for other in others or ())])
    total = gap.sum()
    return {
        site: {key: float(100 * values.sum() / total) for key, values in _columns(effects[site]).items()}
        for site in every
    }


def _null(
    effects: Effects[Site], percents: Mapping[Site, Mapping[tuple[str, str], float]], others: Sequence[Site] | None
) -> dict[str, Any]:
    """Percentages of the comparison sites, for each effect that all of them have."""
    sites = others or ()
    names = [name for name in EFFECTS if all((name, "swap") in percents[other] for other in sites)]
    swaps = {name: [percents[other][name, "swap"] for other in sites] for name in names}
    active = sum(not exactly_zero(effects[other]) for other in sites)
    return {"sites": [str(other) for other in sites], **swaps, "active": active, "asked": others is not None}


def _rank(
    percents: Mapping[Site, Mapping[tuple[str, str], float]], site: Site, others: Sequence[Site] | None, name: str
) -> dict[str, Any] | None:
    """Rank of a site by swap minus placebo, or by the swap where a comparison site was run without a placebo."""
    if others is None:
        return None
    placebo = all((name, "minus_placebo") in percents[one] for one in (site, *others))
    what = "minus_placebo" if placebo else "swap"
    own, *rest = (percents[one][name, what] for one in (site, *others))
    return {**rank(own, rest), "of": what}


def _check(
    effects: Effects[Site], gap: Floats, nulls: Mapping[Site, Sequence[Site] | None], criteria: Criteria
) -> None:
    if not nulls:
        raise InterchangeError("There is no site to judge.")
    if gap.ndim != 1:
        raise InterchangeError(f"The gap must be one number for each pair; found shape {gap.shape}.")
    every = list(dict.fromkeys([*nulls, *(other for others in nulls.values() for other in others or ())]))
    for site in every:
        if site not in effects:
            raise InterchangeError(f"There are no effects of {site}.")
        for name in CAUSAL_EFFECTS:
            if name not in effects[site]:
                raise InterchangeError(f"The {name} of {site} is missing.")
        for name, values in effects[site].items():
            if values.shape != gap.shape:
                raise InterchangeError(f"{name} of {site} has shape {values.shape}; the gap has {gap.shape}.")
            if not np.isfinite(values).all():
                raise InterchangeError(f"{name} of {site} is NaN or infinite in some pair.")
    with_placebo = [site for site in nulls if all(f"placebo_{name}" in effects[site] for name in CAUSAL_EFFECTS)]
    if len(with_placebo) < len(nulls) and (criteria.placebo or with_placebo):
        lacking = next(site for site in nulls if site not in with_placebo)
        raise InterchangeError(
            f"{lacking} was swapped without a placebo donor (another prompt of the recipient's own class). Without one "
            "any disturbance would pass for a cause. Each class needs at least two prompts."
        )
