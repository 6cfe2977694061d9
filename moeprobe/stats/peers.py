"""Other tools' scores, by name, for comparison. None of them has a null: each returns "top" experts from pure noise.

What each does on simulated routing with a known truth is in STATISTICS 6: for example the top 20 of the ratio hold
0.8 % true experts, those of SteerMoE's risk difference 45 %. They stand beside p and q and never decide.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeprobe.errors import StatsError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PeerScores:
    """Scores of pooled tokens; arrays (experts,), NaN where a score does not exist.

    Attributes:
        risk_difference: SteerMoE (arXiv 2509.09660): a1 / (a1 + d1) - a0 / (a0 + d0), the difference of the shares
            of tokens that chose the expert.
        npmi: RICE (arXiv 2505.14681): ln[p(x, y) / (p(x) p(y))] / -ln p(x, y), x = expert chosen, y = token of group
            1. In [-1, 1]; -1 where never together, NaN for an expert that nobody chose.
        specialization: OLMoE (arXiv 2409.02060, section 5): N(E, D) / N_D, the share of group 1's tokens that chose
            the expert. Compare with k / experts. It measures popularity, not a difference.
        ratio: S1 / S0; NaN where group 0 never chose the expert. Noise alone gives 17 for rare experts (STATISTICS 1).
        log_odds: ln of the odds ratio with 0.5 added to each count. Always finite.
    """

    risk_difference: Array
    npmi: Array
    specialization: Array
    ratio: Array
    log_odds: Array


@dataclass(frozen=True)
class Saturation:
    """Router saturation (OLMoE, arXiv 2409.02060, section 5.1).

    Attributes:
        overall: mean over tokens of (experts chosen by both checkpoints) / (experts chosen by the later one).
        by_expert: (experts,) share of the later checkpoint's choices of an expert that the earlier one made too; NaN
            for an expert that the later one never chose.
    """

    overall: float
    by_expert: Array


def peer_scores(selected1: ArrayLike, tokens1: int, selected0: ArrayLike, tokens0: int) -> PeerScores:
    """All scores that need two groups of tokens.

    Args:
        selected1, selected0: (experts,) tokens of each group that chose the expert.
        tokens1, tokens0: tokens of each group.

    Raises:
        StatsError: shapes that differ, a group without tokens, or more selections than tokens.
    """
    one, zero = np.asarray(selected1, dtype=np.float64), np.asarray(selected0, dtype=np.float64)
    if one.shape != zero.shape or tokens1 < 1 or tokens0 < 1:
        raise StatsError(f"Counts {one.shape} and {zero.shape} of {tokens1} and {tokens0} tokens do not fit.")
    if one.size and (min(one.min(), zero.min()) < 0 or one.max() > tokens1 or zero.max() > tokens0):
        raise StatsError("An expert has more selections than there are tokens, or fewer than none.")
    rate1, rate0 = one / tokens1, zero / tokens0
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(zero > 0, rate1 / rate0, np.nan)
    odds1, odds0 = (one + 0.5) / (tokens1 - one + 0.5), (zero + 0.5) / (tokens0 - zero + 0.5)
    return PeerScores(rate1 - rate0, _npmi(one, tokens1, zero, tokens0), rate1, ratio, np.log(odds1 / odds0))


def saturation(earlier: ArrayLike, later: ArrayLike, experts: int) -> Saturation:
    """How much of the later checkpoint's routing the earlier one has already, on the same tokens.

    Args:
        earlier, later: (tokens, k) chosen experts of one layer; -1 is an absent choice. Order does not matter.
        experts: number of experts of the layer.

    Raises:
        StatsError: shapes that differ, numbers outside -1 ... experts - 1, an expert twice for one token, or a later
            checkpoint without any choice.
    """
    first, last = _choices(earlier, experts), _choices(later, experts)
    if len(first) != len(last):
        raise StatsError(f"{len(first)} and {len(last)} tokens: saturation compares the same tokens.")
    kept = (last[:, :, None] == first[:, None, :]).any(axis=2) & (last >= 0)
    chosen = (last >= 0).sum(axis=1)
    if not chosen.any():
        raise StatsError("The later checkpoint chose no expert for any token.")
    per_token = kept.sum(axis=1)[chosen > 0] / chosen[chosen > 0]
    both = np.bincount(last[kept], minlength=experts)
    total = np.bincount(last[last >= 0], minlength=experts)
    by_expert = np.divide(both, total, out=np.full(experts, np.nan), where=total > 0)
    return Saturation(float(per_token.mean()), by_expert)


def _npmi(one: Array, tokens1: int, zero: Array, tokens0: int) -> Array:
    total = tokens1 + tokens0
    chosen = one + zero
    with np.errstate(invalid="ignore", divide="ignore"):
        score = np.log(one * total / (chosen * tokens1)) / -np.log(one / total)
    return np.where(chosen == 0, np.nan, np.where(one == 0, -1.0, score))


def _choices(ids: ArrayLike, experts: int) -> NDArray[np.int64]:
    values = np.asarray(ids)
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise StatsError(f"Chosen experts must be whole numbers (tokens, k); found {values.dtype} {values.shape}.")
    chosen = values.astype(np.int64)
    if chosen.size and (chosen.min() < -1 or chosen.max() >= experts):
        raise StatsError(f"A chosen expert lies outside -1 ... {experts - 1}.")
    ordered = np.sort(chosen, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise StatsError("A token chose the same expert twice.")
    return chosen
