"""Many tests at once."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from statsmodels.stats.multitest import multipletests

from moeprobe.errors import StatsError

_METHODS = {"bh": "fdr_bh", "by": "fdr_by", "holm": "holm"}


def adjust(p: ArrayLike, method: str = "bh") -> NDArray[np.float64]:
    """Adjusted p-values of any shape, by statsmodels' multipletests.

    Args:
        p: p-values of all tests of one question. NaN marks what was not tested: it stays NaN and does not count.
        method: "bh" (Benjamini-Hochberg 1995, gives q), "by" (Benjamini-Yekutieli 2001, under any dependence) or
            "holm" (family-wise).

    Raises:
        StatsError: an unknown method, or a p outside [0, 1].
    """
    if method not in _METHODS:
        raise StatsError(f"Unknown correction {method!r}. Choose one of {', '.join(_METHODS)}.")
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    tested = ~np.isnan(values)
    if not tested.any():
        return adjusted
    if values[tested].min() < 0 or values[tested].max() > 1:
        raise StatsError("A p-value lies outside [0, 1].")
    adjusted[tested] = multipletests(values[tested], method=_METHODS[method])[1]
    return adjusted
