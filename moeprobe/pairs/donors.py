"""Donors from other pairs: what a swap does that has nothing to do with the pair itself."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import InterchangeError
from moeprobe.pairs.pairs import TokenPair, shown

Ints = NDArray[np.int64]
KINDS = {
    "placebo": "a prompt of the recipient's own class, of another pair",
    "random": "a prompt of the other class, of another pair",
}


def donors(
    pairs: Sequence[TokenPair], kind: str, seed: int, *, recipient: str = "sensitive", same_length: bool = False
) -> Ints:
    """For each pair the index of the pair whose prompt is the donor.

    No donor is of the pair itself, and none has the token ids of the recipient or of the prompt that is the pair's own
    donor. Each prompt is donor once, as far as that can be; where equal prompts forbid it, some give twice.

    Args:
        pairs: pairs of prompts.
        kind: "placebo" (recipient's class) or "random" (other class); see KINDS.
        seed: of the draw.
        recipient: side of the recipients, "sensitive" or "control".
        same_length: only donors with as many tokens as the recipient; the alignment "equal" needs that.

    Returns:
        (pairs,) int64.

    Raises:
        InterchangeError: an unknown kind, or a pair for which there is no such donor.
    """
    if kind not in KINDS:
        raise InterchangeError(f"Unknown kind of donor {shown(kind)}. Choose one of {', '.join(KINDS)}.")
    other = "control" if recipient == "sensitive" else "sensitive"
    numbers: dict[Hashable, int] = {}
    own, real = (
        np.array([numbers.setdefault(pair.side(side), len(numbers)) for pair in pairs], np.int64)
        for side in (recipient, other)
    )
    given = own if kind == "placebo" else real
    lengths = np.array([[len(pair.side(recipient)), len(pair.side(other))] for pair in pairs]).reshape(-1, 2)
    giver_lengths = lengths[:, 0 if kind == "placebo" else 1]
    places = np.arange(len(pairs))

    def allowed(recipients: int | Ints, givers: int | Ints) -> NDArray[np.bool_]:
        """Which of `givers` may give to which of `recipients`: numbers of pairs; either may be a single one."""
        same = (given[givers] == own[recipients]) | (given[givers] == real[recipients])
        fits: NDArray[np.bool_] = np.not_equal(givers, recipients) & ~same
        return fits & (giver_lengths[givers] == lengths[recipients, 0]) if same_length else fits

    alone = [place for place in range(len(pairs)) if not allowed(place, places).any()]
    if alone:
        raise InterchangeError(_missing(pairs, alone, kind, same_length=same_length))
    generator = np.random.default_rng([seed, list(KINDS).index(kind), int(recipient == "control")])
    order = generator.permutation(len(pairs))
    chosen = np.empty(len(pairs), np.int64)
    chosen[order] = np.roll(order, -1)  # one cycle through all pairs: nobody gives to itself
    for place in order[~allowed(order, chosen[order])]:
        # Exchange donors with another pair, where both may have the other's.
        mutual = np.flatnonzero(allowed(place, chosen) & allowed(places, chosen[place]))
        if allowed(place, chosen[place]):
            continue  # an exchange before has mended it
        if len(mutual):
            other_place = generator.choice(mutual)
            chosen[[place, other_place]] = chosen[[other_place, place]]
        else:
            chosen[place] = generator.choice(np.flatnonzero(allowed(place, places)))
    return chosen


def _missing(pairs: Sequence[TokenPair], alone: Sequence[int], kind: str, *, same_length: bool) -> str:
    names = ", ".join(shown(pairs[place].id) for place in alone[:5])
    more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
    what = "the recipient's own class" if kind == "placebo" else "the other class"
    length = " and as many tokens" if same_length else ""
    return (
        f"Donors of {what} are missing for {len(alone)} of {len(pairs)} pairs ({names}{more}): there is no other pair "
        f"whose prompt has other token ids{length}. Add pairs with other prompts."
    )
