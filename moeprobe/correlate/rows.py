"""Rows of the findings file, one for each expert, in the form of docs/findings.md."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.counts import Counts
from moeprobe.correlate.design import Design
from moeprobe.correlate.testing import Column, Tested
from moeprobe.findings import verdict
from moeprobe.sites import ExpertSite
from moeprobe.stats import Rates, auc, decompose, pool, welch_interval

Array = NDArray[np.float64]


def build_rows(
    counts: Counts, design: Design, tested: Tested, beside: list[dict[str, Any]], probe: str, alpha: float
) -> list[dict[str, Any]]:
    """All rows of one question, in order of layer and expert as counted.

    Args:
        counts: counts of units, (units, cells).
        design: who is in which group.
        tested: the test of every cell.
        beside: further fields of every cell (`effects.effect_cells`).
        probe: name of the question.
        alpha: bound on q for "associated".
    """
    columns, plain = _columns(counts, design, tested), _test(tested.marginal)
    rows = []
    for cell, reason in enumerate(tested.reasons):
        numbers = {name: _number(values[cell]) for name, values in columns.items()}
        low, high = numbers.pop("ci_low"), numbers.pop("ci_high")
        marginal = {name: _number(values[cell]) for name, values in plain.items()}
        association = _association(numbers["q"], marginal["q"], alpha)
        site = ExpertSite(int(counts.layers[cell]), int(counts.experts[cell]))
        rows.append(
            {"site": str(site), "layer": site.layer, "expert": site.expert, "probe": probe}
            | numbers
            | beside[cell]
            | {
                "rate_difference_ci": None if low is None or high is None else [low, high],
                "marginal": marginal,
                "association": association,
                "reason": reason,
                "interchange": None,
                "verdict": verdict(association, None),
            }
        )
    return rows


def _columns(counts: Counts, design: Design, tested: Tested) -> dict[str, Array]:
    """Every number of the rows, each (cells,); NaN where there is none."""
    one, zero = design.labels == 1, design.labels == 0
    pooled1, pooled0 = _pooled(counts, one), _pooled(counts, zero)
    split = decompose(pooled1.S, pooled1.Q, pooled0.S, pooled0.Q)
    rates = counts.selected / counts.tokens[:, None]
    rates1, rates0 = rates[one], rates[zero]
    low, high = _interval(rates1, rates0, _floor(counts, one), _floor(counts, zero), np.isnan(tested.marginal.p))
    return {
        "S1": pooled1.S, "Q1": pooled1.Q, "W1": pooled1.W, "S0": pooled0.S, "Q0": pooled0.Q, "W0": pooled0.W,
        "dS": pooled1.S - pooled0.S, "dW": pooled1.W - pooled0.W, "entry": split.entry, "valuation": split.valuation,
        "rate_difference": rates1.mean(axis=0) - rates0.mean(axis=0), "ci_low": low, "ci_high": high,
        "beyond_difference": np.where(np.isnan(tested.marginal.p), np.nan, tested.difference),
        "auc": auc(rates1, rates0), **_test(tested.beyond),
    }  # fmt: skip


def _test(column: Column) -> dict[str, Array]:
    return {"t": column.t, "df": column.df, "p": column.p, "q": column.q, "fwer": column.fwer}


def _association(q: float | None, marginal: float | None, alpha: float) -> str:
    """The test beyond token identity decides. What only the other one finds may be the words and nothing else."""
    if q is not None and q < alpha:
        return "associated"
    if marginal is not None and marginal < alpha:
        return "tokens only"
    return "untestable" if q is None else "not associated"


def _interval(rates1: Array, rates0: Array, floor1: Array, floor0: Array, untested: NDArray[np.bool_]) -> list[Array]:
    """Ends of the 95 % interval of the rate difference; NaN where nothing was tested, for the same reasons."""
    if untested.all():
        return [np.full(untested.shape, np.nan)] * 2
    interval = welch_interval(rates1, rates0, floor1=floor1, floor0=floor0)
    return [np.where(untested, np.nan, np.clip(end, -1.0, 1.0)) for end in (interval.low, interval.high)]


def _pooled(counts: Counts, members: NDArray[np.bool_]) -> Rates:
    tokens = int(counts.tokens[members].sum())
    return pool(tokens, counts.selected[members].sum(axis=0), counts.gate[members].sum(axis=0))


def _floor(counts: Counts, members: NDArray[np.bool_]) -> Array:
    """Variance of a group's rate if all its tokens were independent, after Agresti and Coull's two added successes and
    failures: a rate seen as exactly 0 or 1 is not known to be so."""
    tokens = int(counts.tokens[members].sum()) + 4
    rate = (counts.selected[members].sum(axis=0) + 2) / tokens
    variance: Array = rate * (1 - rate) / tokens
    return variance


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
