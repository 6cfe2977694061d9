"""What a number of units can show at all: power of the t-test, detectable effects, and the resolution of permutations.

The noncentral t is integrated here. scipy's `nct.cdf` gives NaN in its lower tail, and statsmodels' `solve_power` is
then silently wrong at the small alphas of ten thousand tests (d = 0.5, alpha = 0.05 / 10240, power 0.8, two-sided: it
answers 71.7 pairs, the truth is 127.4; STATISTICS 9).
"""

from collections.abc import Sequence
from math import ceil, comb, prod

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi
from scipy.stats import t as student

from moeprobe.errors import StatsError

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_LEVELS = np.array([1e-17, 1e-12, 1e-6, 1e-3, 0.02, 0.1, 0.3, 0.5])


def t_power(
    d: float, units1: float, units0: float | None = None, *, alpha: float = 0.05, prior_df: float = 0.0
) -> float:
    """Power of a two-sided t-test.

    Args:
        d: true effect in standard deviations: of a unit within its group, or (paired) of the pair difference.
        units1, units0: units of each group. Without `units0`, `units1` counts pairs.
        alpha: level of the single test.
        prior_df: degrees of freedom that moderation adds (`ModeratedT.prior_df`); the prior is taken as right.

    Raises:
        StatsError: too few units, or an alpha outside (0, 1).
    """
    df, scale = _design(units1, units0, prior_df)
    return _power(abs(d) * scale, _critical(alpha, df), df)


def detectable_d(
    units1: float,
    units0: float | None = None,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    prior_df: float = 0.0,
) -> float:
    """The smallest d that a two-sided t-test finds with this power. Arguments as in `t_power`.

    Raises:
        StatsError: too few units, or alpha and power not in 0 < alpha < power < 1.
    """
    df, scale = _design(units1, units0, prior_df)
    critical = _critical(alpha, df)
    _check_power(alpha, power)
    high = 2.0
    while _power(high, critical, df) < power:
        high *= 2
    return float(brentq(lambda shift: _power(shift, critical, df) - power, 0.0, high, xtol=1e-10)) / scale


def units_needed(
    d: float, *, alpha: float = 0.05, power: float = 0.8, paired: bool = False, prior_df: float = 0.0
) -> float:
    """Units per group (equal groups), or pairs, that give this power; a fraction, to be rounded up.

    Raises:
        StatsError: d is 0, or alpha and power not in 0 < alpha < power < 1.
    """
    _check_power(alpha, power)
    if not abs(d) > 0 or not np.isfinite(d):
        raise StatsError(f"No number of units detects an effect of {d}.")

    def reached(units: float) -> float:
        return t_power(d, units, None if paired else units, alpha=alpha, prior_df=prior_df) - power

    low = high = 2.0
    if reached(low) >= 0:
        return low
    while reached(high) < 0:
        low, high = high, 2 * high
    return float(brentq(reached, low, high, xtol=1e-6))


def bh_threshold(tests: int, true: int, *, level: float = 0.05) -> float:
    """About the p that Benjamini-Hochberg asks for when `true` of `tests` experts pass: level * true / tests.

    With true = 1 it is Bonferroni's: what a lone expert needs.

    Raises:
        StatsError: counts that do not fit.
    """
    if not 1 <= true <= tests:
        raise StatsError(f"{true} of {tests} experts cannot pass; give a number from 1 to the number of tests.")
    return level * true / tests


