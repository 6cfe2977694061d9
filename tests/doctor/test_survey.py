"""The survey: sites, k and kind of routing without weights; bytes against a real file; what would not be recorded."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig

from moeprobe.doctor.dataflow import Dataflow, ReturnedBy, returned_by, routing_kind
from moeprobe.doctor.survey import Survey, SurveyedSite, bytes_per_token, survey
from moeprobe.errors import CaptureError
from moeprobe.models.skeleton import _put_mxfp4, skeleton_of
from moeprobe.trace.manifest import LayerInfo, Manifest, Signal
from moeprobe.trace.shard import COLUMNS, Routing, ShardData, row_bytes, tensors_of
from moeprobe.trace.tensors import write_tensors
from tests.capture.families.tiny import build


def meta(cls: Any, config: Any, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    with torch.device("meta"):
        model: PreTrainedModel = cls._from_config(config, dtype=dtype)
    return model.eval()


@pytest.fixture(scope="module")
def qwen() -> Survey:
    return survey(meta(Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig()))


def test_qwen3_5_35b_a3b_at_full_size(qwen: Survey) -> None:
    """Figures: CAPTURE.md section 5, measured there by another route."""
    assert (qwen.problems, qwen.doubts, qwen.notes) == ((), (), ())
    assert [site.name for site in qwen.sites] == [f"L{layer}" for layer in range(40)]
    for site in qwen.sites:
        facts = (site.experts, site.k, site.k_from, site.shared, site.kind, site.classes, site.width, site.weights)
        assert facts == (256, 8, "run", True, "softmax", 256, 2048, "bfloat16")
        assert (site.router, site.router_by) == (f"model.layers.{site.layer}.mlp.gate", "identity")


def test_bytes_of_qwen3_5(qwen: Survey) -> None:
    columns = 5 * 4 + 2  # token_id, generation, position, char_start, char_end; phase, segment
    assert sum(np.dtype(dtype).itemsize for dtype in COLUMNS.values()) == columns
    assert bytes_per_token(qwen.sites, dtype="bfloat16") == columns + 960  # CAPTURE: ids uint8 + weights fp16
    # With int16 ids it would be CAPTURE's 1,280: one byte more for each of 320 ids.
    assert bytes_per_token(qwen.sites, dtype="bfloat16") - columns + 40 * 8 == 1280
    assert bytes_per_token(qwen.sites, dtype="bfloat16", worst=True) == columns + 40 * 8 * (1 + 4)

    def more(*what: str) -> int:
        return bytes_per_token(qwen.sites, what, "bfloat16") - bytes_per_token(qwen.sites, dtype="bfloat16")

    assert more("logits") == 20_480  # CAPTURE: all logits fp16
    assert more("logits:14") == 512
    assert more("router-input:14,20") == 2 * 2048 * 2
    assert more("residual:22") == 2048 * 2
    assert more("entropy", "logprob") == 8
    assert more("margin") == 40 * 5
    assert more("norms") == 40 * 8 * 4
    assert more("shared-gate") == 80
    assert more("logits", "logits") == more("logits")


@pytest.mark.parametrize("what", ["logitz", "logits:99", "logits:x", "residual", "entropy:3", ""])
def test_unknown_signals_are_refused(qwen: Survey, what: str) -> None:
    with pytest.raises(CaptureError):
        bytes_per_token(qwen.sites, [what])


# Kind by hand from the source of each router in transformers 5.23; the router's class from families.csv.
KINDS = {
    "qwen3_moe": "softmax",
    "gpt_oss": "top-k then softmax",
    "granitemoehybrid": "top-k then softmax",
    "flint": "sigmoid",
    "minimax_m2": "sigmoid, correction bias",
    "deepseek_v3": "sigmoid, groups, correction bias",
    "mistral4": "softmax, groups",
    "kolibri1": "top-k then sigmoid, correction bias",
    "ernie4_5_moe": "softmax, correction bias",
    "zaya": "softmax, correction bias, top-1",
    "phimoe": "softmax, 2 choices one after another",
    "dbrx": "softmax",
    "doge": "product keys, top-k then softmax",
    "llama4": "top-k then sigmoid",
    "switch_transformers": "softmax, top-1",
    "diffusion_gemma": "softmax",
}


@pytest.mark.parametrize("family", KINDS)
def test_kind_of_routing(family: str) -> None:
    found = survey(build(family))
    assert {site.kind for site in found.sites} == {KINDS[family]}
    assert all(site.k_from == "run" for site in found.sites)
    assert found.problems == ()


def test_hash_routing_is_told_from_learned() -> None:
    found = survey(build("deepseek_v4"))
    assert {site.name: site.kind for site in found.sites} == {
        "L0": "hash",
        **{f"L{layer}": "square root of softplus, correction bias" for layer in (1, 2, 3)},
    }
    assert any("L0" in note and "hash" in note for note in found.notes)


@pytest.mark.parametrize(("method", "kind"), [("greedy", "softmax"), ("group_limited_greedy", "softmax, groups")])
def test_groups_are_seen_only_where_they_act(method: str, kind: str) -> None:
    model = build("deepseek_v2")
    model.config.topk_method = method
    assert {site.kind for site in survey(skeleton_of(model)).sites} == {kind}


def test_several_stacks() -> None:
    found = survey(build("ernie4_5_vl_moe"))
    assert [site.name for site in found.sites] == ["L1", "L2", "L3", "vision.L1", "vision.L2", "vision.L3"]
    assert [site.silent for site in found.sites] == [False] * 3 + [True] * 3
    assert found.problems == ()
    loud = [site for site in found.sites if not site.silent]
    assert bytes_per_token(found.sites) == bytes_per_token(loud)


def test_classes_beyond_the_experts() -> None:
    found = survey(build("longcat_flash"))
    assert {(site.experts, site.classes) for site in found.sites} == {(8, 12)}
    assert bytes_per_token(found.sites) == 22 + 4 * 2 * (1 + 4 + 1)  # with a mask for choices that are no experts


def test_k_comes_from_the_run_and_not_from_the_config() -> None:
    model = meta(Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig(num_hidden_layers=4))
    model.config.num_experts_per_tok = 5
    assert {site.k for site in survey(model).sites} == {8}


def test_a_model_that_needs_data_is_doubted_not_passed() -> None:
    found = survey(build("jetmoe"))
    assert found.problems == ()
    assert len(found.doubts) == 1
    assert "L0" in found.doubts[0]
    assert {(site.k, site.k_from, site.kind) for site in found.sites} == {(2, "module", "top-k then softmax")}


def test_a_model_whose_copy_cannot_be_built_is_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: object) -> None:
        raise ValueError("a config that was changed")

    # by the module itself: its name in the package is the function's
    monkeypatch.setattr(sys.modules["moeprobe.doctor.survey"], "skeleton_of", fail)
    found = survey(build("qwen3_moe"))
    assert (found.problems, {(site.k, site.kind) for site in found.sites}) == ((), {(2, "unknown")})
    assert "a config that was changed" in found.doubts[0]


def test_a_model_that_generates_in_its_own_way_is_doubted() -> None:
    found = survey(build("diffusion_gemma"))
    assert "in its own way" in found.doubts[0]


def test_a_loaded_model_is_left_as_it_was() -> None:
    model = build("qwen3_moe")
    ids = torch.arange(3, 9)[None]
    with torch.inference_mode():
        before = model(ids).logits
        survey(model)
        assert torch.equal(model(ids).logits, before)
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.modules())


# What would not be recorded.


class Bypass(nn.Module):
    """A block that computes its experts without calling them."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.gate, self.experts = block.gate, block.experts

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.gate(hidden.reshape(-1, hidden.shape[-1]))[1].sum() * 0


