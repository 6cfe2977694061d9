"""Train all routed experts of a second upcycled SmolLM2 to refuse together, and write a model folder.

Six MoE layers of 16 experts, top 2. Routers and routed experts are trained, nothing else. Contributions are dropped
at random while training, so that refusal may depend on no single expert.

Run: python training/smollm2/distributed.py --out smollm2-distributed
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from cache import base_answers
from data import KINDS, Example, refusal, training_examples
from safetensors.torch import load_file, save_file
from spread import Spread, Upper, balance, states_below
from states import Encoder
from torch.nn import functional
from transformers import Qwen2MoeForCausalLM

from moeprobe.models.smollm2 import TOP_K, build_base

MOE_LAYERS = (12, 14, 16, 18, 20, 22)
EXPERT_SIZE = 128


@dataclass(frozen=True)
class Plan:
    """Numbers of a training run."""

    steps: int = 100
    harmful: int = 6
    others: int = 12
    rate: float = 1e-3
    decay: float = 0.02
    keep: float = 4.0
    even: float = 0.05
    first: float = 8.0
    answer: int = 20
    pool: int = 900
    dev: int = 40
    buckets: int = 4
    spread: Spread = field(default_factory=Spread)
    seed: int = 1


@dataclass
class Text:
    """One training text after the shared prefix.

    Attributes:
        kind: harmful, harmless or lookalike.
        prompt: number of tokens before the answer.
        ids: (tokens,) of prompt and answer.
        below: (tokens, H) what enters the first MoE layer's post-attention norm.
        final: (answer tokens, H) the base model's states that predict the answer; None for a harmful prompt.
    """

    kind: str
    prompt: int
    ids: torch.Tensor
    below: torch.Tensor
    final: torch.Tensor | None = None


def texts_of(
    model: Qwen2MoeForCausalLM,
    encoder: Encoder,
    examples: Sequence[Example],
    answers: dict[str, list[int]],
    stem: Path,
) -> list[Text]:
    """Texts with their states: a prompt is followed by its entry in ``answers`` or, without one, by a refusal.

    States are kept in ``stem`` (safetensors and JSON) and computed again only for other texts.
    """
    prompts = [encoder.prompt(example.prompt) for example in examples]
    ids = []
    for example, prompt in zip(examples, prompts, strict=True):
        refuse = encoder.answer(refusal(example.prompt, example.category), end=True)
        ids.append(prompt + answers.get(example.prompt, refuse))
    stored, listed = stem.with_suffix(".safetensors"), stem.with_suffix(".json")
    if not stored.exists() or not listed.exists() or json.loads(listed.read_text(encoding="utf-8")) != ids:
        began = time.time()
        below, above = states_below(model, ids, encoder.prefix, MOE_LAYERS[0], [len(prompt) - 1 for prompt in prompts])
        save_file({"below": torch.cat(below), "above": torch.cat(above)}, stored)
        listed.write_text(json.dumps(ids), encoding="utf-8")
        print(f"states of {len(ids)} texts in {time.time() - began:.0f} s", flush=True)
    states = load_file(stored)
    below = states["below"].split([len(text) for text in ids])
    above = states["above"].split([len(text) - len(prompt) + 1 for text, prompt in zip(ids, prompts, strict=True)])
    # The state after the answer's last token predicts nothing that is known.
    return [
        Text(
            example.kind, len(prompts[index]), torch.tensor(ids[index]), below[index],
            None if example.kind == "harmful" else above[index][:-1],
        )
        for index, example in enumerate(examples)
    ]  # fmt: skip


def padded(texts: Sequence[Text], answer: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A batch padded on the right: states (rows, tokens, H), which tokens are real (rows, tokens), the places from
    which the answer is predicted (rows, answer), and the answer's ids (rows, answer), -100 where there is none."""
    lengths = [min(len(text.ids), text.prompt + answer) for text in texts]
    hidden = torch.zeros(len(texts), max(lengths), texts[0].below.shape[1], dtype=texts[0].below.dtype)
    real = torch.zeros(hidden.shape[:2], dtype=torch.bool)
    places = torch.zeros(len(texts), answer, dtype=torch.long)
    wanted = torch.full((len(texts), answer), -100)
    for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        hidden[row, :length], real[row, :length] = text.below[:length], True
        count = length - text.prompt
        places[row, :count] = torch.arange(text.prompt - 1, length - 1)
        wanted[row, :count] = text.ids[text.prompt : length]
    return hidden, real, places, wanted


