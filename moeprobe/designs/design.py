"""A planned comparison: who is compared with whom, on which tokens, in which units of replication."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moeprobe.designs.frame import Fold, Frame
from moeprobe.gathering.selection import Selection

Ints = NDArray[np.int64]

KINDS = ("two groups", "pairs", "scores", "within generations")
# Below this many units (generations, prompts or pairs) in a group no p-value is given; below WARN_UNITS a note warns.
MIN_UNITS = 5
WARN_UNITS = 15


@dataclass(frozen=True)
class Arm:
    """One side of the comparison: a group, the upper or lower half of the scores, or the tokens inside or outside.

    Attributes:
        generations: how many generations it has.
        units: how many units of replication.
        tokens, tokens_used: tokens of the segment, before and after length matching.
        median_length: median tokens per generation before matching.
    """

    generations: int
    units: int
    tokens: int
    tokens_used: int
    median_length: float


@dataclass(frozen=True, eq=False)
class Design:
    """What is compared with what.

    A sample is what counts are taken of: a unit of one group; with pairs or labels inside generations one side of a
    unit (sample = side * units + unit, side 1 the positive one).

    Attributes:
        kind: one of KINDS.
        segment: "answer" or another segment of the trace.
        keep: (generations,) tokens to use of each generation; 0 where it is left out.
        unit: (generations,) number of each generation's unit as `Selection` wants it, -1 where it is left out.
        labels: (samples,) 1 for the positive side, 0 for the negative.
        side: (generations,) 1, 0, or -1 where it is left out; for display.
        names: (rows,) what each row of the model is called: the prompt of its first generation, or the pair.
        unit_name: "generation", "prompt" where several generations of one prompt are one unit, or "pair".
        positive, negative: the arms.
        frame: the linear model that is tested.
        matching: how lengths were made equal, in words.
        left_out: generations left out, by reason.
        shortage: why nothing can be tested at all, or None.
        spans: for labels inside generations, the marked characters of each answer.
        shifts: test by circular shifts of the label, because the units are few.
        notes: what a reader must know of the choice of the design.
        drawn_by: names of experts that the compared tokens were drawn by; they are not tested.
    """

    kind: str
    segment: str
    keep: Ints
    unit: Ints
    labels: Ints
    side: Ints
    names: tuple[str, ...]
    unit_name: str
    positive: Arm
    negative: Arm
    frame: Frame
    matching: str
    left_out: dict[str, int] = field(default_factory=dict)
    shortage: str | None = None
    spans: Sequence[Ints] | None = None
    shifts: bool = False
    notes: tuple[str, ...] = ()
    drawn_by: tuple[str, ...] = ()

    @property
    def units(self) -> int:
        """Rows of the linear model: generations, prompts or pairs."""
        return len(self.names)

    @property
    def smallest(self) -> int:
        """Units of the smaller side."""
        return min(self.positive.units, self.negative.units)

    @property
    def sides(self) -> Ints | None:
        """(samples,) unit of each sample where every unit has both sides; None for groups of units."""
        return None if self.frame.fold is Fold.UNITS else np.arange(self.labels.size, dtype=np.int64) % self.units

    @property
    def selection(self) -> Selection:
        """Which tokens are counted for which sample."""
        units = self.labels.size if self.spans is None else self.units
        return Selection(self.segment, self.keep, self.unit, units, self.spans)


def arm_of(members: Ints, units: int, lengths: Ints, keep: Ints) -> Arm:
    """The arm of some generations, from their tokens before and after matching, (generations,) each."""
    own = lengths[members]
    return Arm(members.size, units, int(own.sum()), int(keep[members].sum()), float(np.median(own)))
