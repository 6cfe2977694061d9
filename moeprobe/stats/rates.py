"""Selection rate S, weight when selected Q and mean weight W = S * Q, from sums that add up exactly.

Sums come first, ratios last, at every level of aggregation: a mean of Q's is not the Q of the mean (STATISTICS 1).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeprobe.errors import StatsError

# Gate weights are summed as integers of this many steps per unit, so that sums do not depend on order or sharding.
GATE_SCALE = 1 << 32


@dataclass(frozen=True)
class Rates:
    """S, Q and W of a set of tokens; each array has the shape of the counts it came from.

    Attributes:
        S: selection rate, selected / tokens.
        Q: mean weight when selected, weight / selected; NaN where never selected.
        W: mean weight, weight / tokens. W = S * Q to rounding, and W = 0 where never selected.
    """

    S: NDArray[np.float64]
    Q: NDArray[np.float64]
    W: NDArray[np.float64]


def to_fixed(weights: ArrayLike) -> NDArray[np.int64]:
    """Gate weights of any shape as int64 fixed point, rint(w * 2**32).

    The step is 2.3e-10, so a sum over n choices is off by at most n * 1.2e-10, whatever its order.

    Raises:
        StatsError: a weight is NaN, infinite, or so large (1e6) that sums could overflow.
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.size and not np.abs(values).max() <= 1e6:  # NaN fails this comparison too
        raise StatsError("Gate weights hold NaN, infinity or values beyond 1e6. The routing was not recorded properly.")
    return np.rint(values * GATE_SCALE).astype(np.int64)


def pool(tokens: int, selected: ArrayLike, gate: ArrayLike) -> Rates:
    """S, Q and W of `tokens` tokens.

    Args:
        tokens: number of tokens, at least 1.
        selected: (experts,) how many of the tokens chose the expert.
        gate: (experts,) sum of its gate weights, int64 fixed point (`to_fixed`).

    Raises:
        StatsError: no tokens, or shapes that differ.
    """
    count, total = np.asarray(selected, dtype=np.int64), np.asarray(gate, dtype=np.int64)
    if tokens < 1 or count.shape != total.shape:
        raise StatsError(f"Cannot pool {tokens} tokens with counts {count.shape} and gate sums {total.shape}.")
    weight = total.astype(np.float64) / GATE_SCALE
    with np.errstate(invalid="ignore", divide="ignore"):
        valued = np.where(count > 0, weight / count, np.nan)
    return Rates(count / tokens, valued, weight / tokens)


def asin_sqrt(rates: ArrayLike) -> NDArray[np.float64]:
    """asin(sqrt(rate)), any shape, in radians. It makes the sampling variance of a rate about 1 / (4 n) everywhere.

    Raises:
        StatsError: a rate outside [0, 1].
    """
    values = np.asarray(rates, dtype=np.float64)
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise StatsError("A selection rate lies outside [0, 1].")
    return np.arcsin(np.sqrt(values))


def sampling_floor(tokens: ArrayLike, rate: ArrayLike) -> NDArray[np.float64]:
    """Smallest believable variance of asin(sqrt(S_g)) between samples, (experts,).

    A rate counted on n independent tokens has sampling variance 1 / (4 n) on this scale; tokens of one generation are
    less than independent, so the truth is larger. Below about a quarter of an expected selection the variance of the
    transformed rate is instead about n p (1 / n) = p. The floor is the smaller of the two, with 1 / (4 n) averaged over
    the samples and p the rate pooled over both groups.

    Args:
        tokens: (samples,) tokens of each sample, at least 1.
        rate: (experts,) selection rate pooled over all samples.
    """
    counts: NDArray[Any] = np.asarray(tokens, dtype=np.float64)
    p = np.asarray(rate, dtype=np.float64)
    if counts.ndim != 1 or not counts.size or counts.min() < 1:
        raise StatsError(f"Token counts must be a list of numbers from 1; found shape {counts.shape}.")
    floor: NDArray[np.float64] = np.minimum(np.mean(0.25 / counts), p * (1 - p))
    return floor
