"""How often do interchange verdicts err, and what do they find? python benchmarks/interchange_null.py [ROW ...]

Effects are simulated (benchmarks/interchange_worlds.py); `judge` and simpler rules see the same numbers. Prints the
table of docs/causes.md.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

if not __package__:  # run as a file: what is imported lies in the folder above, not in this one
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.interchange_worlds import NAMES, World, draw
from moeprobe.errors import InterchangeError
from moeprobe.findings.causes import ALPHA, passes
from moeprobe.judging.confirming import confirm
from moeprobe.judging.judge import Criteria, judge

Json = dict[str, Any]
MINIMUM = 2.0
# Fewer draws than the default save time; p is as exact, only less fine.
CRITERIA = Criteria(MINIMUM, bootstrap=1000, flips=999)
# Sites that are chosen on one half of the pairs and tested on the other.
CHOSEN = 10
FIRST_SEED = 500_000
METHODS = ("rule", "rule, no others", "swap alone", "minus placebo alone", "t-test", "interval", "held out")


@dataclass(frozen=True)
class Row:
    """A world, what it shows, and whether its sites are chosen on one half of the pairs (`confirm`)."""

    world: World
    about: str
    held_out: bool = False


def _nulls() -> dict[str, Row]:
    rows = {}
    for pairs, sites, tails in ((8, 12, "t3"), (8, 100, "right"), (12, 24, "t3"), (16, 40, "left"), (30, 24, "right"),
                                (60, 100, "t3")):  # fmt: skip
        rows[f"placebo{pairs}x{sites}"] = Row(
            World(pairs, sites, tails=tails, disturbance=15.0),
            "every donor a placebo; any swap moves the metric by 15 % of the gap",
        )
    for pairs, sites in ((8, 12), (12, 24), (30, 24), (60, 40)):
        rows[f"shuffled{pairs}"] = Row(
            World(pairs, sites, true=3, effect=60.0, shuffled=True), "labels shuffled; 3 sites carried 60 % of the gap"
        )
    for pairs, sites, tails in ((8, 12, "t3"), (8, 24, "right"), (8, 24, "left"), (16, 24, "t3"), (16, 24, "left"),
                                (30, 40, "left")):  # fmt: skip
        rows[f"border{pairs}-{tails}"] = Row(
            World(pairs, sites, tails=tails, null_effect=MINIMUM), "all sites carry exactly the minimum effect"
        )
    for pairs in (8, 16):
        rows[f"topic{pairs}"] = Row(
            World(pairs, 24, harm=20.0), "no site carries anything; placebo donors harm, as their topic differs"
        )
    for pairs in (8, 30):
        rows[f"patchy{pairs}"] = Row(
            World(pairs, 24, noise=3.0, null_effect=MINIMUM, patchy=True),
            "all sites carry the minimum effect on average: 7 % in nine pairs of ten, -43 % in the tenth",
        )
    rows["beside16"] = Row(
        World(16, 24, null_effect=MINIMUM, true=6, effect=60.0), "6 sites carry 60 %, all others the minimum effect"
    )
    rows["held40"] = Row(
        World(40, 40, disturbance=15.0),
        "every donor a placebo; any swap moves the metric by 15 % of the gap",
        held_out=True,
    )
    return rows


def _signals() -> dict[str, Row]:
    rows = {}
    for pairs, effect, noise in ((8, 20, 5), (8, 40, 10), (12, 20, 10), (16, 10, 5), (16, 20, 10), (30, 10, 5),
                                 (30, 10, 10), (30, 20, 10), (60, 10, 10), (60, 5, 5)):  # fmt: skip
        rows[f"power{pairs}-{effect}/{noise}"] = Row(
            World(pairs, 24, noise=float(noise), true=3, effect=float(effect)), f"3 sites carry {effect} %"
        )
    rows["power16-30/10-many"] = Row(World(16, 24, true=12, effect=30.0), "half of the sites carry 30 %")
    rows["held40-20/10"] = Row(World(40, 40, true=5, effect=20.0), "5 sites carry 20 %", held_out=True)
    return rows


ROWS = {**_nulls(), **_signals()}


def run_once(row: Row, seed: int) -> dict[str, tuple[set[int], set[int]]]:
    """Sites with a causal verdict by each method, and sites left "underpowered" (of "rule" and "held out" only)."""
    effects, gap = draw(row.world, np.random.default_rng(seed))
    tested = range(row.world.sites)
    others = list(range(row.world.sites, row.world.sites + row.world.others))
    nulls = dict.fromkeys(tested, others)
    criteria = Criteria(MINIMUM, bootstrap=CRITERIA.bootstrap, flips=CRITERIA.flips, seed=seed)
    if row.held_out:
        return {"held out": _by_rule(confirm(effects, gap, nulls, CHOSEN, criteria).judged.rows)["rule"]}
    naive = {"t-test": _by_t_test(effects, tested), "interval": _by_interval(effects, gap, tested)}
    result = {name: (sites, set[int]()) for name, sites in naive.items()}
    try:
        result |= _by_rule(judge(effects, gap, nulls, criteria).rows)
    except InterchangeError:  # no clear gap: nobody gets a verdict
        result |= {name: (set(), set()) for name in METHODS if name not in (*naive, "held out")}
    return result


def _by_rule(rows: dict[int, Json]) -> dict[str, tuple[set[int], set[int]]]:
    called = {site for site, one in rows.items() if one["necessary"] or one["sufficient"]}
    alone = {site for site, one in rows.items() if any(_ignoring_others(one, name) for name in NAMES)}
    swap = {site for site, one in rows.items() if any(_only(one, name, one[name]["ci"], "p_swap") for name in NAMES)}
    placebo = {
        site
        for site, one in rows.items()
        if any(_only(one, name, one[name]["contrasts"]["minus_placebo"]["ci"], "p_minus_placebo") for name in NAMES)
    }
    open_ = {site for site, one in rows.items() if site not in called and one["undecided"]}
    return {
        "rule": (called, open_), "rule, no others": (alone, set()), "swap alone": (swap, set()),
        "minus placebo alone": (placebo, set()),
    }  # fmt: skip


def _ignoring_others(summary: Json, name: str) -> bool:
    return passes(summary | {name: summary[name] | {"rank": None}}, name)


def _only(summary: Json, name: str, interval: list[float], p: str) -> bool:
    return bool(summary["enough_pairs"] and interval[0] > MINIMUM and summary[name][p] < ALPHA)


def _by_t_test(effects: dict[int, Any], tested: Sequence[int]) -> set[int]:
    """Swap above 0 by a one-sided t-test, no placebo, no correction."""
    found = set()
    for name in NAMES:
        values = np.column_stack([effects[site][name] for site in tested])
        p = ttest_1samp(values, 0, alternative="greater").pvalue
        found |= {site for site, one in zip(tested, p, strict=True) if one < ALPHA}
    return found


def _by_interval(effects: dict[int, Any], gap: Any, tested: Sequence[int]) -> set[int]:
    """The 95 % percentile interval of the ratio excludes 0 (on its upper side)."""
    weights = np.random.default_rng(0).multinomial(len(gap), np.full(len(gap), 1 / len(gap)), size=500)
    bottom = weights @ gap
    found = set()
    for name in NAMES:
        values = np.column_stack([effects[site][name] for site in tested])
        low = np.quantile(weights @ values / np.where(bottom == 0, 1, bottom)[:, None], 0.025, axis=0)
        found |= {site for site, end in zip(tested, low, strict=True) if end > 0}
    return found


@dataclass(frozen=True)
class Summary:
    """Over runs: share with any false verdict, false share of the calls, true sites found, sites left open."""

    any_false: float
    fdr: float
    power: float | None
    open_null: float
    open_true: float | None


def summarise(row: Row, runs: Sequence[dict[str, tuple[set[int], set[int]]]], method: str) -> Summary | None:
    """Of one method; None where it was not run. With shuffled labels every verdict is false."""
    if any(method not in run for run in runs):
        return None
    true = set() if row.world.shuffled else set(range(row.world.true))
    null = set(range(row.world.sites)) - true
    called, left = [run[method][0] for run in runs], [run[method][1] for run in runs]
    return Summary(
        float(np.mean([bool(one - true) for one in called])),
        float(np.mean([len(one - true) / max(1, len(one)) for one in called])),
        float(np.mean([len(one & true) / len(true) for one in called])) if true else None,
        float(np.mean([len(one & null) / len(null) for one in left])),
        float(np.mean([len(one & true) / len(true) for one in left])) if true else None,
    )


def line(name: str, row: Row, runs: Sequence[dict[str, tuple[set[int], set[int]]]]) -> str:
    """A line of the table."""
    world = row.world
    cells = [name, f"{world.pairs} x {world.sites}, {world.tails}", row.about]
    for method in METHODS:
        one = summarise(row, runs, method)
        if one is None:
            cells.append("")
        elif one.power is None:
            cells.append(f"{one.any_false:.3f}")
        else:
            cells.append(f"{one.any_false:.3f} / {one.power:.2f}")
    rule = summarise(row, runs, "rule")
    true = "" if rule is None or rule.open_true is None else f" / {rule.open_true:.2f}"
    cells.append("" if rule is None else f"{rule.open_null:.2f}{true}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--runs", type=int, default=1000)
    arguments = parser.parse_args()
    print("| row | pairs x sites, tails | what is true | " + " | ".join(METHODS) + " | left open: null / true |")
    print("|---" * (len(METHODS) + 4) + "|")
    for name in arguments.rows or ROWS:
        start = time.process_time()
        runs = [run_once(ROWS[name], FIRST_SEED + run) for run in range(arguments.runs)]
        print(line(name, ROWS[name], runs), flush=True)
        print(f"{name}: {time.process_time() - start:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
