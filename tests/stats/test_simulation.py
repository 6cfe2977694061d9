"""The simulator: the same seed the same trace, and a truth that can be found."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr
from simulation_measures import in_register, labels, selected, sites

from moeprobe.correlate import correlate, findings_of
from moeprobe.errors import OutputError, StatsError
from moeprobe.stats.simulation import World, simulate
from moeprobe.trace import load_trace, validate

SMALL = World(generations=12, layers=3, experts=32, k=4, planted=4, mean_length=20, delta=2.0, shard_generations=5)


def whole(trace):
    """Every array of a trace by name, in the order of its rows."""
    names = ("token_id", "generation", "position", "phase", "segment", "char_start", "char_end")
    arrays = {name: [getattr(shard, name) for shard in trace.shards()] for name in names}
    for info in trace.manifest.layers:
        for kind in ("experts", "weights"):
            arrays[f"{info.name}.{kind}"] = [getattr(shard, kind)(info.layer) for shard in trace.shards()]
    return {name: np.concatenate(parts) for name, parts in arrays.items()}


def assert_same_rows(one, two, chosen=slice(None), others=slice(None)):
    first, second = whole(one), whole(two)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values[chosen], second[name][others], err_msg=name)


# The same again


def test_seed_decides_everything():
    one, two, other = simulate(3, SMALL), simulate(3, SMALL), simulate(4, SMALL)
    assert_same_rows(one, two)
    assert one.generations == two.generations
    assert one.effects == two.effects
    assert one.truth != other.truth
    assert [g.text for g in one.generations] != [g.text for g in other.generations]


def test_more_generations_and_layers_only_add():
    small, large = simulate(0, SMALL), simulate(0, replace(SMALL, generations=30, layers=5))
    rows, more = whole(small), whole(large)
    size = len(rows["generation"])
    for name, values in rows.items():
        if ".experts" in name or ".weights" in name:  # one matrix product of other shapes may round differently
            assert (values == more[name][:size]).mean() > 0.99 or np.allclose(values, more[name][:size], atol=1e-5)
        else:
            np.testing.assert_array_equal(values, more[name][:size])
    assert large.truth == small.truth


@pytest.mark.parametrize("change", [{"register_tokens": 0.5}, {"delta": 0.0}, {"shorter_positives": 4.0}])
def test_a_switch_leaves_the_negatives_alone(change):
    world = replace(SMALL, shard_generations=1)  # so that the matrix products have the same shapes
    plain, changed = simulate(1, world), simulate(1, replace(world, **change))
    negative = [shard.generation % 2 == 1 for shard in (whole_columns(plain), whole_columns(changed))]
    assert_same_rows(plain, changed, *negative)
    positive = [whole(one)["L0.experts"][~rows] for one, rows in zip((plain, changed), negative, strict=True)]
    assert not np.array_equal(*positive)


def whole_columns(trace):
    return trace.resharded([range(len(trace.generations))]).pieces[0]


# Shape


def test_rows_texts_and_routing_fit_together():
    trace = simulate(0, SMALL)
    assert [shard.rows for shard in trace.shards()] == [
        sum(one.rows for one in trace.generations[first : first + 5]) for first in (0, 5, 10)
    ]
    for shard in trace.shards():
        for row in range(0, shard.rows, 7):
            one = trace.generations[shard.generation[row]]
            text = one.text if shard.segment[row] else one.prompt_text
            assert text[shard.char_start[row] : shard.char_end[row]] == f"w{shard.token_id[row]:04d} "
        for layer in range(3):
            ids, weights = shard.experts(layer), shard.weights(f"L{layer}")
            assert ids.shape == weights.shape == (shard.rows, 4)
            assert ids.dtype == np.uint8
            assert weights.dtype == np.float32
            assert all(len(set(chosen)) == 4 for chosen in ids.tolist())
            np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
            assert (np.diff(weights, axis=1) <= 0).all()
            assert shard.mask(layer) is None


def test_logits_are_those_of_the_choice():
    trace = simulate(0, replace(SMALL, logits=True))
    for shard in trace.shards():
        logits = shard.signal("L1.logits")
        assert logits.shape == (shard.rows, 32)
        np.testing.assert_array_equal(np.argsort(-logits, axis=1)[:, :4], shard.experts(1))
        top = np.exp(np.sort(logits, axis=1)[:, :-5:-1].astype(float))
        np.testing.assert_allclose(top / top.sum(axis=1, keepdims=True), shard.weights(1), rtol=1e-5)
    with pytest.raises(StatsError, match="logits=True"):
        next(simulate(0, SMALL).shards()).signal("L1.logits")


@pytest.mark.parametrize(
    "world",
    [
        World(generations=4, layers=1, experts=1, k=1, planted=0, mean_length=5),
        World(generations=4, layers=2, experts=6, k=6, planted=6, mean_length=5),
        World(generations=4, layers=1, experts=300, k=2, planted_layers=1, mean_length=5, vocabulary=1, topics=1),
        World(generations=1, layers=1, planted_layers=0, mean_length=1, length_sd=0, prompt_tokens=1),
    ],
)
def test_extreme_worlds(world, tmp_path):
    trace = simulate(0, world)
    assert validate(trace.save(tmp_path / "a.trace")).problems == ()
    assert len(trace.effects) == world.planted * min(world.layers, world.planted_layers)
    assert max(int(shard.experts(0).max()) for shard in trace.shards()) < world.experts


# Truth


def test_planted_experts_follow_the_register():
    trace = simulate(0, World(generations=30, layers=3, experts=128, mean_length=100, delta=1.5))
    assert len(trace.truth) == 20
    assert {site.partition(".")[0] for site in trace.truth} == {"L0", "L1"}
    assert trace.silent_layers == (2,)
    assert sorted(trace.effects.values()) == [-1.5] * 10 + [1.5] * 10
    counts, tokens = selected(trace)
    rates, positive = counts / tokens[:, None], labels(trace) == 1
    difference = dict(zip(sites(trace), rates[positive].mean(axis=0) - rates[~positive].mean(axis=0), strict=True))
    agree = [difference[site] * shift > 0 for site, shift in trace.effects.items()]
    assert sum(agree) >= 19
    found = {row["site"] for row in correlate(trace, by="label", text=False)[1] if row["association"] == "associated"}
    assert len(found & trace.truth) >= 15
    assert not {site for site in found if site.startswith("L2.")}


def test_without_effect_there_is_no_truth():
    trace = simulate(0, replace(SMALL, delta=0.0))
    assert trace.truth == frozenset()
    assert set(trace.effects) == set(simulate(0, SMALL).effects)
    assert trace.silent_layers == (0, 1, 2)


def test_the_prompt_carries_no_register():
    world = replace(SMALL, shard_generations=1)
    with_register, without = whole(simulate(0, world)), whole(simulate(0, replace(world, delta=0.0)))
    prompt = with_register["segment"] == 0
    for name in ("L0.experts", "L0.weights"):
        np.testing.assert_array_equal(with_register[name][prompt], without[name][prompt])
    assert (with_register["L0.experts"] != without["L0.experts"]).any()


# Who is who


def test_samples_share_their_prompt():
    trace = simulate(0, replace(SMALL, samples=3))
    assert [one.prompt_id for one in trace.generations[:4]] == ["p0", "p0", "p0", "p1"]
    assert [one.sample for one in trace.generations[:4]] == [0, 1, 2, 0]
    assert [one.label for one in trace.generations] == [1, 1, 1, 0, 0, 0] * 2
    for first in range(0, 12, 3):
        three = trace.generations[first : first + 3]
        assert len({one.prompt_text for one in three}) == len({one.metadata["topic"] for one in three}) == 1
        assert len({one.text for one in three}) == 3


def test_pairs_share_a_topic():
    trace = simulate(0, replace(SMALL, pairs=True))
    assert [one.pair for one in trace.generations[:4]] == ["pair0", "pair0", "pair1", "pair1"]
    assert [one.label for one in trace.generations[:4]] == [1, 0, 1, 0]
    assert len({one.metadata["topic"] for one in trace.generations[:2]}) == 1


def test_prompts_pairs_and_labels_at_will():
    given = replace(
        SMALL,
        generations=4,
        prompts=("a", "b", "a", "c"),
        pairs=("x", "x", None, None),
        labels=("yes", "no", None, "maybe"),
        strengths=(1.0, 0.0, 0.5, 0.0),
    )
    trace = simulate(0, given)
    assert [(one.prompt_id, one.sample, one.pair, one.label) for one in trace.generations] == [
        ("a", 0, "x", "yes"), ("b", 0, "x", "no"), ("a", 1, None, None), ("c", 0, None, "maybe"),
    ]  # fmt: skip
    assert trace.generations[0].metadata["topic"] == trace.generations[1].metadata["topic"]
    other = simulate(0, replace(SMALL, generations=4, labels=[True, False, None, 0.5]))
    assert [one.label for one in other.generations] == [True, False, None, 0.5]
    again = other.relabelled(["a", "b", "c", "d"])
    assert [one.label for one in again.generations] == ["a", "b", "c", "d"]
    assert again.truth == other.truth
    assert_same_rows(other, again)


def test_scores_act_and_the_bystander_does_not():
    world = World(generations=200, layers=2, experts=64, planted_layers=1, mean_length=60, scores=True, delta=3.0)
    trace = simulate(0, replace(world, bystander=0.7))
    score, other = (np.array([one.metadata[name] for one in trace.generations]) for name in ("score", "bystander"))
    assert np.corrcoef(score, other)[0, 1] == pytest.approx(0.68, abs=0.08)
    assert all(one.label == (one.metadata["score"] >= 0.5) for one in trace.generations)
    counts, tokens = selected(trace)
    rates = dict(zip(sites(trace), (counts / tokens[:, None]).T, strict=True))
    follow = [spearmanr(rates[site], score)[0] * np.sign(shift) for site, shift in trace.effects.items()]
    assert np.median(follow) > 0.4
    alone = simulate(0, world)  # the bystander changes nothing
    assert_same_rows(trace, alone)


def test_a_register_that_comes_and_goes():
    world = World(generations=20, layers=2, experts=64, planted_layers=1, mean_length=600, within=True, delta=1.5)
    trace = simulate(0, world)
    inside = in_register(trace)
    assert inside.mean() == pytest.approx(0.3, abs=0.05)
    lengths = np.concatenate([(spans[:, 1] - spans[:, 0]) / 6 for spans in trace.spans])
    assert lengths.mean() == pytest.approx(20, rel=0.15)
    assert {one.label for one in trace.generations} == {None}
    for one, spans in zip(trace.generations, trace.spans, strict=True):
        marked = np.zeros(len(one.text), dtype=bool)
        for start, end in spans:
            marked[start:end] = True
        loud = np.array([letter == "W" for letter in one.text])
        np.testing.assert_array_equal(marked[::6], loud[::6])  # what a probe can read is what is true
    counts, tokens = selected(trace, inside.astype(int), 2)
    difference = dict(zip(sites(trace), counts[1] / tokens[1] - counts[0] / tokens[0], strict=True))
    assert all(difference[site] * shift > 0 for site, shift in trace.effects.items())


# On disk


@pytest.mark.parametrize("change", [{}, {"within": True, "logits": True}, {"pairs": True, "experts": 300}])
def test_saved_and_loaded_is_the_same(change, tmp_path):
    trace = simulate(0, replace(SMALL, **change))
    path = trace.save(tmp_path / "a.trace")
    assert validate(path).problems == ()
    loaded = load_trace(path)
    assert_same_rows(trace, loaded)
    for ours, theirs in zip(trace.generations, loaded.generations, strict=True):
        assert {name: getattr(theirs, name) for name in vars(ours)} == vars(ours)
    if "logits" in change:
        ours, theirs = ([shard.signal("L0.logits") for shard in one.shards()] for one in (trace, loaded))
        np.testing.assert_array_equal(np.concatenate(ours), np.concatenate(theirs))
    assert loaded.manifest.model["effects"] == trace.effects
    assert loaded.manifest.model["world"]["generations"] == 12


def test_correlate_gives_the_same_rows(tmp_path):
    trace = simulate(0, SMALL)
    expected = correlate(trace, by="label")
    assert len(expected[1]) == 96
    assert any(row["p"] is not None for row in expected[1])
    assert correlate(load_trace(trace.save(tmp_path / "a.trace")), by="label") == expected
    findings = findings_of(load_trace(tmp_path / "a.trace"), [expected])  # what a real trace must say of its model
    assert {row["site"] for row in findings.rows} >= trace.truth
    mixed = trace.resharded([[7, 3, 11], [0, 1, 2, 4, 5], [6, 10, 9, 8]])
    assert correlate(mixed, by="label", text=False)[1] == correlate(trace, by="label", text=False)[1]
    assert load_trace(mixed.save(tmp_path / "b.trace")).generations[7].text == trace.generations[7].text
    assert_same_rows(load_trace(tmp_path / "b.trace"), trace)


def test_saving_twice_gives_the_same_digest_and_never_replaces(tmp_path):
    trace = simulate(0, SMALL)
    one, two = (load_trace(trace.save(tmp_path / name)) for name in ("a.trace", "b.trace"))
    assert one.digest == two.digest
    with pytest.raises(OutputError):
        trace.save(tmp_path / "a.trace")


# What is refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"generations": 0}, "generations is 0"),
        ({"layers": 2.5}, "layers is 2.5"),
        ({"k": 300}, "k is 300"),
        ({"planted": 257}, "planted is 257"),
        ({"planted_layers": -1}, "planted_layers is -1"),
        ({"delta": float("nan")}, "delta is nan"),
        ({"register_tokens": 1.5}, "register_tokens is 1.5"),
        ({"context_ar": 1.0}, "context_ar is 1.0"),
        ({"samples": 7}, "not whole prompts of 7"),
        ({"labels": (1, 0)}, "labels has 2 entries"),
        ({"pairs": (None,)}, "pairs has 1 entries"),
        ({"within": True, "scores": True}, "exclude each other"),
        ({"within": True, "shorter_positives": 2.0}, "mean nothing"),
        ({"within": True, "pairs": True}, "mean nothing"),
        ({"register_share": 0.9, "register_run": 2.0}, "register_run is 2.0"),
        ({"bystander": 0.5}, "needs scores"),
        ({"generations": 1, "labels": ("yes",)}, "'yes' is no number"),
        ({"generations": 1, "labels": (float("nan"),)}, "strength of nan"),
        ({"generations": 1, "strengths": (1e9,)}, "strength of 1000000000.0"),
    ],
)
def test_worlds_that_make_no_sense(settings, words):
    with pytest.raises(StatsError, match=words):
        World(**settings)


def test_other_refusals():
    trace = simulate(0, SMALL)
    for seed in (-1, 0.5):
        with pytest.raises(StatsError, match="seed"):
            simulate(seed, SMALL)
    with pytest.raises(StatsError, match="2 labels"):
        trace.relabelled([1, 0])
    with pytest.raises(StatsError, match="each of the 12"):
        trace.resharded([[0, 1, 1]])
    with pytest.raises(StatsError, match="no layer L9"):
        next(trace.shards()).experts(9)
