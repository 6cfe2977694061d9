"""Why the mean weight of an expert differs: chosen more often (entry), or weighted more when chosen (valuation)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeprobe.errors import StatsError


@dataclass(frozen=True)
class Split:
    """entry + valuation = difference, each (experts,)."""

    entry: NDArray[np.float64]
    valuation: NDArray[np.float64]
    difference: NDArray[np.float64]


# S and Q are the names of these quantities everywhere: findings.json, docs, papers.
def decompose(S1: ArrayLike, Q1: ArrayLike, S0: ArrayLike, Q0: ArrayLike) -> Split:  # noqa: N803
    """Split W1 - W0 = S1 Q1 - S0 Q0 symmetrically (Shapley, for two factors the same as Kitagawa 1955).

    entry = (Q1 + Q0) / 2 * (S1 - S0), valuation = (S1 + S0) / 2 * (Q1 - Q0). A group that never selected the expert has
    no Q (NaN): it inherits the other group's, so that all of the difference is entry. With no Q at all, both are 0.

    Args:
        S1, Q1, S0, Q0: (experts,) selection rate and weight when selected, positive group (1) and negative group (0).

    Raises:
        StatsError: shapes that differ, or Q missing although S is above 0.
    """
    s1, q1, s0, q0 = (np.asarray(array, dtype=np.float64) for array in (S1, Q1, S0, Q0))
    if not s1.shape == q1.shape == s0.shape == q0.shape:
        raise StatsError(f"S1, Q1, S0, Q0 have shapes {s1.shape}, {q1.shape}, {s0.shape}, {q0.shape}; they must agree.")
    if (np.isnan(q1) & (s1 > 0)).any() or (np.isnan(q0) & (s0 > 0)).any():
        raise StatsError("Q is missing for an expert that was selected.")
    full1 = np.nan_to_num(np.where(np.isnan(q1), q0, q1))
    full0 = np.nan_to_num(np.where(np.isnan(q0), q1, q0))
    entry = (full1 + full0) / 2 * (s1 - s0)
    valuation = (s1 + s0) / 2 * (full1 - full0)
    return Split(entry, valuation, s1 * full1 - s0 * full0)
