"""From sums of samples to the tables that are tested: one row for each row of the linear model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.scales import even_residual, in_units, scale_of
from moeprobe.designs.design import Design
from moeprobe.designs.frame import Fold
from moeprobe.gathering.gather import Gathered
from moeprobe.gathering.responses import RESPONSES
from moeprobe.stats import asin_sqrt, sampling_floor, standardised_floor, standardised_rate
from moeprobe.stats.beyond import Beyond, pearson_residual

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """What one column of tests is made of.

    Attributes:
        values: (rows, cells).
        floor: (cells,) smallest believable variance of a value.
    """

    values: Array
    floor: Array


@dataclass(frozen=True, eq=False)
class Sums:
    """What a response adds up to in the samples, and what it is expected to.

    Attributes:
        tokens: (samples,) tokens of each sample.
        observed: (samples, cells) O.
        beyond: E, V and the share of V that is left to independent tokens.
        rate: (cells,) share of all tokens with the response, where that is yes or no (0 or 1) or has been brought to
            such a scale (`scales.in_units`); else None.
        number: (samples, cells) how many values were added up, where they differ between the cells; else None.
    """

    tokens: NDArray[np.int64]
    observed: Array
    beyond: Beyond
    rate: Array | None
    number: NDArray[np.int64] | None = None


def held_sums(gathered: Gathered) -> Sums:
    """The sums with the strata held fixed."""
    return _sums(gathered, gathered.held)


def held_table(gathered: Gathered, design: Design) -> Table:
    """What decides: the response beyond the strata."""
    return standardised(held_sums(gathered), design)


def plain_table(gathered: Gathered, design: Design) -> Table:
    """The response with all tokens as one: asin(sqrt(rate)) of selections, else beyond a single stratum.

    Inside generations a single stratum is taken for selections too: the two sides differ in tokens, which would bias a
    transformed rate.
    """
    counts, sums = gathered.counts, _sums(gathered, gathered.unstratified)
    if gathered.response != "S" or sums.rate is None or design.frame.fold is Fold.PARTS:
        return standardised(sums, design)
    values = asin_sqrt(counts.selected / counts.tokens[:, None])
    sides = np.array_split(counts.tokens, 1 if design.frame.fold is Fold.UNITS else 2)
    floor: Array = np.sum([sampling_floor(tokens, sums.rate) for tokens in sides], axis=0)
    return Table(rows_of(values, design), floor)


def standardised(sums: Sums, design: Design) -> Table:
    """Every row's response beyond its strata.

    Where there is a rate, of yes and no or of what was brought to such a scale: asin(sqrt(standardised rate)), for
    pairs its difference. Where numbers of values differ between the cells: `scales.even_residual`. Else
    (O - E) / sqrt(V).
    Inside generations, with n tokens of which n1 are marked: u = (O1 - E1) n0 / n - (O0 - E0) n1 / n over the root of
    its variance, V likewise with squared weights: the difference of what both kinds of tokens have beyond their
    strata, weighted as in a regression with a fixed effect for each unit.
    """
    beyond, sides = sums.beyond, 1 if design.frame.fold is Fold.UNITS else 2
    if design.frame.fold is Fold.PARTS:
        return Table(_inside(sums), beyond.floor)
    if sums.rate is None:
        residual, floor = beyond.residual, beyond.floor
        if sums.number is not None:
            residual, floor = even_residual(sums.observed, beyond, sums.number)
        return Table(rows_of(residual, design), sides * floor)
    rate = standardised_rate(sums.observed, beyond.expected, beyond.variance, sums.rate)
    return Table(rows_of(asin_sqrt(rate), design), sides * standardised_floor(beyond, sums.rate))


def rates(gathered: Gathered, design: Design) -> Array:
    """Selection rate of every row, (rows, cells); the difference of its sides where a row is one."""
    return rows_of(gathered.counts.selected / gathered.counts.tokens[:, None], design)


def excess(gathered: Gathered, design: Design) -> Array:
    """Mean response per token beyond what the strata let expect, (rows, cells); differences likewise."""
    return rows_of((gathered.observed - gathered.held.expected) / gathered.counts.tokens[:, None], design)


def rows_of(values: Array, design: Design) -> Array:
    """Values of samples (samples, cells) as rows: as they are, or positive less negative side of every unit."""
    if design.frame.fold is Fold.UNITS:
        return values
    zero, one = np.array_split(values, 2)
    return less(one, zero)


def less(second: Array, first: Array) -> Array:
    """second - first; what two equal values differ by in their last digits must not look like a small variance."""
    difference: Array = second - first
    noise = 64 * np.finfo(np.float64).eps * np.maximum(np.abs(first), np.abs(second)).max(axis=0, initial=0.0)
    return np.where(np.abs(difference) <= noise, 0.0, difference)


def _sums(gathered: Gathered, beyond: Beyond) -> Sums:
    """Beyond some strata, on the scale of the response."""
    counts, scale = gathered.counts, scale_of(gathered)
    if scale is not None:
        return Sums(counts.tokens, gathered.observed / scale.unit, in_units(beyond, scale.unit), scale.rate)
    number = counts.selected if RESPONSES[gathered.response].conditional else None
    return Sums(counts.tokens, gathered.observed, beyond, None, number)


def _inside(sums: Sums) -> Array:
    zero, one = np.array_split(sums.tokens, 2)
    share1, share0 = (one / (one + zero))[:, None], (zero / (one + zero))[:, None]
    excess0, excess1 = np.array_split(sums.observed - sums.beyond.expected, 2)
    variance0, variance1 = np.array_split(sums.beyond.variance, 2)
    total = share0 * excess1 - share1 * excess0
    return pearson_residual(total, np.zeros(total.shape), share0**2 * variance1 + share1**2 * variance0)
