"""Direct logit attribution: parts sum to the logit difference, equal hand arithmetic, and what is missed is named."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from moeprobe.editing import find_places
from moeprobe.errors import InterchangeError
from moeprobe.experiments.attribution import attribute, watch
from moeprobe.experiments.lens import Direction
from moeprobe.models import LoadedModel
from moeprobe.pairs.batch import pad_left
from tests.capture.families import tiny
from tests.interchange.random_moe import random_model

TARGET = Direction((3, 4), (9,))
PROMPTS = [tuple(range(5, 20)), tuple(range(30, 41)), tuple(range(50, 57))]
WHOLE = ["qwen2_moe", "qwen3_moe", "mixtral", "olmoe", "deepseek_v3", "qwen3_5_moe", "gpt_oss", "nemotron_h",
         "granitemoe", "granitemoehybrid", "phimoe", "jamba", "glm4_moe", "cohere2_moe", "step3p7",
         "mistral_large4"]  # fmt: skip
REFUSED = {
    "flex_olmo": r"departs in L0: stream before \+ self_attn \+ mlp",
    "gemma4": "departs in L0",
    "deepseek_v4": "streams? (run|of L0)",
    "dbrx": "departs in L0",
    "muse_spark": "departs in L0",
}


def loaded(family: str) -> LoadedModel:
    tokenizer: Any = SimpleNamespace(pad_token_id=0)
    return LoadedModel(tiny.build(family), tokenizer, family)


@pytest.mark.parametrize("family", WHOLE)
def test_the_parts_sum_to_the_logit_difference(family: str) -> None:
    torch.set_num_threads(1)
    model = loaded(family)
    found = attribute(model, PROMPTS, TARGET, batch_size=2)
    with torch.inference_mode():
        logits = torch.stack([model.model(input_ids=torch.tensor([one])).logits[0, -1] for one in PROMPTS])
    cap = 30.0 if family == "mistral_large4" else None
    assert found.capped == (cap is not None)
    logits = logits if cap is None else cap * torch.atanh(logits / cap)
    difference = logits[:, [3, 4]].mean(dim=1) - logits[:, 9]
    np.testing.assert_allclose(found.difference, difference.numpy(), atol=2e-4)  # alone and padded round differently
    size = np.maximum(np.abs(found.difference), np.abs(found.values).max(axis=1))
    assert (np.abs(found.error) <= 1e-5 * size).all()
    # Experts are told apart, and only the chosen ones write.
    experts = [name for name in found.names if ".E" in name]
    used = np.array([found.of(name) != 0 for name in experts])
    assert used.any(axis=0).all()
    assert used.mean() <= tiny.TOP_K / tiny.EXPERTS


@pytest.mark.parametrize("family", REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(family: str) -> None:
    torch.set_num_threads(1)
    with pytest.raises(InterchangeError, match=REFUSED[family]):
        attribute(loaded(family), PROMPTS, TARGET)


def test_an_expert_a_head_and_the_embedding_by_hand() -> None:
    model = random_model("qwen2_moe")
    network: Any = model.model
    seen: dict[str, torch.Tensor] = {}
    last = network.model.layers[-1]
    hooks = [
        last.mlp.experts.register_forward_pre_hook(lambda m, a: seen.update(x=a[0], ids=a[1], weights=a[2])),
        last.self_attn.o_proj.register_forward_pre_hook(lambda m, a: seen.update(heads=a[0][0, -1])),
        network.model.norm.register_forward_pre_hook(lambda m, a: seen.update(stream=a[0][0, -1])),
    ]
    prompt = PROMPTS[0]
    with torch.no_grad():
        network(input_ids=torch.tensor([prompt]))
        for hook in hooks:
            hook.remove()
        stream, norm = seen["stream"], network.model.norm
        scale = torch.rsqrt(stream.square().mean() + norm.variance_epsilon)
        rows = network.lm_head.weight
        reader = (rows[[3, 4]].mean(dim=0) - rows[9]) * norm.weight * scale
        slot = 1
        expert, weight = int(seen["ids"][-1, slot]), seen["weights"][-1, slot]
        gate, up = (last.mlp.experts.gate_up_proj[expert] @ seen["x"][-1]).chunk(2)
        written = weight * (last.mlp.experts.down_proj[expert] @ (torch.nn.functional.silu(gate) * up))
        head = last.self_attn.o_proj.weight[:, 16:24] @ seen["heads"][16:24]
        embedded = network.model.embed_tokens.weight[prompt[-1]]
        by_hand = [float(reader @ value) for value in (written, head, embedded)]
    found = attribute(model, [prompt], TARGET)
    assert found.of(f"L2.E{expert}")[0] == pytest.approx(by_hand[0], abs=2e-6)
    assert found.of("L2.H2")[0] == pytest.approx(by_hand[1], abs=2e-6)
    assert found.of("embedding")[0] == pytest.approx(by_hand[2], abs=2e-6)
    assert abs(by_hand[0]) > 1e-3


def test_something_added_to_the_stream_is_found_and_its_layer_named() -> None:
    model = random_model("mixtral")
    layers: Any = model.model.model.layers
    handle = layers[1].register_forward_hook(lambda module, args, output: output + 0.01)
    try:
        with pytest.raises(InterchangeError, match="departs in L1: "):
            attribute(model, PROMPTS, TARGET)
    finally:
        handle.remove()
    handle = layers[1].register_forward_pre_hook(lambda module, args: (args[0] * 1.01, *args[1:]))
    try:
        with pytest.raises(InterchangeError, match="departs before L1"):
            attribute(model, PROMPTS, TARGET)
    finally:
        handle.remove()
    handle = layers[2].mlp.register_forward_hook(lambda module, args, output: output + 0.01)
    try:
        with pytest.raises(InterchangeError, match=r"departs in L2\.mlp"):
            attribute(model, PROMPTS, TARGET)
    finally:
        handle.remove()
    handle = model.model.model.norm.register_forward_hook(lambda module, args, output: output.tanh())
    try:
        with pytest.raises(InterchangeError, match="neither an RMS nor a layer norm"):
            attribute(model, PROMPTS, TARGET)
    finally:
        handle.remove()
    assert np.isfinite(attribute(model, PROMPTS, TARGET).values).all()  # nothing stays behind


def test_logits_that_are_scaled_or_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("mixtral")
    plain = attribute(model, PROMPTS, TARGET)
    original = type(model.model).forward

    def scaled(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, *args, **kwargs)
        output.logits = output.logits * 0.25
        return output

    def capped(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, *args, **kwargs)
        output.logits = 2 * torch.tanh(output.logits / 2)
        return output

    monkeypatch.setattr(type(model.model), "forward", scaled)
    found = attribute(model, PROMPTS, TARGET)
    np.testing.assert_allclose(found.values, plain.values / 4, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(type(model.model), "forward", capped)
    with pytest.raises(InterchangeError, match="nor a cap of it that its config names"):
        attribute(model, PROMPTS, TARGET)
    monkeypatch.setattr(model.model.config, "final_logit_softcapping", 2.0, raising=False)
    found = attribute(model, PROMPTS, TARGET)
    assert found.capped
    assert found.to_json()["before_cap"]
    np.testing.assert_allclose(found.values, plain.values, rtol=1e-4, atol=1e-6)


def test_watching_changes_no_bit() -> None:
    model = random_model("qwen2_moe")
    side = pad_left(PROMPTS, 0)
    with torch.inference_mode():
        plain = model.model(input_ids=side.ids, attention_mask=side.mask).logits
        watch(model.model, find_places(model.model), side, TARGET)
        again = model.model(input_ids=side.ids, attention_mask=side.mask).logits
    assert torch.equal(plain, again)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.model.modules())


def test_results_and_mistakes() -> None:
    model = random_model("mixtral")
    found = attribute(model, PROMPTS, TARGET, names=["a", "b", "c"])
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert np.sum([record["parts"][name] for name in record["parts"]], axis=0) == pytest.approx(
        record["difference"], abs=1e-5
    )
    _, lines = found.table(top=4)
    assert float(lines[-1][1]) == pytest.approx(found.difference.mean(), abs=1e-4)
    assert sum(float(line[1]) for line in lines[:5]) == pytest.approx(found.difference.mean(), abs=3e-4)
    with pytest.raises(InterchangeError, match="no part 'L9.E1'"):
        found.of("L9.E1")
    with pytest.raises(InterchangeError, match="none on both sides"):
        Direction((3,), (3,))
    size = model.model.config.vocab_size
    with pytest.raises(InterchangeError, match=f"has {size} tokens"):
        attribute(model, PROMPTS, Direction((size,)))
    with pytest.raises(InterchangeError, match="no prompts"):
        attribute(model, [(1, 2), ()], TARGET)
