"""Choosing sites on one half of the pairs and testing them on the other."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import InterchangeError
from moeprobe.findings.causes import CAUSAL_EFFECTS, MIN_PAIRS
from moeprobe.judging.judge import Criteria, Effects, Judged, deciding, judge
from moeprobe.judging.ratio import oriented
from moeprobe.judging.signflip import standardised

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Site = TypeVar("Site", bound=Hashable)


@dataclass(frozen=True)
class Confirmation:
    """What `confirm` found.

    Attributes:
        chosen_on, tested_on: positions of the pairs in the two halves.
        candidates: the chosen sites, leading first.
        judged: from the second half only.
    """

    chosen_on: Integers
    tested_on: Integers
    candidates: tuple[object, ...]
    judged: Judged


def split_pairs(pairs: int, seed: int) -> tuple[Integers, Integers]:
    """Two random halves of the pairs, in order; the second is the larger of odd numbers.

    Raises:
        InterchangeError: a half would have fewer than 8 pairs.
    """
    if pairs < 2 * MIN_PAIRS:
        raise InterchangeError(
            f"{pairs} pairs cannot be split: each half needs {MIN_PAIRS}. Add pairs, or test all sites on all pairs."
        )
    order = np.random.default_rng(seed).permutation(pairs).astype(np.int64)
    return np.sort(order[: pairs // 2]), np.sort(order[pairs // 2 :])


def leading(effects: Effects[Site], gap: Floats, sites: Sequence[Site], top: int, minimum_effect: float) -> list[Site]:
    """The `top` sites that exceed the minimum effect most clearly in either direction, leading first.

    The score of a direction is the smaller standardised sum (increasing in t) of swap and swap minus placebo, each
    less minimum_effect percent of the gap.

    Args:
        effects: as in `judge`.
        gap: (pairs,).
        sites: to choose among.
        top: how many.
        minimum_effect: percent of the gap.
    """
    shift = minimum_effect / 100 * oriented(gap, gap)[:, None]

    def score(site: Site) -> float:
        sides = [oriented(np.column_stack(deciding(effects[site], name)), gap) for name in CAUSAL_EFFECTS]
        return max(float(standardised(side - shift).sum(axis=0).min()) for side in sides)

    return sorted(sites, key=score, reverse=True)[:top]


def confirm(
    effects: Effects[Site],
    gap: Floats,
    nulls: Mapping[Site, Sequence[Site] | None],
    top: int,
    criteria: Criteria | None = None,
    *,
    signed: bool = False,
) -> Confirmation:
    """Choose the `top` sites on a random half of the pairs and judge them on the other half.

    All numbers of the rows are of the second half. p are adjusted by Benjamini-Hochberg over the chosen sites and both
    directions: of the sites called at most 5 % are expected to be wrong, if the tests of sites without an effect do
    not depend negatively on each other.

    Args:
        effects, gap, nulls, signed: as in `judge`, over all pairs; `nulls` has all sites that are screened.
        top: how many are chosen.
        criteria: as in `judge`; its seed splits the pairs.

    Raises:
        InterchangeError: fewer than 16 pairs, no site chosen, or what `judge` raises on the second half.
    """
    criteria = criteria or Criteria()
    if top < 1:
        raise InterchangeError(f"{top} sites to confirm: at least one is needed.")
    first, second = split_pairs(len(gap), criteria.seed)
    candidates = leading(_of(effects, first), gap[first], list(nulls), top, criteria.minimum_effect)
    chosen = {site: nulls[site] for site in candidates}
    judged = judge(_of(effects, second), gap[second], chosen, criteria, signed=signed, adjustment="held out")
    return Confirmation(first, second, tuple(candidates), judged)


def _of(effects: Effects[Site], pairs: Integers) -> dict[Site, dict[str, Floats]]:
    return {site: {name: values[pairs] for name, values in own.items()} for site, own in effects.items()}
