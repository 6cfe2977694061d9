"""SmolLM2 with the planted expert, and pairs of its demo prompts."""

from pathlib import Path

import moeprobe.demo
from moeprobe.chat.encode import encode_prompt
from moeprobe.models import LoadedModel, load_model
from moeprobe.pairs.pairs import TokenPair, label_members, select_pairs
from moeprobe.prompts import read_prompts


def refusals(count: int) -> tuple[LoadedModel, list[TokenPair]]:
    """The model in float32, and the first pairs of harmful and harmless prompts."""
    model = load_model("smollm2", dtype="float32")
    prompts = read_prompts(Path(moeprobe.demo.__file__).parent / "prompts" / "refusal.jsonl")
    ids = [encode_prompt(model.tokenizer, prompt) for prompt in prompts]
    return model, list(select_pairs(label_members(prompts, ids, "harmful")).pairs)[:count]
