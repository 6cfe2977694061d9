"""Quantised experts: recorded exactly where they are called, refused before the first token where they are not.

The kernels need an accelerator. Here they are emulated by torch on dequantised weights, which leaves everything else,
the modules, their calls and the loading, as transformers has it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    FineGrainedFP8Config,
    GptOssConfig,
    GptOssForCausalLM,
    PreTrainedModel,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.integrations import finegrained_fp8 as fp8
from transformers.integrations import mxfp4
from transformers.integrations.gguf import kernels as gguf_kernels
from transformers.integrations.gguf.dequant import dequantize
from transformers.integrations.gguf.utils import GgufExperts

from moeprobe.capture import Recorder, attach, find_experts
from moeprobe.errors import CaptureError

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 64, "num_experts_per_tok": 2, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.5,
}  # fmt: skip
IDS = torch.tensor([[5, 9, 3, 7, 22, 31], [8, 4, 60, 11, 2, 17]])
Q8_0 = 8


def assert_recorded_as_teacher_forced(model: PreTrainedModel) -> None:
    """Ids of a generation equal those of one forward of its tokens; logits are those of an unrecorded run."""
    settings: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    with torch.inference_mode():
        plain = model(input_ids=IDS).logits
        with Recorder(model) as recorder:
            tokens = model.generate(IDS, attention_mask=torch.ones_like(IDS), **settings)
        with Recorder(model) as teacher:
            model(input_ids=tokens[:, :-1])
        with Recorder(model):
            recorded = model(input_ids=IDS).logits
    assert torch.equal(plain, recorded)
    routing = recorder.routing()
    assert sorted(routing) == ["L0", "L1", "L2"]
    for name, layer in teacher.routing().items():
        assert layer.experts.shape == (2, 10, 2)
        assert len(np.unique(layer.experts)) > 4
        assert (routing[name].experts == layer.experts).all()
        np.testing.assert_allclose(routing[name].weights, layer.weights, rtol=0, atol=2e-5)


def assert_block_is_the_sum_of_its_experts(model: PreTrainedModel, layer: int) -> None:
    """Weights times outputs of the recorded experts give the output of the experts module."""
    site = find_experts(model)[layer]
    seen: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen.setdefault("hidden", args[0])
        seen.setdefault("output", output)

    handle = site.module.register_forward_hook(keep)
    with torch.inference_mode(), Recorder(model) as recorder:
        model(input_ids=IDS)
        handle.remove()
        routing = recorder.recording().layers[site.name]
        rows = len(seen["hidden"])
        total = torch.zeros_like(seen["output"])
        for choice in range(2):
            ids = torch.from_numpy(routing.experts[:rows, choice : choice + 1].copy())
            alone = site.module(seen["hidden"], ids, torch.ones(rows, 1))
            total += torch.from_numpy(routing.weights[:rows, choice : choice + 1].copy()) * alone
    assert seen["output"].abs().max() > 1e-3
    torch.testing.assert_close(total, seen["output"], rtol=1e-4, atol=1e-5)


# FP8


def qwen() -> PreTrainedModel:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, num_experts=8, moe_intermediate_size=16))
    return model.eval()


def to_fp8(model: PreTrainedModel) -> PreTrainedModel:
    """Quantise in place, in blocks of 16 by 16: transformers itself does so on a GPU only."""
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    settings = FineGrainedFP8Config(weight_block_size=(16, 16))
    skip = ["lm_head", "model.layers.0.mlp.gate", "model.layers.1.mlp.gate", "model.layers.2.mlp.gate"]
    fp8.replace_with_fp8_linear(model, skip, settings)
    for path, module in model.named_modules():
        if not isinstance(module, fp8.FP8Linear | fp8.FP8Experts):
            continue
        module.to_empty(device="cpu")
        for name in ("weight", "gate_up_proj", "down_proj"):
            if getattr(module, name, None) is not None:
                weight, scale = quantise(before[f"{path}.{name}"])
                getattr(module, name).data = weight
                getattr(module, f"{name}_scale_inv").data = scale
    return model.eval()


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(..., N, K) in blocks of 16 by 16 as float8 (largest value 448) and scales (..., N / 16, K / 16)."""
    blocks = weight.unflatten(-1, (-1, 16)).unflatten(-3, (-1, 16))
    scale = blocks.abs().amax(dim=(-1, -3), keepdim=True) / 448
    packed = (blocks / scale).to(torch.float8_e4m3fn)
    return packed.flatten(-4, -3).flatten(-2, -1), scale[..., 0, :, 0]


