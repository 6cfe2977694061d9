"""The linear model of a design: how counts of samples become a table, and what is dealt out anew."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import StatsError
from moeprobe.stats import ModeratedT, VariancePrior, moderated_linear, permutation_max_t
from moeprobe.stats.moderated import full_rank

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

# With few units the variances of experts often look alike (an infinite prior in 9 of 10 runs of 5 against 5). Taken at
# its word, that prior would give an expert with a truly larger variance the variance of all others; so the own one
# always keeps a say. Measured: calls in null runs 1 to 2 % instead of 3 to 5 %, power .56 instead of .60 at
# 5 against 5, .86 instead of .875 at 15 against 15 (150 runs each; docs/error_rates.md has the rates with it).
MOST_PRIOR_DF = 40.0


class Fold(Enum):
    """How samples become rows: as they are; positive less negative side of a pair; inside less outside of a unit."""

    UNITS = "units"
    PAIRS = "pairs"
    PARTS = "parts"


@dataclass(frozen=True, eq=False)
class Frame:
    """One tested column, and what is held fixed beside it.

    Attributes:
        fold: how samples become rows.
        tested: (rows,) label or score; None where the mean itself is tested (differences within units).
        held: (rows, columns) numbers held fixed, for differences their differences.
        blocks: (rows,) codes of blocks whose means are held fixed, or None.
    """

    fold: Fold
    tested: Array | None
    held: Array
    blocks: Ints | None = None

    @property
    def x(self) -> Array:
        """(rows, columns) design matrix, the tested column last."""
        rows = len(self.held)
        level = np.ones((rows, 1)) if self.blocks is None else np.eye(int(self.blocks.max()) + 1)[self.blocks]
        if self.tested is None:
            return np.column_stack([self.held, level])
        return np.column_stack([level, self.held, self.tested])

    @property
    def full_rank(self) -> bool:
        """Whether no column of x depends on the others."""
        return full_rank(self.x)

    @property
    def carriers(self) -> float:
        """How many rows the test rests on: (sum r^2)^2 / sum r^4, r being the tested column less what is held fixed.

        Two equal groups: all rows. A few against many: little more than the few. One row far from all others: 1, and
        the test is about that row alone, however many degrees of freedom it has. Only where the rank is full.
        """
        tested: Array = np.linalg.qr(self.x)[0][:, -1]
        return float(1 / (tested**4).sum())

    @property
    def inflation(self) -> float:
        """How much larger the standard error is for what is held fixed: root of the variance inflation factor."""
        if self.tested is None or not self.full_rank:
            return 1.0
        alone = float(np.linalg.norm(self.tested - self.tested.mean()))
        return alone / abs(float(np.linalg.qr(self.x)[1][-1, -1]))

    @property
    def spare(self) -> int:
        """Residual degrees of freedom."""
        rows, columns = self.x.shape
        return int(rows - columns)

    def holding(self, others: Array, rows: NDArray[np.bool_]) -> "Frame":
        """The same model of some rows, with further columns (all rows, columns) held fixed."""
        blocks = None if self.blocks is None else np.unique(self.blocks[rows], return_inverse=True)[1].astype(np.int64)
        tested = None if self.tested is None else self.tested[rows]
        return Frame(self.fold, tested, np.column_stack([self.held, others])[rows], blocks)

    def test(
        self, table: Array, floor: Array, abundance: Array | None = None, prior: VariancePrior | None = None
    ) -> ModeratedT:
        """Moderated t of every column of the table (rows, cells); the prior follows `abundance`, or is given.

        Raises:
            StatsError: what is held fixed determines the tested column, or leaves no degrees of freedom.
        """
        return moderated_linear(
            table, self.x, floor=floor, abundance=abundance, most_prior_df=MOST_PRIOR_DF, prior=prior
        )

    def family(self, table: Array, floor: Array, abundance: Array, draws: int, seed: int) -> Array:
        """(cells,) family-wise p by max-T; NaN where there is no valid way to deal out anew.

        Labels are permuted within blocks; with covariates the residuals are (Freedman-Lane); differences change sign.
        """
        if not draws or (self.tested is None and self.held.shape[1]):
            # sign flips of differences would need residuals of a model without its intercept: no exchangeable rows
            return np.full(table.shape[1], np.nan)
        if self.tested is None:
            return permutation_max_t(
                table, scheme="flip", abundance=abundance, draws=draws, seed=seed, floor=floor,
                most_prior_df=MOST_PRIOR_DF,
            ).p  # fmt: skip
        return permutation_max_t(
            table,
            self.tested,
            blocks=self.blocks,
            covariates=self.held if self.held.shape[1] else None,
            abundance=abundance,
            draws=draws,
            seed=seed,
            floor=floor,
            most_prior_df=MOST_PRIOR_DF,
        ).p

    def slope(self, values: Array, floor: Array | float = 0.0) -> tuple[Array, Array, float]:
        """Least-squares coefficient of the tested column, its HC3 standard error (cells,), and degrees of freedom.

        HC3 (MacKinnon and White 1985): rates near 0 and rates in the middle do not share one variance. The error is
        never below that of values with variance `floor`.
        """
        x = self.x
        q, r = np.linalg.qr(x)
        pull = np.linalg.inv(r)[-1] @ q.T
        residual = values - q @ (q.T @ values)
        leverage = np.minimum((q**2).sum(axis=1), 1 - 1e-9)
        spread = (pull / (1 - leverage)) ** 2 @ residual**2
        return pull @ values, np.sqrt(np.maximum(spread, floor * (pull**2).sum())), float(self.spare)

    def leaves(self, table: Array) -> NDArray[np.bool_]:
        """(cells,) where something is left to test: values that vary, or differences that are not all 0."""
        spread: Array = np.abs(table).max(axis=0) if self.tested is None else np.ptp(table, axis=0)
        left: NDArray[np.bool_] = spread > 0
        return left


def check_rank(frame: Frame, words: str) -> None:
    """Refuse a model whose columns depend on each other.

    Raises:
        StatsError: with `words`, what was held fixed.
    """
    if not frame.full_rank:
        raise StatsError(
            f"What is held fixed ({words}) determines what is compared, or itself: their effects cannot be told apart. "
            "Leave one of them out, or compare prompts in which they vary on their own."
        )
