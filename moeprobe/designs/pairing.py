"""Pairs of generations: who is compared with whom, and on how many tokens."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moeprobe.designs.design import MIN_UNITS, Design, arm_of
from moeprobe.designs.frame import Fold, Frame, check_rank
from moeprobe.designs.groups import LEFT_OUT, NEGATIVE, POSITIVE
from moeprobe.designs.scope import Scope
from moeprobe.errors import StatsError
from moeprobe.gathering.inputs import GenerationLike, TraceLike
from moeprobe.stats import matched_lengths

Ints = NDArray[np.int64]

# What "auto" asks for before it takes pairs: few generations lost.
LEAST_SHARE = 0.8


def complete_pairs(generations: Sequence[GenerationLike], member: Ints) -> Ints:
    """The number of each generation's pair, (generations,); -1 where it is in no pair with both groups.

    Numbers follow the first appearance in the trace, whatever the groups are called.

    Args:
        generations: all generations of the trace.
        member: (generations,) POSITIVE, NEGATIVE or LEFT_OUT.
    """
    used = [int(index) for index in np.flatnonzero(member != LEFT_OUT)]
    sides: dict[str, set[int]] = {}
    for index in used:
        name = generations[index].pair
        if name is not None:
            sides.setdefault(name, set()).add(int(member[index]))
    whole = [name for name, found in sides.items() if found == {NEGATIVE, POSITIVE}]
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(whole)}
    pair = np.full(member.size, -1, dtype=np.int64)
    pair[used] = [numbers.get(generations[index].pair, -1) for index in used]
    return pair


def enough_pairs(pair: Ints, keep: Ints, member: Ints) -> bool:
    """Whether "auto" compares pairs: at least MIN_UNITS are complete, and they use 80 % of the generations.

    Args:
        pair: (generations,) as `complete_pairs`.
        keep: (generations,) as `pair_lengths`.
        member: (generations,) POSITIVE, NEGATIVE or LEFT_OUT.
    """
    pairs, used = int(pair.max(initial=-1)) + 1, int((member != LEFT_OUT).sum())
    return pairs >= MIN_UNITS and int((keep > 0).sum()) >= LEAST_SHARE * used


def pair_lengths(lengths: Ints, member: Ints, pair: Ints) -> Ints:
    """Tokens to keep of each generation, (generations,): matched within each pair; 0 where it has no partner.

    A pair with more generations on one side keeps the first ones only, as many as the other side has: sides that differ
    in tokens differ in the bias and skewness of a transformed rate, which the plain test would call (measured with six
    against one: false calls in 55 % of runs).
    """
    keep = np.zeros(lengths.size, dtype=np.int64)
    for number in range(int(pair.max(initial=-1)) + 1):
        one, zero = (np.flatnonzero((pair == number) & (member == code)) for code in (POSITIVE, NEGATIVE))
        size = min(one.size, zero.size)
        one, zero = one[:size], zero[:size]
        keep[one], keep[zero] = matched_lengths(lengths[one], lengths[zero])
    return keep


def paired(trace: TraceLike, scope: Scope, pair: Ints, keep: Ints) -> Design:
    """The design of complete pairs; all generations of one side of a pair are one sample.

    Args:
        trace: the run; says what the pairs are called.
        scope: who could be compared.
        pair, keep: as made here.

    Raises:
        StatsError: no pair is complete, blocks are asked for, or a covariate does not vary within pairs, or
            always by the same.
    """
    pairs, member = int(pair.max(initial=-1)) + 1, scope.member
    _check_pairs(pairs, scope)
    kept = np.flatnonzero(keep)
    unit = np.full(member.size, -1, dtype=np.int64)
    unit[kept] = pair[kept] + np.where(member[kept] == POSITIVE, pairs, 0)
    zero, one = (arm_of(kept[member[kept] == code], pairs, scope.lengths, keep) for code in (NEGATIVE, POSITIVE))
    covariates = scope.held.of_units(unit, 2 * pairs)[1]
    frame = Frame(Fold.PAIRS, None, covariates[pairs:] - covariates[:pairs])
    return Design(
        kind="pairs",
        segment=scope.segment,
        keep=keep,
        unit=unit,
        labels=np.repeat(np.array([NEGATIVE, POSITIVE], dtype=np.int64), pairs),
        side=np.where(keep > 0, member, -1),
        names=tuple(dict.fromkeys(trace.generations[index].pair or "" for index in np.flatnonzero(pair >= 0).tolist())),
        unit_name="pair",
        positive=one,
        negative=zero,
        frame=frame,
        matching="within each pair, as many generations from either side, i-th shortest with i-th shortest, both cut "
        "to the shorter one",
        left_out=scope.leaving(incomplete_pairs=int(((member != LEFT_OUT) & (keep == 0)).sum())),
        shortage=_shortage(pairs, frame, scope.fixed),
    )


def _check_pairs(pairs: int, scope: Scope) -> None:
    if not pairs:
        raise StatsError(
            "No pair has generations in both groups. Give prompts that belong together the same `pair`, "
            "or compare two groups (--design groups)."
        )
    if scope.held.blocks is not None:
        raise StatsError(
            "Pairs are blocks already. Leave out --block, or compare two groups within the blocks (--design groups)."
        )


def _shortage(pairs: int, frame: Frame, fixed: str) -> str | None:
    if pairs < MIN_UNITS:
        return f"fewer than {MIN_UNITS} pairs ({pairs})"
    if frame.spare < MIN_UNITS - 1:
        return f"too few pairs ({pairs}) for what is held fixed ({fixed})"
    if not fixed:
        return None
    check_rank(frame, f"differences of {fixed} within pairs")
    if frame.carriers < MIN_UNITS:
        return f"fewer than {MIN_UNITS} pairs tell their sides from what is held fixed ({fixed}; {frame.carriers:.1f})"
    return None
