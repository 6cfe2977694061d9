"""Do two lists of experts share more than chance would give them?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom

from moeprobe.errors import StatsError


@dataclass(frozen=True)
class Overlap:
    """Overlap of two sets of experts, and its exact null.

    Attributes:
        shared: experts in both sets.
        expected: mean under the null.
        p_more, p_fewer: chance of at least, and of at most, this overlap under the null.
        jaccard: shared / in either; NaN if both sets are empty.
        first, second, universe: sizes of the sets, and of all experts that could be in them.
    """

    shared: int
    expected: float
    p_more: float
    p_fewer: float
    jaccard: float
    first: int
    second: int
    universe: int


def overlap(first: ArrayLike, second: ArrayLike, layers: ArrayLike, *, universe: ArrayLike | None = None) -> Overlap:
    """Exact test of the overlap of two sets, layer by layer.

    Null: within each layer, the second set's experts are drawn at random, as many as it has there. The overlap is then
    a sum of independent hypergeometric numbers, whose distribution is their convolution. Two sets that merely prefer
    the same layers are no surprise under it. It does not know that busy experts are easier to find: sets found in
    the same data, or with the same filter, share experts for that reason too. Restrict `universe` to what could have
    been found in both.

    Args:
        first, second: (experts,) boolean, in the set or not.
        layers: (experts,) layer of each expert, any labels.
        universe: (experts,) boolean, experts that could be in either set (tested in both); default all.

    Raises:
        StatsError: wrong shapes or types, or a member outside the universe.
    """
    one, two, of_layer = np.asarray(first), np.asarray(second), np.asarray(layers)
    every = np.ones(one.shape, dtype=bool) if universe is None else np.asarray(universe)
    if one.ndim != 1 or not one.shape == two.shape == of_layer.shape == every.shape:
        raise StatsError(
            f"Sets, layers and universe differ: {one.shape}, {two.shape}, {of_layer.shape}, {every.shape}."
        )
    if any(x.dtype != np.bool_ for x in (one, two, every)):
        raise StatsError("Sets of experts must be given as True and False for each expert.")
    if ((one | two) & ~every).any():
        raise StatsError("A set holds an expert that lies outside the universe.")
    chance = np.ones(1)
    expected = 0.0
    for layer in np.unique(of_layer[every]):
        here = every & (of_layer == layer)
        size, a, b = int(here.sum()), int((one & here).sum()), int((two & here).sum())
        chance = np.convolve(chance, _hypergeometric(size, a, b))  # direct, so that small terms stay exact
        expected += a * b / size
    shared, either = int((one & two).sum()), int((one | two).sum())
    return Overlap(
        shared,
        expected,
        min(1.0, float(chance[shared:][::-1].sum())),
        min(1.0, float(chance[: shared + 1].sum())),
        shared / either if either else float("nan"),
        int(one.sum()),
        int(two.sum()),
        int(every.sum()),
    )


def _hypergeometric(size: int, first: int, second: int) -> NDArray[np.float64]:
    most = min(first, second)
    probability: NDArray[np.float64] = hypergeom.pmf(np.arange(most + 1), size, first, second)
    return probability
