"""How many of the recipient's positions had a partner: what an alignment left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import InterchangeError
from moeprobe.pairs.alignment import Alignment, Ints, partners
from moeprobe.pairs.pairs import TokenPair


@dataclass(frozen=True)
class Coverage:
    """Prompt positions with a partner, one value per pair; forced tokens are not counted.

    Attributes:
        paired: (pairs,) positions of the recipient's prompt that had a partner.
        positions: (pairs,) positions of the recipient's prompt.
        readout: (pairs,) whether the read-out token, the prompt's last, had one.
        equal: (pairs,) paired positions that hold the same token on both sides.
    """

    paired: Ints
    positions: Ints
    readout: NDArray[np.bool_]
    equal: Ints

    def to_json(self) -> dict[str, Any]:
        """All pairs, in order."""
        return {
            "paired": self.paired.tolist(),
            "positions": self.positions.tolist(),
            "readout": self.readout.tolist(),
            "equal": self.equal.tolist(),
        }

    @property
    def sentence(self) -> str:
        """The coverage in words, with a warning where read-out tokens have no partner."""
        share = 100 * self.paired.sum() / self.positions.sum()
        least = int(np.argmin(self.paired / self.positions))
        text = (
            f"{int(self.paired.sum()):,} of {int(self.positions.sum()):,} prompt positions had a partner ({share:.0f} "
            f"%; least: {self.paired[least]} of {self.positions[least]}), {int(self.equal.sum()):,} of them with the "
            "same token."
        )
        alone = int((~self.readout).sum())
        if alone:
            text += (
                f" In {alone} of {len(self.readout)} pairs the read-out token had none, so it kept its own value: "
                "an effect that is missing there may be missing for that reason alone."
            )
        return text


def coverage(
    pairs: Sequence[TokenPair],
    alignment: Alignment,
    *,
    recipient: str = "sensitive",
    donors: Sequence[int] | None = None,
    donor: str | None = None,
) -> Coverage:
    """The coverage of the prompts of `pairs`.

    Args:
        pairs: pairs of prompts.
        alignment: how they are aligned.
        recipient: "sensitive" (necessity) or "control" (sufficiency).
        donors: for each pair the index of the pair whose prompt is the donor; None is the pair itself.
        donor: the donor's side; None is the other side.

    Raises:
        InterchangeError: no pairs, or prompts that cannot be aligned so.
    """
    if not pairs:
        raise InterchangeError("There are no pairs to align.")
    other = donor or ("control" if recipient == "sensitive" else "sensitive")
    paired, positions, readout, equal = [], [], [], []
    for place, pair in enumerate(pairs):
        giver = pairs[place if donors is None else donors[place]]
        own, given = np.array(pair.side(recipient)), np.array(giver.side(other))
        spans = pair.span(recipient), giver.span(other)
        both = None if spans[0] is None or spans[1] is None else (spans[0], spans[1])
        found = partners(own.tolist(), given.tolist(), alignment, spans=both)
        has = found >= 0
        paired.append(int(has.sum()))
        positions.append(len(own))
        readout.append(bool(has[-1]))
        equal.append(int((own[has] == given[found[has]]).sum()))
    return Coverage(np.array(paired), np.array(positions), np.array(readout), np.array(equal))
