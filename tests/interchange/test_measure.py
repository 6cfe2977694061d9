"""Exact effects of sites against one hand-written forward at a time, without padding, batches or shortcuts."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from moeprobe.editing.means import mean_values
from moeprobe.errors import InterchangeError, MoeprobeError
from moeprobe.interchange.arms import ARMS
from moeprobe.interchange.jobs import Change, Job, chunks, writes_of
from moeprobe.interchange.lab import Lab, givers_of, lab
from moeprobe.interchange.measure import Effects, measure
from moeprobe.interchange.profile import profile
from moeprobe.pairs.metrics import ContinuationLogProb
from moeprobe.pairs.pairs import TokenPair
from moeprobe.sites import Site, SiteSet, parse_site
from tests.interchange.random_moe import random_model, random_pairs

FAMILIES = ["qwen2_moe", "mixtral"]
EXPERTS = ["L1.E0", "L1.E3", "L2.E1"]
OTHERS = ["L0.H2", "L1.H3", "L1.moe", "L0.residual", "L1.router"]
SWAPPED = [name for name, arm in ARMS.items() if not arm.knockout]


def means(one: Lab, pairs: list[TokenPair], sites: list[Site]) -> dict[Site, Tensor]:
    return mean_values(
        one.loaded, one.places, [prompt for pair in pairs for prompt in (pair.sensitive, pair.control)], sites
    )


def alone(*names: str) -> list[SiteSet]:
    return [SiteSet("", (parse_site(name),)) for name in names]


def bench(family: str, **options: object) -> Lab:
    return lab(random_model(family), **options)


class ByHand:
    """Forwards of single runs with plain hooks written for these two families alone."""

    def __init__(self, one: Lab) -> None:
        self.one, self.model = one, one.loaded.model

    def module(self, site: Site) -> torch.nn.Module:
        layer = self.model.model.layers[site.layer]
        return {
            "expert": layer.mlp.experts, "router": layer.mlp.experts, "moe": layer.mlp, "residual": layer,
            "head": layer.self_attn.o_proj,
        }[site.kind]  # fmt: skip

    def value(self, run: tuple[int, ...], site: Site) -> Tensor:
        """(tokens, width) contribution of a site, or its choice (tokens, 2k)."""
        kept = []

        def before(module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
            hidden = args[0].reshape(len(run), -1)
            if site.kind == "expert":
                weight = torch.where(args[1] == site.index, args[2], 0.0).sum(1, keepdim=True)
                gate, up = (hidden @ module.gate_up_proj[site.index].T).chunk(2, dim=1)
                kept.append(weight * ((torch.nn.functional.silu(gate) * up) @ module.down_proj[site.index].T))
            elif site.kind == "router":
                kept.append(torch.cat([args[1].float(), args[2]], dim=1))
            else:
                kept.append(hidden[:, site.index * 8 : site.index * 8 + 8])

        def after(module: torch.nn.Module, args: object, output: Tensor) -> None:
            kept.append(output.reshape(len(run), -1))

        inside = site.kind in ("expert", "router", "head")
        where = self.module(site)
        handle = where.register_forward_pre_hook(before) if inside else where.register_forward_hook(after)
        self.logits(run)
        handle.remove()
        return kept[0].clone()

    def logits(self, run: tuple[int, ...]) -> Tensor:
        return self.model(input_ids=torch.tensor([run]), use_cache=False).logits[0]

    def edited(self, run: tuple[int, ...], site: Site, own: Tensor, new: Tensor, rows: Tensor) -> Tensor:
        """Logits with the site's value replaced at some positions."""

        def before(module: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            if site.kind == "router":
                k = args[1].shape[1]
                ids, weights = args[1].clone(), args[2].clone()
                ids[rows], weights[rows] = new[rows, :k].long(), new[rows, k:]
                return args[0], ids, weights
            value = args[0].clone()
            value.reshape(len(run), -1)[rows, site.index * 8 : site.index * 8 + 8] = new[rows]
            return (value,)

        def after(module: torch.nn.Module, args: object, output: Tensor) -> Tensor:
            flat = output.reshape(len(run), -1).clone()
            flat[rows] = flat[rows] - own[rows] + new[rows] if site.kind == "expert" else new[rows]
            return flat.reshape(output.shape)

        where = self.module(site)
        inside = site.kind in ("router", "head")
        handle = where.register_forward_pre_hook(before) if inside else where.register_forward_hook(after)
        logits = self.logits(run)
        handle.remove()
        return logits

    def nll(self, logits: Tensor, forced: list[int]) -> float:
        last = logits[-len(forced) :].double().log_softmax(-1)
        return float(-last[torch.arange(len(forced)), forced].mean())

    def effect(self, pairs: list[TokenPair], number: int, site: Site, arm: str) -> float:
        """One effect of one pair, aligned at the end."""
        one, pair = ARMS[arm], pairs[number]
        forced = self.one.metric.prepare(self.one.loaded, [pair])
        count = int(forced.counted.sum())
        tokens = forced.tokens[0].tolist()
        run = (*pair.side(one.recipient), *tokens[:-1])
        other = {"sensitive": "control", "control": "sensitive"}[one.recipient]
        giver = pair.side(other)
        if one.source in ("placebo", "random"):
            given = givers_of(self.one, pairs, [arm])[one.recipient, one.source]
            giver = pairs[given.pairs[number]].side(given.sides[number])
        own = self.value(run, site)
        rows = torch.ones(len(run), dtype=torch.bool)
        new = torch.zeros_like(own)
        if not one.knockout:
            donor = self.value((*giver, *tokens[:-1]), site)
            both = min(len(run), len(donor))
            rows[: len(run) - both] = False
            new[len(run) - both :] = donor[len(donor) - both :]
        base = self.logits(run)
        edited = self.edited(run, site, own, new, rows)
        start = len(run) - len(tokens)
        scored = [self.nll(x[start : start + count], tokens[:count]) for x in (base, edited)]
        return (scored[0] - scored[1]) * (1 if one.recipient == "sensitive" else -1)


def same(first: Effects, second: Effects, **tolerance: float) -> None:
    assert list(first.sites) == list(second.sites)
    for one, arms in first.sites.items():
        for arm, values in arms.items():
            np.testing.assert_allclose(values, second.sites[one][arm], err_msg=f"{one} {arm}", **tolerance)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", EXPERTS + OTHERS)
def test_effects_equal_single_hand_written_forwards(family: str, name: str) -> None:
    one, pairs, (sites,) = bench(family), random_pairs(), alone(name)
    arms = [arm for arm in ARMS if arm.split("_")[0] in ("necessity", "sufficiency", "placebo", "random")]
    arms += [] if name.endswith("router") else ["knockout"]
    found = measure(one, pairs, [sites], arms).sites[sites]
    with torch.inference_mode():
        hand = ByHand(one)
        for arm in arms:
            expected = [hand.effect(pairs, number, sites.sites[0], arm) for number in range(len(pairs))]
            np.testing.assert_allclose(found[arm], expected, atol=2e-5, err_msg=arm)
            assert np.abs(found[arm]).max() > 1e-3  # every one of these sites does something


def test_the_hand_written_reference_bites(monkeypatch: pytest.MonkeyPatch) -> None:
    """A donor one position off is seen."""
    one, pairs, (sites,) = bench("mixtral"), random_pairs(), alone("L1.E0")
    expected = measure(one, pairs, [sites]).sites[sites]["necessity"]
    from moeprobe.pairs import batch

    plain = batch.row_map
    monkeypatch.setattr(batch, "row_map", lambda *args: torch.where(plain(*args) > 0, plain(*args) - 1, -1))
    assert np.abs(measure(one, pairs, [sites]).sites[sites]["necessity"] - expected).max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_neither_batches_nor_company_change_effects(family: str) -> None:
    """All sites and pairs together, against one pair per batch and one site per call."""
    one, pairs = bench(family), random_pairs()
    sets = alone(*EXPERTS, *OTHERS[:-1])
    one = replace(one, means=means(one, pairs, [site for each in sets for site in each.sites]))
    arms = [arm for arm in ARMS if arm != "knockout_bar"]
    together = measure(one, pairs, sets, arms)
    single = replace(one, batch_size=1)
    for each in sets:
        apart = measure(single, pairs, [each], arms)
        for arm in arms:
            np.testing.assert_allclose(together.sites[each][arm], apart.sites[each][arm], atol=2e-5, err_msg=arm)
    np.testing.assert_allclose(together.gap, apart.gap, atol=2e-5)


def test_barring_together_equals_barring_alone() -> None:
    one, pairs, sets = bench("mixtral"), random_pairs(), alone("L1.E0", "L1.E3", "L2.E1", "L0.E2")
    together = measure(one, pairs, sets, ["knockout", "knockout_bar"])
    apart = [measure(replace(one, batch_size=1), pairs, [each], ["knockout", "knockout_bar"]) for each in sets]
    for each, single in zip(sets, apart, strict=True):
        for arm in ("knockout", "knockout_bar"):
            np.testing.assert_allclose(together.sites[each][arm], single.sites[each][arm], atol=2e-5)
    first = together.sites[sets[0]]
    assert np.abs(first["knockout"] - first["knockout_bar"]).max() > 1e-3  # two different interventions


@pytest.mark.parametrize("family", FAMILIES)
def test_a_set_is_swapped_together(family: str) -> None:
    """All experts of a layer together are the experts' whole output, so in Mixtral the block's."""
    one, pairs = bench(family), random_pairs()
    every = SiteSet("", tuple(Site(1, "expert", expert) for expert in range(4)))
    (block,) = alone("L1.moe")
    found = measure(one, pairs, [every, block], [*SWAPPED[:6], "knockout"])
    for arm, values in found.sites[every].items():
        if family == "mixtral":
            np.testing.assert_allclose(values, found.sites[block][arm], atol=2e-5, err_msg=arm)
        else:
            assert np.abs(values - found.sites[block][arm]).max() > 1e-3  # the shared expert stands beside them


def test_sets_reach_over_layers() -> None:
    """With the residual of layer 0 swapped everywhere, later sites of equally long prompts follow by themselves."""
    pairs = random_pairs([(6, 6), (8, 8), (5, 5)])
    one = bench("mixtral")
    residual, more = alone("L0.residual")[0], SiteSet("", (parse_site("L0.residual"), parse_site("L2.E1")))
    found = measure(one, pairs, [residual, more, *alone("L2.E1")], ["necessity", "sufficiency"])
    for arm in ("necessity", "sufficiency"):
        np.testing.assert_allclose(found.sites[more][arm], found.sites[residual][arm], atol=2e-5)
    # The stream after layer 0 is all there is of a prompt, so it explains the whole gap.
    np.testing.assert_allclose(found.sites[residual]["necessity"], found.gap, atol=2e-5)
    np.testing.assert_allclose(found.sites[residual]["sufficiency"], found.gap, atol=2e-5)


def test_the_three_swaps_of_an_expert_differ_and_each_is_what_it_says() -> None:
    pairs, sets = random_pairs(), alone("L1.E0", "L1.E3")
    found = {swap: measure(bench("qwen2_moe", swap=swap), pairs, sets, ["necessity"]) for swap in ARM_SWAPS}
    for one in sets:
        values = [found[swap].sites[one]["necessity"] for swap in ARM_SWAPS]
        for first, second in pairwise([*values, values[0]]):
            assert np.abs(first - second).max() > 1e-4


ARM_SWAPS = ("contribution", "output", "routing")


def test_resumed_forwards_equal_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from moeprobe.interchange import trial

    one, pairs, sets = bench("qwen2_moe"), random_pairs(), alone(*EXPERTS, "L2.H1")
    resumed = measure(one, pairs, sets)
    monkeypatch.setattr(trial, "holds", lambda *args: False)
    same(resumed, measure(one, pairs, sets), atol=1e-6)
    assert all(np.abs(values).max() > 1e-3 for arms in resumed.sites.values() for values in arms.values())


def test_resuming_skips_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    one, pairs = bench("qwen2_moe"), random_pairs()
    calls = []
    one.places[0].decoder.register_forward_pre_hook(lambda module, args: calls.append(0))
    forwards = []
    one.loaded.model.register_forward_pre_hook(lambda module, args: forwards.append(0))
    first = one.places[0].decoder.self_attn
    worked = []
    first.register_forward_pre_hook(lambda module, args, kwargs: worked.append(0), with_kwargs=True)
    measure(one, pairs, alone("L2.E1"))
    assert len(worked) < len(forwards)
    assert len(calls) == len(forwards)


def test_a_family_that_cannot_be_resumed_is_run_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that needs what an earlier one left behind is found out, and its results are right nevertheless."""
    one, pairs, sets = bench("qwen2_moe"), random_pairs(), alone("L2.E1")
    expected = measure(one, pairs, sets)
    layers = one.loaded.model.model.layers
    memory: list[Tensor] = []
    layers[0].self_attn.register_forward_hook(lambda module, args, output: memory.append(output[0].detach()))
    layers[2].self_attn.register_forward_hook(
        lambda module, args, output: (
            (output[0] + 0 * memory.pop(), *output[1:]) if memory else (output[0] + 1, *output[1:])
        )
    )
    same(measure(one, pairs, sets), expected, atol=1e-6)
    from moeprobe.interchange import trial

    monkeypatch.setattr(trial, "holds", lambda *args: True)
    trusted = measure(one, pairs, sets).sites[sets[0]]["necessity"]
    assert np.abs(trusted - expected.sites[sets[0]]["necessity"]).max() > 1e-3  # resumed without looking, it is wrong


def test_measured_pairs_are_not_run_again() -> None:
    one, pairs, sets = bench("mixtral", batch_size=2), random_pairs(), alone("L1.E0")
    kept = []
    steps = []
    whole = measure(one, pairs, sets, keep=kept.extend, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(2, 6), (4, 6), (6, 6)]
    half = {each.pair: each for each in kept[:4]}
    again: list[object] = []
    same(measure(one, pairs, sets, done=half, keep=again.extend), whole, atol=2e-5)
    assert len(again) == 2


def test_noise_is_as_long_as_the_difference_and_the_same_in_any_batch() -> None:
    pairs, sets = random_pairs(), alone("L1.E0")
    one, other = (measure(bench("mixtral", batch_size=size), pairs, sets, ["noise_necessity"]) for size in (6, 1))
    same(one, other, atol=2e-5)
    seeds = [measure(bench("mixtral", seed=seed), pairs, sets, ["noise_necessity"]) for seed in (0, 1)]
    values = [each.sites[sets[0]]["noise_necessity"] for each in seeds]
    assert np.abs(values[0] - values[1]).max() > 1e-4


def test_a_continuation_that_is_missing_is_found_before_anything_is_measured() -> None:
    first, *others = random_pairs()
    pairs = [*(replace(pair, continuation=(7, 8)) for pair in others), first]
    one = bench("mixtral", metric=ContinuationLogProb(), batch_size=2)
    kept: list[object] = []
    with pytest.raises(InterchangeError, match="such as '0' bring no continuation"):
        measure(one, pairs, alone("L1.E0"), keep=kept.extend)
    assert not kept


def test_two_pairs_of_one_name_are_refused() -> None:
    """Results are kept by name, so the last of them stood for all."""
    pairs = [replace(pair, id="p") for pair in random_pairs()]
    with pytest.raises(InterchangeError, match="Two pairs have the id 'p'"):
        measure(bench("mixtral"), pairs, alone("L1.E0"))


def test_what_cannot_be_done_is_said() -> None:
    one, pairs = bench("mixtral"), random_pairs()
    with pytest.raises(InterchangeError, match="no pairs"):
        measure(one, [], alone("L1.E0"))
    with pytest.raises(InterchangeError, match="No sites"):
        measure(one, pairs, [])
    with pytest.raises(InterchangeError, match="no arm 'necesity'"):
        measure(one, pairs, alone("L1.E0"), ["necesity"])
    with pytest.raises(InterchangeError, match="Only experts can be barred"):
        measure(one, pairs, alone("L1.H0"), ["knockout_bar"])
    with pytest.raises(InterchangeError, match="mean contribution of L1.E0 was not computed"):
        measure(one, pairs, alone("L1.E0"), ["knockout_mean"])
    with pytest.raises(InterchangeError, match="not knocked out"):
        measure(one, pairs, alone("L1.router"), ["knockout"])
    with pytest.raises(MoeprobeError, match="no layer L7: it has L0-L2"):
        measure(one, pairs, alone("L7.E0"))
    with pytest.raises(InterchangeError, match="no swap 'all'"):
        bench("mixtral", swap="all")
    with pytest.raises(InterchangeError, match="batch size"):
        bench("mixtral", batch_size=0)
    with pytest.raises(InterchangeError, match="missing"):
        measure(one, pairs[:1], alone("L1.E0"), ["placebo_necessity"])


def test_profile_counts_what_a_loop_counts() -> None:
    one, pairs = bench("qwen2_moe", batch_size=3), random_pairs()
    found = profile(one, pairs, [1])[1]
    mean = means(one, pairs, [parse_site("L1.E2")])[parse_site("L1.E2")]
    with torch.inference_mode():
        hand = ByHand(one)
        prompts = [prompt for pair in pairs for prompt in (pair.sensitive, pair.control)]
        values = {e: torch.cat([hand.value(prompt, Site(1, "expert", e)) for prompt in prompts]) for e in range(4)}
    for expert, value in values.items():
        chosen = value.any(dim=1)
        assert found.rate[expert] == pytest.approx(float(chosen.double().mean()))
        assert found.norm[expert] == pytest.approx(float(value[chosen].norm(dim=1).double().mean()), rel=1e-5)
    torch.testing.assert_close(mean, values[2].mean(0), atol=1e-6, rtol=0)


def test_jobs_of_one_layer_share_a_forward() -> None:
    def job(run: int, layer: int, index: int = 0) -> Job:
        where = torch.ones(2, dtype=torch.bool)
        return Job(run, (Change(layer, "expert", index, "replace", where, torch.zeros(2, 3)),))

    jobs = [job(0, 2), job(1, 1), job(2, 2), job(3, 1), job(4, 2)]
    assert chunks(jobs, 2) == [[1, 3], [0, 2], [4]]
    (write,) = writes_of([job(0, 2, 5), job(0, 2, 7)])
    assert write.index.tolist() == [5, 5, 7, 7]
    assert [write.layer for write in writes_of([job(0, 2), job(1, 1)])] == [1, 2]
