"""Leaving out one type of token: for the experts that a reader will look at."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.folding import Sums, standardised
from moeprobe.correlate.leave_token import leave_token_out
from moeprobe.correlate.scales import in_units, scale_of
from moeprobe.correlate.testing import Tested
from moeprobe.designs.design import Design
from moeprobe.gathering.gather import Gathered
from moeprobe.gathering.inputs import TraceLike
from moeprobe.sites import expert_site
from moeprobe.stats.beyond import Beyond, pearson_residual

Array = NDArray[np.float64]
Json = dict[str, Any]
# The cost grows with the experts looked at.
MOST = 20


def without_one_token(
    trace: TraceLike, gathered: Gathered, design: Design, tested: Tested, strata: tuple[str, ...], alpha: float
) -> list[Json | None]:
    """`leave_token_out` of each cell: of the leading 20 experts that are associated, None for all others."""
    found: list[Json | None] = [None] * len(tested.reasons)
    result, counts = tested.beyond.result, gathered.counts
    order = np.argsort(np.where(tested.beyond.q < alpha, tested.beyond.p, np.inf), kind="stable")
    leading = [int(cell) for cell in order[:MOST] if tested.beyond.q[cell] < alpha]
    if result is None or not leading or gathered.response not in ("S", "W"):
        return found
    place = np.searchsorted(np.flatnonzero(np.isfinite(tested.beyond.p)), leading)
    prior, floor = result.prior(place), tested.table.floor[leading]

    def retest(table: Array) -> tuple[Array, Array]:
        """t and p of the deciding test, with the prior that all tokens gave."""
        again = design.frame.test(table, floor, prior=prior)
        return again.t, again.p

    lost = leave_token_out(
        trace,
        design.selection,
        [expert_site(int(counts.layers[cell]), int(counts.experts[cell])) for cell in leading],
        _numbers(design),
        retest,
        strata=strata,
        response=gathered.response,
        respond=lambda excess, variance: _table(excess, variance, gathered, design, leading),
    )
    for cell, one in zip(leading, lost, strict=True):
        found[cell] = one
    return found


def _numbers(design: Design) -> Array:
    """Labels or scores; where something is held fixed, what of them it does not determine: the slope is the model's."""
    tested = design.frame.tested
    if tested is None:
        return design.labels.astype(np.float64)
    q, r = np.linalg.qr(design.frame.x)
    return tested if design.frame.blocks is None and not design.frame.held.shape[1] else q[:, -1] * r[-1, -1]


def _table(excess: Array, variance: Array, gathered: Gathered, design: Design, cells: list[int]) -> Array:
    """What decides, of O - E and V of the samples: as it was made of all tokens."""
    counts, nothing, scale = gathered.counts, np.zeros(excess.shape), scale_of(gathered)
    beyond = Beyond(pearson_residual(excess, nothing, variance), nothing, variance, np.ones(len(cells)))
    if scale is None:
        return standardised(Sums(counts.tokens, excess, beyond, None), design).values
    unit = scale.unit[cells]
    return standardised(Sums(counts.tokens, excess / unit, in_units(beyond, unit), scale.rate[cells]), design).values
