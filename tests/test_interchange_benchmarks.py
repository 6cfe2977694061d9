"""The benchmarks of interchange on tiny models: equal numbers, cost lines, and what calibration draws and judges."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.calibration_material import NAMES, Given, Material, load, measured
from benchmarks.interchange import compare, table
from benchmarks.interchange_calibration import (
    calibrate,
    experiment,
    line,
    placebo_draw,
    reseeded,
    share,
    shuffled_draw,
    truth,
)
from benchmarks.swap_ways import CASES, Bench, Naive, Own, Server, bench, growth, tiny_model, tiny_pairs
from moeprobe.interchange.lab import lab
from moeprobe.models import LoadedModel
from moeprobe.sites import expert_site


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny() -> Bench:
    case = CASES["tiny"]
    return Bench(type(case)("tiny", "tiny", "float32", 6, 2, 1), tiny_model(), tiny_pairs(2))


def test_all_ways_give_the_same_numbers(tiny: Bench) -> None:
    ways = [Own(tiny), Own(tiny, 1), Own(tiny, resuming=False), Naive(tiny)]
    lines = compare(tiny, ways, 1)
    assert lines[0].largest > 0.01
    assert all(one.difference < 1e-5 for one in lines)
    assert all(one.seconds > 0 and one.ratio.pairs == 2 for one in lines)
    text = table(tiny, lines, 1)
    assert "| naive loop |" in text
    assert "2 turns of 1 pairs" in text
    assert "Rounding" not in text
    coarse = [replace(one, difference=one.largest) for one in lines]
    assert "Rounding is as large" in table(tiny, coarse, 1)


def test_another_swap_is_found_out(tiny: Bench) -> None:
    class Wrong(Naive):
        """Swaps in a neighbouring layer."""

        def __init__(self, one: Bench) -> None:
            super().__init__(one)
            self.hooked.experts = one.loaded.model.model.layers[5].mlp.experts

    assert compare(tiny, [Own(tiny), Wrong(tiny)], 1)[1].difference > 1e-3


def test_whole_forwards_run_every_layer(tiny: Bench) -> None:
    def runs(way: Own) -> int:
        count = []
        handle = tiny.loaded.model.model.layers[0].mlp.register_forward_hook(lambda *_: count.append(1))
        way.run(0, 1)
        handle.remove()
        return len(count)

    assert runs(Own(tiny, resuming=False)) > runs(Own(tiny))


def test_a_process_beside_this_one_swaps_too(tiny: Bench, tmp_path: Path) -> None:
    server = Server(sys.executable, tiny, tmp_path)
    try:
        answer = server.ask("naive", 0, 1)
    finally:
        server.close()
    own, _ = Own(tiny).run(0, 1)
    for name in NAMES:
        np.testing.assert_allclose(np.array(answer["effects"][name]), own[name], atol=1e-5)
    assert answer["ns"] > 0
    with pytest.raises((RuntimeError, BrokenPipeError)):
        server.ask("naive", 0, 1)


def test_memory_grows_by_something(tiny: Bench) -> None:
    assert 0 <= growth(Own(tiny, 4), 2) < 2**30


def test_the_compiled_case_has_effects() -> None:
    one = bench(type(CASES["compiled"])("compiled", "compiled", "float32", 2, 2, 2))
    own, _ = Own(one).run(0, 2)
    naive, _ = Naive(one).run(0, 2)
    assert own["necessity"][5].min() > 1
    np.testing.assert_allclose(own["necessity"], naive["necessity"], atol=1e-4)


def made(effect: float, pairs: int = 12, sites: int = 4, seed: int = 0) -> Material:
    """Site 0 carries `effect` of a gap of 1 in both directions; all donors of the own class do noise only."""
    generator = np.random.default_rng(seed)

    def noise(*shape: int) -> np.ndarray:
        return 0.01 * generator.standard_normal(shape)

    same = np.array([True, True, True, False, False])
    steps = np.array([1, 2, 3, 1, 2])
    donors = (np.arange(pairs)[None] + steps[:, None]) % pairs
    true, given = {}, {}
    for name in NAMES:
        true[name] = noise(sites, pairs)
        true[name][0] += effect
        effects = noise(5, sites, pairs)
        effects[~same, 0] += effect
        given[name] = Given(effects, donors, same)
    nulls = {site: [other for other in range(sites) if other != site] for site in range(sites)}
    return Material(tuple("abcd"[:sites]), nulls, 1 + noise(pairs), true, given)


def test_draws_find_what_is_there_and_little_else() -> None:
    material = made(0.5)
    turned = material.turned()
    true = shuffled_draw(material, turned, 10, shuffle=False)
    found = [experiment(material, true, seed, signed=True) for seed in range(5)]
    assert all(run.rule == {name: {0} for name in NAMES} for run in found)
    placebo = [experiment(material, placebo_draw(material, 10), seed, signed=True) for seed in range(20)]
    assert sum(run.any for run in placebo) <= 1
    shuffled = [experiment(material, shuffled_draw(material, turned, 10), seed, signed=True) for seed in range(20)]
    assert sum(run.any for run in shuffled) <= 3
    assert sum(run.refused for run in shuffled) >= 15
    assert line("x", material, found).count("5/5") == 3
    assert "a both 5" in line("x", material, found)


def test_shuffled_placebo_donors_have_the_recipients_new_name() -> None:
    """Where the coins of recipient and donor differ, the donor is of the other class by the old names, and so carries
    the effect: some placebos do then, and some do not, whereas without coins none does."""
    material = made(0.5)
    draw = shuffled_draw(material, material.turned(), 10)
    effects, gap = draw(np.random.default_rng(3))
    assert set(np.sign(gap)) == {-1.0, 1.0}
    mixed = np.abs(effects[0]["placebo_necessity"])
    assert (mixed > 0.4).any()
    assert (mixed < 0.1).any()
    np.testing.assert_allclose(np.sign(effects[0]["necessity"]), np.sign(gap))
    straight, _ = shuffled_draw(material, material.turned(), 10, shuffle=False)(np.random.default_rng(3))
    assert np.abs(straight[0]["placebo_necessity"]).max() < 0.1


def test_turning_twice_changes_nothing() -> None:
    material = made(0.5)
    again = material.turned().turned()
    np.testing.assert_array_equal(again.gap, material.gap)
    for name in NAMES:
        np.testing.assert_array_equal(again.true[name], material.true[name])
        np.testing.assert_array_equal(again.given[name].effects, material.given[name].effects)
    np.testing.assert_array_equal(material.turned().true["necessity"], -material.true["sufficiency"])


def test_material_of_a_model_is_kept(tmp_path: Path) -> None:
    loaded = tiny_model()
    sites = [expert_site(6, expert) for expert in range(3)]
    found = measured(lab(loaded, batch_size=16), tiny_pairs(4), sites, 2, 1)
    assert found.given["necessity"].effects.shape == (3, 3, 4)
    assert found.given["necessity"].same.tolist() == [True, False, True]
    assert np.abs(found.true["necessity"]).max() > 0
    assert set(found.nulls) == {0, 1, 2}
    found.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert again.sites == found.sites == ("L6.E0", "L6.E1", "L6.E2")
    assert again.nulls == found.nulls
    np.testing.assert_array_equal(again.given["sufficiency"].pairs, found.given["sufficiency"].pairs)


def test_calibration_reads_what_was_kept(tmp_path: Path, compiled: LoadedModel) -> None:
    made(0.5).save(tmp_path / "compiled-refusal-log-odds-straight.npz")
    options = argparse.Namespace(
        model="compiled",
        metrics=["refusal-log-odds"],
        keep=tmp_path,
        draw=10,
        runs=3,
        pairs=0,
        sites=[],
        own=0,
        other=0,
    )
    lines, met = calibrate(compiled, options)
    assert met
    assert lines[1].startswith("| true, refusal-log-odds | 3/3")


def test_a_list_of_pairs_of_the_compiled_model_is_judged_rightly(compiled: LoadedModel) -> None:
    pairs = reseeded(compiled, 5, 10)
    assert len({len(pair.sensitive) for pair in pairs}) > 1
    assert reseeded(compiled, 6, 10) != pairs
    assert truth(compiled, 5, 10)


def test_shares_have_exact_intervals() -> None:
    # Clopper-Pearson: the .025 quantile of Beta(3, 198) is .0031041, the .975 quantile of Beta(4, 197) .0432083.
    assert share(3, 200) == "3/200 = 0.015 [0.003, 0.043]"


def test_a_job_survives_its_file(tiny: Bench) -> None:
    job = tiny.job()
    again = type(job)(**json.loads(json.dumps(job.record())))
    assert [list(map(list, pair)) for pair in again.pairs] == [list(map(list, pair)) for pair in job.pairs]
    assert again.part(1, 2).pairs == again.pairs[1:]
