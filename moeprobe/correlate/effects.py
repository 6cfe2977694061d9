"""What stands beside the decision and decides nothing: intervals, odds, peers' scores, robustness, layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.correlate.counts import Counts
from moeprobe.correlate.design import Design
from moeprobe.correlate.testing import MIN_UNITS, Column, Tested
from moeprobe.sites import ExpertSite
from moeprobe.stats import (
    Interval,
    PeerScores,
    bh_threshold,
    detectable_d,
    divergence_test,
    jackknife_split,
    leave_one_out,
    log_odds,
    peer_scores,
    shrink,
    standing_committee,
)
from moeprobe.stats.beyond import Beyond

Array = NDArray[np.float64]
Json = dict[str, Any]
POWER = 0.8


def effect_cells(counts: Counts, beyond: Beyond, design: Design, tested: Tested, units: Sequence[str]) -> list[Json]:
    """The additional fields of each row of docs/findings.md, in the order of the cells.

    Args:
        counts: counts of units, (units, cells).
        beyond: what is left with the tokens held fixed, (units, cells).
        design: who is in which group.
        tested: the tests.
        units: (units,) name of each unit, for example its prompt.
    """
    cells: list[Json] = [{} for _ in range(counts.selected.shape[1])]
    if min(design.positive.units, design.negative.units) < 2:
        empty = dict.fromkeys(
            ("dW_ci", "entry_ci", "valuation_ci", "log_odds", "log_odds_se", "log_odds_shrunk", "leave_one_out")
        )
        cells = [dict(empty) for _ in cells]
    else:
        _put_intervals(cells, counts, design)
        _put_odds(cells, counts, design)
        _put_leave_one_out(cells, beyond, design, tested.beyond, units)
    _put_peers(cells, counts, design)
    return cells


def layer_summaries(counts: Counts, design: Design, *, draws: int, seed: int) -> list[Json]:
    """The `layers` of a question: how differently the groups share out each layer's work, and who is always busy.

    Units that were not routed in a layer do not count there; with fewer than two of a group the numbers are null, and
    with too few for any test there is no p.
    """
    found = []
    for layer in dict.fromkeys(counts.layers.tolist()):
        inside = counts.layers == layer
        selected = counts.selected[:, inside]
        busy = selected.sum(axis=1) > 0
        labels = design.labels[busy]
        summary: Json = {"layer": layer, "jsd": None, "jsd_p": None, "largest_load": None, "committee": []}
        if min((labels == 1).sum(), (labels == 0).sum()) >= 2:
            divergence = divergence_test(selected[busy], labels, draws=max(draws, 1), seed=seed)
            load = standing_committee(selected[busy], labels)
            members = counts.experts[inside][load.members]
            summary |= {
                "jsd": float(divergence.divergence),
                "jsd_p": float(divergence.p) if draws and design.smallest >= MIN_UNITS else None,
                "largest_load": float(load.largest),
                "committee": [str(ExpertSite(layer, expert)) for expert in members.tolist()],
            }
        found.append(summary)
    return found


def detectable(design: Design, column: Column) -> Json | None:
    """What this many units can find: the standardised difference that a lone expert needs, at power .8."""
    if not column.tested or column.result is None:
        return None
    alpha = bh_threshold(column.tested, 1)
    units = (float(design.positive.units), float(design.negative.units))
    d = detectable_d(*units, alpha=alpha, power=POWER, prior_df=min(column.result.prior_df, 1e6))
    return {"d": d, "power": POWER, "alpha": alpha} if np.isfinite(d) else None


def _put_intervals(cells: list[Json], counts: Counts, design: Design) -> None:
    split = jackknife_split(counts.tokens, counts.selected, counts.gate, design.labels)
    parts = {"dW_ci": split.difference, "entry_ci": split.entry, "valuation_ci": split.valuation}
    for name, interval in parts.items():
        for cell, ends in zip(cells, _ends(interval), strict=True):
            cell[name] = ends


def _ends(interval: Interval) -> list[list[float] | None]:
    both = zip(interval.low.tolist(), interval.high.tolist(), strict=True)
    return [[low, high] if np.isfinite(low) and np.isfinite(high) else None for low, high in both]


def _put_odds(cells: list[Json], counts: Counts, design: Design) -> None:
    odds = log_odds(counts.tokens, counts.selected, design.labels)
    shrunk = shrink(odds.estimate, odds.se, df=odds.df).mean
    for cell, estimate, se, mean in zip(cells, odds.estimate, odds.se, shrunk, strict=True):
        cell |= {"log_odds": _number(estimate), "log_odds_se": _number(se), "log_odds_shrunk": _number(mean)}


def _put_leave_one_out(cells: list[Json], beyond: Beyond, design: Design, column: Column, units: Sequence[str]) -> None:
    for cell in cells:
        cell["leave_one_out"] = None
    result, inside = column.result, np.flatnonzero(np.isfinite(column.p))
    if result is None:
        return
    moderated = result.prior_df > 0
    worst = leave_one_out(
        beyond.residual[:, inside],
        np.column_stack([np.ones(design.labels.size), design.labels]),
        prior_df=result.prior_df,
        prior_variance=result.prior_variance if moderated else None,
        floor=beyond.floor[inside],
    )
    for place, unit, p in zip(inside, worst.unit, worst.p, strict=True):
        cells[int(place)]["leave_one_out"] = {"unit": units[int(unit)], "p": float(p)}


def _put_peers(cells: list[Json], counts: Counts, design: Design) -> None:
    one = design.labels == 1
    scores: PeerScores = peer_scores(
        counts.selected[one].sum(axis=0),
        int(counts.tokens[one].sum()),
        counts.selected[~one].sum(axis=0),
        int(counts.tokens[~one].sum()),
    )
    names = ("risk_difference", "npmi", "specialization", "ratio", "log_odds")
    columns = [getattr(scores, name) for name in names]
    for number, cell in enumerate(cells):
        cell["peers"] = {name: _number(column[number]) for name, column in zip(names, columns, strict=True)}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
