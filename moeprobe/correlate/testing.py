"""The test of every expert: filter without looking at the groups, moderated t, correction over all experts.

Two columns: *beyond token identity*, which decides, and *marginal*, which does not hold the words fixed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.folding import Sums, Table, held_sums, held_table, plain_table
from moeprobe.designs.design import MIN_UNITS, Design
from moeprobe.designs.frame import Frame
from moeprobe.gathering.gather import Gathered
from moeprobe.sites import expert_site
from moeprobe.stats import ModeratedT, Shifted, adjust, asin_sqrt

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Reasons = list[str | None]
# Its rate in the windows is how they were drawn, with far more spread than the prior of all experts allows for.
DRAWN_BY = "the labelled windows were drawn by this expert"

# The usual rule for counts: below five expected in a group, no approximation holds.
MIN_EXPECTED = 5
# Relabellings for the family-wise p: the smallest p is 1 in 10,001.
DRAWS = 10_000


@dataclass(frozen=True)
class Column:
    """What one test says of every cell; NaN marks a cell that was not tested.

    Attributes:
        t, df, p, q: (cells,) moderated t, its degrees of freedom, p, and Benjamini-Hochberg q over all tested cells.
            Of circular shifts t is z and there is no df.
        fwer: (cells,) family-wise p by max-T over relabellings; NaN everywhere without draws.
        result: the moderated t-test of the tested cells, or None when there are none.
    """

    t: Array
    df: Array
    p: Array
    q: Array
    fwer: Array
    result: ModeratedT | None

    @property
    def tested(self) -> int:
        """How many cells were tested."""
        return int(np.isfinite(self.p).sum())


@dataclass(frozen=True)
class Tested:
    """Both tests of every cell.

    Attributes:
        beyond: the test that decides, of each row beyond its strata (`folding.standardised`).
        marginal: the test of asin(sqrt(selection rate)) of each row, or of another response.
        table: what the deciding test was made of.
        abundance: (cells,) what the trended prior follows: mean asin(sqrt(selection rate)).
        reasons: why the deciding test was not made, else None.
    """

    beyond: Column
    marginal: Column
    table: Table
    abundance: Array
    reasons: Reasons


@dataclass(frozen=True)
class Prepared:
    """What is ready to be tested.

    Attributes:
        plain, table: of the marginal and of the deciding test.
        open_to_test, reasons: why a cell is not tested in either, else None.
    """

    plain: Table
    table: Table
    open_to_test: Reasons
    reasons: Reasons


def compare_cells(gathered: Gathered, design: Design, *, draws: int = DRAWS, seed: int = 0) -> Tested:
    """Test all cells of all layers together.

    Args:
        gathered: sums of the samples.
        design: who is compared with whom.
        draws: relabellings for the family-wise p; 0 leaves it out.
        seed: of the relabellings.
    """
    made, abundance = prepare(gathered, design), abundance_of(gathered)
    return Tested(
        beyond=column_of(made.table, passing(made.reasons), design.frame, abundance, draws, seed),
        marginal=column_of(made.plain, passing(made.open_to_test), design.frame, abundance, draws, seed),
        table=made.table,
        abundance=abundance,
        reasons=made.reasons,
    )


def prepare(gathered: Gathered, design: Design) -> Prepared:
    """Fold the samples into tables and filter the cells, without looking at who is in which group."""
    plain, table, counts = plain_table(gathered, design), held_table(gathered, design), gathered.counts
    open_to_test = untestable(counts.selected.sum(axis=0) / counts.tokens.sum(), plain, design)
    if design.drawn_by:
        names = zip(counts.layers.tolist(), counts.experts.tolist(), strict=True)
        open_to_test = set_aside(open_to_test, [[str(expert_site(*name))] for name in names], design)
    return Prepared(plain, table, open_to_test, untestable_beyond(held_sums(gathered), table, design, open_to_test))


def abundance_of(gathered: Gathered) -> Array:
    """(cells,) mean asin(sqrt(selection rate)): how often an expert is chosen rules the variance of every response."""
    counts = gathered.counts
    abundance: Array = asin_sqrt(counts.selected / counts.tokens[:, None]).mean(axis=0)
    return abundance


def column_of(table: Table, tested: Mask, frame: Frame, abundance: Array, draws: int, seed: int) -> Column:
    """Test the cells of `tested` (cells,) together."""
    t, df, p, fwer = (np.full(tested.size, np.nan) for _ in range(4))
    if not tested.any():
        return Column(t, df, p, adjust(p), fwer, None)
    values, floor, level = table.values[:, tested], table.floor[tested], abundance[tested]
    result = frame.test(values, floor, level)
    t[tested], df[tested], p[tested] = result.t, result.df, result.p
    fwer[tested] = frame.family(values, floor, level, draws, seed)
    return Column(t, df, p, adjust(p), fwer, result)


def shifted_column(result: Shifted | None, tested: Mask, draws: int, factor: float = 1.0) -> Column:
    """The column of a circular-shift test of the cells of `tested` (cells,); p is multiplied by the factor."""
    t, df, p, fwer = (np.full(tested.size, np.nan) for _ in range(4))
    if result is not None:
        t[tested], p[tested] = result.z, np.minimum(factor * result.p, 1.0)
        if draws:
            fwer[tested] = result.max_t_p
    return Column(t, df, p, adjust(p), fwer, None)


def passing(reasons: Reasons) -> Mask:
    """(cells,) where there is no reason not to test."""
    return np.array([reason is None for reason in reasons], dtype=np.bool_)


def untestable(rate: Array, plain: Table, design: Design) -> Reasons:
    """Why each cell cannot be tested, or None. Uses how many are in each group, never which rates are whose.

    Args:
        rate: (cells,) selection rate of all tokens.
        plain: what the marginal test would see.
        design: who is compared with whom.
    """
    if design.shortage is not None:
        return [design.shortage] * rate.size
    expected = rate * min(design.positive.tokens_used, design.negative.tokens_used)
    still = {
        "pairs": "on both sides of every pair",
        "within generations": "by both kinds of tokens",
    }.get(design.kind, f"in every {design.unit_name}")
    reasons: Reasons = []
    for share, varies, number in zip(rate, design.frame.leaves(plain.values), expected, strict=True):
        if share == 0:
            reasons.append("never selected in the compared tokens")
        elif not varies:
            reasons.append(f"selected at the same rate {still}")
        elif number < MIN_EXPECTED:
            reasons.append(
                f"too rare: {below(number)} selections expected in the smaller group, {MIN_EXPECTED} are needed"
            )
        else:
            reasons.append(None)
    return reasons


def set_aside(reasons: Reasons, sites: Sequence[Sequence[str]], design: Design) -> Reasons:
    """The reasons, with one for every cell of an expert that the compared tokens were drawn by.

    Args:
        reasons: (cells,) why each is not tested.
        sites: (cells,) names of the experts of each.
        design: says what tokens were drawn by.
    """
    return [
        DRAWN_BY if set(names) & set(design.drawn_by) else reason for names, reason in zip(sites, reasons, strict=True)
    ]


def untestable_beyond(sums: Sums, table: Table, design: Design, plain: Reasons) -> Reasons:
    """The same for the test beyond token identity: something must vary among tokens that are the same."""
    used = design.positive.tokens_used, design.negative.tokens_used
    share = min(used) / max(sum(used), 1)
    information = _information(sums) * share
    reasons: Reasons = []
    for reason, number, varies in zip(plain, information, design.frame.leaves(table.values), strict=True):
        if reason is None and (number < MIN_EXPECTED or not varies):
            reason = (
                f"follows the token: {below(number)} selections left to compare in the smaller group, "
                f"{MIN_EXPECTED} are needed"
            )
        reasons.append(reason)
    return reasons


def _information(sums: Sums) -> Array:
    """(cells,) selections' worth of variation among tokens of one stratum.

    Of other responses there is no such count: enough units must show some variation.
    """
    variance = sums.beyond.variance
    if sums.rate is not None:
        return np.asarray(variance.sum(axis=0))
    return np.where((variance > 0).sum(axis=0) >= 2 * MIN_UNITS, np.inf, 0.0)


def below(number: float) -> str:
    """A number below the five that are needed, so that 4.97 does not read as 5.0."""
    return f"{min(round(float(number), 1), MIN_EXPECTED - 0.1):.1f}"
