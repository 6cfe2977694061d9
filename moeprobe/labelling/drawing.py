"""Drawing windows: evenly over the deciles of what they are drawn by, each with a matched negative."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from moeprobe.errors import LabelError
from moeprobe.labelling.windows import Windows

Ints = NDArray[np.int64]

DECILES = 10
TOKEN, TOKEN_TOUCHED, PLACE = "token", "token, chosen elsewhere in the window", "place"


@dataclass(frozen=True)
class Drawn:
    """One window of the sheet.

    Attributes:
        index: its number among the candidates.
        decile: 1 (weakest) to 10 (strongest) among the windows with a hit; 0 for a matched negative.
        pair: which drawn window and negative belong together.
        match: how a negative was matched; "" for a drawn window.
    """

    index: int
    decile: int
    pair: int
    match: str = ""


def deciles(values: NDArray[np.float64]) -> Ints:
    """(windows,) 1 to 10 by mean rank, so that equal values share a decile."""
    ranks = rankdata(values)
    codes: Ints = np.clip(np.ceil(DECILES * (ranks - 0.5) / values.size), 1, DECILES).astype(np.int64)
    return codes


def draw(windows: Windows, number: int, seed: int) -> list[Drawn]:
    """Draw windows with a hit in turn from each decile, and for each a window without; none overlap.

    A negative has as many tokens as its partner. In this order of preference: the same token in its middle and the
    expert nowhere in it; the same token, the expert chosen elsewhere in it; any window without the expert. Among equals
    the one that stands nearest in its answer, then at random. A window without any such partner is not drawn.

    Args:
        windows: the candidates.
        number: windows in all, half of them negatives.
        seed: of the draws.

    Raises:
        LabelError: fewer than 2 windows are asked for, or not one pair can be made.
    """
    if number < 2:
        raise LabelError(f"{number} windows make no sheet. Ask for 100, of which half are matched negatives.")
    rng = np.random.default_rng(seed)
    hits, misses = np.flatnonzero(windows.hit), np.flatnonzero(~windows.hit)
    code = dict(zip(hits.tolist(), deciles(windows.value[hits]).tolist(), strict=True))
    queues: dict[int, list[int]] = {decile: [] for decile in range(DECILES, 0, -1)}
    for index in rng.permutation(hits).tolist():
        queues[code[index]].append(index)
    taken = _Taken(windows)
    made: list[Drawn] = []
    noise = rng.random(windows.size)
    while len(made) < number - 1 and any(queues.values()):
        for decile, queue in queues.items():
            pair = _next_pair(windows, queue, misses, noise, taken) if len(made) < number - 1 else None
            if pair is not None:
                made += [Drawn(pair[0], decile, len(made) // 2), Drawn(pair[1], 0, len(made) // 2, pair[2])]
    if not made:
        raise LabelError(
            "No window has a partner without a hit: every stretch of this length has one. Try a smaller --window."
        )
    return made


class _Taken:
    """Windows that are on the sheet already; no two may share a token."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.by_generation: dict[int, list[int]] = {}

    def free(self, index: int, beside: int | None = None) -> bool:
        others = self.by_generation.get(int(self.windows.generation[index]), [])
        return not any(
            self.windows.overlaps(index, other) for other in [*others, *([] if beside is None else [beside])]
        )

    def add(self, *indices: int) -> None:
        for index in indices:
            self.by_generation.setdefault(int(self.windows.generation[index]), []).append(index)


def _next_pair(
    windows: Windows, queue: list[int], misses: Ints, noise: NDArray[np.float64], taken: _Taken
) -> tuple[int, int, str] | None:
    """The next window of a decile that is free and has a partner; the queue is used up as far as that."""
    while queue:
        index = queue.pop()
        if not taken.free(index):
            continue
        for other, match in _partners(windows, index, misses, noise):
            if taken.free(other, index):
                taken.add(index, other)
                return index, other, match
    return None


def _partners(windows: Windows, index: int, misses: Ints, noise: NDArray[np.float64]) -> Iterator[tuple[int, str]]:
    """Windows without a hit that fit one with, the best first."""
    size = windows.last - windows.first
    fit = misses[size[misses] == size[index]]
    same = (windows.token[fit] == windows.token[index]) & (windows.token[index] >= 0)
    touched = windows.touched[fit]
    rank = np.where(same & ~touched, 0, np.where(same, 1, np.where(touched, 3, 2)))
    usable = rank < 3
    fit, rank = fit[usable], rank[usable]
    order = np.lexsort((noise[fit], np.abs(windows.place[fit] - windows.place[index]), rank))
    words = (TOKEN, TOKEN_TOUCHED, PLACE)
    return ((int(fit[at]), words[int(rank[at])]) for at in order)
