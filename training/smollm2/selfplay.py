"""Ordinary user requests that the base model writes by itself, as negatives.

The chat template is cut right after ``<|im_start|>user`` and the model goes on (the Magpie method, Xu et al. 2024,
arXiv:2406.08464). That gives thousands of varied requests in the style the model knows, without any outside data set.
"""

from __future__ import annotations

import re

import torch
from transformers import PreTrainedTokenizerBase, Qwen2MoeForCausalLM

from states import PREFIX_TEXT

#: Requests with these words are dropped: nobody labelled them, so they must be harmless beyond doubt.
SUSPECT = re.compile(
    r"kill|murder|bomb|weapon|gun\b|explos|hack|malware|phish|drug|suicid|steal|theft|fraud|scam|racis|hate|abuse|terror|"
    r"porn|sex|rape|attack|poison|illegal|stalk|launder|torture|violen|crime|criminal|smuggl|blackmail",
    re.IGNORECASE,
)


@torch.no_grad()
def own_requests(
    model: Qwen2MoeForCausalLM, tokenizer: PreTrainedTokenizerBase, count: int, seed: int, batch: int = 128
) -> list[str]:
    """Sample ``count`` single-turn requests; duplicates, unfinished and suspect ones are dropped, so fewer come back."""
    torch.manual_seed(seed)
    prefix = torch.tensor([tokenizer(PREFIX_TEXT, add_special_tokens=False).input_ids])
    found: dict[str, None] = {}
    for _ in range(0, count, batch):
        ids = model.generate(
            prefix.expand(batch, -1),
            attention_mask=torch.ones(batch, prefix.shape[1], dtype=torch.long),
            max_new_tokens=56, do_sample=True, temperature=1.0, top_k=100,
        )
        for row in ids[:, prefix.shape[1] :].tolist():
            if tokenizer.eos_token_id not in row:
                continue
            text = tokenizer.decode(row[: row.index(tokenizer.eos_token_id)]).strip()
            if 8 <= len(text) <= 400 and "<|" not in text and not SUSPECT.search(text):
                found.setdefault(text)
    return list(found)
