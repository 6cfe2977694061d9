"""Families that are refused or read in a special way: that there is a reason, and that the reading is right."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprobe.capture import ExpertsSite, LayerRouting, Recorder, find_experts
from moeprobe.capture.adapters import Source, read_llama4
from moeprobe.capture.discover import refusal
from tests.capture.families import tiny
from tests.capture.families.checks import as_routing, blocks, compare, forward, identity, prompts, recorded
from tests.capture.families.measured import measure


def test_nllb_moe_executes_only_experts_0_and_1() -> None:
    model = tiny.build("nllb_moe")
    ran: dict[str, int] = {}
    wanted: set[int] = set()
    for name, module in model.named_modules():
        if name.rpartition(".")[2].startswith("expert_"):
            expert = name.rpartition(".")[2]

            def count(module: nn.Module, args: tuple[Any, ...], expert: str = expert) -> None:
                ran[expert] = ran.get(expert, 0) + len(args[0])

            module.register_forward_pre_hook(count)
        if type(module).__name__ == "NllbMoeTop2Router":
            module.register_forward_hook(lambda m, a, out: wanted.update(out[1].nonzero()[:, 1].tolist()))
    forward(model)
    assert wanted == set(range(tiny.EXPERTS))
    assert set(ran) == {"expert_0", "expert_1"}


def test_doges_routing_of_a_prompt_depends_on_the_other_prompts() -> None:
    """Why it is not traced: change the second prompt of a batch, and experts of the first change. Olmoe's do not."""
    ids, mask = prompts()
    other = torch.where(mask.bool(), (ids + 11) % 90 + 3, ids)
    changed = {}
    for family in ("doge", "olmoe"):
        model = tiny.build(family)
        first = recorded(model, forward).routing
        second = recorded(model, forward, input_ids=torch.stack([ids[0], other[1]])).routing
        changed[family] = sum(int((first[name].experts[0] != second[name].experts[0]).sum()) for name in first)
    assert changed["doge"] > 20
    assert changed["olmoe"] == 0
    assert "of other prompts" in str(refusal(tiny.build("doge")))


def test_diffusion_gemma_runs_each_token_through_its_layers_many_times() -> None:
    model = tiny.build("diffusion_gemma")
    rows: list[int] = []
    experts = next(site.module for site in find_experts(model) if site.stack == "")
    experts.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    ids, mask = prompts()
    with torch.inference_mode():
        model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=16)
    assert sum(rows) >= 10 * 2 * 16
    assert "many routings" in str(refusal(model))


def test_models_without_generation_are_not_traced() -> None:
    assert "does not generate" in str(refusal(tiny.build("openai_privacy_filter")))
    assert refusal(tiny.build("mixtral")) is None
    assert refusal(tiny.build("switch_transformers")) is None


def test_an_encoders_padding_does_not_change_the_routing_of_its_text() -> None:
    model = tiny.build("openai_privacy_filter")
    ids, mask = prompts()
    both = recorded(model, forward).routing
    alone = recorded(model, forward, input_ids=ids[1:, 3:], attention_mask=mask[1:, 3:])
    # Padding moves the positions, which rotary attention does not see beyond rounding.
    for name, layer in alone.routing.items():
        np.testing.assert_array_equal(layer.experts[0], both[name].experts[1, 3:])


def test_switch_tokens_over_an_experts_capacity_are_absent_choices() -> None:
    model = tiny.build_class("SwitchTransformersForConditionalGeneration", {"expert_capacity": 1})
    seen = blocks(model)
    absent = sum(int((layer.experts < 0).sum()) for layer in seen.run.routing.values())
    assert absent > 5
    assert compare(model, seen.run.routing, as_routing(model, seen.run.plain)).none
    assert identity(model, seen, seen.run.routing) < 1e-5


def test_zayas_skipped_tokens_are_not_counted_as_expert_0() -> None:
    found = measure("zaya")
    skipped = {name: ids < 0 for name, (ids, _) in found.run.plain.items()}
    assert sum(int(one.sum()) for one in skipped.values()) > 0
    for name, layer in found.run.routing.items():
        np.testing.assert_array_equal(layer.experts < 0, skipped[name])
        assert (layer.weights[layer.experts < 0] == 0).all()


def test_longcats_ids_beyond_the_experts_are_absent_choices() -> None:
    found = measure("longcat_flash")
    assert {site.experts for site in find_experts(found.model)} == {tiny.EXPERTS}
    beyond = {name: ids >= tiny.EXPERTS for name, (ids, _) in found.run.plain.items()}
    assert sum(int(one.sum()) for one in beyond.values()) > 0
    for name, layer in found.run.routing.items():
        np.testing.assert_array_equal(layer.experts < 0, beyond[name])


def test_deepseek_v4s_hash_layers_route_by_token() -> None:
    found = measure("deepseek_v4")
    table = next(buffer for name, buffer in found.model.named_buffers() if name.endswith("layers.0.mlp.gate.tid2eid"))
    np.testing.assert_array_equal(found.run.routing["L0"].experts, table[found.run.tokens[:, :-1]].numpy())
    assert (found.run.routing["L1"].experts != found.run.routing["L0"].experts).any()


