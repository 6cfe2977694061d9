"""The comparison before any routing is looked at: who is compared, on which tokens, in which units of replication."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.groups import LEFT_OUT, NEGATIVE, POSITIVE, Groups
from moeprobe.correlate.inputs import TraceLike
from moeprobe.errors import StatsError
from moeprobe.stats import matched_lengths

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Arm:
    """One group.

    Attributes:
        generations: how many generations it has.
        units: how many units of replication (generations, or prompts where prompts repeat).
        tokens, tokens_used: tokens of the segment, before and after length matching.
        median_length: median tokens per generation before matching.
    """

    generations: int
    units: int
    tokens: int
    tokens_used: int
    median_length: float


@dataclass(frozen=True)
class Design:
    """What is compared with what.

    Attributes:
        segment: "answer" or another segment of the trace.
        keep: (generations,) tokens to use of each generation; 0 where it is left out.
        unit: (kept generations,) number of each kept generation's unit.
        labels: (units,) 1 for the positive group, 0 for the negative.
        unit_name: "generation", or "prompt" where a group holds several generations of one prompt.
        positive, negative: the arms.
        no_tokens: generations of a group without a routed token in the segment.
        equal_sizes: whether both groups have as many generations.
    """

    segment: str
    keep: Ints
    unit: Ints
    labels: Ints
    unit_name: str
    positive: Arm
    negative: Arm
    no_tokens: int
    equal_sizes: bool

    @property
    def smallest(self) -> int:
        """Units of the smaller group."""
        return min(self.positive.units, self.negative.units)


def plan(trace: TraceLike, groups: Groups, segment: str, lengths: Ints) -> Design:
    """Match lengths and find the units of replication.

    Several generations of one prompt in one group are not independent, so they count as one unit (STATISTICS 10.1).
    A prompt with generations in both groups gives one unit to each; that they belong together is ignored, which only
    costs power.

    Args:
        trace: the run.
        groups: who belongs where.
        segment: which tokens are compared.
        lengths: (generations,) routed tokens of each generation in the segment.

    Raises:
        StatsError: a group is empty.
    """
    member = np.where(lengths > 0, groups.member, LEFT_OUT)
    arms = [np.flatnonzero(member == code) for code in (NEGATIVE, POSITIVE)]
    for code, arm in enumerate(arms):
        if not arm.size:
            raise StatsError(_empty(groups, code, segment))
    keep = np.zeros(lengths.size, dtype=np.int64)
    keep[arms[1]], keep[arms[0]] = matched_lengths(lengths[arms[1]], lengths[arms[0]])
    kept = [int(index) for index in np.flatnonzero(keep)]
    keys = [(int(member[index]), trace.generations[index].prompt_id) for index in kept]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    labels = np.array([code for code, _ in numbers], dtype=np.int64)
    zero, one = (_arm(arm, int((labels == code).sum()), lengths, keep) for code, arm in enumerate(arms))
    return Design(
        segment=segment,
        keep=keep,
        unit=np.array([numbers[key] for key in keys], dtype=np.int64),
        labels=labels,
        unit_name="generation" if len(numbers) == len(kept) else "prompt",
        positive=one,
        negative=zero,
        no_tokens=int(((groups.member != LEFT_OUT) & (lengths == 0)).sum()),
        equal_sizes=one.generations == zero.generations,
    )


def unit_names(trace: TraceLike, design: Design) -> list[str]:
    """The prompt of each unit (of its first generation), (units,)."""
    names = [""] * len(design.labels)
    for index, unit in reversed(list(zip(np.flatnonzero(design.keep).tolist(), design.unit.tolist(), strict=True))):
        names[unit] = trace.generations[index].prompt_id
    return names


def _arm(members: Ints, units: int, lengths: Ints, keep: Ints) -> Arm:
    own = lengths[members]
    return Arm(members.size, units, int(own.sum()), int(keep[members].sum()), float(np.median(own)))


def _empty(groups: Groups, code: int, segment: str) -> str:
    side, words = ("positive", groups.positive) if code == POSITIVE else ("negative", groups.negative)
    if (groups.member == code).any():
        return (
            f"No generation of the {side} group ({words}) has a token in segment {segment!r}. "
            "Choose another segment, or record longer generations."
        )
    return (
        f"No generation is {side} ({words}) for {groups.name}: there is nothing to compare. "
        "Add prompts of the other kind, or choose another probe or label."
    )
