"""Tests of differences within prompts: all experts together, corrected over all of them."""

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.folding import Table
from moeprobe.correlate.testing import Column, Reasons, column_of, passing
from moeprobe.designs.frame import Fold, Frame

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def run_test(
    values: Array, reasons: Reasons, floor: Array, abundance: Array, draws: int, seed: int, labels: Ints | None = None
) -> Column:
    """Is the mean of the values 0? With labels: do their means differ between label 1 and label 0?

    Args:
        values: (units, cells) differences between the runs, one for each prompt.
        reasons: (cells,) why a cell is not tested, or None.
        floor: (cells,) smallest believable variance of one value.
        abundance: (cells,) what the prior variance follows: how often an expert is chosen.
        draws: sign flips (with labels: relabellings) for the family-wise p; 0 leaves it out.
        seed: of the draws.
        labels: (units,) 1 or 0.
    """
    nothing_held = np.zeros((len(values), 0))
    frame = Frame(Fold.UNITS, None if labels is None else labels.astype(np.float64), nothing_held)
    return column_of(Table(values, floor), passing(reasons), frame, abundance, draws, seed)


def believable(share: float, discordant: Ints, counted: int, spread: Array) -> Array:
    """Which part of the variance of independent tokens the difference between two runs must have at least, (cells,).

    Tokens with the same text before them are no independent draws in the two runs: routers of two checkpoints mostly
    agree on them. There only tokens that chose an expert in one run alone move the difference (McNemar), while
    independent draws would give 2 spread of them.

    Args:
        share: share of the counted tokens that are such tokens.
        discordant: (cells,) how many of them chose the expert in one run only.
        counted: how many there are.
        spread: (cells,) variance of one token's choice.
    """
    if not counted:
        return np.ones(spread.size)
    wrong = np.maximum(discordant, 1) / counted
    part = np.divide(wrong, 2 * spread, out=np.ones(spread.size), where=spread > 0)
    shrunk: Array = (1 - share) + share * np.minimum(part, 1.0)
    return shrunk
