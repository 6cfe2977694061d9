"""The gate on confounds: what follows words, lengths or positions alone must not be called associated.

STATISTICS.md 3a and 3c, on the package's own simulator. The marginal column of the same rows fails where words differ,
which shows that the gate bites.
"""

from functools import cache

import numpy as np
import pytest

from moeprobe.correlate import correlate
from moeprobe.stats.simulation import World, simulate

BOUND = 0.1
SIZE = {"generations": 60, "experts": 128, "layers": 4, "planted": 8, "mean_length": 150.0}
WORDS = World(**SIZE, delta=0.0, register_tokens=0.2)
ALL = World(**SIZE, delta=0.0, register_tokens=0.1, shorter_positives=6.0, position_sd=0.7)


@cache
def answers(world: World, seed: int) -> tuple[dict, list[dict]]:
    question, rows, _ = correlate(simulate(seed, world), by="label", text=False, draws=0)
    return question, rows


def found(rows: list[dict], association: str) -> set[str]:
    return {row["site"] for row in rows if row["association"] == association}


@pytest.mark.parametrize("world", [WORDS, ALL], ids=["two over-used words", "words, lengths and positions"])
def test_words_alone_are_not_associations(world: World) -> None:
    """No expert carries the label: at most one run in ten may call any."""
    runs = [answers(world, seed)[1] for seed in range(30)]
    assert np.mean([bool(found(rows, "associated")) for rows in runs]) <= BOUND


def test_the_plain_test_fails_the_same_gate() -> None:
    runs = [answers(WORDS, seed)[1] for seed in range(10)]
    assert np.mean([bool(found(rows, "tokens only")) for rows in runs]) >= 0.9


def test_planted_experts_are_found_beside_over_used_words() -> None:
    """Power holds, and of all calls at most a tenth lie in the layers that carry nothing."""
    world = World(**SIZE, delta=1.2, register_tokens=0.1)
    power, false = [], []
    for seed in range(100, 108):
        trace = simulate(seed, world)
        calls = found(correlate(trace, by="label", text=False, draws=0)[1], "associated")
        power.append(len(calls & trace.truth) / len(trace.truth))
        silent = {f"L{layer}." for layer in trace.silent_layers}
        false.append(sum(site.split("E")[0] in silent for site in calls) / max(len(calls), 1))
    assert np.mean(power) >= 0.7
    assert np.mean(false) <= BOUND


def test_common_tokens_and_family_wise_p_are_told() -> None:
    trace = simulate(0, World(**{**SIZE, "generations": 20}, delta=1.2))
    question, rows, _ = correlate(trace, by="label", text=False, draws=200, seed=1)
    assert 0.5 < question["design"]["common_tokens"] < 1
    assert question["design"]["draws"] == 200
    tested = [row for row in rows if row["fwer"] is not None]
    assert len(tested) == question["design"]["tested"]
    # p = (1 + hits) / (1 + draws), and never above a Bonferroni-like bound turned round: the strongest has the least
    assert {round(row["fwer"] * 201) for row in tested} <= set(range(1, 202))
    strongest = max(tested, key=lambda row: abs(row["t"]))
    assert strongest["fwer"] == min(row["fwer"] for row in tested)
