"""Means over prompts with bootstrap intervals, for many columns at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import InterchangeError
from moeprobe.judging.ratio import tail

Floats = NDArray[np.float64]
# Resampled means held at a time: 10,000 draws x 256 columns are 20 MB.
_COLUMNS = 256


@dataclass(frozen=True)
class Means:
    """Means over prompts of several columns.

    Attributes:
        mean, low, high: (columns,) mean over the prompts that have a value, and its 95 % bootstrap interval
            (`ratio.tail`); NaN where no prompt has one.
        count: (columns,) prompts that have a value.
    """

    mean: Floats
    low: Floats
    high: Floats
    count: NDArray[np.int64]

    def one(self, column: int = 0) -> dict[str, Any]:
        """A column as JSON."""
        return {
            "mean": number(self.mean[column]),
            "ci": [number(self.low[column]), number(self.high[column])],
            "prompts": int(self.count[column]),
        }


def means(values: Floats, *, bootstrap: int = 10_000, seed: int = 0) -> Means:
    """Mean of each column with an interval; prompts are drawn whole, so columns can be compared.

    Args:
        values: (prompts, columns) or (prompts,); NaN where a prompt has no value.
        bootstrap: draws.
        seed: of the draws; equal seeds draw the same prompts.

    Raises:
        InterchangeError: fewer than 2 prompts, which give no interval.
    """
    table = values[:, None] if values.ndim == 1 else values
    prompts, columns = table.shape
    if prompts < 2:
        raise InterchangeError(f"An interval over prompts needs at least 2 prompts; there is {prompts}.")
    draws = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=bootstrap)
    weights, cut = draws.astype(np.float64), tail(prompts)
    known = ~np.isnan(table)
    filled = np.where(known, table, 0.0)
    count = known.sum(axis=0)
    low, high = np.full(columns, np.nan), np.full(columns, np.nan)
    for start in range(0, columns, _COLUMNS):
        part = slice(start, start + _COLUMNS)
        total = weights @ known[:, part]
        drawn = np.where(total > 0, (weights @ filled[:, part]) / np.maximum(total, 1), np.nan)
        usable = count[part] > 0
        if usable.any():
            low[part][usable], high[part][usable] = np.nanquantile(drawn[:, usable], [cut, 1 - cut], axis=0)
    mean = np.where(count > 0, filled.sum(axis=0) / np.maximum(count, 1), np.nan)
    return Means(mean, low, high, count)


def number(value: float) -> float | None:
    """A float as JSON has it: NaN becomes None."""
    return None if np.isnan(value) else float(value)


def numbers(values: Floats) -> Any:
    """An array as nested lists, with None for NaN."""
    if values.ndim > 1:
        return [numbers(one) for one in values]
    return [number(value) for value in values]
