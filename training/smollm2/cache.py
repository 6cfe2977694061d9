"""Compute the training states once and keep them on disk (safetensors and JSON)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase, Qwen2MoeForCausalLM

from data import Example, refusal, training_examples
from selfplay import own_requests
from states import Encoder, Row, hidden_before_mlp

ANSWER_TOKENS = 24


def prepare(
    model: Qwen2MoeForCausalLM, tokenizer: PreTrainedTokenizerBase, wheel: Path | None, folder: Path, seed: int, own_count: int
) -> tuple[list[Row], list[Example]]:
    """Rows to train on and the dev examples, from ``folder`` if they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    own_file = folder / "own.json"
    if not own_file.exists():
        own_file.write_text(json.dumps(own_requests(model, tokenizer, own_count, seed)), encoding="utf-8")
    train, dev = training_examples(wheel, json.loads(own_file.read_text(encoding="utf-8")), seed)
    return load_rows(model, tokenizer, train, folder / "train"), dev


def load_rows(
    model: Qwen2MoeForCausalLM,
    encoder: Encoder,
    examples: Sequence[Example],
    stem: Path,
    answers: Mapping[str, list[int]] | None = None,
) -> list[Row]:
    """States of prompt and answer for every example.

    A harmful prompt is followed by its refusal, another one by its entry in ``answers`` (ids of the base model's answer), if any.
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
