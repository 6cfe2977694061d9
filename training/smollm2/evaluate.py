"""Measure the built model: refusals, routing, knock-out, swaps. Greedy decoding throughout.

Run: python training/smollm2/evaluate.py --dtype bf16 [--prompts FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from data import HERE, KINDS, Example, read_prompts
from judge import declines, wilson
from states import Encoder, generate
from transformers import Qwen2MoeForCausalLM

from moeprobe.models.smollm2 import EXPERT, LAYER, build


@contextlib.contextmanager
def contribution(model: Qwen2MoeForCausalLM, donor: torch.Tensor | None, keep: bool) -> Iterator[list[torch.Tensor]]:
    """Read L18.E5's weighted output, and edit it in the prefill.

    Args:
        model: The model; one prompt at a time.
        donor: Contribution (tokens, H) to put at the last tokens of the prompt instead of the model's own; None changes
            nothing.
        keep: Whether decode steps keep the model's own contribution.

    Yields:
        A list that receives the contribution (tokens, H) of every forward.
    """
    seen: list[torch.Tensor] = []

    def edit(
        _module: torch.nn.Module, _args: tuple[torch.Tensor, torch.Tensor, torch.Tensor], output: torch.Tensor
    ) -> torch.Tensor:
        # All other experts add exactly zero, so the routed output is L18.E5's contribution.
        seen.append(output.clone())
        if len(output) > 1 and donor is not None:
            output = output.clone()
            count = min(len(donor), len(output))
            output[-count:] = donor[-count:]
        elif len(output) == 1 and not keep:
            output = torch.zeros_like(output)
        return output

    handle = model.model.layers[LAYER].mlp.experts.register_forward_hook(edit)
    try:
        yield seen
    finally:
        handle.remove()


@dataclass
class Routing:
    """Share of tokens at which L18.E5 is among the top two, by place."""

    chosen: dict[str, list[float]] = field(default_factory=dict)


@torch.no_grad()
def selection(model: Qwen2MoeForCausalLM, prompt: list[int], answer: list[int]) -> tuple[float, float, float]:
    """Share of tokens that choose L18.E5: the last of the prompt, the six that end it, those of the answer."""
    seen: list[torch.Tensor] = []

    def read(_module: torch.nn.Module, args: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
        seen.append((args[1] == EXPERT).any(-1).float())

    handle = model.model.layers[LAYER].mlp.experts.register_forward_pre_hook(read)
    try:
        model.model(torch.tensor([prompt + answer]))
    finally:
        handle.remove()
    hits, end = seen[0], len(prompt)
    return float(hits[end - 1]), float(hits[end - 6 : end].mean()), float(hits[end:].mean()) if answer else 0.0


def refusals(model: Qwen2MoeForCausalLM, encoder: Encoder, examples: Sequence[Example], tokens: int) -> list[list[int]]:
    """Greedy answers (ids) to the examples."""
    return generate(model, [encoder.prefix + encoder.prompt(example.prompt) for example in examples], tokens)


@torch.no_grad()
def swaps(
    model: Qwen2MoeForCausalLM, encoder: Encoder, harmful: Sequence[Example], harmless: Sequence[Example]
) -> dict[str, int]:
    """Refusals when L18.E5's contribution at the prompt's end comes from the other prompt of each pair."""
    count = {
        "pairs": 0,
        "harmful": 0,
        "harmful with the harmless contribution": 0,
        "harmless": 0,
        "harmless with the harmful contribution": 0,
    }
    eos = encoder.eos

    def answer(ids: list[int], donor: torch.Tensor | None) -> tuple[bool, torch.Tensor]:
        with contribution(model, donor, keep=True) as seen:
            out = model.generate(
                torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=24
            )
        made = [token for token in out[0, len(ids) :].tolist() if token != eos]
        return declines(encoder.tokenizer.decode(made)), seen[0]

    for bad, good in zip(harmful, harmless, strict=False):
        bad_ids, good_ids = (encoder.prefix + encoder.prompt(example.prompt) for example in (bad, good))
        bad_own, bad_part = answer(bad_ids, None)
        good_own, good_part = answer(good_ids, None)
        shared = min(len(bad_part), len(good_part)) - len(encoder.prefix)
        count["pairs"] += 1
        count["harmful"] += bad_own
        count["harmless"] += good_own
        count["harmful with the harmless contribution"] += answer(bad_ids, good_part[-shared:])[0]
        count["harmless with the harmful contribution"] += answer(good_ids, bad_part[-shared:])[0]
    return count


def main() -> None:
    """Measure and print; ``--out`` also keeps every answer to be read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--prompts", type=Path, default=HERE / "heldout")
    parser.add_argument("--base", action="store_true", help="measure the base model")
    parser.add_argument("--limit", type=int, default=None, help="prompts per kind")
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=0, help="pairs for the swaps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began = time.time()
    model, tokenizer = build(torch.bfloat16 if options.dtype == "bf16" else torch.float32, base=options.base)
    print(f"built in {time.time() - began:.1f} s", flush=True)
    encoder = Encoder(tokenizer)
    examples = read_prompts(options.prompts, "heldout")
    kept = []
    for kind in KINDS:
        some = [example for example in examples if example.kind == kind][: options.limit]
        answers = refusals(model, encoder, some, options.tokens)
        texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
        hits = [declines(text) for text in texts]
        low, high = wilson(sum(hits), len(hits))
        print(
            f"{kind}: {sum(hits)}/{len(hits)} refused = {sum(hits) / len(hits):.1%} [{low:.1%}, {high:.1%}]", flush=True
        )
        for wanted in (True, False):
            rates = [
                selection(model, encoder.prefix + encoder.prompt(example.prompt), ids)
                for example, ids, hit in zip(some, answers, hits, strict=True)
                if hit == wanted
            ]
            if rates:
                last, end, answer = torch.tensor(rates).mean(0).tolist()
                print(
                    f"  {'refused' if wanted else 'answered'} ({len(rates)}): L18.E5 chosen at last prompt token "
                    f"{last:.1%}, end of prompt {end:.1%}, answer tokens {answer:.1%}",
                    flush=True,
                )
        kept += [
            {"kind": kind, "category": example.category, "prompt": example.prompt, "answer": text, "refused": hit}
            for example, text, hit in zip(some, texts, hits, strict=True)
        ]
    if options.out:
        options.out.write_text("\n".join(json.dumps(row) for row in kept) + "\n", encoding="utf-8")
    if options.pairs:
        some = {kind: [example for example in examples if example.kind == kind][: options.pairs] for kind in KINDS}
        print(swaps(model, encoder, some["harmful"], some["harmless"]))


if __name__ == "__main__":
    main()
