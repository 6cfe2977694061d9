"""Empirical Bayes prior of a variance: what the other experts say about how much one expert varies.

Moment fit of a scaled F distribution to residual variances (Smyth 2004, doi:10.2202/1544-6115.1027), with the scale
following a covariate through a natural cubic spline as limma's `eBayes(trend=TRUE)` does. Written from the formulas;
agrees with limma 3.54.1 (tests/stats/data/limma_case.json).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import digamma, polygamma

Array = NDArray[np.float64]


@dataclass(frozen=True)
class VariancePrior:
    """Prior of residual variances.

    Attributes:
        df: prior degrees of freedom; 0 means no moderation, infinity means that all experts share the prior variance.
        variance: (experts,) prior variance of each expert; NaN where df is 0.
        kind: "trended", "global" or "none".
        experts: how many it was learnt from, where that is more than `variance` has: t cannot have more degrees of
            freedom than all of them together.
    """

    df: float
    variance: Array
    kind: str
    experts: int = 0


def fit_prior(
    variance: Array, df: float, covariate: Array | None = None, *, most_df: float = math.inf
) -> VariancePrior:
    """Fit the prior.

    Variances of exactly 0 cannot come from the model, so they do not enter the fit (limma instead replaces them by
    1e-5 of the median, which makes the prior useless where they are many). They still receive a prior variance.
    With fewer than three positive variances there is nothing to learn from: no moderation, as in limma.

    Args:
        variance: (experts,) residual variances.
        df: their degrees of freedom, the same for all, above 0.
        covariate: (experts,) what the trend follows (the mean response of each expert); None for one global prior.
        most_df: the prior's degrees of freedom count as no more than this; limma has no such bound.
    """
    ok = variance > 0
    if int(ok.sum()) < 3:
        return VariancePrior(0.0, np.full(variance.shape, np.nan), "none")
    # limma offsets tiny variances in the same way, so that one of them cannot rule the fit.
    usable = np.maximum(variance[ok], 1e-5 * np.median(variance[ok]))
    log_f = np.log(usable) - digamma(df / 2) + np.log(df / 2)
    spread: float
    basis = None if covariate is None else _spline_basis(covariate[ok], covariate)
    if basis is None:
        centre = np.full(variance.shape, log_f.mean())
        spread = float(log_f.var(ddof=1))
    else:
        coefficients, _, rank, _ = np.linalg.lstsq(basis[ok], log_f)
        centre = basis @ coefficients
        spread = float(np.sum((log_f - centre[ok]) ** 2) / (log_f.size - rank)) if log_f.size > rank else 0.0
    kind = "global" if basis is None else "trended"
    excess = spread - float(polygamma(1, df / 2))
    if excess > 0:
        prior_df = 2 * _trigamma_inverse(excess)
        return VariancePrior(
            min(prior_df, most_df), np.exp(centre + digamma(prior_df / 2) - np.log(prior_df / 2)), kind
        )
    scale = np.full(variance.shape, usable.mean()) if basis is None else np.exp(centre)
    return VariancePrior(most_df, scale, kind)


def _spline_basis(knot_values: Array, at: Array) -> Array | None:
    """Natural cubic spline basis, (experts, functions); spans what R's splines::ns(x, df, intercept=TRUE) spans.

    df follows limma: 1 + (n >= 3) + (n >= 6) + (n >= 30), no more than distinct values. Interior knots lie at equal
    quantiles. None where the covariate does not vary, so that a trend means nothing.
    """
    size, distinct = knot_values.size, np.unique(knot_values).size
    df = min(1 + (size >= 3) + (size >= 6) + (size >= 30), distinct)
    # Ties (many experts at one value) can make knots coincide; fewer knots are then all the data can carry.
    knots = np.unique(np.quantile(knot_values, np.linspace(0, 1, df)))
    if knots.size < 2:
        return None
    inside = np.clip(at, knots[0], knots[-1])  # outside lie only experts without variance: no extrapolation for them
    if knots.size == 2:
        slope = (inside - knots[0]) / (knots[1] - knots[0])
        return np.column_stack([1 - slope, slope])
    # One cardinal spline per knot (1 there, 0 at the others): same space as ns(), and well conditioned.
    cardinal: Array = CubicSpline(knots, np.eye(knots.size), bc_type="natural")(inside)
    return cardinal


def _trigamma_inverse(value: float) -> float:
    """Solve trigamma(y) = value by Newton's method on 1 / trigamma, which is convex (Smyth 2004, appendix)."""
    if value > 1e7:
        return float(1 / np.sqrt(value))
    if value < 1e-6:
        return 1 / value
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, y))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-8:
            break
    return y
