"""The moderated t-test (limma): a t-test whose variance borrows strength from all other experts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from moeprobe.errors import StatsError
from moeprobe.stats.prior import VariancePrior, fit_prior

Array = NDArray[np.float64]
# A p below the smallest normal double is reported as that number: 0 would claim certainty.
SMALLEST_P = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class ModeratedT:
    """Result of a moderated t-test; arrays are (experts,) and finite.

    Attributes:
        t: moderated t; 0 where nothing varies at all.
        p: two-sided p, in (0, 1].
        df: total degrees of freedom (residual + prior, at most the residual ones of all experts together).
        effect: difference of the means, group 1 minus group 0 (or the mean pair difference).
        variance: the variance that t used (posterior, never below the floor).
        prior_df: prior degrees of freedom; 0 without moderation, infinity where all share the prior variance.
        prior_variance: prior variance of each expert; NaN without moderation.
        prior_kind: "trended", "global" or "none".
    """

    t: Array
    p: Array
    df: Array
    effect: Array
    variance: Array
    prior_df: float
    prior_variance: Array
    prior_kind: str


def moderated_t(
    values: ArrayLike, labels: ArrayLike, *, trend: bool = True, floor: ArrayLike | None = None
) -> ModeratedT:
    """Two-sample moderated t-test of every expert, group 1 minus group 0.

    Equals limma's `eBayes(lmFit(y, ~label), trend=trend)`. The trend follows the mean of each expert over all samples.

    Args:
        values: (samples, experts), for example asin(sqrt(selection rate)) of each generation.
        labels: (samples,) 0 or 1; at least one of each and three in all.
        trend: let the prior variance follow the expert's mean; otherwise one prior for all.
        floor: scalar or (experts,): the variance used is never smaller (`rates.sampling_floor`). Without it, an expert
            without any variance uses a numerical floor, and its p says only "tiny".

    Raises:
        StatsError: wrong shapes, values that are not finite, or too few samples.
    """
    table = _table(values)
    groups = np.asarray(labels)
    if groups.shape != table.shape[:1] or not np.isin(groups, (0, 1)).all():
        raise StatsError(f"Labels must be 0 or 1, one for each of {len(table)} samples; found shape {groups.shape}.")
    one, zero = table[groups == 1], table[groups == 0]
    if not len(one) or not len(zero) or len(table) < 3:
        raise StatsError(f"{len(one)} and {len(zero)} samples: a t-test needs one in each group and three in all.")
    effect = one.mean(axis=0) - zero.mean(axis=0)
    squares = ((one - one.mean(axis=0)) ** 2).sum(axis=0) + ((zero - zero.mean(axis=0)) ** 2).sum(axis=0)
    df = len(table) - 2
    unscaled = float(np.sqrt(1 / len(one) + 1 / len(zero)))
    return moderate(
        np.where(np.ptp(table, axis=0) > 0, effect, 0.0),
        _without_rounding(squares / df, table),
        df,
        unscaled,
        covariate=table.mean(axis=0) if trend else None,
        floor=floor,
    )


def moderated_t_paired(
    values: ArrayLike, others: ArrayLike, *, trend: bool = True, floor: ArrayLike | None = None
) -> ModeratedT:
    """Paired moderated t-test of every expert: one-sample test of `values - others`.

    The trend follows the mean of each expert over both members of all pairs.

    Args:
        values, others: (pairs, experts), row i of both being pair i; at least two pairs.
        trend, floor: as in `moderated_t`; the floor is for the variance of a difference.

    Raises:
        StatsError: shapes that differ, values that are not finite, or fewer than two pairs.
    """
    first, second = _table(values), _table(others)
    if first.shape != second.shape or len(first) < 2:
        raise StatsError(f"Pairs need two tables of one shape, two rows or more; found {first.shape}, {second.shape}.")
    difference = first - second
    return moderate(
        difference.mean(axis=0),
        _without_rounding(difference.var(axis=0, ddof=1), np.concatenate([first, second])),
        len(first) - 1,
        float(1 / np.sqrt(len(first))),
        covariate=(first + second).mean(axis=0) / 2 if trend else None,
        floor=floor,
    )


def moderate(
    effect: Array,
    variance: Array,
    df: float,
    unscaled: float,
    *,
    covariate: Array | None = None,
    floor: ArrayLike | None = None,
) -> ModeratedT:
    """Core of every moderated t: t = effect / (unscaled * sqrt(posterior variance)).

    Args:
        effect, variance: (experts,) estimated effect and residual variance.
        df: residual degrees of freedom, above 0.
        unscaled: standard error of the effect at residual variance 1 (limma's stdev.unscaled).
        covariate: (experts,) for a trended prior; None for one global prior.
        floor: scalar or (experts,) lower bound of the posterior variance. The prior is fitted to the variances as they
            are: raising them first would hide how much experts differ, and shrink the noisy ones too far.
    """
    prior = fit_prior(variance, df, covariate)
    posterior = _posterior(variance, df, prior)
    numerical = max(1e-5 * float(np.median(variance[variance > 0])) if (variance > 0).any() else 0.0, 1e-16)
    lowest = np.broadcast_to(np.asarray(0.0 if floor is None else floor, dtype=np.float64), variance.shape)
    used = np.maximum(posterior, np.where(lowest > 0, lowest, np.where(posterior > 0, 0.0, numerical)))
    total_df = np.full(variance.shape, min(df + prior.df, df * max(variance.size, 1)))
    t = effect / (unscaled * np.sqrt(used))
    p = np.clip(2 * student.sf(np.abs(t), total_df), SMALLEST_P, 1.0)
    return ModeratedT(t, p, total_df, effect, used, prior.df, prior.variance, prior.kind)


def _posterior(variance: Array, df: float, prior: VariancePrior) -> Array:
    if prior.df == 0:
        return variance
    if np.isinf(prior.df):
        return prior.variance
    return (df * variance + prior.df * prior.variance) / (df + prior.df)


def _table(values: ArrayLike) -> Array:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise StatsError(f"Values must be a finite table (samples, experts); found shape {table.shape}.")
    return table


def _without_rounding(variance: Array, table: Array) -> Array:
    """Set variances that are nothing but rounding of equal values to exactly 0."""
    noise = (64 * np.finfo(np.float64).eps * np.abs(table).max(axis=0, initial=0.0)) ** 2
    return np.where(variance <= noise, 0.0, variance)
