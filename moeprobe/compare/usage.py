"""Which experts the second run uses otherwise than the first: paired over prompts, no register asked for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from moeprobe.compare.aligned import Agreement
from moeprobe.compare.joined import Joined
from moeprobe.compare.matching import Matched, Pairs
from moeprobe.compare.testing import believable, run_test
from moeprobe.correlate import MIN_UNITS
from moeprobe.correlate.folding import less
from moeprobe.correlate.rows import column_cells
from moeprobe.correlate.testing import MIN_EXPECTED, Column, Reasons, below
from moeprobe.gathering.gather import Gathered, gather
from moeprobe.gathering.selection import Selection
from moeprobe.sites import expert_site
from moeprobe.stats import asin_sqrt, decompose, pool, sampling_floor, standardised_floor, standardised_rate

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Json = dict[str, Any]
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Usage:
    """Both tests of every expert over the matched prompts; samples are the prompts of run A, then those of run B.

    Attributes:
        gathered: sums of each sample, (2 * prompts, cells).
        prompts: how many prompts are compared.
        beyond: the test that decides, of differences of asin(sqrt(selection rate standardised for tokens)).
        marginal: the test of differences of asin(sqrt(selection rate)).
        reasons: why the deciding test was not made, or None.
        same: (cells,) whether the expert was chosen, and in every prompt exactly as often in both runs.
        spread: (cells,) smallest believable variance of one prompt's rate difference.
    """

    gathered: Gathered
    prompts: int
    beyond: Column
    marginal: Column
    reasons: Reasons
    same: NDArray[np.bool_]
    spread: Array


def gather_both(matched: Matched, pairs: Pairs, segment: str) -> tuple[Gathered, Ints]:
    """Sums of every prompt in both runs, and the numbers of the prompts in the order of the samples."""
    size = len(matched.prompt)
    keep = np.concatenate(pairs.keep(size))
    used, code = np.unique(matched.prompt[pairs.first], return_inverse=True)
    unit = np.full(2 * size, -1, dtype=np.int64)
    unit[pairs.first] = code
    unit[size + pairs.second] = used.size + np.unique(matched.prompt[pairs.second], return_inverse=True)[1]
    selection = Selection(segment, keep, unit, 2 * used.size)
    return gather(Joined(matched.first, matched.second), selection), used


def compare_usage(gathered: Gathered, agreements: list[Agreement], counted: int, *, draws: int, seed: int) -> Usage:
    """Test every expert.

    Args:
        gathered: `gather_both`.
        agreements: one for each layer, with `discordant` over the `counted` common tokens.
        counted: common tokens among those compared.
        draws, seed: sign flips for the family-wise p.
    """
    counts, held = gathered.counts, gathered.held
    prompts = counts.tokens.size // 2
    values = asin_sqrt(counts.selected / counts.tokens[:, None])
    rate = counts.selected.sum(axis=0) / counts.tokens.sum()
    used = int(counts.tokens[:prompts].sum())
    share, wrong = counted / used, np.concatenate([one.discordant for one in agreements])
    within = held.variance.sum(axis=0) / counts.tokens.sum()
    part = believable(share, wrong, counted, rate * (1 - rate))
    floor = 2 * sampling_floor(counts.tokens, rate) * part
    strict = 2 * standardised_floor(held, rate) * believable(share, wrong, counted, within)
    standard = asin_sqrt(standardised_rate(counts.selected, held.expected, held.variance, rate))
    difference = less(values[prompts:], values[:prompts])
    beyond = less(standard[prompts:], standard[:prompts])
    plain = _untestable(difference, rate, used, prompts)
    reasons = _untestable_beyond(plain, beyond, held.variance.sum(axis=0) / 2)
    level = values.mean(axis=0)
    spread = part * 2 * rate * (1 - rate) * np.mean(1 / counts.tokens)
    return Usage(
        gathered=gathered,
        prompts=prompts,
        beyond=run_test(beyond, reasons, strict, level, draws, seed),
        marginal=run_test(difference, plain, floor, level, draws, seed),
        reasons=reasons,
        same=(counts.selected[:prompts] == counts.selected[prompts:]).all(axis=0) & (rate > 0),
        spread=spread,
    )


def usage_rows(usage: Usage, agreements: list[Agreement], alpha: float, *, other_text: bool = True) -> list[Json]:
    """The rows of `usage` in docs/compare.md, in order of layer and expert.

    Args:
        usage: the tests.
        agreements: one for each layer.
        alpha: bound on q.
        other_text: whether any compared token differs between the runs; if none does, no change is one of tokens only.
    """
    counts, held, n = usage.gathered.counts, usage.gathered.held, usage.prompts
    sides = [pool(int(counts.tokens[part].sum()), counts.selected[part].sum(axis=0), counts.gate[part].sum(axis=0))
             for part in (slice(0, n), slice(n, None))]  # fmt: skip
    split = decompose(sides[1].S, sides[1].Q, sides[0].S, sides[0].Q)
    rates = counts.selected / counts.tokens[:, None]
    excess = (counts.selected - held.expected) / counts.tokens[:, None]
    difference = rates[n:] - rates[:n]
    low, high = _interval(difference, usage.spread)
    columns = {
        "S_a": sides[0].S, "Q_a": sides[0].Q, "W_a": sides[0].W, "S_b": sides[1].S, "Q_b": sides[1].Q,
        "W_b": sides[1].W, "dS": sides[1].S - sides[0].S, "dW": sides[1].W - sides[0].W, "entry": split.entry,
        "valuation": split.valuation, "rate_difference": difference.mean(axis=0),
        "beyond_difference": (excess[n:] - excess[:n]).mean(axis=0),
        "saturation": np.concatenate([one.by_expert for one in agreements]),
    }  # fmt: skip
    beyond_cells, marginal_cells = column_cells(usage.beyond), column_cells(usage.marginal)
    rows = []
    for cell, reason in enumerate(usage.reasons):
        site = expert_site(int(counts.layers[cell]), int(counts.experts[cell]))
        tested, marginal = beyond_cells[cell], marginal_cells[cell]
        still = bool(usage.same[cell]) and n >= MIN_UNITS
        interval = None if marginal["p"] is None else [float(low[cell]), float(high[cell])]
        rows.append(
            {"site": str(site), "layer": site.layer, "expert": site.expert}
            | {name: number(values[cell]) for name, values in columns.items()}
            | {"rate_difference_ci": interval}
            | tested
            | {
                "marginal": marginal,
                "change": _word(tested["q"], marginal["q"] if other_text else None, still, alpha),
                "reason": reason,
            }
        )
    return rows


def number(value: float) -> float | None:
    """A number for a file: finite or None."""
    return float(value) if np.isfinite(value) else None


def _word(q: float | None, marginal: float | None, same: bool, alpha: float) -> str:
    """The test beyond token identity decides. What only the other one finds may be the text and nothing else."""
    if q is not None and q < alpha:
        return "changed"
    if marginal is not None and marginal < alpha:
        return "tokens only"
    return "not changed" if q is not None or same else "untestable"


def _untestable(difference: Array, rate: Array, used: int, prompts: int) -> Reasons:
    """Why each cell cannot be tested, or None. Sign-blind: swapping the runs gives the same answer."""
    if prompts < MIN_UNITS:
        return [f"fewer than {MIN_UNITS} matched prompts ({prompts})"] * rate.size
    reasons: Reasons = []
    for share, equal in zip(rate, (difference == 0).all(axis=0), strict=True):
        if share == 0:
            reasons.append("never selected in the compared tokens")
        elif equal:
            reasons.append("selected at the same rate by both runs in every prompt")
        elif share * used < MIN_EXPECTED:
            reasons.append(f"too rare: {below(share * used)} selections expected in a run, {MIN_EXPECTED} are needed")
        else:
            reasons.append(None)
    return reasons


def _untestable_beyond(plain: Reasons, difference: Array, information: Array) -> Reasons:
    reasons: Reasons = []
    for reason, left, equal in zip(plain, information, (difference == 0).all(axis=0), strict=True):
        if reason is None and (left < MIN_EXPECTED or equal):
            reason = f"follows the token: {below(left)} selections left to compare in a run, {MIN_EXPECTED} are needed"
        reasons.append(reason)
    return reasons


def _interval(difference: Array, spread: Array) -> tuple[Array, Array]:
    """95 % interval of the mean difference over prompts, never narrower than the tokens allow; cut to [-1, 1]."""
    n = len(difference)
    if n < 2:
        return np.full(spread.size, -1.0), np.full(spread.size, 1.0)
    variance = np.maximum(difference.var(axis=0, ddof=1), spread)
    half = student.ppf(0.5 + LEVEL / 2, n - 1) * np.sqrt(variance / n)
    mean = difference.mean(axis=0)
    return np.clip(mean - half, -1, 1), np.clip(mean + half, -1, 1)
