"""The gate: a few runs of some rows of docs/causes.md.

The rule must pass it, and rules that leave a part of it out must fail it: proof that it bites. The table itself comes
from 1,000 runs of each row of the same code (`python benchmarks/interchange_null.py`).
"""

from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.interchange_intervals import METHODS, draw, intervals
from benchmarks.interchange_null import ROWS, Summary, run_once, summarise
from moeprobe.judging.ratio import resamples

ALPHA = 0.05
RUNS = 100
NULLS = ("placebo8x12", "placebo12x24", "shuffled8", "border8-t3", "topic8")
# No table uses these seeds.
FIRST_SEED = 900_000


@cache
def runs(row: str, number: int = RUNS) -> tuple[dict[str, tuple[set[int], set[int]]], ...]:
    return tuple(run_once(ROWS[row], FIRST_SEED + run) for run in range(number))


def measured(row: str, method: str, number: int = RUNS) -> Summary:
    found = summarise(ROWS[row], runs(row, number), method)
    assert found is not None
    return found


def surprise(row: str, method: str) -> float:
    """Chance of so many runs with a false verdict, or more, if 5 % of all runs had one."""
    return float(binom.sf(round(measured(row, method).any_false * RUNS) - 1, RUNS, ALPHA))


@pytest.mark.parametrize("row", NULLS)
def test_no_verdict_where_nothing_is(row: str) -> None:
    """Also without comparison sites, which would hide what the other parts let through."""
    assert surprise(row, "rule, no others") > 0.005
    assert measured(row, "rule").any_false <= measured(row, "rule, no others").any_false


def test_all_of_them_together() -> None:
    false = sum(round(measured(row, "rule").any_false * RUNS) for row in NULLS)
    assert binom.sf(false - 1, RUNS * len(NULLS), ALPHA) > 0.01


@pytest.mark.parametrize("row", NULLS)
@pytest.mark.parametrize("method", ["t-test", "interval"])
def test_the_usual_ways_fail_the_same_gate(row: str, method: str) -> None:
    assert surprise(row, method) < 1e-12


def test_both_columns_are_needed() -> None:
    assert surprise("placebo8x12", "swap alone") < 1e-12  # without the placebo any disturbance is a cause
    assert surprise("topic8", "minus placebo alone") < 1e-12  # without the swap the placebo's harm is one


def test_what_is_there_is_found() -> None:
    found = measured("power12-20/10", "rule", 30)
    assert found.power is not None
    assert found.power > 0.75
    assert found.any_false <= 0.2


def test_the_interval_that_was_chosen_errs_least_towards_yes() -> None:
    """Few pairs: the plain percentile and BCa intervals lie above the truth more often than the widened one."""
    above = dict.fromkeys(METHODS, 0)
    weights = resamples(8, 500, 0)
    for kind in ("t3", "scaled t3", "in some pairs"):
        values, gap, truth = draw(kind, 8, 200, np.random.default_rng(5))
        for run in range(200):
            for method, (low, _) in intervals(values[run], gap[run], weights).items():
                above[method] += low > truth
    assert above["widened percentile"] < 0.75 * above["percentile"]
    assert above["widened percentile"] < 0.75 * above["BCa"]
    assert above["widened percentile"] <= 0.05 * 600