class MegaBlocksMoeMLP(Bypass):
    """The name of the hub kernel for gpt-oss."""


def reasons(model: PreTrainedModel) -> str:
    return "\n".join(map(str, survey(model).problems))


def test_a_block_that_bypasses_its_experts_is_named() -> None:
    model: Any = meta(Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig(num_hidden_layers=4))
    assert reasons(model) == ""
    model.model.layers[2].mlp = Bypass(model.model.layers[2].mlp)
    found = survey(model).problems
    assert [problem.where for problem in found] == ["L2"]
    assert "model.layers.2.mlp.experts" in found[0].why


def test_hub_kernels_and_mxfp4_are_named_with_the_remedy() -> None:
    model: Any = build("qwen3_moe")
    model.model.layers[1].mlp = MegaBlocksMoeMLP(model.model.layers[1].mlp)
    assert "MegaBlocksMoeMLP" in reasons(model)
    packed = skeleton_of(build("gpt_oss"))
    _put_mxfp4(packed)
    assert "Mxfp4GptOssMLP" in reasons(packed)
    assert "Mxfp4Config(dequantize=True)" in reasons(packed)


def test_a_compiled_model_is_named() -> None:
    model = build("qwen3_moe")
    model.compile()
    assert "compiled" in reasons(model)


@pytest.mark.parametrize(
    ("family", "said"), [("nllb_moe", "experts 0 and 1"), ("openai_privacy_filter", "does not generate")]
)
def test_families_that_are_refused(family: str, said: str) -> None:
    assert said in reasons(build(family))


def test_a_dense_model_is_named() -> None:
    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=20
    )
    found = survey(meta(LlamaForCausalLM, config))
    assert found.sites == ()
    assert "mixture-of-experts" in str(found.problems[0])


def test_two_modules_of_one_name_are_refused() -> None:
    model: Any = build("qwen3_moe")
    model.model.layers[1].mlp.spare = build("qwen3_moe").model.layers[1].mlp.experts  # type: ignore[union-attr]
    assert "model.layers.1.mlp.spare" in reasons(model)


# The kind is read off operations: hand-made routers, whose kind is known.


