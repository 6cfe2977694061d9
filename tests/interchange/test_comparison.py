"""Comparison sites: alike in use and size, never members of the tested set, and what is done where there are none."""

import pytest
import torch

from moeprobe.interchange.comparison import activity, comparisons
from moeprobe.interchange.lab import lab
from moeprobe.models import LoadedModel
from moeprobe.sites import SiteSet, parse_site
from tests.interchange.random_moe import random_model, random_pairs


def sets(*names: tuple[str, ...]) -> list[SiteSet]:
    return [SiteSet("", tuple(parse_site(name) for name in group)) for group in names]


def test_single_sites_sets_and_blocks() -> None:
    bench, pairs = lab(random_model("mixtral")), random_pairs()
    expert, head, several, block = sets(("L1.E0",), ("L1.H2",), ("L1.E0", "L2.E1", "L2.E3"), ("L1.moe",))
    found = comparisons(bench, pairs, [expert, head, several, block], 5)
    assert found[block] is None
    for other in found[expert]:
        assert other.sites[0].kind == "expert"
        assert other != expert
    assert {other.sites[0].layer for other in found[expert][:3]} == {1}  # the same layer first
    assert {other.sites[0].kind for other in found[head]} == {"head"}
    assert len(found[several]) == len(set(found[several])) == 5
    for other in found[several]:
        assert len(other.sites) == 3
        assert not set(other.sites) & set(several.sites)
    assert comparisons(bench, pairs, [several], 5)[several] == found[several]


def test_head_norms_against_a_loop() -> None:
    bench, pairs = lab(random_model("mixtral")), random_pairs()
    _, norms = activity(bench, pairs, [parse_site("L1.H2")])
    total, tokens = 0.0, 0
    seen: list[torch.Tensor] = []
    projection = bench.loaded.model.model.layers[1].self_attn.o_proj
    handle = projection.register_forward_pre_hook(lambda module, args: seen.append(args[0][0, :, 16:24]))
    with torch.inference_mode():
        for pair in pairs:
            for prompt in (pair.sensitive, pair.control):
                bench.loaded.model(input_ids=torch.tensor([prompt]))
                total, tokens = total + float(seen[-1].norm(dim=1).sum()), tokens + len(prompt)
    handle.remove()
    assert norms[parse_site("L1.H2")] == pytest.approx(total / tokens, rel=1e-4)


def test_where_no_other_expert_writes_those_that_ran_stand_in() -> None:
    loaded: LoadedModel = random_model("qwen2_moe")
    with torch.no_grad():
        for layer in loaded.model.model.layers:
            layer.mlp.experts.down_proj.zero_()
        loaded.model.model.layers[1].mlp.experts.down_proj[2] = 0.3
    bench, pairs = lab(loaded), random_pairs()
    (only,), nothing = sets(("L1.E2",)), sets(("L1.E0",))[0]
    found = {**comparisons(bench, pairs, [only], 5), **comparisons(bench, pairs, [nothing], 5)}
    assert sorted(str(other) for other in found[only][:3]) == ["L1.E0", "L1.E1", "L1.E3"]
    assert found[nothing] == ()
