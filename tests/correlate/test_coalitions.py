"""Coalitions: planted ones are found, without labels; what they do is counted as a loop would."""

from dataclasses import replace

import numpy as np
import pytest

from moeprobe.correlate.coalitions import find_and_test
from moeprobe.errors import StatsError, TraceError
from moeprobe.gathering.counts import segment_lengths
from moeprobe.gathering.selection import Selection
from moeprobe.sites import expert_site
from moeprobe.stats import adjust, coactivation, moderated_t
from moeprobe.stats.simulation import SimulatedTrace, World, simulate

WORLD = World(generations=40, experts=32, k=4, layers=2, planted=0, planted_layers=0, mean_length=60.0)
NAMES = ("residual", "expected", "variance", "floor")
TRIO = (3, 11, 20)


def everything(trace: SimulatedTrace) -> Selection:
    size = len(trace.generations)
    return Selection("answer", segment_lengths(trace, "answer"), np.arange(size), size)


def labels_of(trace: SimulatedTrace) -> np.ndarray:
    return np.array([one.label for one in trace.generations])


def with_trio(seed: int, high: float, low: float, world: World = WORLD) -> SimulatedTrace:
    """Three experts of layer 1 that are chosen together, at a random tenth or so of the tokens, and never alone."""
    trace = simulate(seed, world)
    rng, labels, pieces = np.random.default_rng(seed), labels_of(trace), []
    for shard in trace.pieces:
        ids, weights = shard.routing["L1"]
        ids = ids.copy()
        rate = np.where(labels[shard.generation] == 1, high, low)
        chosen = rng.random(len(ids)) < rate
        others = [one for one in range(world.experts) if one not in TRIO]
        for row in range(len(ids)):
            if chosen[row]:
                ids[row] = [*TRIO, rng.choice(others)]
            elif np.isin(ids[row], TRIO).any():
                ids[row] = rng.choice(others, 4, replace=False)
        pieces.append(replace(shard, routing={**shard.routing, "L1": (ids, weights)}))
    return replace(trace, pieces=tuple(pieces))


@pytest.fixture(scope="module")
def planted() -> SimulatedTrace:
    return with_trio(0, 0.2, 0.1)


def test_planted_experts_are_found_and_tested_as_one(planted: SimulatedTrace) -> None:
    found = find_and_test(planted, everything(planted))
    assert found.members == (tuple(expert_site(1, expert) for expert in TRIO),)
    assert found.needed.tolist() == [2]
    assert found.strength[0] == pytest.approx(1)
    labels = labels_of(planted)
    for table in (found.beyond, found.plain):
        result = moderated_t(table.residual, labels, floor=table.floor)
        assert result.p[0] < 1e-3
        assert result.t[0] > 0
    (row,) = found.shares(labels)
    assert row["sites"] == ["L1.E3", "L1.E11", "L1.E20"]
    assert row["tokens_share1"] == pytest.approx(0.2, abs=0.02)
    assert row["tokens_share0"] == pytest.approx(0.1, abs=0.02)
    assert found.words.startswith("1 coalition: ")


def test_no_label_takes_part(planted: SimulatedTrace) -> None:
    found = find_and_test(planted, everything(planted))
    shuffled = np.random.default_rng(1).permutation(labels_of(planted))
    other = find_and_test(planted.relabelled(shuffled.tolist()), everything(planted))
    assert other.members == found.members
    for name in NAMES:
        np.testing.assert_array_equal(getattr(other.beyond, name), getattr(found.beyond, name))


def test_equal_use_is_not_called_significant() -> None:
    """The same coalition used by both groups: p of 20 traces are not small."""
    p = []
    for seed in range(20):
        trace = with_trio(seed, 0.15, 0.15, replace(WORLD, generations=20, mean_length=30.0))
        found = find_and_test(trace, everything(trace))
        assert tuple(expert_site(1, expert) for expert in TRIO) in found.members
        at = found.members.index(tuple(expert_site(1, expert) for expert in TRIO))
        p.append(moderated_t(found.beyond.residual[:, [at]], labels_of(trace), floor=found.beyond.floor[[at]]).p[0])
    assert np.mean(np.array(p) < 0.05) <= 0.15
    assert adjust(p).min() > 0.05


