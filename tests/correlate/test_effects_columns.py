"""What stands beside the decision, recomputed from the trace's own rows."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from moeprobe.correlate import correlate
from moeprobe.stats.simulation import SimulatedTrace, World, simulate

WORLD = World(generations=20, experts=32, k=4, layers=2, planted=3, planted_layers=1, delta=1.5, mean_length=60.0)


@pytest.fixture(scope="module")
def answered() -> tuple[SimulatedTrace, dict, list[dict]]:
    trace = simulate(3, WORLD)
    question, rows, _ = correlate(trace, by="label", text=False, draws=200)
    return trace, question, rows


def test_intervals_hold_their_estimates(answered: tuple[SimulatedTrace, dict, list[dict]]) -> None:
    for row in answered[2]:
        for name in ("dW", "entry", "valuation"):
            low, high = row[f"{name}_ci"]
            assert low <= row[name] <= high
    widths = [row["dW_ci"][1] - row["dW_ci"][0] for row in answered[2] if row["reason"] is None]
    assert min(widths) > 0


def test_peers_scores_are_their_formulas(answered: tuple[SimulatedTrace, dict, list[dict]]) -> None:
    for row in answered[2]:
        peers = row["peers"]
        assert peers["risk_difference"] == pytest.approx(row["dS"], abs=1e-15)
        assert peers["specialization"] == pytest.approx(row["S1"])
        assert peers["ratio"] == (pytest.approx(row["S1"] / row["S0"]) if row["S0"] else None)


def test_odds_are_shrunk_towards_nothing(answered: tuple[SimulatedTrace, dict, list[dict]]) -> None:
    rows = answered[2]
    assert all(abs(row["log_odds_shrunk"]) <= abs(row["log_odds"]) + 1e-9 for row in rows)
    assert all(row["log_odds_se"] > 0 for row in rows)
    planted = [row for row in rows if row["site"] in answered[0].truth]
    assert min(abs(row["log_odds_shrunk"] / row["log_odds"]) for row in planted) > 0.5


def test_leave_one_out_names_a_prompt_and_never_helps_the_strongest(
    answered: tuple[SimulatedTrace, dict, list[dict]],
) -> None:
    trace, _, rows = answered
    prompts = {one.prompt_id for one in trace.generations}
    tested = [row for row in rows if row["leave_one_out"] is not None]
    assert {row["reason"] for row in tested} == {None}
    assert {row["leave_one_out"]["unit"] for row in tested} <= prompts
    # losing a unit that matters raises p: always so for clear effects
    assert all(row["leave_one_out"]["p"] > row["p"] for row in tested if row["p"] < 1e-3)


def test_divergence_of_a_layer_by_hand(answered: tuple[SimulatedTrace, dict, list[dict]]) -> None:
    _, question, rows = answered
    for layer in question["layers"]:
        shares = np.array([[row["S1"], row["S0"]] for row in rows if row["layer"] == layer["layer"]])
        wanted = jensenshannon(shares[:, 0], shares[:, 1], base=2) ** 2
        assert layer["jsd"] == pytest.approx(wanted, rel=1e-9)
    carrying, silent = question["layers"]
    assert carrying["jsd_p"] < 0.05 < silent["jsd_p"]


def test_what_so_many_units_can_find(answered: tuple[SimulatedTrace, dict, list[dict]]) -> None:
    few = answered[1]["design"]["detectable"]
    question, _, _ = correlate(simulate(3, replace(WORLD, generations=60)), by="label", text=False, draws=0)
    assert 0.3 < question["design"]["detectable"]["d"] < few["d"]
    assert few["alpha"] == pytest.approx(0.05 / answered[1]["design"]["tested"])


def test_too_few_units_carry_no_p_at_all() -> None:
    question, rows, _ = correlate(simulate(3, replace(WORLD, generations=8)), by="label", text=False, draws=100)
    assert all(layer["jsd_p"] is None and layer["jsd"] is not None for layer in question["layers"])
    assert all(row["fwer"] is row["p"] is row["marginal"]["p"] is row["leave_one_out"] is None for row in rows)
    assert question["design"]["detectable"] is None
    _, rows, _ = correlate(simulate(3, replace(WORLD, generations=2)), by="label", text=False, draws=100)
    assert all(row["dW_ci"] is row["log_odds"] is None for row in rows)
