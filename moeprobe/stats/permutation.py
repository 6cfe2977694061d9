"""Family-wise error by resampling: how large is the largest moderated t of all experts when nothing is there?

Max-T of Westfall and Young (1993), single step. The statistic is the moderated t with one difference: its prior is
fitted to the residual variances of the null model, which no arrangement changes. So the observed labels and each
rearranged ones go through one and the same function, as a permutation test demands. Its t is therefore slightly
smaller than that of `moderated_t` for experts with a large effect.

With r the residuals of an expert under the null model, x the tested column less the null model, scaled to length 1,
and a = x'r:

    t^2 = a^2 / max((|r|^2 - a^2 + d0 s0^2) / (df + d0), floor)

Only a changes between arrangements, so all of them cost one matrix product. t^2 / (df + d0 + t^2) = w^2 with
w = a / sqrt(|r|^2 + d0 s0^2): the largest |w| belongs to the largest |t|, and products of scaled residuals are enough.
With covariates (Freedman and Lane 1983) the null residuals are permuted and fitted anew; |r|^2 then loses what the
covariates explain of the permuted residuals, one more product for each covariate.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeprobe.errors import StatsError
from moeprobe.stats.moderated import finite_table, finite_vector, without_rounding
from moeprobe.stats.prior import fit_prior

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
# An arrangement that ties with the observed one must count, whatever the order of a sum did to its last digits.
TIE = 1e-10
# Arrangements and experts of one matrix product: 4 MB of results, which stay in the cache.
ARRANGEMENTS, EXPERTS = 512, 1024


@dataclass(frozen=True)
class MaxT:
    """Result of `permutation_max_t`.

    Attributes:
        p: (experts,) family-wise p: share of arrangements whose largest |t| of all experts is at least this |t|.
        t: (experts,) the observed moderated t, with the prior of the null model; 0 where nothing varies.
        draws: arrangements that were looked at; with `exhaustive` all there are, otherwise random ones.
        distinct: how many distinct arrangements there are.
        smallest_p: the smallest p that was possible at all.
    """

    p: Array
    t: Array
    draws: int
    distinct: int
    smallest_p: float

    @property
    def exhaustive(self) -> bool:
        """Whether p is exact, from all arrangements."""
        return self.draws == self.distinct


def permutation_max_t(
    values: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    scheme: Literal["permute", "flip"] = "permute",
    blocks: ArrayLike | None = None,
    covariates: ArrayLike | None = None,
    abundance: ArrayLike | None = None,
    draws: int = 10_000,
    seed: int = 0,
    trend: bool = True,
    floor: ArrayLike | None = None,
    most_prior_df: float = math.inf,
) -> MaxT:
    """Family-wise p of every expert: the largest |moderated t| of all experts under rearranged labels or signs.

    p = (1 + arrangements with max|t*| >= |t|) / (1 + draws). Where no more than `draws` distinct arrangements exist,
    all of them are taken and p is their share, exact (with covariates, Freedman-Lane holds only in large samples).

    Args:
        values: (samples, experts); with scheme "flip" one row of differences for each pair.
        labels: (samples,) 0/1 or any numbers, for "permute"; None for "flip".
        scheme: "permute" labels among samples, or "flip" the sign of whole rows (the null is symmetry about 0).
        blocks: (samples,) any codes: labels are permuted within blocks only, and block means are held fixed.
        covariates: (samples,) or (samples, c) numbers that are held fixed, without intercept.
        abundance: (experts,) what the trended prior follows; None: the mean of the values with "permute", and one
            global prior with "flip" (the mean of differences is what is tested).
        draws: random arrangements, at least 1.
        seed: of the random arrangements.
        trend: let the prior variance follow the abundance.
        most_prior_df: the prior's degrees of freedom count as no more than this.
        floor: scalar or (experts,) lower bound of the variance that t uses.

    Raises:
        StatsError: wrong shapes, values that are not finite, labels that cannot be rearranged, too few samples.
    """
    table = finite_table(values)
    if draws < 1:
        raise StatsError(f"{draws} draws: at least one arrangement is needed.")
    level = None if abundance is None else finite_vector(abundance, table.shape[1], "The abundance")
    if scheme == "flip":
        if labels is not None or blocks is not None or covariates is not None:
            raise StatsError("Sign flips take differences alone: no labels, blocks or covariates.")
        source: _Flips | _Permutations = _Flips(table)
    elif scheme == "permute":
        source = _Permutations(table, labels, blocks, covariates)
        level = table.mean(axis=0) if level is None else level
    else:
        raise StatsError(f'There is no scheme "{scheme}": use "permute" or "flip".')
    scale = _scale(source, table, level if trend else None, floor, most_prior_df)
    return _max_t(source, scale, draws, seed)


class Rearranged:
    """Squared moderated t of every expert under rearranged labels or signs, for statistics over several experts.

    The prior is that of the null model, as in `permutation_max_t`.
    """

    def __init__(
        self,
        values: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        blocks: ArrayLike | None = None,
        abundance: ArrayLike | None = None,
        floor: ArrayLike | None = None,
        most_prior_df: float = math.inf,
    ) -> None:
        """Arguments and errors as in `permutation_max_t`; without labels rows change sign."""
        table = finite_table(values)
        level = None if abundance is None else finite_vector(abundance, table.shape[1], "The abundance")
        flips = labels is None
        self._source: _Flips | _Permutations = _Flips(table) if flips else _Permutations(table, labels, blocks, None)
        self._scale = _scale(self._source, table, level, floor, most_prior_df)

    def observed(self) -> Array:
        """(experts,) as the labels are."""
        observed: Array = self._squared(self._source.columns[:, None])[0]
        return observed

    def drawn(self, draws: int, seed: int) -> Iterator[Array]:
        """(some, experts) for random arrangements, `draws` in all."""
        rng = np.random.default_rng(seed)
        for start in range(0, draws, ARRANGEMENTS):
            yield self._squared(self._source.draw(rng, min(ARRANGEMENTS, draws - start)))

    def _squared(self, columns: Array) -> Array:
        squared: Array = self._scale.t(self._scale.scores(columns, slice(None))) ** 2
        return squared


class _Flips:
    """Signs of whole rows. The null model is a mean of 0."""

    def __init__(self, table: Array) -> None:
        if len(table) < 2:
            raise StatsError(f"{len(table)} differences: sign flips need two or more.")
        self.residual, self.null_df, self.distinct = table, len(table), 2 ** len(table)
        self.columns = np.full((1, len(table)), 1 / math.sqrt(len(table)))

    def every(self) -> Array:
        """(1, distinct, samples): the tested column under every arrangement."""
        bits = np.arange(self.distinct)[:, None] >> np.arange(len(self.residual)) & 1
        signed: Array = self.columns[:, None] * (1 - 2 * bits)
        return signed

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """(1, count, samples): the same for random ones."""
        signed: Array = self.columns[:, None] * (1 - 2 * rng.integers(0, 2, (count, len(self.residual))))
        return signed


class _Permutations:
    """Orders of the null residuals within blocks. The null model is a mean for each block, and the covariates."""

    def __init__(
        self, table: Array, labels: ArrayLike | None, blocks: ArrayLike | None, covariates: ArrayLike | None
    ) -> None:
        size = len(table)
        if labels is None:
            raise StatsError("Permuting needs labels, one for each sample.")
        label = finite_vector(labels, size, "Labels")
        self.block = _codes(blocks, size)
        held = np.zeros((size, 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
        held = held[:, None] if held.ndim == 1 else held
        if held.ndim != 2 or len(held) != size or not np.isfinite(held).all():
            raise StatsError(f"Covariates must be a finite table of {size} samples; found shape {held.shape}.")
        basis = _basis(_centred(held, self.block))
        column = _centred(label[:, None], self.block)[:, 0]
        column -= basis @ (basis.T @ column)
        length = float(np.linalg.norm(column))
        if length <= 1e-9 * max(1.0, float(np.linalg.norm(label))):
            raise StatsError(
                "Nothing is left to permute: the labels do not vary within the blocks, "
                "or the covariates determine them."
            )
        residual = _centred(table, self.block)
        self.residual: Array = residual - basis @ (basis.T @ residual)
        self.null_df = size - int(self.block.max()) - 1 - basis.shape[1]
        if self.null_df < 2:
            raise StatsError(f"{size} samples are too few for these blocks and covariates: no residuals are left.")
        self.columns = np.vstack([column / length, basis.T])
        # Samples of one block with the same label and covariates are exchangeable: swapping them changes nothing.
        rows = np.column_stack([self.block, label, held])
        self.kind: Integers = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
        self.distinct = math.prod(
            math.factorial(int(counts.sum())) // math.prod(math.factorial(int(c)) for c in counts)
            for counts in (np.unique(self.kind[self.block == b], return_counts=True)[1] for b in np.unique(self.block))
        )

    def every(self) -> Array:
        """(1 + covariates, distinct, samples): tested column and covariates under every arrangement."""
        example = {int(kind): i for i, kind in reversed(list(enumerate(self.kind)))}
        places = [np.flatnonzero(self.block == b) for b in np.unique(self.block)]
        orders = [np.array(list(_orders(self.kind[place].tolist()))) for place in places]
        chosen = np.unravel_index(np.arange(self.distinct), [len(order) for order in orders])
        kinds = np.empty((self.distinct, len(self.kind)), dtype=np.int64)
        for place, order, choice in zip(places, orders, chosen, strict=True):
            kinds[:, place] = order[choice]
        return self.columns[:, np.array([example[k] for k in range(len(example))])[kinds]]

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """(1 + covariates, count, samples): the same for random ones."""
        # Sorting block + uniform number orders by block and at random within it.
        order = np.argsort(self.block + rng.random((count, len(self.block))), axis=1)
        source = np.empty_like(order)
        source[:, np.argsort(self.block, kind="stable")] = order
        return self.columns[:, source]


@dataclass(frozen=True)
class _Scale:
    """Products of columns and residuals as scores monotone in |t|: t^2 / (df + t^2), or t^2 for infinite df."""

    residual: Array  # (samples, experts) null residuals times 1 / sqrt(|r|^2 + d0 s0^2)
    df: float  # residual + prior degrees of freedom
    cap: Array | None  # (experts,) t^2 is at most cap * w^2: the floor of the variance

    def scores(self, columns: Array, experts: slice) -> Array:
        """(arrangements, experts) scores of columns (1 + covariates, arrangements, samples)."""
        part = self.residual[:, experts]
        square: Array = columns[0] @ part
        square *= square
        if math.isinf(self.df):
            return square
        share = square
        if len(columns) > 1:
            left = 1.0 - sum((column @ part) ** 2 for column in columns[1:])
            share = square / np.maximum(left, 1e-12)
        if self.cap is None:
            return share
        capped = square * self.cap[experts]
        return np.minimum(share, capped / (self.df + capped))

    def t(self, scores: Array) -> Array:
        return np.sqrt(scores if math.isinf(self.df) else self.df * scores / np.maximum(1 - scores, 1e-12))


def _scale(
    source: _Flips | _Permutations, table: Array, level: Array | None, floor: ArrayLike | None, most_df: float
) -> _Scale:
    residual, null_df = source.residual, source.null_df
    variance = without_rounding((residual**2).sum(axis=0) / null_df, table)
    prior = fit_prior(variance, null_df, level, most_df=most_df)
    lowest = np.broadcast_to(np.asarray(0.0 if floor is None else floor, dtype=np.float64), variance.shape)
    if not np.isfinite(lowest).all() or (lowest < 0).any():
        raise StatsError("The floor of the variance must be finite and not negative.")
    if math.isinf(prior.df):
        return _Scale(residual * _inverse_root(np.maximum(prior.variance, lowest), variance), math.inf, None)
    total = variance * null_df + (prior.df * prior.variance if prior.df > 0 else 0.0)
    cap = total / np.maximum(lowest, 1e-30 * np.maximum(total, 1e-250)) if (lowest > 0).any() else None
    return _Scale(residual * _inverse_root(total, variance), null_df - 1 + prior.df, cap)


def _inverse_root(total: Array, variance: Array) -> Array:
    """1 / sqrt(total), and 0 for experts without any variance: their t is 0."""
    return np.where(variance > 0, 1 / np.sqrt(np.where(variance > 0, total, 1.0)), 0.0)


def _max_t(source: _Flips | _Permutations, scale: _Scale, draws: int, seed: int) -> MaxT:
    exhaustive = source.distinct <= draws
    count = source.distinct if exhaustive else draws
    rng, every = np.random.default_rng(seed), source.every() if exhaustive else None
    maxima = np.empty(count)
    for start in range(0, count, ARRANGEMENTS):
        stop = min(start + ARRANGEMENTS, count)
        columns = source.draw(rng, stop - start) if every is None else every[:, start:stop]
        maxima[start:stop] = _largest(scale, columns)
    observed = scale.scores(source.columns[:, None], slice(None))[0]
    sign = np.sign(source.columns[0] @ scale.residual)
    reached = count - np.searchsorted(np.sort(maxima), observed * (1 - TIE), side="left")
    if every is None:
        return MaxT((1 + reached) / (1 + count), sign * scale.t(observed), count, source.distinct, 1 / (1 + count))
    same = [np.abs(every - s[:, None, None] * source.columns[:, None]).max(axis=2) < 1e-9 for s in _signs(len(every))]
    mirrored = int(np.any([np.all(match, axis=0) for match in same], axis=0).sum())
    return MaxT(reached / count, sign * scale.t(observed), count, source.distinct, mirrored / count)


def _largest(scale: _Scale, columns: Array) -> Array:
    """(arrangements,) largest score of all experts."""
    best = np.zeros(columns.shape[1])
    for first in range(0, scale.residual.shape[1], EXPERTS):
        np.maximum(best, scale.scores(columns, slice(first, first + EXPERTS)).max(axis=1, initial=0.0), out=best)
    return best


def _signs(columns: int) -> list[Array]:
    """Signs under which an arrangement has the observed |t| whatever the data: of the tested column, and of all."""
    mirror = np.ones(columns)
    mirror[0] = -1.0
    return [np.ones(columns), mirror, -np.ones(columns)] if columns > 1 else [np.ones(1), mirror]


def _codes(blocks: ArrayLike | None, size: int) -> Integers:
    if blocks is None:
        return np.zeros(size, dtype=np.int64)
    found: NDArray[Any] = np.asarray(blocks)
    if found.shape != (size,):
        raise StatsError(f"Blocks must be one code for each of {size} samples; found shape {found.shape}.")
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def _centred(table: Array, block: Integers) -> Array:
    """(samples, columns) less the mean of the sample's block."""
    member = np.eye(int(block.max()) + 1)[block]
    centred: Array = table - ((member.T @ table) / member.sum(axis=0)[:, None])[block]
    return centred


def _basis(table: Array) -> Array:
    """Orthonormal basis of the columns, (samples, rank); columns that say nothing new are left out."""
    length = np.linalg.norm(table, axis=0)
    kept = table[:, length > 1e-12 * max(1.0, float(length.max(initial=0.0)))]
    if not kept.shape[1]:
        return np.zeros((len(table), 0))
    left, strength, _ = np.linalg.svd(kept / np.linalg.norm(kept, axis=0), full_matrices=False)
    return np.asarray(left[:, strength > 1e-9 * strength[0]])


def _orders(kinds: list[int]) -> Iterator[list[int]]:
    """Every distinct order of a multiset, in lexicographic order."""
    order = sorted(kinds)
    while True:
        yield order.copy()
        i = len(order) - 2
        while i >= 0 and order[i] >= order[i + 1]:
            i -= 1
        if i < 0:
            return
        j = len(order) - 1
        while order[j] <= order[i]:
            j -= 1
        order[i], order[j] = order[j], order[i]
        order[i + 1 :] = order[:i:-1]
