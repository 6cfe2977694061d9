"""Sign flips of whole pairs: exact p of one effect, and family-wise p of many.

Null hypothesis: the values of a pair are as likely with the other sign, in all its columns at once. It holds for
"cross minus placebo" when a donor of the other class does what another donor of the recipient's own class does: then
the two runs can change places in any pair. It is the self-contained null: about these pairs and sites alone.

Step-down max-T (Westfall & Young 1993; Romano & Wolf 2005). Order the columns by their statistic T, largest first. The
adjusted p of the j-th is the share of sign patterns whose largest T among the j-th and all later columns reaches the
observed T of the j-th, and no less than the adjusted p before it.

Family-wise error, proof. Let I be the columns whose null is true. Let j be the first column of I in the order. All
columns before j are outside I, so the columns from j on contain I. Some column of I is rejected at level a only if
j is (adjusted p never fall along the order), so only if the share of patterns s with max over columns from j on of
T(s) >= T_j is at most a. That maximum is at least the maximum over I, and T_j is the observed maximum over I. So a
false rejection implies: the share of patterns whose max over I reaches the observed max over I is at most a. The
columns of I are jointly invariant under the flips, a group; hence the observed max over I is, given the absolute
values, a uniform draw from its own orbit, and that event has probability at most a (Lehmann & Romano 2005, theorem
15.2.1; random patterns beside the identity keep it, as the identity is counted: Hemerik & Goeman 2018). No condition on
the columns outside I is used. Single-step p take the maximum over all columns: never smaller, so less powerful.

The minimum-effect test puts D - tau * gap into the columns. Where the null holds with room (an effect below tau) the
columns are not symmetric about 0. For one column the test is then conservative, exactly: a pattern counts when the
flipped values sum to 0 or less, and lowering values only adds such patterns. For the maximum over many such columns
this is not proved; docs/causes.md has the simulated error.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Of 2^n sign patterns, all are tried up to this n; beyond it as many are drawn at random.
EXACT_PAIRS = 13
FLIPS = 10_000
# A hair of slack: the identity pattern must count itself whatever the order of summation.
_TIE = 1e-10
# Patterns of one matrix product.
_PATTERNS = 512


@lru_cache(maxsize=4)
def flip_signs(pairs: int, seed: int, draws: int = FLIPS) -> Floats:
    """Sign patterns (patterns, pairs), the identity first: all 2^n up to 13 pairs, else 1 + `draws` at random."""
    if pairs <= EXACT_PAIRS:
        bits = (np.arange(2**pairs)[:, None] >> np.arange(pairs)) & 1
    else:
        drawn = np.random.default_rng(seed).integers(0, 2, size=(draws, pairs))
        bits = np.vstack([np.zeros((1, pairs), dtype=drawn.dtype), drawn])
    signs = (1 - 2 * bits).astype(np.float64)
    signs.flags.writeable = False  # kept for the next call
    return signs


def standardised(values: Floats) -> Floats:
    """Columns (pairs, columns) scaled so that their sum is sum(x) / sqrt(n sum(x^2)), increasing in the t statistic.

    A column of zeros stays one: its statistic is 0 under every pattern.
    """
    scale = np.sqrt(len(values) * (values**2).sum(axis=0))
    result: Floats = values / np.where(scale > 0, scale, 1.0)
    return result


def flip_p(values: Floats, signs: Floats) -> Floats:
    """One-sided p of each column alone: share of patterns with at least the observed sum. For few columns at a time.

    Args:
        values: (pairs, columns).
        signs: (patterns, pairs) from `flip_signs`.

    Returns:
        (columns,), never below 1 / patterns.
    """
    columns = standardised(values)
    observed = columns.sum(axis=0) - _TIE
    reached = np.zeros(columns.shape[1])
    for start in range(0, len(signs), _PATTERNS):
        reached += (signs[start : start + _PATTERNS] @ columns >= observed).sum(axis=0)
    result: Floats = reached / len(signs)
    return result


def step_down_p(values: Floats, signs: Floats, *, two_sided: bool = False) -> Floats:
    """Family-wise p of every column, step-down max-T over all of them.

    Args:
        values: (pairs, columns).
        signs: (patterns, pairs) from `flip_signs`.
        two_sided: whether T is the size of the standardised sum; otherwise only sums above 0 speak against the null.

    Returns:
        (columns,), never below 1 / patterns.
    """
    columns = standardised(values)
    observed = columns.sum(axis=0)
    observed = np.abs(observed) if two_sided else observed
    order = np.argsort(-observed, kind="stable")
    columns, observed = columns[:, order], observed[order]
    reached = np.zeros(len(order))
    for start in range(0, len(signs), _PATTERNS):
        sums = signs[start : start + _PATTERNS] @ columns
        sums = np.abs(sums) if two_sided else sums
        remaining = np.maximum.accumulate(sums[:, ::-1], axis=1)[:, ::-1]
        reached += (remaining >= observed - _TIE).sum(axis=0)
    result = np.empty(len(order))
    result[order] = np.maximum.accumulate(reached / len(signs))
    return result
