"""Does a finding hang on one unit? The worst p of all analyses that leave one unit out, in closed form."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from moeprobe.errors import StatsError
from moeprobe.stats.moderated import SMALLEST_P, full_rank

Array = NDArray[np.float64]
_CHUNK = 2048  # experts at once: a few tables (units, experts) of float64
_ROUNDING = 64 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class LeaveOneOut:
    """The worst analysis without one unit; arrays (experts,).

    Attributes:
        unit: row number of the unit whose absence hurts most.
        t: moderated t without it; 0 where the effect cannot be estimated without it.
        p: its two-sided p; 1 where the sign turns, or where the effect cannot be estimated without that unit.
    """

    unit: NDArray[np.int64]
    t: Array
    p: Array


@dataclass(frozen=True)
class _Fit:
    """The design X = basis @ inverse(half)."""

    basis: Array  # (units, columns), orthonormal
    half: Array  # (columns, columns) inverse of the triangle; M = half @ half'


@dataclass(frozen=True)
class _Deletion:
    """What leaving out each unit does to the design; arrays (units,)."""

    keep: Array  # 1 - leverage; 1 where the unit carries a column of its own that the contrast does not need
    pull: Array  # change of the coefficient per residual, times keep
    unscaled: Array  # squared standard error at residual variance 1
    df: Array
    lost: NDArray[np.bool_]  # the coefficient cannot be estimated without this unit


def leave_one_out(
    values: ArrayLike,
    design: ArrayLike,
    column: int = -1,
    *,
    prior_df: float = 0.0,
    prior_variance: ArrayLike | None = None,
    floor: ArrayLike | None = None,
) -> LeaveOneOut:
    """Refit a linear model without each unit in turn and report the worst p of one coefficient, for every expert.

    Closed form (Cook and Weisberg 1982): without unit i, with leverage h, residual e and M = inverse of X'X,
    beta loses M x e / (1 - h), the residual sum of squares loses e**2 / (1 - h), and M gains M x x' M / (1 - h).
    The prior stays the one fitted to all units: with hundreds of experts one unit hardly moves it. Truncation,
    token strata and filters are not redone either.

    Args:
        values: (units, experts) response; pair differences for pairs.
        design: (units, columns) of full column rank, with the intercept. Two groups: [1, label]; pairs: [1].
        column: the tested column.
        prior_df, prior_variance: of the moderated t on all units (`ModeratedT`); prior_variance (experts,).
        floor: scalar or (experts,) lower bound of the variance, as given to the moderated t.

    Raises:
        StatsError: wrong shapes, values not finite, a design without full rank, or too few units.
    """
    table, model = np.asarray(values, dtype=np.float64), np.asarray(design, dtype=np.float64)
    if table.ndim != 2 or model.ndim != 2 or len(table) != len(model) or not -model.shape[1] <= column < model.shape[1]:
        raise StatsError(f"Values {table.shape}, design {model.shape} and column {column} do not fit.")
    if not (np.isfinite(table).all() and np.isfinite(model).all()):
        raise StatsError("Values and design must be finite.")
    experts = table.shape[1]
    prior = np.zeros(experts)
    if prior_df > 0:
        prior = np.full(0, np.nan) if prior_variance is None else np.asarray(prior_variance, dtype=np.float64)
        if prior.shape != (experts,) or not np.isfinite(prior).all():
            raise StatsError(f"A prior of {prior_df} df needs a finite variance for each of {experts} experts.")
    lowest = np.broadcast_to(np.asarray(0.0 if floor is None else floor, dtype=np.float64), (experts,))
    fit = _fit(model)
    deletion = _deletion(fit, column)
    if deletion.df.min() + prior_df < 1:
        raise StatsError(f"{len(model)} units and {model.shape[1]} columns leave nothing to test without one unit.")
    parts = [
        _worst(table[:, at], fit, column, deletion, prior_df, prior[at], lowest[at], experts)
        for at in (slice(start, start + _CHUNK) for start in range(0, experts, _CHUNK))
    ]
    if not parts:
        return LeaveOneOut(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0))
    unit, t, p = (np.concatenate(part) for part in zip(*parts, strict=True))
    return LeaveOneOut(unit, t, p)


def _fit(model: Array) -> _Fit:
    if not full_rank(model):
        raise StatsError(f"The design {model.shape} has no full column rank: a column repeats what others say.")
    # through QR throughout, which keeps twice the digits of inverting X'X
    basis, triangle = np.linalg.qr(model)
    return _Fit(basis, np.linalg.inv(triangle))


def _deletion(fit: _Fit, column: int) -> _Deletion:
    units, columns = fit.basis.shape
    pull = fit.basis @ fit.half[column]
    keep = 1 - (fit.basis**2).sum(axis=1)
    # leverage 1: the unit alone decides one direction of the design, and is fitted exactly
    alone = keep < 1e-9
    lost = alone & (np.abs(pull) > 1e-9 * np.abs(pull).max())
    keep = np.where(alone, 1.0, keep)
    unscaled = (fit.half[column] ** 2).sum() + np.where(alone, 0.0, pull**2 / keep)
    residual_df = units - columns
    return _Deletion(keep, np.where(alone, 0.0, pull), unscaled, np.where(alone, residual_df, residual_df - 1.0), lost)


def _worst(
    values: Array,
    fit: _Fit,
    column: int,
    deletion: _Deletion,
    prior_df: float,
    prior: Array,
    lowest: Array,
    experts: int,
) -> tuple[NDArray[np.int64], Array, Array]:
    rotated = fit.basis.T @ values
    beta = fit.half[column] @ rotated
    residual = values - fit.basis @ rotated
    keep, df = deletion.keep[:, None], deletion.df[:, None]
    effect = beta - deletion.pull[:, None] * residual / keep
    squares = (residual**2).sum(axis=0) - residual**2 / keep
    noise = len(values) * (_ROUNDING * np.abs(values).max(axis=0)) ** 2
    squares = np.where(squares <= noise, 0.0, squares)
    if np.isinf(prior_df):
        variance = np.broadcast_to(prior, squares.shape)
    else:
        variance = (squares + prior_df * prior) / np.maximum(df + prior_df, 1.0)
    used = np.maximum(np.maximum(variance, lowest), 1e-16)
    effect = np.where(np.abs(effect) <= _ROUNDING * np.abs(values).max(axis=0), 0.0, effect)
    t = effect / np.sqrt(deletion.unscaled[:, None] * used)
    t = np.where(deletion.lost[:, None], 0.0, t)
    # a t against the direction of the full analysis counts as no evidence at all
    forward = np.maximum(t * np.sign(beta), 0.0)
    total_df = np.minimum(deletion.df + prior_df, np.maximum(deletion.df, 1.0) * experts)
    unit, p = np.zeros(values.shape[1], dtype=np.int64), np.full(values.shape[1], -1.0)
    for each in np.unique(total_df):  # one or two values; within each, the smallest t has the largest p
        rows = np.flatnonzero(total_df == each)
        candidate = rows[np.argmin(forward[rows], axis=0)]
        tail = 2 * student.sf(np.take_along_axis(forward, candidate[None], axis=0)[0], each)
        unit, p = np.where(tail > p, candidate, unit), np.maximum(tail, p)
    return unit, np.take_along_axis(t, unit[None], axis=0)[0], np.clip(p, SMALLEST_P, 1.0)
