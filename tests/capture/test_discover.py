"""Names of layers and stacks, numbers of experts, and what is one forward pass of a stack."""

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from moeprobe.capture import find_experts
from moeprobe.capture.adapters import adapt, read_jetmoe, read_switch, read_zaya
from moeprobe.capture.discover import ExpertsSite, anchors, count_experts, is_experts, refusal
from moeprobe.capture.stacks import split, stack_of
from moeprobe.errors import ModelError
from tests.capture.families import tiny
from tests.capture.families.checks import forward


@pytest.mark.parametrize(
    ("path", "layer", "stack"),
    [
        ("model.layers.14.mlp.experts", 14, ""),
        ("model.language_model.layers.14.mlp.experts", 14, ""),
        ("language_model.model.layers.14.feed_forward.experts", 14, ""),
        ("layers.2.mlp.experts", 2, ""),
        ("transformer.blocks.7.ffn.experts", 7, ""),
        ("model.layers.3.block_sparse_moe.experts", 3, ""),
        ("encoder.block.5.layer.1.mlp.experts", 5, "encoder"),
        ("decoder.block.5.layer.2.mlp.experts", 5, ""),
        ("model.encoder.language_model.layers.1.experts", 1, "encoder"),
        ("model.decoder.layers.1.experts", 1, ""),
        ("model.language_model.layers.4.mlp.text_moe.experts", 4, ""),
        ("model.language_model.layers.4.mlp.vision_moe.experts", 4, "vision"),
        ("model.vision_tower.blocks.9.mlp.experts", 9, "vision"),
        ("model.visual.blocks.9.mlp.experts", 9, "vision"),
        ("model.audio_tower.layers.9.experts", 9, "audio"),
        ("thinker.model.language_model.layers.0.mlp.experts", 0, ""),
        ("talker.model.layers.0.mlp.experts", 0, "talker"),
        ("model.layers.6.self_attention.experts", 6, "attention"),
        ("model.mtp.layers.0.mlp.experts", 0, "mtp"),
        ("model.h.3.mlp.0.experts", 3, ""),
    ],
)
def test_layer_and_stack_come_from_the_path(path: str, layer: int, stack: str) -> None:
    assert split(path)[1] == layer
    assert stack_of(path) == stack
    site = ExpertsSite(layer, path, nn.Identity(), 8, False, stack)
    assert site.name == (f"{stack}.L{layer}" if stack else f"L{layer}")


def test_a_path_without_a_layer_number() -> None:
    with pytest.raises(ModelError, match=r"model\.experts stands in no numbered layer"):
        split("model.experts")


class _Experts(nn.Module):
    def __init__(self, *leading: int, **attributes: int) -> None:
        super().__init__()
        for number, size in enumerate(leading):
            self.register_parameter(f"weight{number}", nn.Parameter(torch.zeros(size, 2, 2)))
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        return hidden * top_k_weights + top_k_index


def test_the_number_of_experts_comes_from_the_weights() -> None:
    assert is_experts(_Experts())
    assert not is_experts(nn.Linear(2, 2))
    assert count_experts(_Experts(8, 8, num_experts=4)) == 8
    assert count_experts(_Experts(num_experts=16)) == 16
    # LongCat: 12 ids, of which 8 are experts with weights.
    assert count_experts(_Experts(12, 8, num_routed_experts=8)) == 8


@pytest.mark.parametrize("module", [_Experts(12, 8), _Experts(12, 8, num_routed_experts=9), _Experts()])
def test_an_unclear_number_of_experts_is_refused(module: nn.Module) -> None:
    with pytest.raises(ModelError, match="Could not tell how many experts"):
        count_experts(module)


class _Model(LlamaForCausalLM):
    """A dense model to hang experts into."""

    def __init__(self) -> None:
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": 32}
        super().__init__(LlamaConfig(**sizes, num_hidden_layers=2))


def test_two_modules_of_one_name_are_refused() -> None:
    model = _Model()
    model.model.layers[1].first, model.model.layers[1].second = _Experts(4, 4), _Experts(4, 4)
    with pytest.raises(ModelError, match=r"claim the same layer .*layers\.1\.first, model\.layers\.1\.second"):
        find_experts(model)


def test_shared_experts_are_found_anywhere_in_the_layer() -> None:
    model = _Model()
    model.model.layers[0].experts = _Experts(4)
    assert not find_experts(model)[0].shared
    model.model.layers[0].shared_mlp = nn.Linear(2, 2)
    assert find_experts(model)[0].shared


