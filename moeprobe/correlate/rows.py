"""Rows of the findings file, one for each expert, in the form of docs/findings.md."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from moeprobe.correlate.folding import excess, rates
from moeprobe.correlate.testing import Column, Tested
from moeprobe.designs.design import Design
from moeprobe.findings import verdict
from moeprobe.gathering.counts import Counts
from moeprobe.gathering.gather import Gathered
from moeprobe.sites import expert_site
from moeprobe.stats import Interval, Rates, auc, decompose, paired_interval, pool, welch_interval

Array = NDArray[np.float64]
Json = dict[str, Any]


def build_rows(
    gathered: Gathered, design: Design, tested: Tested, beside: Mapping[str, list[Any]], probe: str, alpha: float
) -> list[Json]:
    """All rows of one question, in order of layer and expert as counted.

    Args:
        gathered: sums of the samples.
        design: who is compared with whom.
        tested: the test of every cell.
        beside: further fields, name -> a value for every cell.
        probe: name of the question.
        alpha: bound on q for "associated".
    """
    counts = gathered.counts
    numbers = {name: listed(values) for name, values in _columns(gathered, design, tested).items()}
    marginal = column_cells(tested.marginal)
    low, high = numbers.pop("ci_low"), numbers.pop("ci_high")
    rows: list[Json] = []
    for cell, reason in enumerate(tested.reasons):
        site = expert_site(int(counts.layers[cell]), int(counts.experts[cell]))
        row: Json = {"site": str(site), "layer": site.layer, "expert": site.expert, "probe": probe}
        row |= {name: values[cell] for name, values in numbers.items()}
        row |= {name: values[cell] for name, values in beside.items()}
        row["rate_difference_ci"] = None if low[cell] is None else [low[cell], high[cell]]
        row["marginal"] = marginal[cell]
        association = _association(row["q"], row["marginal"]["q"], alpha)
        row |= {"association": association, "reason": reason, "evidence": None, "interchange": None}
        rows.append(row | {"verdict": verdict(association, None)})
    return rows


def column_cells(column: Column) -> list[Json]:
    """A test as one object for each cell: t, df, p, q, fwer; null where it was not made."""
    values = {name: listed(numbers) for name, numbers in _test(column).items()}
    return [dict(zip(values, cell, strict=True)) for cell in zip(*values.values(), strict=True)]


def listed(values: Array) -> list[float | None]:
    """Numbers for JSON, null where there is none."""
    return [
        value if known else None for value, known in zip(values.tolist(), np.isfinite(values).tolist(), strict=True)
    ]


def _columns(gathered: Gathered, design: Design, tested: Tested) -> dict[str, Array]:
    """Every number of the rows, each (cells,); NaN where there is none."""
    counts, untested = gathered.counts, np.isnan(tested.marginal.p)
    one, zero = design.labels == 1, design.labels == 0
    pooled1, pooled0 = _pooled(counts, one), _pooled(counts, zero)
    split = decompose(pooled1.S, pooled1.Q, pooled0.S, pooled0.Q)
    interval = _difference(gathered, design)
    beyond = excess_difference(gathered, design)
    return {
        "S1": pooled1.S, "Q1": pooled1.Q, "W1": pooled1.W, "S0": pooled0.S, "Q0": pooled0.Q, "W0": pooled0.W,
        "dS": pooled1.S - pooled0.S, "dW": pooled1.W - pooled0.W, "entry": split.entry, "valuation": split.valuation,
        "rate_difference": interval.estimate,
        "ci_low": np.where(untested, np.nan, interval.low), "ci_high": np.where(untested, np.nan, interval.high),
        "beyond_difference": np.where(untested, np.nan, beyond),
        "auc": _auc(counts, one, zero), **_test(tested.beyond),
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


def excess_difference(gathered: Gathered, design: Design) -> Array:
    """(cells,) effect on what the response has beyond the strata, per token."""
    return _estimate(excess(gathered, design), design)


def _estimate(values: Array, design: Design) -> Array:
    """(cells,) difference of the groups' means, mean difference within units, or change for one unit of score.

    Where something is held fixed, the coefficient of the model that is tested.
    """
    if _modelled(design):
        return design.frame.slope(values)[0] if design.shortage is None else np.full(values.shape[1], np.nan)
    if design.frame.tested is None:
        return np.asarray(values.mean(axis=0))
    one = design.labels == 1
    return np.asarray(values[one].mean(axis=0) - values[~one].mean(axis=0))


def _modelled(design: Design) -> bool:
    frame = design.frame
    return design.kind == "scores" or frame.blocks is not None or bool(frame.held.shape[1])


def _difference(gathered: Gathered, design: Design) -> Interval:
    """The effect on the selection rate and its 95 % interval; ends NaN where the units are too few for any."""
    counts, table = gathered.counts, rates(gathered, design)
    estimate = _estimate(table, design)
    if design.shortage is not None:
        nothing = np.full(estimate.shape, np.nan)
        return Interval(estimate, nothing, nothing)
    if _modelled(design):
        _, se, df = design.frame.slope(table, design.units * _floor(counts, design.labels >= 0))
        half = student.ppf(0.975, df) * se
        most = np.inf if design.kind == "scores" else 1.0
        return Interval(estimate, np.maximum(estimate - half, -most), np.minimum(estimate + half, most))
    one, zero = design.labels == 1, design.labels == 0
    rate = counts.selected / counts.tokens[:, None]
    make = welch_interval if design.sides is None else paired_interval
    interval = make(rate[one], rate[zero], floor1=_floor(counts, one), floor0=_floor(counts, zero))
    return Interval(estimate, np.clip(interval.low, -1.0, 1.0), np.clip(interval.high, -1.0, 1.0))


def _auc(counts: Counts, one: NDArray[np.bool_], zero: NDArray[np.bool_]) -> Array:
    if not (one.any() and zero.any()):
        return np.full(counts.selected.shape[1], np.nan)
    rate = counts.selected / counts.tokens[:, None]
    return auc(rate[one], rate[zero])


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
