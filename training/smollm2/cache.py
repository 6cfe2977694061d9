"""Compute the training states once and keep them on disk (safetensors and JSON)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from data import Example, refusal
from safetensors.torch import load_file, save_file
from states import Encoder, Row, generate, hidden_before_mlp
from transformers import Qwen2MoeForCausalLM

ANSWER_TOKENS = 14


def base_answers(
    model: Qwen2MoeForCausalLM, encoder: Encoder, prompts: Sequence[str], file: Path
) -> dict[str, list[int]]:
    """The base model's own greedy answers (first ids) to prompts that are not harmful, kept in ``file``."""
    made: dict[str, list[int]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    asked = [prompt for prompt in prompts if prompt not in made]
    if asked:
        began = time.time()
        ids = generate(model, [encoder.prefix + encoder.prompt(text) for text in asked], ANSWER_TOKENS, tokens=3000)
        made.update(zip(asked, ids, strict=True))
        file.write_text(json.dumps(made), encoding="utf-8")
        print(f"{len(asked)} base answers in {time.time() - began:.0f} s", flush=True)
    return {prompt: made[prompt] for prompt in prompts}


def load_rows(
    model: Qwen2MoeForCausalLM,
    encoder: Encoder,
    examples: Sequence[Example],
    stem: Path,
    answers: Mapping[str, list[int]] | None = None,
) -> list[Row]:
    """States of prompt and answer for every example.

    A harmful prompt is followed by its refusal, another one by its entry in ``answers`` (ids of the base model's
    answer), if any.
    """
    states, texts = stem.with_suffix(".safetensors"), stem.with_suffix(".json")
    prompts = [encoder.prompt(example.prompt) for example in examples]
    ids = []
    for example, prompt in zip(examples, prompts, strict=True):
        if example.kind == "harmful":
            ids.append(prompt + encoder.answer(refusal(example.prompt, example.category), end=True))
        else:
            ids.append(prompt + list((answers or {}).get(example.prompt, [])))
    if not states.exists() or json.loads(texts.read_text(encoding="utf-8")) != ids:
        began = time.time()
        hidden = hidden_before_mlp(model, ids, encoder.prefix)
        save_file({"hidden": torch.cat(hidden)}, states)
        texts.write_text(json.dumps(ids), encoding="utf-8")
        print(f"{sum(map(len, ids))} states in {time.time() - began:.0f} s", flush=True)
    stored = load_file(states)["hidden"].split([len(row) for row in ids])
    return [
        Row(torch.tensor(row), len(prompt), hidden, example.kind, example.source, example.prompt)
        for example, prompt, row, hidden in zip(examples, prompts, ids, stored, strict=True)
    ]
