"""Two groups of generations, matched in length."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moeprobe.designs.design import MIN_UNITS, Design, arm_of
from moeprobe.designs.frame import Fold, Frame, check_rank
from moeprobe.designs.groups import LEFT_OUT, NEGATIVE, POSITIVE
from moeprobe.designs.scope import Scope
from moeprobe.designs.units import as_many, counts_of
from moeprobe.stats import matched_lengths

Ints = NDArray[np.int64]


def two_groups(scope: Scope) -> Design:
    """Match lengths by rank and find the units.

    Several generations of one prompt in one group are not independent, so they count as one unit (STATISTICS 10.1).
    Units of both groups hold equally many of them, matched by rank: units that differ in tokens differ in the bias and
    skewness of a transformed rate (one positive and nine negative samples of each prompt: false calls in every run).
    A prompt with generations in both groups gives one unit to each; that they belong together is ignored, which costs
    power.

    Args:
        scope: who could be compared; both groups occur.

    Raises:
        StatsError: what is held fixed determines the groups.
    """
    member, lengths = scope.member, scope.lengths
    zeros, ones = _equally_many(scope.names, member)
    keep = np.zeros(lengths.size, dtype=np.int64)
    keep[ones], keep[zeros] = matched_lengths(lengths[ones], lengths[zeros])
    kept = np.flatnonzero(keep)
    keys = [(int(member[index]), scope.names[index]) for index in kept.tolist()]
    unit, units = scope.numbered(kept, keys)
    codes, names = zip(*dict.fromkeys(keys), strict=True)
    labels = np.array(codes, dtype=np.int64)
    blocks, covariates = scope.held.of_units(unit, len(units))
    frame = Frame(Fold.UNITS, labels.astype(np.float64), covariates, blocks)
    negative, positive = (
        arm_of(members, int((labels == code).sum()), lengths, keep) for code, members in enumerate((zeros, ones))
    )
    unit_name = "generation" if len(units) == kept.size else "prompt"
    return Design(
        kind="two groups",
        segment=scope.segment,
        keep=keep,
        unit=unit,
        labels=labels,
        side=np.where(keep > 0, member, -1),
        names=names,
        unit_name=unit_name,
        positive=positive,
        negative=negative,
        frame=frame,
        matching=_matching(positive.generations == negative.generations),
        left_out=scope.leaving(extra_samples=int((member != LEFT_OUT).sum()) - ones.size - zeros.size),
        shortage=_shortage(positive.units, negative.units, unit_name, frame, scope.fixed),
    )


def _equally_many(names: Sequence[str], member: Ints) -> tuple[Ints, Ints]:
    """Negative and positive generations to use: of each unit the first ones, as many as its rank has in the others."""
    counts = [counts_of(names, member, code) for code in (NEGATIVE, POSITIVE)]
    sizes = matched_lengths(list(counts[0].values()), list(counts[1].values()))
    kept = [
        as_many(names, member, code, dict(zip(count, size.tolist(), strict=True)))
        for code, count, size in zip((NEGATIVE, POSITIVE), counts, sizes, strict=True)
    ]
    return np.array(kept[0], dtype=np.int64), np.array(kept[1], dtype=np.int64)


def _matching(equal_sizes: bool) -> str:
    if equal_sizes:
        return "i-th shortest with i-th shortest generation, both cut to the shorter one"
    return "generations matched by quantile rank of length (groups differ in size), both cut to the shorter one"


def _shortage(positive: int, negative: int, unit: str, frame: Frame, fixed: str) -> str | None:
    """Why nothing can be tested, or None; what is held fixed must leave something to compare at all."""
    if frame.blocks is not None and _shared(frame) == 0:
        check_rank(frame, fixed)
    if min(positive, negative) < MIN_UNITS:
        return f"fewer than {MIN_UNITS} {unit}s in a group ({positive} positive, {negative} negative)"
    if frame.spare < MIN_UNITS:
        return f"too few {unit}s ({positive + negative}) for what is held fixed ({fixed})"
    if frame.blocks is not None and (least := _shared(frame)) < MIN_UNITS:
        return f"fewer than {MIN_UNITS} {unit}s of a group in blocks that hold both groups ({least})"
    if not fixed:
        return None
    check_rank(frame, fixed)
    if frame.carriers < MIN_UNITS:
        return f"fewer than {MIN_UNITS} {unit}s tell the groups from what is held fixed ({fixed}; {frame.carriers:.1f})"
    return None


def _shared(frame: Frame) -> int:
    """Units of the smaller group in blocks that hold both."""
    # blocks with one kind only say nothing about the label; what the others hold is what is compared
    labels = frame.tested if frame.tested is not None else np.zeros(0)
    blocks = [] if frame.blocks is None else frame.blocks.tolist()
    kinds = Counter(zip(blocks, labels.tolist(), strict=True))
    shared = [block for block in set(blocks) if kinds[block, 0.0] and kinds[block, 1.0]]
    return min(sum(kinds[block, label] for block in shared) for label in (0.0, 1.0))