def test_the_only_stack_of_an_encoder_is_its_main_one() -> None:
    model = _Model()
    model.encoder = nn.Module()
    model.encoder.layers = nn.ModuleList([nn.Module()])
    model.encoder.layers[0].experts = _Experts(4)
    assert [site.name for site in find_experts(model)] == ["L0"]
    model.config.is_encoder_decoder = True
    sites = find_experts(model)
    assert [site.name for site in sites] == ["encoder.L0"]
    assert anchors(model, sites) == {"encoder": model.encoder}


def test_main_comes_first_and_anchors_are_what_runs_a_stack() -> None:
    switch = tiny.build("switch_transformers")
    sites = find_experts(switch)
    assert [site.name for site in sites] == [*(f"L{i}" for i in range(4)), *(f"encoder.L{i}" for i in range(4))]
    assert anchors(switch, sites) == {"": switch, "encoder": switch.encoder}
    jetmoe = tiny.build("jetmoe")
    sites = find_experts(jetmoe)
    assert [site.name for site in sites][3:5] == ["L3", "attention.L0"]
    assert anchors(jetmoe, sites) == {"": jetmoe, "attention": jetmoe}
    diffusion = tiny.build("diffusion_gemma")
    found = anchors(diffusion, find_experts(diffusion))
    assert found == {"": diffusion.model.decoder, "encoder": diffusion.model.encoder}


def test_stacks_that_text_never_reaches_have_no_anchor() -> None:
    with torch.device("meta"):
        for name, silent in (
            ("Dots3NoteForConditionalGeneration", "vision"),
            ("Qwen3OmniMoeForConditionalGeneration", "talker"),
        ):
            cls = getattr(tiny.transformers, name)
            model = cls(tiny.shrink(cls.config_class, tiny.SEVERAL_STACKS[name]))
            found = anchors(model, find_experts(model))
            assert set(found) == {"", silent}
            assert found[silent] is None
            # Qwen3-Omni has no forward of its own: it generates through its thinker.
            assert found[""] is (model.thinker if silent == "talker" else model)


@pytest.mark.parametrize("family", ["mixtral", "zaya", "gpt_oss", "jetmoe", "llama4", "dbrx", "longcat_flash"])
def test_regular_modules_are_their_own_oracles_and_others_say_so(family: str) -> None:
    """Interchange calls the experts as it saw them called, with one choice per row."""
    model = tiny.build(family)
    site = find_experts(model)[0]
    seen: list[tuple[Tensor, ...]] = []
    site.module.register_forward_pre_hook(lambda module, args: seen.append(args))
    forward(model)
    hidden = seen[0][0]
    alone = torch.zeros(len(hidden), 1, dtype=torch.long), torch.ones(len(hidden), 1)
    try:
        works = site.module.forward(hidden, *alone).shape == hidden.shape and hidden.dim() == 2
    except (IndexError, TypeError, ValueError, RuntimeError):
        works = False
    assert works == site.regular


def test_dense_models_have_no_refusal_but_an_error() -> None:
    with pytest.raises(ModelError, match="no routed experts"):
        refusal(_Model())


def test_an_adapter_names_a_class_that_was_rebuilt() -> None:
    class Llama4TextExperts(nn.Module):
        pass

    with pytest.raises(ModelError, match="Llama4TextExperts is not built as in transformers 5.23"):
        adapt(Llama4TextExperts(), nn.Module())
    assert adapt(nn.Linear(2, 2), nn.Module()) is None


def test_jetmoes_sort_is_undone() -> None:
    """Tokens 0, 1, 2 chose (2, 0), (1, 2), (0, 1); by hand, sorted by expert: choices 1, 4 | 2, 5 | 0, 3."""
    order = torch.tensor([1, 4, 2, 5, 0, 3])
    gates = torch.tensor([0.1, 0.6, 0.7, 0.4, 0.9, 0.3])
    ids, weights = read_jetmoe((), {}, (order, order // 2, gates, [2, 2, 2], torch.zeros(3, 3)))
    assert ids.tolist() == [[2, 0], [1, 2], [0, 1]]
    torch.testing.assert_close(weights, torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4]]))


def test_switch_and_zaya_by_hand() -> None:
    mask = torch.tensor([[[0, 1, 0]], [[0, 0, 0]], [[0, 0, 1]]])
    gates = torch.tensor([[0.5], [0.4], [0.6]])
    by_name = {"selected_experts": mask, "routing_weights": gates}
    for args, kwargs in (((None, mask, gates), {}), ((), by_name)):
        ids, weights = read_switch(args, kwargs, None)
        assert ids.tolist() == [[1], [-1], [2]]
        assert weights is gates
    ids, _ = read_zaya((None, torch.tensor([[0], [0], [3]]), torch.tensor([[0.0], [0.2], [0.4]])), {}, None)
    assert ids.tolist() == [[-1], [0], [3]]
