"""The moderated t-test (limma): a t-test whose variance borrows strength from all other experts."""

import math
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

    def prior(self, experts: ArrayLike) -> VariancePrior:
        """The prior of some experts (their numbers), to test a part of the data with what all of it taught."""
        return VariancePrior(self.prior_df, self.prior_variance[np.asarray(experts)], self.prior_kind, self.t.size)


def moderated_t(
    values: ArrayLike,
    labels: ArrayLike,
    *,
    trend: bool = True,
    floor: ArrayLike | None = None,
    abundance: ArrayLike | None = None,
) -> ModeratedT:
    """Two-sample moderated t-test of every expert, group 1 minus group 0.

    Equals limma's `eBayes(lmFit(y, ~label), trend=trend)`. The trend follows the mean of each expert over all samples.

    Args:
        values: (samples, experts), for example asin(sqrt(selection rate)) of each generation.
        labels: (samples,) 0 or 1; at least one of each and three in all.
        trend: let the prior variance follow the expert's mean; otherwise one prior for all.
        floor: scalar or (experts,): the variance used is never smaller (`rates.sampling_floor`). Without it, an expert
            without any variance uses a numerical floor, and its p says only "tiny".
        abundance: (experts,) what the trend follows instead of the mean, for values whose mean says nothing of how
            often an expert is selected (residuals).

    Raises:
        StatsError: wrong shapes, values that are not finite, or too few samples.
    """
    table = finite_table(values)
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
    level = table.mean(axis=0) if abundance is None else finite_vector(abundance, table.shape[1], "The abundance")
    return moderate(
        np.where(np.ptp(table, axis=0) > 0, effect, 0.0),
        without_rounding(squares / df, table),
        df,
        unscaled,
        covariate=level if trend else None,
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
    first, second = finite_table(values), finite_table(others)
    if first.shape != second.shape or len(first) < 2:
        raise StatsError(f"Pairs need two tables of one shape, two rows or more; found {first.shape}, {second.shape}.")
    difference = first - second
    return moderate(
        difference.mean(axis=0),
        without_rounding(difference.var(axis=0, ddof=1), np.concatenate([first, second])),
        len(first) - 1,
        float(1 / np.sqrt(len(first))),
        covariate=(first + second).mean(axis=0) / 2 if trend else None,
        floor=floor,
    )


def moderated_one(
    values: ArrayLike, *, trend: bool = True, floor: ArrayLike | None = None, covariate: ArrayLike | None = None
) -> ModeratedT:
    """One-sample moderated t-test of every expert: is the mean of `values` 0?

    Args:
        values: (samples, experts), for example differences within pairs or generations; at least two samples.
        trend: let the prior variance follow `covariate`.
        floor: as in `moderated_t`, for the variance of one value.
        covariate: (experts,) what the trend follows, for example the mean rate of each expert. The mean of the values
            cannot serve: it is what is tested. Without a covariate all experts have one global prior.

    Raises:
        StatsError: wrong shapes, values that are not finite, or fewer than two samples.
    """
    table = finite_table(values)
    if len(table) < 2:
        raise StatsError(f"{len(table)} samples: a one-sample t-test needs two or more.")
    return moderate(
        table.mean(axis=0),
        without_rounding(table.var(axis=0, ddof=1), table),
        len(table) - 1,
        float(1 / np.sqrt(len(table))),
        covariate=finite_vector(covariate, table.shape[1], "The covariate")
        if trend and covariate is not None
        else None,
        floor=floor,
    )


def moderated_linear(
    values: ArrayLike,
    design: ArrayLike,
    column: int = -1,
    *,
    trend: bool = True,
    floor: ArrayLike | None = None,
    abundance: ArrayLike | None = None,
    most_prior_df: float = math.inf,
    prior: VariancePrior | None = None,
) -> ModeratedT:
    """Moderated t-test of one coefficient of a linear model, fitted to every expert by least squares.

    Equals limma's `eBayes(lmFit(y, design), trend=trend)` for that coefficient. The trend follows the mean of each
    expert over all samples. With design [1, label] it is `moderated_t`.

    Args:
        values: (samples, experts).
        design: (samples, p), the intercept included: scores, covariates, dummies of blocks.
        column: which column of the design is tested; the others are held fixed.
        trend, floor: as in `moderated_t`; the floor is for the residual variance.
        abundance: (experts,) what the trend follows instead of the mean. With the intercept as the tested column
            (differences within pairs) it is needed for a trend: the mean of differences is what is tested.
        most_prior_df: the prior's degrees of freedom count as no more than this. limma has no such bound (infinity):
            where the variances differ no more than chance lets them, an expert's own variance then counts for nothing.
        prior: taken as it is instead of being fitted, for example that of all data in an analysis of a part.

    Raises:
        StatsError: wrong shapes, values that are not finite, columns that depend on each other linearly, or no more
            samples than columns.
    """
    table, x = finite_table(values), np.asarray(design, dtype=np.float64)
    if x.ndim != 2 or len(x) != len(table) or not np.isfinite(x).all():
        raise StatsError(f"The design must be a finite table of {len(table)} samples; found shape {x.shape}.")
    if not -x.shape[1] <= column < x.shape[1]:
        raise StatsError(f"The design has {x.shape[1]} columns; there is no column {column}.")
    df = len(table) - x.shape[1]
    if df < 1:
        raise StatsError(f"{len(table)} samples cannot carry {x.shape[1]} columns: use more samples or fewer columns.")
    if not full_rank(x):
        raise StatsError(
            f"The {x.shape[1]} columns of the design depend on each other (one is a sum of others, or constant beside "
            "the intercept), so their effects cannot be told apart. Leave one out."
        )
    q, r = np.linalg.qr(x)
    inverse: Array = np.linalg.inv(r)[column]
    rotated = q.T @ table
    squares = ((table - q @ rotated) ** 2).sum(axis=0)
    mean_tested = bool(np.ptp(x[:, column]) == 0)
    spread = np.abs(table).max(axis=0) if mean_tested else np.ptp(table, axis=0)
    level = None if mean_tested else table.mean(axis=0)
    if abundance is not None:
        level = finite_vector(abundance, table.shape[1], "The abundance")
    return moderate(
        np.where(spread > 0, inverse @ rotated, 0.0),
        without_rounding(squares / df, table),
        df,
        float(np.linalg.norm(inverse)),
        covariate=level if trend else None,
        floor=floor,
        most_prior_df=most_prior_df,
        prior=prior,
    )


def full_rank(x: Array) -> bool:
    """Whether no column of a design (samples, columns) depends on the others, whatever scales they are on."""
    length = np.linalg.norm(x, axis=0)
    return bool(length.all()) and bool(np.linalg.matrix_rank(x / length) == x.shape[1])


def moderate(
    effect: Array,
    variance: Array,
    df: float,
    unscaled: float,
    *,
    covariate: Array | None = None,
    floor: ArrayLike | None = None,
    most_prior_df: float = math.inf,
    prior: VariancePrior | None = None,
) -> ModeratedT:
    """Core of every moderated t: t = effect / (unscaled * sqrt(posterior variance)).

    Args:
        effect, variance: (experts,) estimated effect and residual variance.
        df: residual degrees of freedom, above 0.
        unscaled: standard error of the effect at residual variance 1 (limma's stdev.unscaled).
        covariate: (experts,) for a trended prior; None for one global prior.
        floor: scalar or (experts,) lower bound of the posterior variance. The prior is fitted to the variances as they
            are: raising them first would hide how much experts differ, and shrink the noisy ones too far.
        most_prior_df, prior: as in `moderated_linear`.
    """
    prior = prior or fit_prior(variance, df, covariate, most_df=most_prior_df)
    posterior = _posterior(variance, df, prior)
    numerical = max(1e-5 * float(np.median(variance[variance > 0])) if (variance > 0).any() else 0.0, 1e-16)
    lowest = np.broadcast_to(np.asarray(0.0 if floor is None else floor, dtype=np.float64), variance.shape)
    used = np.maximum(posterior, np.where(lowest > 0, lowest, np.where(posterior > 0, 0.0, numerical)))
    total_df = np.full(variance.shape, float(min(df + prior.df, df * max(prior.experts, variance.size, 1))))
    t = effect / (unscaled * np.sqrt(used))
    p = np.clip(2 * student.sf(np.abs(t), total_df), SMALLEST_P, 1.0)
    return ModeratedT(t, p, total_df, effect, used, prior.df, prior.variance, prior.kind)


def _posterior(variance: Array, df: float, prior: VariancePrior) -> Array:
    if prior.df == 0:
        return variance
    if np.isinf(prior.df):
        return prior.variance
    return (df * variance + prior.df * prior.variance) / (df + prior.df)


def finite_table(values: ArrayLike) -> Array:
    """`values` as a float64 table (samples, experts).

    Raises:
        StatsError: another shape, or values that are not finite.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise StatsError(f"Values must be a finite table (samples, experts); found shape {table.shape}.")
    return table


def finite_vector(values: ArrayLike, size: int, what: str) -> Array:
    """`values` as a float64 vector of `size` numbers; `what` begins the error's message.

    Raises:
        StatsError: another shape, or values that are not finite.
    """
    vector = np.asarray(values, dtype=np.float64)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise StatsError(f"{what} must be {size} finite numbers; found shape {vector.shape}.")
    return vector


def without_rounding(variance: Array, table: Array) -> Array:
    """Set variances that are nothing but rounding of equal values to exactly 0."""
    noise = (64 * np.finfo(np.float64).eps * np.abs(table).max(axis=0, initial=0.0)) ** 2
    return np.where(variance <= noise, 0.0, variance)
