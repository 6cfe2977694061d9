"""Continuous scores: does an expert's use rise or fall with the score of the generation?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moeprobe.designs.design import MIN_UNITS, Arm, Design, arm_of
from moeprobe.designs.frame import Fold, Frame, check_rank
from moeprobe.designs.groups import LEFT_OUT, Groups
from moeprobe.designs.scope import Scope
from moeprobe.errors import StatsError

Ints = NDArray[np.int64]
Array = NDArray[np.float64]

# Shorter generations than this quantile are left out, all others cut to it (STATISTICS 3b: valid at any length ratio).
WINDOW = 0.05


def scored(scope: Scope, groups: Groups) -> Design:
    """One window for all generations, one score for each unit.

    There are no two groups to match lengths between, so all generations are cut to one window: the 5 % quantile of
    their lengths. Generations of one prompt are one unit with their mean score. Units hold equally many generations
    (the 5 % quantile, the first ones; prompts with fewer are left out), since what a unit says depends on its tokens.

    Args:
        scope: who could be compared; a generation without a score is LEFT_OUT.
        groups: its scores are what is tested.

    Raises:
        StatsError: nobody has a score, or all have the same, or what is held fixed determines it.
    """
    score = np.array([np.nan if one is None else one for one in groups.scores], dtype=np.float64)
    members = _with_score(scope, score, groups.name)
    window = max(1, int(np.quantile(scope.lengths[members], WINDOW)))
    kept, extra = _equally_many(scope.names, members[scope.lengths[members] >= window])
    keep = np.zeros(score.size, dtype=np.int64)
    keep[kept] = window
    names = [scope.names[index] for index in kept.tolist()]
    unit, units = scope.numbered(kept, names)
    mean = np.bincount(unit[kept], weights=score[kept]) / np.bincount(unit[kept])
    _check_spread(mean, kept.size, members.size, window)
    labels = _upper(mean)
    blocks, covariates = scope.held.of_units(unit, len(units))
    frame = Frame(Fold.UNITS, mean, covariates, blocks)
    unit_name = "generation" if len(units) == kept.size else "prompt"
    side = np.where(unit >= 0, labels[unit], -1)
    positive, negative = (_arm(side, code, labels, scope.lengths, keep) for code in (1, 0))
    return Design(
        kind="scores",
        segment=scope.segment,
        keep=keep,
        unit=unit,
        labels=labels,
        side=side,
        names=tuple(dict.fromkeys(names)),
        unit_name=unit_name,
        positive=positive,
        negative=negative,
        frame=frame,
        matching=f"all generations cut to one window of {window} tokens, the 5 % quantile of their lengths; shorter "
        "ones left out",
        left_out=scope.leaving(too_short=int(members.size - kept.size) - extra, extra_samples=extra),
        shortage=_shortage(mean, unit_name, frame, scope.fixed),
    )


def _with_score(scope: Scope, score: Array, name: str) -> Ints:
    """Generations that have a score; they must not all have the same."""
    members = np.flatnonzero((scope.member != LEFT_OUT) & np.isfinite(score))
    if not members.size:
        raise StatsError(f"No generation with tokens in segment {scope.segment!r} has a score of {name}.")
    if not np.ptp(score[members]):
        raise StatsError(f"All {members.size} generations have the score {score[members][0]:g}: nothing to compare.")
    return members


def _check_spread(mean: Array, kept: int, members: int, window: int) -> None:
    if np.ptp(mean) <= 1e-12 * np.abs(mean).max():
        raise StatsError(
            f"The {kept} of {members} generations with at least {window} tokens have the score {mean[0]:g}, "
            "alone or as the mean of their prompt: nothing to compare. Record longer generations, or more prompts."
        )


def _equally_many(names: Sequence[str], members: Ints) -> tuple[Ints, int]:
    """The first generations of each unit, equally many of all, and how many this leaves out."""
    units: dict[str, list[int]] = {}
    for index in members.tolist():
        units.setdefault(names[index], []).append(index)
    number = max(1, int(np.quantile([len(one) for one in units.values()], WINDOW))) if units else 1
    kept = sorted(index for one in units.values() if len(one) >= number for index in one[:number])
    return np.array(kept, dtype=np.int64), members.size - len(kept)


def _upper(score: Array) -> Ints:
    """1 above the median; where more than half share the largest score, 1 for that score."""
    upper = score > np.median(score)
    return (upper if upper.any() else score == score.max()).astype(np.int64)


def _arm(side: Ints, code: int, labels: Ints, lengths: Ints, keep: Ints) -> Arm:
    members = np.flatnonzero(side == code)
    return arm_of(members, int((labels == code).sum()), lengths, keep) if members.size else Arm(0, 0, 0, 0, 0.0)


def _shortage(score: Array, unit: str, frame: Frame, fixed: str) -> str | None:
    if score.size < 2 * MIN_UNITS:
        return f"fewer than {2 * MIN_UNITS} {unit}s with a score ({score.size})"
    rare = score.size - int(np.unique(score, return_counts=True)[1].max())
    if rare < MIN_UNITS:
        return f"fewer than {MIN_UNITS} {unit}s differ in score from the rest ({rare})"
    if frame.spare < MIN_UNITS:
        return f"too few {unit}s ({score.size}) for what is held fixed ({fixed})"
    check_rank(frame, fixed or "the mean")
    if frame.carriers < MIN_UNITS:
        beside = f" beside what is held fixed ({fixed})" if fixed else ""
        return f"the score rests on fewer than {MIN_UNITS} {unit}s{beside} ({frame.carriers:.1f}), far from all others"
    return None