def smallest_permutation_p(
    blocks: Sequence[tuple[int, int]] | None = None, *, pairs: int | None = None, draws: int | None = None
) -> float:
    """The smallest two-sided p that relabelling the units can give.

    All arrangements are equally likely under the null, and the mirror image of an arrangement (every label turned)
    has the same absolute statistic: 2 of them are at least as extreme where the mirror image is an arrangement too
    (pairs; equal groups in every block), otherwise 1.

    Args:
        blocks: (units with label 1, units with label 0) of each block within which labels are permuted; one entry
            without blocks.
        pairs: number of pairs whose signs are flipped, instead of blocks.
        draws: random arrangements drawn; the p is then at least 1 / (1 + draws). None: all are enumerated.

    Returns:
        For example 2 / 184756 for [(10, 10)] and 2 / 2**10 for 10 pairs.

    Raises:
        StatsError: neither or both of blocks and pairs, or counts below 0.
    """
    if (blocks is None) == (pairs is None):
        raise StatsError("Give either the blocks or the number of pairs.")
    if pairs is not None:
        blocks = [(1, 1)] * pairs
    assert blocks is not None  # noqa: S101 - for mypy: exactly one was given
    if not blocks or min(min(block) for block in blocks) < 0:
        raise StatsError("Blocks need numbers of units from 0, and at least one block.")
    arrangements = prod(comb(one + zero, one) for one, zero in blocks)
    mirrored = 2 if all(one == zero for one, zero in blocks) else 1
    exact = min(1.0, mirrored / arrangements)
    return exact if draws is None else max(exact, 1 / (1 + draws))


def least_rejections(smallest_p: float, tests: int, *, level: float = 0.05) -> int:
    """How many experts must reach the smallest possible p together before Benjamini-Hochberg can reject one of them.

    10,240 experts and 10,000 draws: 21. Where this exceeds the number of tests, nothing can ever be rejected.

    Raises:
        StatsError: a p outside (0, 1].
    """
    if not 0 < smallest_p <= 1:
        raise StatsError(f"The smallest p must lie in (0, 1]; found {smallest_p}.")
    return max(1, ceil(smallest_p * tests / level * (1 - 1e-12)))  # an exact ratio must not be rounded up


def _design(units1: float, units0: float | None, prior_df: float) -> tuple[float, float]:
    """Degrees of freedom, and what d is multiplied by to give the noncentrality."""
    if prior_df < 0 or units1 < 1 or (units0 is not None and units0 < 1):
        raise StatsError(f"Power needs at least one unit in each group; found {units1} and {units0}.")
    df = (units1 - 1 if units0 is None else units1 + units0 - 2) + prior_df
    if df < 1:
        raise StatsError(f"{units1} and {units0} units leave no degrees of freedom for a t-test.")
    scale = np.sqrt(units1 if units0 is None else units1 * units0 / (units1 + units0))
    return float(df), float(scale)


def _critical(alpha: float, df: float) -> float:
    if not 0 < alpha < 1:
        raise StatsError(f"Alpha must lie between 0 and 1; found {alpha}.")
    return float(student.isf(alpha / 2, df))


def _check_power(alpha: float, power: float) -> None:
    if not 0 < alpha < power < 1:
        raise StatsError(f"Power must lie between alpha and 1; found alpha {alpha} and power {power}.")


def _power(shift: float, critical: float, df: float) -> float:
    return min(1.0, _upper_tail(shift, critical, df) + _upper_tail(-shift, critical, df))


def _upper_tail(shift: float, critical: float, df: float) -> float:
    """P(T > critical) for T = (Z + shift) / S, S = sqrt(chi2 / df): the integral of Phi(shift - critical s) over S.

    Gauss-Legendre on panels between quantiles of S and around s = shift / critical, where Phi turns from 1 to 0: both
    can be narrow against the other, so both set panels.
    """
    if df > 1e7:  # also an infinite prior: t is normal
        return float(ndtr(shift - critical))
    root = np.sqrt(df)
    quantiles = np.concatenate([chi.ppf(_LEVELS, df), chi.isf(_LEVELS[::-1], df)]) / root
    turn = (shift + np.array([-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 8.0])) / critical
    edges = np.unique(np.concatenate([quantiles, turn[(turn > quantiles[0]) & (turn < quantiles[-1])]]))
    half = np.diff(edges)[:, None] / 2
    s = edges[:-1, None] + half * (1 + _NODES)
    # dividing by the mass takes out the rounding of the density's logarithm at large df
    mass = chi.pdf(s * root, df) * half * _WEIGHTS
    return float((ndtr(shift - critical * s) * mass).sum() / mass.sum())
