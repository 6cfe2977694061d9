"""Which experts keep, lose or gain a register: its association in each run, and the test of their difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.compare.aligned import Agreement
from moeprobe.compare.matching import Matched, Pairs, pair_up
from moeprobe.compare.testing import believable, run_test
from moeprobe.correlate import MIN_UNITS
from moeprobe.correlate.folding import less
from moeprobe.correlate.rows import column_cells
from moeprobe.correlate.testing import MIN_EXPECTED, Column, Reasons, below
from moeprobe.designs.groups import LEFT_OUT, NEGATIVE, POSITIVE, Groups
from moeprobe.gathering.gather import Gathered, gather
from moeprobe.gathering.selection import Selection
from moeprobe.stats import asin_sqrt, matched_lengths, standardised_floor, standardised_rate, welch_interval

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Json = dict[str, Any]
# In the order in which a reader wants them.
WORDS = ("lost", "gained", "changed", "kept", "unclear", "neither", "untestable")


@dataclass(frozen=True, eq=False)
class Interaction:
    """The test of the difference between the runs' associations; units are prompts, divided by label.

    Attributes:
        labels: (units,) 1 positive, 0 negative, the same in both runs.
        contrast: of asin(sqrt(selection rate standardised for tokens)) in B less that in A, positive against negative
            units; above 0 where the expert goes with the positive group more in B.
        change: (cells,) the same difference of differences as a selection rate.
        low, high: (cells,) its 95 % interval; NaN with fewer than two units of a label.
        reasons: why the test was not made, or None.
        tokens: tokens compared, of both runs together.
    """

    labels: Ints
    contrast: Column
    change: Array
    low: Array
    high: Array
    reasons: Reasons
    tokens: int


def steady(groups: Groups, size: int) -> Ints:
    """(generations,) the group of each matched generation where both runs agree on it, else LEFT_OUT."""
    first, second = groups.member[:size], groups.member[size:]
    return np.where(first == second, first, LEFT_OUT)


def agreed_labels(groups: Groups, matched: Matched) -> Json:
    """How the two runs' labels compare: the `labels` of docs/compare.md."""
    size = len(matched.prompt)
    first, second = groups.member[:size], groups.member[size:]
    moved = (first != second) & (first != LEFT_OUT) & (second != LEFT_OUT)
    names = [matched.prompts[number] for number in matched.prompt[moved]]
    return {
        "both_positive": int(((first == POSITIVE) & (second == POSITIVE)).sum()),
        "both_negative": int(((first == NEGATIVE) & (second == NEGATIVE)).sum()),
        "only_a_positive": int(((first == POSITIVE) & (second == NEGATIVE)).sum()),
        "only_b_positive": int(((first == NEGATIVE) & (second == POSITIVE)).sum()),
        "left_out": int(((first == LEFT_OUT) | (second == LEFT_OUT)).sum()),
        "changed_prompts": list(dict.fromkeys(names)),
    }


def compare_associations(
    matched: Matched,
    group: Ints,
    lengths: tuple[Ints, Ints],
    segment: str,
    agreements: Sequence[Agreement],
    counted: tuple[int, int],
    *,
    draws: int,
    seed: int,
) -> Interaction | None:
    """Test the difference of the associations; None where a label has no prompt.

    Every run has its own means of the strata: an expert that the second run chooses more for a word, whoever says it,
    must not look like one that gained the register which uses the word.

    Args:
        matched: the runs.
        group: `steady` labels.
        lengths: tokens of each generation in both runs.
        segment: which tokens are compared.
        agreements: one for each layer, with `discordant` over the common tokens.
        counted: common tokens, and how many tokens of one run they were counted among.
        draws, seed: relabellings for the family-wise p.
    """
    if not all((group == code).any() for code in (NEGATIVE, POSITIVE)):
        return None
    pairs = pair_up(np.where(group == LEFT_OUT, -1, 2 * matched.prompt + group), *lengths)
    if len(np.unique(group[pairs.first])) < 2:
        return None
    one, two, labels, tokens = _gathered(matched, group, pairs, segment)
    selected, total = one.counts.selected + two.counts.selected, one.counts.tokens + two.counts.tokens
    rate, level = selected.sum(axis=0) / total.sum(), asin_sqrt(selected / total[:, None]).mean(axis=0)
    values = less(_standardised(two), _standardised(one))
    variance = (one.held.variance + two.held.variance).sum(axis=0)
    wrong = np.concatenate([agreement.discordant for agreement in agreements])
    part = believable(counted[0] / max(counted[1], 1), wrong, counted[0], variance / total.sum())
    reasons = _untestable(values, rate, variance, labels, total)
    excess = [(own.counts.selected - own.held.expected) / own.counts.tokens[:, None] for own in (one, two)]
    moved, positive = excess[1] - excess[0], labels == 1
    low = high = np.full(rate.size, np.nan)
    if min(positive.sum(), (~positive).sum()) >= 2:
        least = [part * 2 * rate * (1 - rate) / total[side].sum() * 2 for side in (positive, ~positive)]
        interval = welch_interval(moved[positive], moved[~positive], floor1=least[0], floor0=least[1])
        low, high = interval.low, interval.high
    floor = sum(standardised_floor(own.held, _rate(own)) for own in (one, two)) * part
    contrast = run_test(values, reasons, floor, level, draws, seed, labels)
    change = moved[positive].mean(axis=0) - moved[~positive].mean(axis=0)
    return Interaction(labels, contrast, change, low, high, reasons, tokens)


