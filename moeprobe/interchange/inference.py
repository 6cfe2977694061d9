"""From per-pair effects to percentages with intervals, and to a verdict by a stated rule."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import InterchangeError
from moeprobe.findings import EFFECTS
from moeprobe.interchange.experiment import Effects, SiteEffects
from moeprobe.sites import ExpertSite

Floats = NDArray[np.float64]


def check_gap(effects: Effects) -> None:
    """Refuse when sensitive and control runs do not differ, for then a percentage means nothing.

    Raises:
        InterchangeError: the mean gap is not positive, or zero within rounding.
    """
    mean = float(effects.gap.mean())
    if mean <= 1e-6:
        raise InterchangeError(
            f"The control continuation is no less likely after the sensitive prompts than after the control prompts "
            f"(mean gap {mean:.3g} nats), so there is nothing to move. Check which label is sensitive."
        )


def resamples(pairs: int, draws: int, seed: int) -> Floats:
    """Bootstrap weights (draws, pairs): how often each pair is drawn, divided by the number of pairs."""
    generator = np.random.default_rng(seed)
    weights: Floats = generator.multinomial(pairs, np.full(pairs, 1 / pairs), size=draws) / pairs
    return weights


def ratio_of_means(values: Floats, gap: Floats, weights: Floats) -> dict[str, Any]:
    """Signed ratio of means in percent, with a percentile bootstrap interval over pairs.

    Args:
        values, gap: (pairs,) in nats.
        weights: from `resamples`, shared by all sites so that their intervals are comparable.
    """
    top, bottom = weights @ values, weights @ gap
    low, high = np.percentile(100 * top / bottom, [2.5, 97.5]) if bottom.min() > 0 else _guarded(top, bottom)
    return {
        "percent": float(100 * values.mean() / gap.mean()),
        "ci": [float(low), float(high)],
        "mean": float(values.mean()),
        "per_pair": [float(value) for value in values],
    }


def _guarded(top: Floats, bottom: Floats) -> tuple[float, float]:
    """Few or noisy pairs: some resamples have no positive gap. Their ratio is taken at the smallest positive gap, which
    widens the interval instead of hiding the trouble."""
    floor = bottom[bottom > 0].min()
    low, high = np.percentile(100 * top / np.maximum(bottom, floor), [2.5, 97.5])
    return float(low), float(high)


def summarise(
    effects: Effects,
    sites: list[ExpertSite],
    nulls: dict[int, list[ExpertSite]],
    *,
    bootstrap: int,
    seed: int,
    minimum_effect: float,
) -> dict[ExpertSite, dict[str, Any]]:
    """`rows[].interchange` of docs/findings.md for every tested site.

    Args:
        effects: from `measure`; must hold every site and every null site.
        sites: tested sites.
        nulls: by layer, the randomly chosen other experts.
        bootstrap: draws.
        seed: of the draws.
        minimum_effect: percent of the gap that an effect must exceed to count.
    """
    weights = resamples(len(effects.gap), bootstrap, seed)
    result = {}
    for site in sites:
        others = [other for other in nulls[site.layer] if other != site]
        own = effects.sites[site]
        summary: dict[str, Any] = {"pairs": len(effects.gap)}
        summary.update({name: ratio_of_means(getattr(own, name), effects.gap, weights) for name in EFFECTS})
        null: dict[str, Any] = {"sites": [str(other) for other in others]}
        for name in EFFECTS:
            null[name] = [percent(getattr(effects.sites[other], name), effects.gap) for other in others]
        summary["null"] = null
        summary["exactly_zero"] = exactly_zero(own)
        summary["necessary"] = passes(summary["necessity"], null["necessity"], minimum_effect)
        summary["sufficient"] = passes(summary["sufficiency"], null["sufficiency"], minimum_effect)
        result[site] = summary
    return result


def percent(values: Floats, gap: Floats) -> float:
    """Signed ratio of means times 100."""
    return float(100 * values.mean() / gap.mean())


def exactly_zero(effects: SiteEffects) -> bool:
    """Whether no swap and no knock-out changed the metric of any pair by a single bit."""
    return not any(getattr(effects, name).any() for name in EFFECTS)


def passes(effect: dict[str, Any], null: list[float], minimum_effect: float) -> bool:
    """The verdict rule: the whole interval lies above the minimum effect, and no null expert reaches the effect."""
    return bool(effect["ci"][0] > minimum_effect and all(effect["percent"] > other for other in null))


def rule(minimum_effect: float) -> str:
    """The verdict rule in words."""
    return (
        "necessary (sufficient): the 95 % bootstrap interval of the necessity (sufficiency) over pairs lies wholly "
        f"above {minimum_effect:g} % of the gap, and the effect is larger than that of every randomly chosen other "
        "expert of the layer"
    )
