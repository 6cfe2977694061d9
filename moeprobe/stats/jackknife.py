"""Intervals of dW and of its entry and valuation parts, from counts alone, by leaving out one unit at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from moeprobe.errors import StatsError
from moeprobe.stats.decomposition import Split, decompose
from moeprobe.stats.effects import Interval
from moeprobe.stats.rates import GATE_SCALE

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SplitInterval:
    """Entry and valuation and their sum W1 - W0, each with its interval; arrays (experts,)."""

    entry: Interval
    valuation: Interval
    difference: Interval


@dataclass(frozen=True)
class UnitCounts:
    """Checked counts of one group.

    Attributes:
        tokens: (units,) tokens of each unit.
        selected: (units, experts) tokens that chose the expert.
        gate: (units, experts) sums of its gate weights, int64 fixed point.
    """

    tokens: NDArray[np.int64]
    selected: NDArray[np.int64]
    gate: NDArray[np.int64]

    def rates(self, *, deleted: bool) -> tuple[Array, Array]:
        """S and Q pooled: (1, experts) over all units or, `deleted`, (units, experts) without each unit in turn.

        Sums are whole numbers, so leaving a unit out subtracts exactly: no selections left means Q = NaN, never noise.
        """
        tokens, selected, gate = (x.sum(axis=0, keepdims=True) for x in (self.tokens, self.selected, self.gate))
        if deleted:
            tokens, selected, gate = tokens - self.tokens, selected - self.selected, gate - self.gate
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = np.where(selected > 0, gate / GATE_SCALE / selected, np.nan)
        return selected / tokens[:, None], weight


def jackknife_split(
    tokens: ArrayLike,
    selected: ArrayLike,
    gate: ArrayLike,
    labels: ArrayLike,
    *,
    pairs: ArrayLike | None = None,
    level: float = 0.95,
) -> SplitInterval:
    """Entry, valuation and W1 - W0 of pooled tokens, with delete-one-unit jackknife intervals (STATISTICS 1).

    Variance: per independent group of n units (n - 1) / n * sum (theta without i - mean of these)**2, added up
    (Efron and Tibshirani 1993, chapter 11); t quantiles with Welch-Satterthwaite degrees of freedom. The variance of
    entry and difference is never below what independent tokens would give, with two successes and two failures added
    to the rate (Agresti-Coull), so that units which all agree do not give an interval of width 0. It is 0 for an
    expert that nobody chose; valuation has none where the weights cannot vary (k = 1, renormalised).

    Args:
        tokens: (units,) tokens of each unit, at least 1.
        selected: (units, experts) how many of them chose the expert.
        gate: (units, experts) sums of its gate weights, int64 fixed point (`rates.to_fixed`).
        labels: (units,) 1 or 0, two units of each at least.
        pairs: (units,) pair of each unit, one unit of each label in every pair: both are then left out together.
        level: coverage, for example 0.95.

    Raises:
        StatsError: wrong shapes or counts, too few units, or pairs that are not pairs.
    """
    one, zero = two_groups(tokens, selected, gate, labels, pairs)
    full = _split(one.rates(deleted=False), zero.rates(deleted=False))
    if pairs is None:
        deleted = [
            _split(one.rates(deleted=True), zero.rates(deleted=False)),
            _split(one.rates(deleted=False), zero.rates(deleted=True)),
        ]
    else:
        deleted = [_split(one.rates(deleted=True), zero.rates(deleted=True))]
    floor = _floor(one, zero)
    return SplitInterval(
        _interval(full.entry, [split.entry for split in deleted], level, floor),
        _interval(full.valuation, [split.valuation for split in deleted], level, np.zeros_like(floor)),
        _interval(full.difference, [split.difference for split in deleted], level, floor),
    )


def jackknife_variance(deleted: Sequence[Array]) -> tuple[Array, Array]:
    """Variance and degrees of freedom of a statistic of independent groups, from its delete-one values.

    Args:
        deleted: for each group (units of the group, experts): the statistic of all data without that unit.

    Returns:
        Two arrays (experts,): the sum of the groups' jackknife variances, and Welch-Satterthwaite degrees of freedom.
    """
    parts = [(len(x) - 1) / len(x) * ((x - x.mean(axis=0)) ** 2).sum(axis=0) for x in deleted]
    variance = np.sum(parts, axis=0)
    share = np.sum([part**2 / (len(x) - 1) for part, x in zip(parts, deleted, strict=True)], axis=0)
    smallest = float(min(len(x) - 1 for x in deleted))
    df = np.divide(variance**2, share, out=np.full(variance.shape, smallest), where=share > 0)
    return variance, np.maximum(df, smallest)


def two_groups(
    tokens: ArrayLike, selected: ArrayLike, gate: ArrayLike | None, labels: ArrayLike, pairs: ArrayLike | None = None
) -> tuple[UnitCounts, UnitCounts]:
    """Check counts of units and divide them by label: group 1, group 0. Paired units come in the same order in both.

    `gate` may be None (zeros) where only selections matter.

    Raises:
        StatsError: as `jackknife_split`.
    """
    count, chosen, groups = np.asarray(tokens), np.asarray(selected), np.asarray(labels)
    weight = np.zeros_like(chosen) if gate is None else np.asarray(gate)
    if chosen.ndim != 2 or weight.shape != chosen.shape or not count.shape == groups.shape == chosen.shape[:1]:
        raise StatsError(
            f"Counts of shapes tokens {count.shape}, selected {chosen.shape}, gate {weight.shape}, labels "
            f"{groups.shape} do not fit: expected (units,), (units, experts), (units, experts) and (units,)."
        )
    if any(x.dtype.kind not in "iu" for x in (count, chosen, weight)):
        raise StatsError("Tokens, selections and gate sums must be whole numbers (gate sums: rates.to_fixed).")
    if not np.isin(groups, (0, 1)).all() or min((groups == 1).sum(), (groups == 0).sum()) < 2:
        raise StatsError("A jackknife needs labels 1 and 0 and at least two units of each.")
    if count.min() < 1 or (chosen.size and (chosen.min() < 0 or (chosen > count[:, None]).any())):
        raise StatsError("A unit has no tokens, or more selections of one expert than tokens.")
    order = np.arange(len(count)) if pairs is None else _pair_order(np.asarray(pairs), groups)
    one, zero = order[groups[order] == 1], order[groups[order] == 0]
    exact = [x.astype(np.int64) for x in (count, chosen, weight)]
    return UnitCounts(*(x[one] for x in exact)), UnitCounts(*(x[zero] for x in exact))


def _pair_order(pairs: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    if pairs.shape != groups.shape:
        raise StatsError(f"Pairs {pairs.shape} and labels {groups.shape} must have one entry for each unit.")
    sides = [np.sort(pairs[groups == label]) for label in (0, 1)]
    if not np.array_equal(sides[0], sides[1]) or len(np.unique(sides[0])) < len(sides[0]):
        raise StatsError("Every pair must hold one unit with label 1 and one with label 0.")
    order: NDArray[np.int64] = np.argsort(pairs, kind="stable")
    return order


def _split(one: tuple[Array, Array], zero: tuple[Array, Array]) -> Split:
    shape = np.broadcast_shapes(one[0].shape, zero[0].shape)
    return decompose(*(np.broadcast_to(array, shape) for array in (*one, *zero)))


def _floor(one: UnitCounts, zero: UnitCounts) -> Array:
    """Smallest believable variance of entry and dW: Q**2 * p (1 - p) / n, tokens taken as independent; (experts,)."""
    variance = np.zeros(one.selected.shape[1])
    for group in (one, zero):
        n = group.tokens.sum()
        p = (group.selected.sum(axis=0) + 2) / (n + 4)
        variance += p * (1 - p) / n
    chosen = one.selected.sum(axis=0) + zero.selected.sum(axis=0)
    gate = (one.gate.sum(axis=0) + zero.gate.sum(axis=0)) / GATE_SCALE
    weight = np.divide(gate, chosen, out=np.zeros(variance.shape), where=chosen > 0)
    floor: Array = weight**2 * variance
    return floor


def _interval(estimate: Array, deleted: list[Array], level: float, floor: Array) -> Interval:
    variance, df = jackknife_variance(deleted)
    half = student.ppf(0.5 + level / 2, df) * np.sqrt(np.maximum(variance, floor))
    return Interval(estimate[0], estimate[0] - half, estimate[0] + half)
