"""Experts looked at together: layers, families of layers, and coalitions. Beside the decision."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.coalitions import find_and_test
from moeprobe.correlate.families import Cells, family_summaries
from moeprobe.correlate.folding import Sums, standardised
from moeprobe.correlate.layers import layer_summaries, recorded_families
from moeprobe.correlate.rows import column_cells
from moeprobe.correlate.testing import Tested, column_of, passing, set_aside, untestable, untestable_beyond
from moeprobe.designs.design import Design
from moeprobe.designs.frame import Fold
from moeprobe.gathering.entropy import layer_entropy
from moeprobe.gathering.gather import Gathered
from moeprobe.gathering.inputs import TraceLike
from moeprobe.stats import asin_sqrt

Array = NDArray[np.float64]
Json = dict[str, Any]
# Arrangements for the p of a family of layers.
FAMILY_DRAWS = 2_000


def layers_of(trace: TraceLike, gathered: Gathered, design: Design, draws: int, seed: int) -> list[Json]:
    """The `layers` of a question."""
    return layer_summaries(
        gathered.counts,
        None if design.kind == "scores" else design.labels,
        entropy=layer_entropy(trace, design.selection),
        pairs=design.sides,
        # labels are dealt out within blocks; numbers held fixed leave no such dealing, so each unit is its own block
        blocks=np.arange(design.labels.size) if design.frame.held.shape[1] else design.frame.blocks,
        comparable=design.frame.fold is not Fold.PARTS and not design.frame.held.shape[1],
        draws=0 if design.shortage is not None else draws,
        seed=seed,
    )


def families_of(
    trace: TraceLike, gathered: Gathered, design: Design, tested: Tested, difference: Array, alpha: float, seed: int
) -> list[Json]:
    """The `families` of a question: none where the trace does not say what kind each layer is, or all are of one.

    Covariates and circular shifts have no such test: nothing is given for them.
    """
    layers = gathered.counts.layers
    families = recorded_families(trace.manifest, layers.tolist())
    if families is None or len(set(families.values())) < 2 or design.frame.held.shape[1] or design.shifts:
        return []
    cells = Cells(layers, passing(tested.reasons), tested.beyond.q < alpha, difference)
    return family_summaries(
        tested.table.values,
        design.frame.tested,
        cells,
        families,
        blocks=design.frame.blocks,
        abundance=tested.abundance,
        floor=tested.table.floor,
        draws=FAMILY_DRAWS if design.shortage is None else 0,
        seed=seed,
    )


def coalitions_of(
    trace: TraceLike, design: Design, strata: tuple[str, ...], draws: int, seed: int
) -> tuple[list[Json], str]:
    """The `coalitions` of a question, each tested as one like an expert, and how they were found, in words.

    Benjamini-Hochberg runs over the coalitions. With circular shifts they are listed, but not tested.
    """
    found = find_and_test(trace, design.selection, strata=strata)
    if not found.members or found.beyond is None:
        return [], found.words
    rate = found.observed.sum(axis=0) / found.tokens.sum()
    sums = Sums(found.tokens, found.observed.astype(np.float64), found.beyond, rate)
    plain = standardised(Sums(found.tokens, sums.observed, found.plain, rate), design)
    table = standardised(sums, design)
    shares = found.shares(design.labels)
    open_to_test = set_aside(untestable(rate, plain, design), [share["sites"] for share in shares], design)
    reasons = untestable_beyond(sums, table, design, open_to_test)
    abundance = asin_sqrt(found.observed / found.tokens[:, None]).mean(axis=0)
    masks = [passing(why) & (not design.shifts) for why in (reasons, open_to_test)]
    beyond, marginal = (
        column_cells(column_of(made, mask, design.frame, abundance, draws, seed))
        for made, mask in zip((table, plain), masks, strict=True)
    )
    rows = [
        {**share, "strength": strength, "needed": needed, **decided, "marginal": apart, "reason": reason}
        for share, strength, needed, decided, apart, reason in zip(
            shares, found.strength.tolist(), found.needed.tolist(), beyond, marginal, reasons,
            strict=True,
        )
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row["p"] is None, row["p"] or 0.0)), found.words