def restore(weight: Tensor, scale: Tensor) -> Tensor:
    wide = scale.repeat_interleave(16, dim=-1).repeat_interleave(16, dim=-2)
    return weight.float() * wide


@pytest.fixture
def fp8_kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The three FP8 kernels, in torch; returns the names of those that were used."""
    used: list[str] = []

    def matmul(
        x: Tensor, weight: Tensor, scale: Tensor, block: Any, dtype: Any, activation_scale: Any = None
    ) -> Tensor:
        used.append("matmul")
        return x @ restore(weight, scale).T

    def batched(x: Tensor, weight: Tensor, scale: Tensor, block_size: Any, expert_ids: Tensor) -> Tensor:
        used.append("batched")
        return torch.einsum("sk,snk->sn", x, restore(weight, scale)[expert_ids])

    def grouped(
        x: Tensor, weight: Tensor, scale: Tensor, offsets: Tensor, tokens_per_expert: Tensor, **_: Any
    ) -> Tensor:
        used.append("grouped")
        experts = torch.repeat_interleave(torch.arange(len(weight)), tokens_per_expert.long())
        return torch.einsum("sk,snk->sn", x, restore(weight, scale)[experts])

    monkeypatch.setattr(fp8, "_FINEGRAINED_FP8", fp8.FineGrainedFP8(matmul, batched, grouped))
    # They run on a CPU now.
    monkeypatch.setattr(attach, "_NOT_ON_CPU", ())
    return used


@pytest.mark.parametrize(
    ("implementation", "kernel"), [("eager", "matmul"), ("batched_mm", "batched"), ("grouped_mm", "grouped")]
)
def test_fp8_experts_are_recorded(implementation: str, kernel: str, fp8_kernels: list[str]) -> None:
    model = to_fp8(qwen())
    model.set_experts_implementation(implementation)
    assert [site.experts for site in find_experts(model)] == [8, 8, 8]
    assert all(isinstance(site.module, fp8.FP8Experts) for site in find_experts(model))
    assert_recorded_as_teacher_forced(model)
    assert_block_is_the_sum_of_its_experts(model, 1)
    assert kernel in fp8_kernels


def test_fp8_on_a_cpu_is_refused_before_the_first_token() -> None:
    model = to_fp8(qwen())
    with pytest.raises(CaptureError, match=r"FP8Linear.*do not run on the CPU.*dequantize=True"), Recorder(model):
        pytest.fail("nothing may run")
    with pytest.raises(ImportError, match="kernel unavailable"):
        model(input_ids=IDS)  # what the user would see otherwise
    assert not model._forward_pre_hooks


def test_fp8_experts_alone_are_refused_on_a_cpu() -> None:
    model = to_fp8(qwen())
    for layer, original in zip(model.model.layers, qwen().model.layers, strict=True):
        layer.self_attn = original.self_attn
    with pytest.raises(CaptureError, match=r"model\.layers\.0\.mlp\.experts is a FP8Experts"), Recorder(model):
        pytest.fail("nothing may run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU, transformers keeps the weights packed")
def test_fp8_checkpoints_loaded_on_a_cpu_are_unpacked_and_recorded(tmp_path: Path) -> None:
    model = qwen()
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            parts = {"gate_proj": gate, "up_proj": up}
        elif name.endswith("experts.down_proj"):
            parts = {"down_proj": tensor}
        elif "_proj" in name:
            packed, tensors[f"{name}_scale_inv"] = quantise(tensor)
            tensors[name] = packed
            continue
        else:
            tensors[name] = tensor
            continue
        # As checkpoints are published: each expert by itself.
        for leaf, stacked in parts.items():
            for expert, weight in enumerate(stacked):
                single = f"{name.rpartition('.')[0]}.{expert}.{leaf}.weight"
                tensors[single], tensors[f"{single}_scale_inv"] = quantise(weight)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    model.config.quantization_config = FineGrainedFP8Config(
        weight_block_size=(16, 16), modules_to_not_convert=["lm_head", "mlp.gate"]
    )
    model.config.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    experts = restore(*quantise(model.model.layers[1].mlp.experts.down_proj.detach()))
    torch.testing.assert_close(loaded.model.layers[1].mlp.experts.down_proj, experts, check_device=False)
    assert_recorded_as_teacher_forced(loaded)


# GGUF


def write_gguf(path: Path) -> Qwen3_5MoeForCausalLM:
    """A tiny Qwen3.5-MoE as llama.cpp writes it, matrices in Q8_0, and the model with the same rounded weights."""
    gguf = pytest.importorskip("gguf", reason="needs gguf (pip install gguf)")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    settings = SIZES | {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "num_experts": 8}
    # Full attention in every layer: the linear one needs a dozen more tensors and has nothing to do with experts.
    config = Qwen3_5MoeTextConfig(**settings, layer_types=["full_attention"] * 3, rope_parameters={
        "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True,
        "partial_rotary_factor": 0.5,
    })  # fmt: skip
    model = Qwen3_5MoeForCausalLM(config).eval()
    writer = gguf.GGUFWriter(path, "qwen35moe")
    numbers = {
        "context_length": 64, "embedding_length": 32, "attention.head_count": 2, "attention.head_count_kv": 1,
        "attention.key_length": 16, "full_attention_interval": 1, "ssm.conv_kernel": 4, "ssm.state_size": 8,
        "ssm.group_count": 1, "ssm.time_step_rank": 1, "ssm.inner_size": 8, "block_count": 3,
        "rope.dimension_count": 8, "expert_feed_forward_length": 32, "expert_shared_feed_forward_length": 32,
        "expert_count": 8, "expert_used_count": 2,
    }  # fmt: skip
    for name, number in numbers.items():
        writer.add_uint32(f"qwen35moe.{name}", number)
    writer.add_float32("qwen35moe.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    writer.add_float32("qwen35moe.rope.freq_base", 10000.0)
    writer.add_array("qwen35moe.rope.dimension_sections", [2, 1, 1, 0])
    writer.add_array("tokenizer.ggml.tokens", [f"t{index}" for index in range(64)])
    for name, tensor in model.state_dict().items():
        for renamed, value, packed in llama_cpp(name, tensor):
            array = np.ascontiguousarray(value.numpy())
            if packed:
                blocks = gguf.quants.quantize(array, gguf.GGMLQuantizationType.Q8_0)
                writer.add_tensor(renamed, blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
                # A view of the model's own memory.
                value.copy_(torch.from_numpy(gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0)))
            else:
                writer.add_tensor(renamed, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


LEAVES = {
    "self_attn.q_proj.weight": "attn_q.weight", "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight", "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.shared_expert.gate_proj.weight": "ffn_gate_shexp.weight",
    "mlp.shared_expert.up_proj.weight": "ffn_up_shexp.weight",
    "mlp.shared_expert.down_proj.weight": "ffn_down_shexp.weight", "mlp.experts.down_proj": "ffn_down_exps.weight",
}  # fmt: skip
NORMS = {
    "self_attn.q_norm.weight": "attn_q_norm.weight", "self_attn.k_norm.weight": "attn_k_norm.weight",
    "input_layernorm.weight": "attn_norm.weight", "post_attention_layernorm.weight": "post_attention_norm.weight",
}  # fmt: skip


def llama_cpp(name: str, tensor: Tensor) -> list[tuple[str, Tensor, bool]]:
    """Names and tensors llama.cpp makes of one of the model's, and whether they are packed in blocks."""
    whole = {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight"}
    if name in whole:
        return [(whole[name], tensor, True)]
    if name == "model.norm.weight":
        return [("output_norm.weight", tensor + 1, False)]
    _, _, layer, leaf = name.split(".", 3)
    prefix = f"blk.{layer}."
    if leaf in LEAVES:
        return [(prefix + LEAVES[leaf], tensor, True)]
    if leaf in NORMS:
        return [(prefix + NORMS[leaf], tensor + 1, False)]
    if leaf == "mlp.gate.weight":
        return [(prefix + "ffn_gate_inp.weight", tensor, False)]
    if leaf == "mlp.shared_expert_gate.weight":
        return [(prefix + "ffn_gate_inp_shexp.weight", tensor[0], False)]
    assert leaf == "mlp.experts.gate_up_proj", leaf
    gate, up = tensor.chunk(2, dim=1)
    return [(prefix + "ffn_gate_exps.weight", gate, True), (prefix + "ffn_up_exps.weight", up, True)]


@pytest.fixture
def gguf_kernel(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """ggml's kernels in torch; returns the names of those that were used."""
    used: list[str] = []

    class Kernels:
        GEMV_TYPES = frozenset({Q8_0})
        dequantize = get_rows = None  # not asked of tensors on a CPU

        @staticmethod
        def mul_mat_vec(weight: Tensor, x: Tensor, kind: int, out_features: int) -> Tensor:
            used.append("mul_mat_vec")
            return x.float() @ dequantize(weight, kind).reshape(out_features, -1).T

        @staticmethod
        def mul_mat_id(blocks: Tensor, x: Tensor, ids: Tensor, kind: int, out_features: int) -> Tensor:
            used.append("mul_mat_id")
            experts = dequantize(blocks, kind).reshape(len(blocks), out_features, -1)
            return torch.einsum("tk,tcnk->tcn", x.float(), experts[ids.long()])

    monkeypatch.setattr(gguf_kernels, "_gguf_kernel", gguf_kernels.GgufKernel(Kernels))
    return used


def load_gguf(folder: Path) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The model read from the file, and the one it was written from."""
    truth = write_gguf(folder / "tiny.gguf")
    loaded = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="tiny.gguf", dtype=torch.float32, attn_implementation="sdpa"
    )
    return loaded.eval(), truth


def assert_same_routing(loaded: PreTrainedModel, truth: PreTrainedModel) -> None:
    with torch.inference_mode(), Recorder(truth) as expected:
        logits = truth(input_ids=IDS).logits
    with torch.inference_mode(), Recorder(loaded) as recorder:
        torch.testing.assert_close(loaded(input_ids=IDS).logits, logits, rtol=0, atol=1e-3)
    for name, layer in expected.routing().items():
        assert (layer.experts == recorder.routing()[name].experts).all()


def test_packed_gguf_experts_are_recorded(gguf_kernel: list[str], tmp_path: Path) -> None:
    loaded, truth = load_gguf(tmp_path)
    sites = find_experts(loaded)
    assert all(isinstance(site.module, GgufExperts) for site in sites)
    assert [(site.experts, site.shared) for site in sites] == [(8, True)] * 3
    assert_same_routing(loaded, truth)
    assert_recorded_as_teacher_forced(loaded)
    assert_block_is_the_sum_of_its_experts(loaded, 1)
    assert {"mul_mat_id", "mul_mat_vec"} <= set(gguf_kernel)


def test_gguf_without_kernels_is_unpacked_and_recorded(tmp_path: Path) -> None:
    loaded, truth = load_gguf(tmp_path)
    assert not any(isinstance(module, GgufExperts) for module in loaded.modules())
    assert_same_routing(loaded, truth)
    assert_recorded_as_teacher_forced(loaded)


# MXFP4


def gpt_oss() -> PreTrainedModel:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return GptOssForCausalLM(GptOssConfig(**SIZES, num_local_experts=8)).eval()


def with_block(model: PreTrainedModel, make: Callable[[nn.Module], nn.Module]) -> PreTrainedModel:
    for layer in model.model.layers:
        layer.mlp = make(layer.mlp)
    return model.eval()


def test_mxfp4_blocks_are_refused_before_the_first_token() -> None:
    model = gpt_oss()
    with_block(model, lambda mlp: mxfp4.Mxfp4GptOssMLP(mlp.router, mxfp4.Mxfp4GptOssExperts(model.config)))
    assert [site.experts for site in find_experts(model)] == [8, 8, 8]
    with (
        pytest.raises(CaptureError, match=r"model\.layers\.0\.mlp is a Mxfp4GptOssMLP.*Mxfp4Config\(dequantize=True\)"),
        Recorder(model),
    ):
        pytest.fail("nothing may run")
    assert not model._forward_pre_hooks


class Fused(nn.Module):
    """A block as Mxfp4GptOssMLP is one: it uses the router's weights and a method of its experts, and calls neither."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.router, self.experts = mlp.router, mlp.experts

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        flat = hidden.reshape(-1, hidden.shape[-1])
        logits = nn.functional.linear(flat, self.router.weight, self.router.bias)  # type: ignore[arg-type]
        best, ids = torch.topk(logits, 2, dim=-1)
        run = type(self.experts).forward  # the recorder sees a call of the instance's own forward
        output: Tensor = run(self.experts, flat, ids, torch.softmax(best, dim=-1))
        return output.reshape(hidden.shape), logits


def test_a_fused_block_of_an_unknown_class_is_caught_in_its_first_forward() -> None:
    plain, fused = gpt_oss(), with_block(gpt_oss(), Fused)
    with torch.inference_mode():
        torch.testing.assert_close(plain(input_ids=IDS).logits, fused(input_ids=IDS).logits)
    steps: list[int] = []
    fused.register_forward_hook(lambda module, args, output: steps.append(1))
    with Recorder(fused), pytest.raises(CaptureError, match=r"L0 \(.*\) recorded 0 rows of 12 forwarded"):
        fused.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=5)
    assert len(steps) == 1, "no token was drawn"


def test_a_single_fused_block_is_caught() -> None:
    model = gpt_oss()
    model.model.layers[2].mlp = Fused(model.model.layers[2].mlp)
    with torch.inference_mode(), Recorder(model), pytest.raises(CaptureError, match=r"L2 \(.*\) recorded 0 rows"):
        model(input_ids=IDS)
