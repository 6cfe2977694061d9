"""How much the probe's own mistakes shrink a difference between the two groups it makes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprobe.probes.clusters import cluster_numbers
from moeprobe.probes.quality import Quality
from moeprobe.probes.rates import Rate
from moeprobe.probes.rates import share as share_of

DRAWS = 20_000

# Why the record flatters the probe, and with it the factor.
_KIND = {
    "its own examples": ", which the rule was made on, so the figure is too kind",
    "held-out examples": ", which is kind where one author wrote rule and examples",
    "held-out examples, read again": ", after whose reading the rule was changed, and which is kind also where one "
    "author wrote rule and examples",
}


@dataclass(frozen=True)
class Attenuation:
    """What label error leaves of a difference.

    Attributes:
        factor: observed difference over true difference, in [0, 1].
        share: the estimated share of generations that truly are positive.
        basis: on what this rests, in words.
    """

    factor: Rate
    share: Rate
    basis: str

    def to_json(self) -> dict[str, object]:
        """`questions[].attenuation` of findings.json (docs/findings.md)."""
        rates = {"factor": self.factor, "share": self.share}
        parts = {name: {"value": rate.value, "ci": [rate.low, rate.high]} for name, rate in rates.items()}
        return {**parts, "basis": self.basis}


def attenuation(
    quality: Quality, called: Sequence[bool], prompts: Sequence[str] = (), on: str | None = None
) -> Attenuation | None:
    """Estimate how much of a true difference between positive and negative generations is left.

    A probe with sensitivity Se and specificity Sp calls the share p of the generations positive. The true share is
    (p + Sp - 1) / (Se + Sp - 1) (Rogan & Gladen 1978, American Journal of Epidemiology 107, 71-76), cut to [0, 1].
    From it follow the predictive values PPV and NPV, and the groups that the probe makes differ by the true difference
    times PPV + NPV - 1. The interval is made of 20,000 draws of Se, Sp and p from Beta(hits + 1/2, misses + 1/2); it
    reaches to the estimate where that lies outside (a perfect record). A draw in which the probe is worse than guessing
    counts as factor 0.

    Args:
        quality: where Se and Sp were measured; counts shrink where texts share prompts.
        called: (generations,) what the probe said of each that it answered.
        prompts: (generations,) their prompts, where several may share one.
        on: what `quality` was measured on, for `basis`; None: as `quality.on` says.

    Returns:
        None where nothing can be said: no text of one kind was answered, or the probe is no better than guessing.
    """
    recall, specificity = quality.recall, quality.specificity
    if recall.value is None or specificity.value is None or recall.value + specificity.value <= 1 or not called:
        return None
    clusters = cluster_numbers(prompts) if len(prompts) else list(range(len(called)))
    shares = [recall, specificity, share_of(called, clusters)]
    rng = np.random.default_rng(0)
    drawn = [rng.beta(*_halves(one), DRAWS) for one in shares]
    share, factor = _follows(*(np.array([one.value], dtype=np.float64) for one in shares))
    true_shares, factors = _follows(*drawn)
    return Attenuation(
        _rate(float(factor[0]), factors), _rate(float(share[0]), true_shares), _basis(quality, on or quality.on)
    )


def _halves(rate: Rate) -> tuple[float, float]:
    """Parameters of the posterior of a share under Jeffreys' prior."""
    hits, texts = (rate.value or 0.0) * (rate.texts or 0.0), rate.texts or 0.0
    return hits + 0.5, texts - hits + 0.5


def _follows(
    sensitivity: NDArray[np.float64], specificity: NDArray[np.float64], called: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True share and factor, each (draws,)."""
    better = sensitivity + specificity - 1
    usable = better > 0
    share = np.clip((called + specificity - 1) / np.where(usable, better, 1.0), 0.0, 1.0)
    share = np.where(usable, share, called)
    positive = sensitivity * share + (1 - specificity) * (1 - share)  # differs from `called` only where it was cut
    with np.errstate(divide="ignore", invalid="ignore"):
        right1 = np.where(positive > 0, sensitivity * share / positive, 0.0)
        right0 = np.where(positive < 1, specificity * (1 - share) / (1 - positive), 0.0)
    return share, np.where(usable & (positive > 0) & (positive < 1), np.clip(right1 + right0 - 1, 0.0, 1.0), 0.0)


def _rate(value: float, draws: NDArray[np.float64]) -> Rate:
    low, high = (float(end) for end in np.quantile(draws, (0.025, 0.975)))
    return Rate(value, min(low, value), max(high, value))


def _basis(quality: Quality, on: str) -> str:
    return (
        f"sensitivity {quality.recall.value:.2f} and specificity {quality.specificity.value:.2f} on {on} "
        f"({quality.examples}){_KIND.get(quality.on, '')}; assumes that these are like the generations of the trace, "
        "and that which generations the probe gets wrong has nothing to do with their routing"
    )
