"""Odds ratios: the log odds ratio with a jackknife error, shrunken towards what all experts show, and stratified."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from scipy.stats import t as student

from moeprobe.errors import StatsError
from moeprobe.stats.jackknife import UnitCounts, jackknife_variance, two_groups

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LogOdds:
    """Log odds ratio of being chosen, group 1 against group 0; arrays (experts,), all finite.

    Attributes:
        estimate: natural logarithm, 0.5 added to each of the four counts.
        se: standard error over units (delete-one jackknife), never below that of independent tokens.
        df: its degrees of freedom.
    """

    estimate: Array
    se: Array
    df: Array


@dataclass(frozen=True)
class Shrunk:
    """Posterior of the true effects under a mixture of normals around 0.

    Attributes:
        mean, sd: (experts,) posterior mean (the shrunken estimate) and standard deviation.
        weights, sds: (components,) share and standard deviation of the prior's components; the first is exactly 0.
        log_likelihood: of all estimates under that prior.
    """

    mean: Array
    sd: Array
    weights: Array
    sds: Array
    log_likelihood: float


@dataclass(frozen=True)
class MantelHaenszel:
    """Stratified comparison of tokens; arrays (experts,).

    Attributes:
        odds_ratio: common odds ratio; NaN where no stratum says anything, infinity where only one side does.
        chi2: Cochran-Mantel-Haenszel statistic without continuity correction, 1 degree of freedom; 0 where nothing can
            be said. It takes tokens for independent, which they are not (83-87 % false calls, STATISTICS 3a): for
            comparison with others only, never for a decision. There is no p here for that reason.
    """

    odds_ratio: Array
    chi2: Array


def log_odds(tokens: ArrayLike, selected: ArrayLike, labels: ArrayLike) -> LogOdds:
    """Log odds ratio of pooled tokens (Haldane-Anscombe, +0.5) and its standard error over units.

    For an expert chosen by few, the jackknife error can be far too small (0 selections vary little), so it is bounded
    below by Woolf's sqrt(1/a + 1/b + 1/c + 1/d), that of independent tokens.

    Args:
        tokens: (units,) tokens of each unit.
        selected: (units, experts) how many of them chose the expert.
        labels: (units,) 1 or 0, two units of each at least.

    Raises:
        StatsError: wrong shapes or counts, or too few units.
    """
    one, zero = two_groups(tokens, selected, None, labels)
    first, second = _logit(one, deleted=False), _logit(zero, deleted=False)
    variance, df = jackknife_variance([_logit(one, deleted=True) - second, first - _logit(zero, deleted=True)])
    woolf = np.zeros(variance.shape)
    for group in (one, zero):
        chosen = group.selected.sum(axis=0)
        woolf += 1 / (chosen + 0.5) + 1 / (group.tokens.sum() - chosen + 0.5)
    return LogOdds((first - second)[0], np.sqrt(np.maximum(variance, woolf)), df)


def shrink(
    estimate: ArrayLike, se: ArrayLike, *, df: ArrayLike | None = None, iterations: int = 5000, tolerance: float = 1e-9
) -> Shrunk:
    """Empirical-Bayes shrinkage: the estimates' own distribution says how large true effects are.

    Prior: sum_k w_k Normal(0, s_k**2) on a fixed grid of s_k (0, then a factor sqrt 2 apart), weights by EM from
    estimate ~ Normal(truth, se**2) (Stephens 2017, doi:10.1093/biostatistics/kxw041). With `df`, the error is first
    widened so that the normal gives the same tail probability as the t.

    Args:
        estimate, se: (experts,) effects and their standard errors, finite, se above 0.
        df: scalar or (experts,) degrees of freedom of se; None for known errors.
        iterations, tolerance: EM stops when the mean log likelihood gains less than this, or after so many steps.

    Raises:
        StatsError: shapes that differ, or values that are not finite and positive.
    """
    effect, error = np.asarray(estimate, dtype=np.float64), np.asarray(se, dtype=np.float64)
    if effect.ndim != 1 or not effect.size or effect.shape != error.shape:
        raise StatsError(f"Estimates {effect.shape} and errors {error.shape} must be two lists of the same experts.")
    if not (np.isfinite(effect).all() and np.isfinite(error).all() and error.min() > 0):
        raise StatsError("Estimates must be finite and their standard errors finite and above 0.")
    if df is not None:
        error = error * _widening(np.abs(effect) / error, np.asarray(df, dtype=np.float64))
    sds = _grid(effect, error)
    total = error[:, None] ** 2 + sds**2
    log_density = norm.logpdf(effect[:, None], scale=np.sqrt(total))
    top = log_density.max(axis=1)
    density = np.exp(log_density - top[:, None])
    weights, reached = _em(density, iterations, tolerance)
    share = density * weights
    share /= share.sum(axis=1, keepdims=True)
    gain = sds**2 / total
    means = gain * effect[:, None]
    mean = (share * means).sum(axis=1)
    variance = (share * (gain * error[:, None] ** 2 + means**2)).sum(axis=1) - mean**2
    return Shrunk(mean, np.sqrt(np.maximum(variance, 0.0)), weights, sds, reached + float(top.sum()))


def mantel_haenszel(
    selected1: ArrayLike, tokens1: ArrayLike, selected0: ArrayLike, tokens0: ArrayLike
) -> MantelHaenszel:
    """Common odds ratio over strata, for example token identities (Mantel and Haenszel 1959).

    Strata with tokens of one group alone add nothing.

    Args:
        selected1, selected0: (strata, experts) tokens of each group and stratum that chose the expert.
        tokens1, tokens0: (strata,) tokens of each group and stratum.

    Raises:
        StatsError: wrong shapes, or more selections than tokens.
    """
    a, c = np.asarray(selected1, dtype=np.float64), np.asarray(selected0, dtype=np.float64)
    n1, n0 = np.asarray(tokens1, dtype=np.float64), np.asarray(tokens0, dtype=np.float64)
    if a.ndim != 2 or a.shape != c.shape or not n1.shape == n0.shape == a.shape[:1]:
        raise StatsError(f"Strata do not fit: selected {a.shape} and {c.shape}, tokens {n1.shape} and {n0.shape}.")
    if a.size and (min(a.min(), c.min()) < 0 or (a > n1[:, None]).any() or (c > n0[:, None]).any()):
        raise StatsError("A stratum has more selections than tokens, or fewer than none.")
    both = (n1 > 0) & (n0 > 0)
    a, c, n1, n0 = a[both], c[both], n1[both, None], n0[both, None]
    total, chosen = n1 + n0, a + c
    favour, against = (a * (n0 - c) / total).sum(axis=0), ((n1 - a) * c / total).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = favour / against
    excess = (a - n1 * chosen / total).sum(axis=0)
    variance = (n1 * n0 * chosen * (total - chosen) / (total**2 * (total - 1))).sum(axis=0)
    chi2 = np.divide(excess**2, variance, out=np.zeros(variance.shape), where=variance > 0)
    return MantelHaenszel(ratio, chi2)


def _logit(group: UnitCounts, *, deleted: bool) -> Array:
    """Log odds of being chosen, (1, experts), or (units, experts) without each unit in turn."""
    tokens, chosen = group.tokens.sum(keepdims=True), group.selected.sum(axis=0, keepdims=True)
    if deleted:
        tokens, chosen = tokens - group.tokens, chosen - group.selected
    odds: Array = np.log((chosen + 0.5) / (tokens[:, None] - chosen + 0.5))
    return odds


def _widening(t: Array, df: Array) -> Array:
    """t / z where z has the same tail probability under the normal; its limit at t = 0 is a ratio of densities."""
    tail = np.maximum(student.sf(t, df), np.finfo(np.float64).tiny)
    z = norm.isf(tail)
    limit = norm.pdf(0.0) / student.pdf(0.0, df)
    return np.maximum(np.where(t > 1e-4, t / np.where(t > 1e-4, z, 1.0), limit), 1.0)


def _grid(effect: Array, error: Array) -> Array:
    """0, then from a tenth of the smallest error to twice the largest effect in excess of its error."""
    smallest = float(error.min()) / 10
    excess = float((effect**2 - error**2).max())
    largest = 2 * np.sqrt(excess) if excess > 0 else 8 * smallest
    steps = int(np.ceil(2 * np.log2(max(largest, 2 * smallest) / smallest))) + 1
    return np.concatenate([[0.0], smallest * 2 ** (np.arange(steps) / 2)])


def _em(density: Array, iterations: int, tolerance: float) -> tuple[Array, float]:
    weights = np.full(density.shape[1], 1 / density.shape[1])
    reached = -np.inf
    for _ in range(iterations):
        mixed = density @ weights
        now = float(np.log(mixed).sum())
        if now - reached < tolerance * len(density):
            break
        reached = now
        weights = weights * (density.T @ (1 / mixed)) / len(density)
    return weights / weights.sum(), float(np.log(density @ (weights / weights.sum())).sum())