class Hand(nn.Module):
    """A router written by hand; `how` says what it does."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.weight = nn.Parameter(torch.zeros(8, 16))
        self.bias = nn.Parameter(torch.zeros(8))
        self.table = nn.Buffer(torch.zeros(50, 2, dtype=torch.long))

    def forward(self, hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        logits = hidden @ self.weight.T
        if self.how == "bias in the scores":
            weights, ids = torch.topk((logits + self.bias).softmax(-1), 2)
        elif self.how == "bias in the choice":
            scores = logits.softmax(-1)
            ids = torch.topk(scores + self.bias, 2)[1]
            weights = scores.gather(1, ids)
        elif self.how == "table":
            ids = self.table[tokens]
            weights = logits.sigmoid().gather(1, ids)
        elif self.how == "late":
            kept, ids = torch.topk(logits, 2)
            weights = kept.softmax(-1)
        elif self.how == "written in place":
            scores = logits.sigmoid()
            ids = torch.zeros((len(hidden), 2), dtype=torch.long, device=hidden.device)
            ids[:, 0] = scores.argmax(-1)
            ids[:, 1] = scores.argmin(-1)
            weights = scores.gather(1, ids)
        else:
            ids = torch.topk(logits, 2)[1]
            weights = torch.tanh(logits).gather(1, ids)
        return ids, weights


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("bias in the scores", "softmax"),
        ("bias in the choice", "softmax, correction bias"),
        ("table", "hash"),
        ("late", "top-k then softmax"),
        ("written in place", "sigmoid"),
        ("a function nobody knows", "unknown"),
    ],
)
def test_hand_made_routers(how: str, kind: str) -> None:
    block = nn.ModuleDict({"router": Hand(how)}).to("meta")
    flow = Dataflow(block)
    with torch.no_grad(), ReturnedBy(block, [], lambda one, path: flow.step(one).modules.append("b." + path)), flow:
        ids, weights = block["router"](torch.zeros(5, 16, device="meta"), torch.zeros(5, dtype=torch.long).to("meta"))
    assert routing_kind(flow.step(ids), flow.step(weights)) == kind
    assert returned_by(flow.step(ids), "b") == ("b.router", True)


# Bytes against a file on disk.


def surveyed(layer: int, **facts: Any) -> SurveyedSite:
    defaults: dict[str, Any] = {
        "name": f"L{layer}", "stack": "", "layer": layer, "path": f"layers.{layer}.experts", "experts": 16, "k": 4,
        "k_from": "run", "shared": True, "kind": "softmax", "router": None, "router_by": "", "classes": 16,
        "width": 24, "residual": 24, "weights": "bfloat16", "silent": False,
    }  # fmt: skip
    return SurveyedSite(**(defaults | facts))


@pytest.mark.parametrize("exact", [True, False])
def test_bytes_are_those_of_a_shard_on_disk(tmp_path: Path, exact: bool) -> None:
    """`exact`: numbers that fit float16. The other way round every number needs float32, as `worst` counts."""
    rows, rng = 1000, np.random.default_rng(0)
    sites = [surveyed(2), surveyed(5, experts=300, classes=300, k=6)]
    what = ["logits", "margin:5", "shared-gate:2", "router-input:5", "norms", "residual:3,4", "entropy", "logprob"]

    def floats(*shape: int, computed: bool = False) -> Any:
        values = rng.integers(1, 9, size=shape).astype(np.float32)
        return values / 3 if computed or not exact else values / 8

    signals: list[tuple[Signal, Any]] = []

    def add(name: str, width: int | None, *, kind: str = "float", computed: bool = False) -> None:
        shape = (rows,) if width is None else (rows, width)
        values = np.ones(shape, dtype=bool) if kind == "flag" else floats(*shape, computed=computed)
        signals.append((Signal(name, width, kind, False, "for a test"), values))

    for site in sites:
        add(f"{site.name}.logits", site.experts)
        add(f"{site.name}.norms", site.k, computed=True)
    add("L5.margin", None, computed=True)
    add("L5.gate_sensitive", None, kind="flag")
    add("L2.shared_gate", None)
    add("L5.router_input", 24)
    add("residual.L3", 24)
    add("residual.L4", 24)
    add("entropy", None, computed=True)
    add("logprob", None, computed=True)
    layers = tuple(LayerInfo(one.layer, one.experts, one.k or 0, 1.0, True, one.path) for one in sites)
    empty: dict[str, Any] = {name: {} for name in ("model", "tokenizer", "decoding", "engine", "versions", "prompts")}
    manifest = Manifest(
        layers=layers, created="", moeprobe="0", signals=tuple(signal for signal, _ in signals), **empty
    )
    data = ShardData(
        {name: np.zeros(rows, dtype=dtype) for name, dtype in COLUMNS.items()},
        {one.name: Routing(np.tile(np.arange(one.k or 0), (rows, 1)), floats(rows, one.k or 0)) for one in sites},
        {signal.name: values for signal, values in signals},
    )
    path = tmp_path / "000000.safetensors"
    write_tensors(path, tensors_of(data, manifest))
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    said = bytes_per_token(sites, what, "bfloat16", worst=not exact)
    assert (path.stat().st_size - header) / rows == said
    assert said <= row_bytes(manifest)
    assert header <= 512 * (7 + 2 * 2 + len(signals))
