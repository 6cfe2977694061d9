"""Labels that change inside a generation: are they aligned with the routing better than when shifted in a circle?

Neighbouring tokens depend on each other in label and in routing. Turning the label sequence of a generation in a circle
keeps both dependencies and breaks only their alignment. Claims are about these generations, not about new prompts.
They assume stationary generations: a label that comes only at the start, and routing that differs there, look aligned.

With x the label less its mean in the generation, the statistic is U = sum over generations and tokens of x r. All
shifts of one generation come from one Fourier transform. Generations are shifted independently, so that the mean (0)
and the variance of U over all shifts are sums over generations, and exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import irfft, rfft
from scipy.stats import norm

from moeprobe.errors import StatsError
from moeprobe.stats.moderated import SMALLEST_P

Array = NDArray[np.float64]
TIE = 1e-9
# Draws and experts that are added up together: 2 MB, which stay in the cache.
DRAWS, EXPERTS = 1024, 256


@dataclass(frozen=True)
class Shifted:
    """Result of a circular-shift test; arrays are (experts,) and finite.

    Attributes:
        statistic: sum of (label - its mean in the generation) * value over all tokens.
        z: the statistic over its exact standard deviation over all shifts; 0 where nothing varies.
        p: two-sided p of z by the normal approximation: good with several generations or many runs of the label.
        max_t_p: family-wise p: share of random shifts whose largest |z| of all experts is at least this |z|.
        draws: shifts that were looked at; all there are if that is `distinct`.
        distinct: how many there are, the product of the lengths of the generations in which the label changes.
        generations: in how many generations the label changes; the others say nothing.
        smallest_p: the smallest `max_t_p` that was possible.
    """

    statistic: Array
    z: Array
    p: Array
    max_t_p: Array
    draws: int
    distinct: int
    generations: int
    smallest_p: float


class ShiftTest:
    """Circular-shift test fed layer by layer; all layers see the same drawn shifts."""

    def __init__(self, labels: Sequence[ArrayLike], draws: int = 10_000, seed: int = 0) -> None:
        """Draw the shifts.

        Args:
            labels: for each generation (T_g,) 0 or 1, one for each token.
            draws: random shifts of all generations, for the family-wise p. Where no more distinct ones exist, all are
                taken.
            seed: of the random shifts.

        Raises:
            StatsError: labels of another form, or constant in every generation.
        """
        if draws < 1:
            raise StatsError(f"{draws} draws: at least one is needed.")
        found = [np.asarray(label) for label in labels]
        for number, label in enumerate(found):
            if label.ndim != 1 or not np.isin(label, (0, 1)).all():
                raise StatsError(f"Generation {number}: labels must be 0 or 1, one per token; found {label.shape}.")
        self._lengths = [len(label) for label in found]
        self._used = [g for g, label in enumerate(found) if len(label) and label.min() != label.max()]
        if not self._used:
            raise StatsError("The label changes in no generation, so there is nothing to shift. Compare generations.")
        self._x = [found[g] - found[g].mean() for g in self._used]
        sizes = [len(x) for x in self._x]
        self._distinct = math.prod(sizes)
        self._exhaustive = self._distinct <= draws
        rng = np.random.default_rng(seed)
        self._shifts: list[NDArray[np.int64]] = (
            [np.asarray(s) for s in np.unravel_index(np.arange(self._distinct), sizes)]
            if self._exhaustive
            else [rng.integers(0, size, draws) for size in sizes]
        )
        self._maxima = np.zeros(len(self._shifts[0]))
        self._parts: list[tuple[Array, Array]] = []

    def add(self, series: Sequence[ArrayLike]) -> None:
        """Add the experts of one layer.

        Args:
            series: for each generation (T_g, experts), for example selections less their expectation by token.

        Raises:
            StatsError: generations or tokens that do not match the labels, or values that are not finite.
        """
        if len(series) != len(self._lengths):
            raise StatsError(f"{len(series)} generations of values, but {len(self._lengths)} of labels.")
        width = (np.shape(series[self._used[0]]) or (0,))[-1]
        for number, (values, length) in enumerate(zip(series, self._lengths, strict=True)):
            if np.shape(values) != (length, width):
                raise StatsError(
                    f"Generation {number}: values must be (tokens, experts) = ({length}, {width}); "
                    f"found {np.shape(values)}."
                )
        for first in range(0, width, EXPERTS):
            part = [np.asarray(series[g])[:, first : first + EXPERTS].astype(np.float64) for g in self._used]
            self._add(part)

    def _add(self, series: list[Array]) -> None:
        tables = [_all_shifts(x, r) for x, r in zip(self._x, series, strict=True)]
        statistic = np.sum([table[0] for table, _ in tables], axis=0)
        variance = np.sum([(table**2).mean(axis=0) for table, _ in tables], axis=0)
        noise = (64 * np.finfo(np.float64).eps) ** 2 * np.sum([size for _, size in tables], axis=0)
        varies = variance > noise
        inverse = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
        for table, _ in tables:
            table *= inverse
        for start in range(0, len(self._maxima), DRAWS):
            stop = min(start + DRAWS, len(self._maxima))
            z = np.zeros((stop - start, len(statistic)))
            for (table, _), shifts in zip(tables, self._shifts, strict=True):
                z += table[shifts[start:stop]]
            np.abs(z, out=z)
            np.maximum(self._maxima[start:stop], z.max(axis=1, initial=0.0), out=self._maxima[start:stop])
        self._parts.append((np.where(varies, statistic, 0.0), statistic * inverse))

    def result(self) -> Shifted:
        """The test of all experts added so far, in their order.

        Raises:
            StatsError: nothing was added.
        """
        if not self._parts:
            raise StatsError("No values were added to the shift test.")
        statistic, z = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        count = len(self._maxima)
        reached = count - np.searchsorted(np.sort(self._maxima), np.abs(z) * (1 - TIE), side="left")
        family = reached / count if self._exhaustive else (1 + reached) / (1 + count)
        p = np.clip(2 * norm.sf(np.abs(z)), SMALLEST_P, 1.0)
        smallest = self._identical() / count if self._exhaustive else 1 / (1 + count)
        return Shifted(statistic, z, p, family, count, self._distinct, len(self._used), smallest)

    def _identical(self) -> int:
        """Shifts under which |U| is the same whatever the values: the labels come back, or all come back mirrored."""
        same = [sum(np.array_equal(np.roll(x > 0, s), x > 0) for s in range(len(x))) for x in self._x]
        # A turn that swaps the labels turns x into -x only where half of the tokens carry each.
        swapped = [sum(np.array_equal(np.roll(x > 0, s), x < 0) for s in range(len(x))) for x in self._x]
        return math.prod(same) + math.prod(swapped)


def circular_shift(
    series: Sequence[ArrayLike], labels: Sequence[ArrayLike], *, draws: int = 10_000, seed: int = 0
) -> Shifted:
    """Circular-shift test of labels inside generations, for every expert.

    Args:
        series: for each generation (T_g, experts) values, for example selections less their expectation by token.
        labels: for each generation (T_g,) 0 or 1.
        draws, seed: random shifts for the family-wise p.

    Raises:
        StatsError: see `ShiftTest`.
    """
    test = ShiftTest(labels, draws, seed)
    test.add(series)
    return test.result()


def _all_shifts(x: Array, values: Array) -> tuple[Array, Array]:
    """Row s is the statistic with the label turned s tokens onwards, (T, experts); and |x|^2 |values|^2, (experts,)."""
    if not np.isfinite(values).all():
        raise StatsError("The values of a generation hold NaN or infinity.")
    size = (x @ x) * (values**2).sum(axis=0)
    # x has mean 0, so taking off the mean of the values changes nothing but rounding.
    spectrum = rfft(values - values.mean(axis=0), axis=0)
    spectrum *= np.conj(rfft(x))[:, None]
    return irfft(spectrum, n=len(x), axis=0), size