def _gathered(matched: Matched, group: Ints, pairs: Pairs, segment: str) -> tuple[Gathered, Gathered, Ints, int]:
    """Both runs on the same prompts, cut to common lengths inside each prompt and between the labels."""
    size, length = len(matched.prompt), pairs.length.copy()
    side = group[pairs.first]
    length[side == POSITIVE], length[side == NEGATIVE] = matched_lengths(
        pairs.length[side == POSITIVE], pairs.length[side == NEGATIVE]
    )
    keeps = pairs.keep(size, length)
    code, unit = np.unique(2 * matched.prompt[pairs.first] + side, return_inverse=True)
    numbers = np.full((2, size), -1, dtype=np.int64)
    numbers[0, pairs.first] = unit
    numbers[1, pairs.second] = unit  # matched inside one prompt and label, so in one unit
    one, two = (
        gather(run, Selection(segment, keep, own, code.size))
        for run, keep, own in zip((matched.first, matched.second), keeps, numbers, strict=True)
    )
    return one, two, (code % 2).astype(np.int64), int(2 * length.sum())


def _rate(gathered: Gathered) -> Array:
    rate: Array = gathered.counts.selected.sum(axis=0) / gathered.counts.tokens.sum()
    return rate


def _standardised(gathered: Gathered) -> Array:
    """(units, cells) what `correlate` tests: asin(sqrt(selection rate standardised for the tokens of the run))."""
    held = gathered.held
    return asin_sqrt(standardised_rate(gathered.counts.selected, held.expected, held.variance, _rate(gathered)))


def verdicts(
    rows: tuple[list[Json] | None, list[Json] | None], interaction: Interaction | None, alpha: float
) -> list[Json]:
    """The rows of `register` in docs/compare.md, from the rows of `correlate` on each run and the test between them."""
    known = rows[0] or rows[1] or []
    between = None if interaction is None else column_cells(interaction.contrast)
    made = []
    for cell, any_row in enumerate(known):
        sides = [None if own is None else own[cell] for own in rows]
        tested = None if between is None else between[cell]
        word, flipped = judge(sides, tested, alpha)
        made.append(
            {"site": any_row["site"], "layer": any_row["layer"], "expert": any_row["expert"]}
            | {
                f"association_{name}": None if own is None else own["association"]
                for name, own in zip("ab", sides, strict=True)
            }
            | {
                f"{key}_{name}": None if own is None else own[key]
                for name, own in zip("ab", sides, strict=True)
                for key in ("t", "q", "beyond_difference", "rate_difference")
            }
            | {"interaction": _interaction(interaction, tested, cell), "verdict": word, "flipped": flipped}
        )
    return made


def judge(sides: Sequence[Json | None], tested: dict[str, float | None] | None, alpha: float) -> tuple[str, bool]:
    """What happened to one expert's association, and whether its direction turned round.

    "Significant in one run and not in the other" is not a difference: lost, gained and changed need the test between
    the runs.

    Args:
        sides: its rows of `correlate` on run A and run B; None where that run could not be asked.
        tested: `t` and `q` of the test between the runs, or None.
        alpha: bound on q.
    """
    signs = [0.0 if one is None or one["association"] != "associated" else float(np.sign(one["t"])) for one in sides]
    if all(one is None or one["association"] == "untestable" for one in sides):
        return "untestable", False
    if not any(signs):
        return "neither", False
    q, t = (None, None) if tested is None else (tested["q"], tested["t"])
    if q is None or t is None:
        return "unclear", False
    shown, (before, after) = q < alpha, signs
    if before and after:
        if before == after:
            return ("changed" if shown else "kept"), False
        return ("changed", True) if shown and np.sign(t) == after else ("unclear", False)
    if before and shown and np.sign(t) == -before:
        return "lost", False
    if after and shown and np.sign(t) == after:
        return "gained", False
    return "unclear", False


def _interaction(interaction: Interaction | None, tested: Json | None, cell: int) -> Json | None:
    if interaction is None or tested is None:
        return None
    low, high = float(interaction.low[cell]), float(interaction.high[cell])
    reason = interaction.reasons[cell]
    return tested | {
        "change": float(interaction.change[cell]),
        "change_ci": [low, high] if reason is None and np.isfinite(low) and np.isfinite(high) else None,
        "reason": reason,
    }


def _untestable(values: Array, rate: Array, variance: Array, labels: Ints, total: Ints) -> Reasons:
    """Why each cell cannot be tested, or None; label-blind but for the sizes of the groups."""
    units = [int((labels == code).sum()) for code in (1, 0)]
    if min(units) < MIN_UNITS:
        said = f"fewer than {MIN_UNITS} prompts of a label in both runs ({units[0]} positive, {units[1]} negative)"
        return [said] * rate.size
    smaller = min(int(total[labels == code].sum()) for code in (1, 0))
    share = smaller / int(total.sum())
    reasons: Reasons = []
    for chosen, left, still in zip(rate * smaller, variance * share, np.ptp(values, axis=0) == 0, strict=True):
        if chosen == 0:
            reasons.append("never selected in the compared tokens")
        elif chosen < MIN_EXPECTED:
            reasons.append(
                f"too rare: {below(chosen)} selections expected in the smaller group, {MIN_EXPECTED} are needed"
            )
        elif left < MIN_EXPECTED or still:
            reasons.append(
                f"follows the token: {below(left)} selections left to compare in the smaller group, {MIN_EXPECTED} "
                "are needed"
            )
        else:
            reasons.append(None)
    return reasons