def _seen_by(model: PreTrainedModel, change: Callable[[ExpertsSite], Source | None]) -> dict[str, LayerRouting]:
    """The record of a forward when each site is read as `change` says."""
    sites = [dataclasses.replace(site, source=change(site)) for site in find_experts(model)]
    with Recorder(model, sites) as recorder:
        forward(model)
    return recorder.routing()


def test_without_the_adapters_the_record_would_be_wrong_and_the_checks_say_so() -> None:
    def sorted_as_it_comes(args: Any, kwargs: Any, output: Any) -> tuple[Tensor, Tensor]:
        _, _, gates, sizes, logits = output
        ids = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        return ids.reshape(len(logits), -1), gates.reshape(len(logits), -1)

    def unsorted(site: ExpertsSite) -> Source:
        assert site.source is not None
        return dataclasses.replace(site.source, read=sorted_as_it_comes)

    for family, change in (("zaya", lambda site: None), ("jetmoe", unsorted)):
        model = tiny.build(family)
        right = recorded(model, forward)
        wrong = _seen_by(model, change)
        assert compare(model, right.routing, as_routing(model, right.plain)).none
        assert not compare(model, wrong, as_routing(model, right.plain)).none


GROUPED = ("axk1", "bailing_hybrid", "beam", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "dots3_note",
           "exaone_moe", "glm4_moe", "glm4_moe_lite", "glm4v_moe", "glm5_next", "glm_moe_dsa", "hy_v4", "kimi_linear",
           "mimo_v2_flash", "nemotron_h", "solar_open")  # fmt: skip


@pytest.mark.parametrize("family", GROUPED)
def test_group_limited_families_choose_within_few_groups(family: str) -> None:
    """Two groups of four, of which the best is open: both experts of a token are of one group, though without groups
    they would often not be."""
    model = tiny.build(family)
    router = next(module for module in model.modules() if getattr(module, "num_group", None) is not None)
    assert (router.num_group, router.topk_group) == (2, 1)
    scores: list[Tensor] = []
    router.register_forward_hook(lambda module, args, out: scores.append(out[0]))
    run = recorded(model, forward)
    for layer in run.routing.values():
        group = layer.experts // (tiny.EXPERTS // 2)
        assert (group[..., 0] == group[..., 1]).all()
    free = scores[0].topk(tiny.TOP_K).indices // (tiny.EXPERTS // 2)
    assert (free[:, 0] != free[:, 1]).any()


def test_llama4_scores_that_are_exactly_zero_are_no_choice() -> None:
    scores = torch.tensor([[0.0, 0.7, 0.0, 0.2], [0.0, 0.0, 0.9, 0.0]])
    ids, weights = read_llama4(2, (scores, None))
    assert ids.tolist() == [[1, 3], [2, -1]]
    torch.testing.assert_close(weights, torch.tensor([[0.7, 0.2], [0.9, 0.0]]))


def test_experts_that_text_does_not_reach_stay_silent() -> None:
    found = measure("ernie4_5_vl_moe")
    names = [site.name for site in find_experts(found.model)]
    assert names == ["L1", "L2", "L3", "vision.L1", "vision.L2", "vision.L3"]
    assert list(found.run.routing) == ["L1", "L2", "L3"]


def test_wrappers_change_neither_names_nor_ids() -> None:
    """Qwen3.5 as a causal model and inside its multimodal class, with the same weights."""
    causal = tiny.build("qwen3_5_moe")
    whole = tiny.build_class("Qwen3_5MoeForConditionalGeneration", {})
    moved = {f"model.language_model.{name.removeprefix('model.')}": one for name, one in causal.state_dict().items()}
    moved = {name.replace("model.language_model.lm_head", "lm_head"): one for name, one in moved.items()}
    assert not whole.load_state_dict(moved, strict=False).unexpected_keys
    paths = [[site.path for site in find_experts(model)] for model in (causal, whole)]
    assert paths[0][0] == "model.layers.0.mlp.experts"
    assert paths[1][0] == "model.language_model.layers.0.mlp.experts"
    one, other = recorded(causal), recorded(whole)
    assert list(one.routing) == list(other.routing) == ["L0", "L1", "L2", "L3"]
    assert torch.equal(one.tokens, other.tokens)
    for name in one.routing:
        np.testing.assert_array_equal(one.routing[name].experts, other.routing[name].experts)
        np.testing.assert_array_equal(one.routing[name].weights, other.routing[name].weights)


def test_qwen3_omni_records_its_thinker_and_the_talker_stays_silent() -> None:
    model = tiny.build_class(
        "Qwen3OmniMoeForConditionalGeneration", tiny.SEVERAL_STACKS["Qwen3OmniMoeForConditionalGeneration"]
    )
    model.thinker.config.vision_start_token_id = 92
    ids, mask = prompts()
    with torch.inference_mode(), Recorder(model) as recorder:
        model.thinker.generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, min_new_tokens=3)
    assert [site.name for site in find_experts(model)][4:] == [f"talker.L{layer}" for layer in range(tiny.LAYERS)]
    assert list(recorder.routing()) == ["L0", "L1", "L2", "L3"]
