"""Whether an outcome moves with the dose, prompt by prompt, and more than under sham experts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import page_trend_test, rankdata

from moeprobe.judging.intervals import means, number, numbers

Floats = NDArray[np.float64]
# A prompt counts as flat, and a step as no step, below this share of the largest change anywhere in the series.
_STILL = 1e-9


@dataclass(frozen=True)
class Trend:
    """The trend of one series.

    Attributes:
        slope: (prompts,) least-squares slope of the outcome on the dose, per unit of dose.
        spearman: (prompts,) rank correlation of dose and outcome; NaN where the outcome never moves.
        mean, ci: of the slopes, with a 95 % bootstrap interval over prompts.
        p: Page's trend test over prompts, both directions (twice the smaller one-sided p, at most 1). It asks whether
            there is a trend at all, not how large it is.
        monotone: prompts whose outcome moves and never turns around.
        flat: prompts whose outcome is the same to the bit at every dose.
    """

    slope: Floats
    spearman: Floats
    mean: float
    ci: tuple[float, float]
    p: float
    monotone: int
    flat: int

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "slope": {
                "mean": number(self.mean), "ci": [number(end) for end in self.ci], "per_prompt": numbers(self.slope),
            },
            "spearman": numbers(self.spearman),
            "page_p": self.p,
            "monotone": self.monotone,
            "flat": self.flat,
        }  # fmt: skip


@dataclass(frozen=True)
class Contrast:
    """The target's trend against that of sham experts.

    Attributes:
        difference, ci: mean slope of the target minus the mean slope of the shams, with an interval over prompts.
        rank: place of the target's absolute mean slope among its own and the shams', 1 = steepest; ties count against
            the target.
        of: shams + 1.
    """

    difference: float
    ci: tuple[float, float]
    rank: int
    of: int

    @property
    def p(self) -> float:
        """Competitive p: rank / of. It cannot be below 1 / (shams + 1)."""
        return self.rank / self.of

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        ends = [number(end) for end in self.ci]
        return {"difference": self.difference, "ci": ends, "rank": self.rank, "of": self.of, "p": self.p}


def trend(doses: Sequence[float], outcome: Floats, *, bootstrap: int = 10_000, seed: int = 0) -> Trend:
    """The trend of an outcome over finite doses.

    Args:
        doses: (doses,) finite, increasing, at least 3.
        outcome: (prompts, doses).
        bootstrap, seed: of the interval over prompts.
    """
    x = np.asarray(doses, dtype=np.float64)
    centred = x - x.mean()
    slope = outcome @ centred / (centred**2).sum()
    flat = (outcome == outcome[:, :1]).all(axis=1)
    slope[flat] = 0.0
    step = np.diff(outcome, axis=1)
    still = _STILL * max(float(np.abs(outcome - outcome[:, :1]).max()), 1e-300)
    monotone = ((step >= -still).all(axis=1) | (step <= still).all(axis=1)) & ~flat
    found = means(slope, bootstrap=bootstrap, seed=seed)
    return Trend(slope, _spearman(x, outcome), float(found.mean[0]), (float(found.low[0]), float(found.high[0])),
                 _page(outcome), int(monotone.sum()), int(flat.sum()))  # fmt: skip


def contrast(target: Trend, shams: Sequence[Trend], *, bootstrap: int = 10_000, seed: int = 0) -> Contrast | None:
    """The target against shams measured on the same prompts; None without shams."""
    if not shams:
        return None
    other = np.stack([sham.slope for sham in shams]).mean(axis=0)
    found = means(target.slope - other, bootstrap=bootstrap, seed=seed)
    steeper = sum(abs(sham.mean) >= abs(target.mean) for sham in shams)
    return Contrast(
        float(found.mean[0]), (float(found.low[0]), float(found.high[0])), 1 + steeper, len(shams) + 1
    )  # fmt: skip


def _spearman(doses: Floats, outcome: Floats) -> Floats:
    """(prompts,) Spearman's rank correlation with ties at their mean rank; NaN where all outcomes are equal."""
    ranks = rankdata(outcome, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    wanted = rankdata(doses)
    wanted -= wanted.mean()
    size = np.sqrt((ranks**2).sum(axis=1) * (wanted**2).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = np.where(size > 0, ranks @ wanted / size, np.nan)
    return result


def _page(outcome: Floats) -> float:
    """Page's L (1963) in both directions. With ties the variance without ties is used, which is on the safe side."""
    tied = any(len(np.unique(row)) < len(row) for row in outcome)
    how = "asymptotic" if tied else "auto"
    up, down = (page_trend_test(values, method=how).pvalue for values in (outcome, outcome[:, ::-1]))
    return min(1.0, 2 * min(float(up), float(down)))