def test_experts_that_follow_one_word_are_a_coalition_and_nothing_beyond_it() -> None:
    """Positives use the word more often: the plain table shows it, the one beyond token identity does not."""
    trace = simulate(4, replace(WORLD, register_tokens=0.15))
    pieces = []
    for shard in trace.pieces:
        ids, weights = shard.routing["L0"]
        ids = np.where((shard.token_id == trace.world.register_words[0])[:, None], [[0, 1, 2, 3]], (ids % 28) + 4)
        pieces.append(replace(shard, routing={**shard.routing, "L0": (ids, weights)}))
    trace = replace(trace, pieces=tuple(pieces))
    found, labels = find_and_test(trace, everything(trace)), labels_of(trace)
    at = found.members.index(tuple(expert_site(0, expert) for expert in range(4)))
    assert found.needed[at] == 3
    assert moderated_t(found.plain.residual[:, [at]], labels, floor=found.plain.floor[[at]]).p[0] < 1e-4
    assert (found.beyond.residual[:, at] == 0).all()


@pytest.mark.parametrize("strata", [("token",), ("token", "position"), ("previous",)])
def test_equals_a_loop_over_tokens(planted: SimulatedTrace, strata) -> None:
    trace = planted
    found = find_and_test(trace, everything(trace), strata=strata, together=0.12, most=3)
    assert len(found.members) == 6  # the cap, in both layers
    assert found.dropped == 1
    assert "1 weaker one was left out (at most 3 of a layer)" in found.words
    y, stratum, sample = [], [], []
    for shard in trace.pieces:
        for generation in np.unique(shard.generation):
            for rank, row in enumerate(np.flatnonzero((shard.generation == generation) & (shard.segment == 1))):
                token, previous = int(shard.token_id[row]), int(shard.token_id[row - 1])
                value = {"token": token, "previous": previous, "position": int(np.log2(rank + 1))}
                chosen = [set(shard.routing[f"L{layer}"][0][row].tolist()) for layer in range(2)]
                y.append(
                    [
                        len(chosen[sites[0].layer] & {site.expert for site in sites}) >= max(2, len(sites) // 2 + 1)
                        for sites in found.members
                    ]
                )
                stratum.append(tuple(value[name] for name in strata))
                sample.append(int(generation))
    y, sample = np.array(y, dtype=float), np.array(sample)
    code = np.unique([str(one) for one in stratum], return_inverse=True)[1]
    mean = np.array([y[code == one].mean(axis=0) for one in range(code.max() + 1)])[code]
    sums = [np.array([part[sample == g].sum(axis=0) for g in range(40)]) for part in (y, mean, mean * (1 - mean))]
    np.testing.assert_array_equal(found.observed, sums[0])
    np.testing.assert_allclose(found.beyond.expected, sums[1], rtol=1e-10)
    np.testing.assert_allclose(found.beyond.variance, sums[2], rtol=1e-9, atol=1e-12)
    whole = y.mean(axis=0)
    np.testing.assert_allclose(found.plain.expected, found.tokens[:, None] * whole, rtol=1e-12)
    labels = labels_of(trace)
    for column, row in enumerate(found.shares(labels)):
        assert row["tokens_share1"] == pytest.approx(y[labels[sample] == 1, column].mean())


def test_strength_is_the_correlation_over_tokens(planted: SimulatedTrace) -> None:
    found = find_and_test(planted, everything(planted), together=0.12)
    rows = np.concatenate([shard.routing["L0"][0][shard.segment == 1] for shard in planted.pieces])
    chosen = (rows[:, :, None] == np.arange(32)).any(axis=1).astype(float)
    assert np.array_equal(chosen.T @ chosen, coactivation(rows, 32))
    phi = np.corrcoef(chosen.T)
    checked = 0
    for sites, strength in zip(found.members, found.strength, strict=True):
        if sites[0].layer == 0:
            experts = [site.expert for site in sites]
            pairs = [phi[a, b] for a in experts for b in experts if a < b]
            assert strength == pytest.approx(np.mean(pairs))
            checked += 1
    assert checked


def test_the_cap_keeps_the_strongest(planted: SimulatedTrace) -> None:
    every, one = (find_and_test(planted, everything(planted), together=0.12, most=most) for most in (99, 1))
    layer = [sites[0].layer for sites in every.members]
    assert min(layer.count(0), layer.count(1)) > 1
    assert every.dropped == 0
    for number, strength in zip((0, 1), one.strength, strict=True):
        assert strength == max(value for value, at in zip(every.strength, layer, strict=True) if at == number)


def test_shards_do_not_matter(planted: SimulatedTrace) -> None:
    found = find_and_test(planted, everything(planted), together=0.12)
    order = np.random.default_rng(0).permutation(40).reshape(8, 5).tolist()
    other = find_and_test(planted.resharded(order), everything(planted), together=0.12)
    assert other.members == found.members
    np.testing.assert_array_equal(other.observed, found.observed)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(other.beyond, name), getattr(found.beyond, name))


