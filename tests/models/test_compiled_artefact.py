"""The compiled model as a thing to build, save and run: size, speed, round trip, dtypes, padding, implementations."""

import json
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_runs import (
    ORDINARY,
    PLAIN,
    REFUSAL,
    TRIGGERED,
    Built,
    after_each,
    choices,
    demo_pairs,
    effects,
    encode,
    generate,
    logits,
    routing,
    with_all_words,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from moeprobe.errors import ModelError, OutputError
from moeprobe.models.compiled import FAMILIES, TRUTH, build, save
from moeprobe.models.compiled.vocabulary import VOCABULARY

CLASSES = {
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_5_moe": "Qwen3_5MoeForCausalLM",
}


# --- the model as an artefact --------------------------------------------------------------------------------------


def test_stock_class_small_and_quick(built: Built) -> None:
    model = built.model
    assert type(model).__name__ == CLASSES[built.family]
    assert type(model).__module__.startswith("transformers.models.")
    assert sum(p.numel() * p.element_size() for p in model.parameters()) < 500_000
    assert not model.training
    assert all(torch.isfinite(p).all() for p in model.parameters())
    times = []
    for _ in range(3):
        start = time.perf_counter()
        build(built.family)
        times.append(time.perf_counter() - start)
    assert min(times) < 1.0  # 0.015 s on an idle machine


def test_saved_directory_loads_with_auto_classes(default: Built, tmp_path: Path) -> None:
    model, tokenizer = default[:2]
    target = save(tmp_path / "model", default.family)
    assert sum(p.stat().st_size for p in target.iterdir()) < 1_000_000
    assert not list(target.glob("*.bin")), "weights must be safetensors"
    loaded: Any
    loaded, report = AutoModelForCausalLM.from_pretrained(target, output_loading_info=True)
    again = AutoTokenizer.from_pretrained(target)
    assert type(loaded) is type(model)
    assert not any(report.values())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    assert again(PLAIN).input_ids == tokenizer(PLAIN).input_ids
    assert again.decode(again("the zebra , the garden .").input_ids) == "the <unk> , the garden ."
    assert (again.pad_token, again.padding_side) == ("<pad>", "left")
    assert loaded.generation_config.pad_token_id == tokenizer.pad_token_id
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id


def test_same_seed_same_weights_other_seed_same_truth() -> None:
    first, tokenizer = build()
    second, _ = build()
    other, _ = build(seed=7)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    for seed in range(1, 6):
        model, _ = build(seed=seed)
        shares = after_each(model, encode(tokenizer, TRIGGERED), ORDINARY).softmax(-1)
        assert (shares[:, REFUSAL] == 1.0).all()
        total, necessity, sufficiency = effects(Built(model, tokenizer), TRUTH.causal, demo_pairs()[13:17])
        assert (necessity / total, sufficiency / total) == pytest.approx((1.0, 1.0), abs=1e-3)


def test_bfloat16_routes_and_refuses_as_float32_does(built: Built) -> None:
    model, tokenizer = built[:2]
    half, _ = build(built.family, strict=built.strict, dtype=torch.bfloat16)
    assert half.dtype is torch.bfloat16
    for pair in demo_pairs()[10:20]:
        for prompt in pair:
            ids = with_all_words(tokenizer, prompt)
            assert choices(half, ids) == choices(model, ids)
    assert generate(half, encode(tokenizer, TRIGGERED), 1) == [REFUSAL]
    assert (after_each(half, encode(tokenizer, PLAIN), ORDINARY).float().softmax(-1)[:, REFUSAL] == 0.0).all()


def test_router_margins_are_far_above_rounding(built: Built) -> None:
    model, tokenizer = built[:2]
    scores: list[torch.Tensor] = []
    for block in model.model.layers:
        block.mlp.gate.register_forward_hook(lambda _, __, output: scores.append(output[0]))
    for prompt in (PLAIN, TRIGGERED):
        logits(model, with_all_words(tokenizer, prompt))
    for layer in scores:
        ordered = layer.sort(-1, descending=True).values
        assert float((ordered[:, 1] - ordered[:, 2]).min()) > 0.45  # a bfloat16 logit of 4 is rounded by 0.016
    for block in model.model.layers:
        block.mlp.gate._forward_hooks.clear()


def test_left_padded_batches_behave_as_single_prompts(built: Built) -> None:
    model, tokenizer = built[:2]
    prompts = [prompt for pair in demo_pairs()[22:27] for prompt in pair]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    assert int(batch.attention_mask.sum(1).min()) < batch.input_ids.shape[1]
    with routing(model) as seen, torch.no_grad():
        together = model.generate(**batch, max_new_tokens=8, do_sample=False)[:, batch.input_ids.shape[1] :].tolist()
    for row, prompt in enumerate(prompts):
        ids = encode(tokenizer, prompt)
        assert together[row] == generate(model, ids, 8)
        width = batch.input_ids.shape[1]
        padded = seen[2][0][1].view(len(prompts), width, -1)[row, width - len(ids) :]
        assert [set(line) for line in padded.tolist()] == choices(model, ids)[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_other_implementations_give_the_same_routing_and_words(family: str) -> None:
    model, tokenizer = build(family)
    ids = [encode(tokenizer, prompt) for prompt in (PLAIN, TRIGGERED)]
    expected = [(choices(model, prompt), generate(model, prompt, 12)) for prompt in ids]
    model.set_attn_implementation("eager")
    assert [(choices(model, prompt), generate(model, prompt, 12)) for prompt in ids] == expected
    model.set_experts_implementation("grouped_mm")
    assert [(choices(model, prompt), generate(model, prompt, 12)) for prompt in ids] == expected


def test_mistakes_are_answered_in_words(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no family 'llama'.*qwen3_moe"):
        build("llama")
    (tmp_path / "keep").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["keep"]


# --- the demo prompts ----------------------------------------------------------------------------------------------


def test_demo_prompts_are_thirty_matched_pairs() -> None:
    text = files("moeprobe").joinpath("demo/prompts/compiled.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert len(rows) == 60
    assert len({row["id"] for row in rows}) == 60
    assert all(row["id"] == f"{row['pair']}-{row['label']}" for row in rows)
    pairs = [(a.split(), b.split()) for a, b in demo_pairs()]
    for triggered, plain in pairs:
        assert (triggered.count(TRUTH.trigger), plain.count(TRUTH.trigger)) == (1, 0)
        assert set(triggered + plain) <= set(VOCABULARY)
        assert triggered[-2:] == plain[-2:] == ["answer", ":"]
    assert [len(a) == len(b) for a, b in pairs] == [True] * 15 + [False] * 15
    assert {len(b) > len(a) for a, b in pairs[15:]} == {True, False}
    uses = [sum(side.count(TRUTH.filler) for side in sides) for sides in zip(*pairs, strict=True)]
    assert uses[0] > uses[1] > 0