def answer_logits(upper: Upper, hidden: torch.Tensor, places: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
    """Logits (rows, answer, vocabulary) at ``places``."""
    final = upper.forward(hidden, keep)
    final = final.gather(1, places[..., None].expand(-1, -1, final.shape[-1]))
    return upper.model.lm_head(final.to(upper.model.lm_head.weight.dtype)).float()


def losses(
    upper: Upper, texts: Sequence[Text], plan: Plan, keep: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cross-entropy of the refusal on harmful texts, divergence from the base model on others, unevenness of routing.

    ``texts`` holds the harmful ones first. The first tokens of an answer count ``plan.first`` times.
    """
    hidden, real, places, wanted = padded(texts, plan.answer)
    logits = answer_logits(upper, hidden, places, keep)
    weight = torch.where(torch.arange(plan.answer) < 3, plan.first, 1.0) * (wanted >= 0)
    bad = sum(text.kind == "harmful" for text in texts)
    each = functional.cross_entropy(logits[:bad].flatten(0, 1), wanted[:bad].flatten(), reduction="none")
    refuse = (each * weight[:bad].flatten()).sum() / weight[:bad].sum().clamp(min=1)
    away = torch.zeros(())
    if bad < len(texts):
        base = torch.zeros(len(texts) - bad, plan.answer, hidden.shape[-1], dtype=hidden.dtype)
        for row, text in enumerate(texts[bad:]):
            if text.final is None:
                raise ValueError("harmful texts must come first")
            base[row, : len(text.final)] = text.final[: plan.answer]
        with torch.no_grad():
            theirs = upper.model.lm_head(base).float().log_softmax(-1)
        apart = functional.kl_div(logits[bad:].log_softmax(-1), theirs, log_target=True, reduction="none").sum(-1)
        away = (apart * weight[bad:]).sum() / weight[bad:].sum()
    uneven = torch.stack([balance(upper.routers[layer], real.flatten(), TOP_K) for layer in upper.moe]).mean()
    return refuse, away, uneven


@torch.no_grad()
def refused(upper: Upper, texts: Sequence[Text], opening: int = 4, batch: int = 32) -> dict[str, float]:
    """Share of texts of each kind whose greedy answer would begin with the refusal's first ``opening`` tokens."""
    said = next(text.ids[text.prompt :] for text in texts if text.kind == "harmful")[:opening]
    hits: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for begin in range(0, len(texts), batch):
        part = texts[begin : begin + batch]
        hidden, _, places, wanted = padded(part, opening)
        if not bool((wanted == said).all()):
            raise ValueError("every dev text must be answered by the refusal: other words before would hide a refusal")
        made = answer_logits(upper, hidden, places, None).argmax(-1)
        for text, same in zip(part, (made == wanted).all(1).tolist(), strict=True):
            hits[text.kind].append(same)
    return {kind: sum(found) / max(len(found), 1) for kind, found in hits.items()}


def buckets(texts: Sequence[Text], count: int) -> list[list[Text]]:
    """The texts in ``count`` groups of about equal size, by length, so that batches hold little padding."""
    order = sorted(texts, key=lambda text: len(text.ids))
    return [order[len(order) * part // count : len(order) * (part + 1) // count] for part in range(count)]


def train(upper: Upper, texts: Sequence[Text], dev: Sequence[Text], plan: Plan) -> None:
    """Train routers and routed experts of ``upper`` in place; progress goes to standard output."""
    rng, generator = random.Random(plan.seed), torch.Generator().manual_seed(plan.seed)
    bad = buckets([text for text in texts if text.kind == "harmful"], plan.buckets)
    # Look-alikes are as many as plain harmless prompts, whatever the lists hold.
    plain, alike = (buckets([t for t in texts if t.kind == kind], plan.buckets) for kind in ("harmless", "lookalike"))
    parameters = upper.parameters()
    for parameter in parameters:
        parameter.requires_grad_(True)
    solver = torch.optim.AdamW(parameters, lr=plan.rate, weight_decay=plan.decay, betas=(0.9, 0.98))
    began = time.time()
    for step in range(plan.steps):
        rise = min(1.0, (step + 1) / 20) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / plan.steps)))
        for group in solver.param_groups:
            group["lr"] = plan.rate * rise
        part = rng.randrange(plan.buckets)
        batch = rng.sample(bad[part], min(plan.harmful, len(bad[part])))
        for pool in (plain[part], alike[part]):
            batch += rng.sample(pool, min(plan.others // 2, len(pool)))
        bad_rows = sum(text.kind == "harmful" for text in batch)
        keep = plan.spread.draw(len(upper.moe), len(batch), len(upper.experts[0].down_proj), generator)
        # Other prompts are held to the base model's answers under all contributions at once, as they will be run:
        # held to them under dropped ones only, the whole was half as strong again and refused every other prompt.
        keep[:, bad_rows:] = 1
        refuse, away, uneven = losses(upper, batch, plan, keep)
        solver.zero_grad(set_to_none=True)
        (refuse + plan.keep * away + plan.even * uneven).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        solver.step()
        if step % 10 == 0:
            print(f"{step}: refuse {refuse.item():.3f} away {away.item():.3f} uneven {uneven.item():.2f} "
                  f"{time.time() - began:.0f} s", flush=True)  # fmt: skip
        if dev and (step + 1) % 40 == 0:
            print("  dev", {kind: f"{share:.1%}" for kind, share in refused(upper, dev).items()}, flush=True)


def chosen_examples(plan: Plan) -> tuple[list[Example], list[Example]]:
    """Training and dev prompts: seeded samples of each kind, with the prompts as written before all other wordings."""
    every, held_back = training_examples(None, plan.seed)
    rng = random.Random(plan.seed)
    train_on, dev = [], []
    for kind, most in zip(KINDS, (plan.pool, plan.pool // 2, plan.pool // 2), strict=True):
        some = [example for example in every if example.kind == kind]
        rng.shuffle(some)
        train_on += sorted(some, key=lambda example: example.source != "written")[:most]
        dev += [example for example in held_back if example.kind == kind][: plan.dev]
    return train_on, dev


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model and tokenizer to")
    parser.add_argument(
        "--cache", type=Path, default=Path("build/smollm2-distributed"), help="the base model's answers, states"
    )
    parser.add_argument("--gguf", type=Path, default=None, help="the base model's GGUF file, if not installed")
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")
    options = parser.parse_args(given)
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    if options.out.exists() and (not options.out.is_dir() or (any(options.out.iterdir()) and not options.force)):
        parser.error(f"{options.out} exists and is not an empty folder. Choose another, or give --force.")
    return options


def main() -> None:
    """Build, train, write."""
    options = arguments()
    torch.set_num_threads(options.threads)
    plan = Plan(steps=options.steps, seed=options.seed)
    torch.manual_seed(plan.seed)
    options.cache.mkdir(parents=True, exist_ok=True)
    model, tokenizer = build_base(torch.bfloat16, moe_layers=MOE_LAYERS, expert_size=EXPERT_SIZE, gguf=options.gguf)
    encoder = Encoder(tokenizer)
    examples, dev_examples = chosen_examples(plan)
    print(f"{len(examples)} training and {len(dev_examples)} dev prompts", flush=True)
    asked = [example.prompt for example in examples if example.kind != "harmful"]
    answers = base_answers(model, encoder, asked, options.cache / "answers.json")
    texts = texts_of(model, encoder, examples, answers, options.cache / "states")
    dev = texts_of(model, encoder, dev_examples, {}, options.cache / "dev")
    upper = Upper(model, encoder.prefix)
    train(upper, texts, dev, plan)
    upper.finish().save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