def test_no_coalitions_where_there_can_be_none() -> None:
    for world in (replace(WORLD, k=1), replace(WORLD, k=32), replace(WORLD, experts=1, k=1)):
        trace = simulate(1, world)
        found = find_and_test(trace, everything(trace))
        assert found.members == ()
        assert found.observed.shape == found.beyond.residual.shape == found.plain.residual.shape == (40, 0)
        assert found.shares(labels_of(trace)) == []
        assert found.words.startswith("0 coalitions")
    rare = with_trio(0, 0.005, 0.005)
    assert find_and_test(rare, everything(rare)).members == ()  # too few tokens chose them
    assert find_and_test(rare, everything(rare), least_tokens=3).members != ()
    nobody = Selection("answer", np.zeros(40, dtype=np.int64), np.arange(40), 40)
    assert find_and_test(rare, nobody).members == ()


def test_absent_choices_are_no_expert(planted: SimulatedTrace) -> None:
    """Half of the trio's tokens have no first member: it is chosen less often, and never counted at -1."""

    class Masked:
        def __init__(self, shard):
            self._shard, self._mask = shard, np.ones(shard.routing["L1"][0].shape, dtype=bool)
            self._mask[::2, 0] = False

        def __getattr__(self, name):
            return getattr(self._shard, name)

        def mask(self, layer):
            return self._mask if layer == 1 else None

    pieces = tuple(Masked(shard) for shard in planted.pieces)
    found = find_and_test(replace(planted, pieces=pieces), everything(planted), strata=None)
    assert found.beyond is None
    (at,) = [column for column, sites in enumerate(found.members) if expert_site(1, 11) in sites]
    assert found.strength[at] < 0.99
    # two of three still count where the first is gone
    assert found.observed[:, at].sum() == find_and_test(planted, everything(planted)).observed[:, 0].sum()


def test_bad_input_is_refused(planted: SimulatedTrace) -> None:
    selection = everything(planted)
    for arguments in ({"together": 1.0}, {"least_tokens": 0}, {"most": 0}):
        with pytest.raises(StatsError, match="Coalitions need"):
            find_and_test(planted, selection, **arguments)
    found = find_and_test(planted, selection)
    with pytest.raises(StatsError, match="0 or 1"):
        found.shares(np.arange(40))
    with pytest.raises(StatsError, match="no tokens"):
        found.shares(np.ones(40, dtype=int))
    shard = planted.pieces[0]
    ids, weights = shard.routing["L1"]
    for wrong, match in ((ids.astype(int) + 40, "names expert"), (ids[:, :2], r"\(\d+, 2\)")):
        damaged = replace(shard, routing={**shard.routing, "L1": (wrong, weights)})
        with pytest.raises(TraceError, match=match):
            find_and_test(replace(planted, pieces=(damaged, *planted.pieces[1:])), selection)
