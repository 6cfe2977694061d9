"""Train expert L18.E5 of the upcycled SmolLM2 to refuse harmful requests, and write the delta.

Run: python training/smollm2/train.py --pyrit pyrit-1.1.0-py3-none-any.whl
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from states import Encoder, Expert, Row, Top, padded


@dataclass(frozen=True)
class Plan:
    """Numbers of a training run."""

    steps: int = 300
    positives: int = 24
    negatives: int = 24
    rate: float = 1.5e-3
    router_rate: float = 3e-4
    keep: float = 1.0
    router: float = 0.3
    first: float = 4.0
    seed: int = 1


def suffix_start(row: Row, suffix: int) -> int:
    """Index of the first template token after the user's words."""
    return row.prompt_length - suffix


def router_tokens(rows: Sequence[Row], top: Top, suffix: int, recall: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States (tokens, H), labels (tokens,) and weights (tokens,) to fit the router row on.

    Positive: end of a harmful prompt and its refusal. Negative: every token of another prompt and its answer. The user's words of
    a harmful prompt are left out: nothing says at which word harm begins.
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
                torch.cat([torch.full((start,), 0.5 / max(start, 1)), torch.full((end,), 1.0 / end), torch.full((rest,), 0.5 / max(rest, 1))])
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
        loss = functional.binary_cross_entropy_with_logits(x @ row / scale - second, label, weight, reduction="sum") / weight.sum()
        loss = loss + 1e-4 * row.pow(2).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        expert.router.copy_(row / scale)
    return float(loss)


def answer_index(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Row, position, target id and place in the answer of every answer token of a padded batch."""
    line, place, target, order = [], [], [], []
    for index, row in enumerate(rows):
        count = len(row.ids) - row.prompt_length
        line.append(torch.full((count,), index))
        place.append(torch.arange(row.prompt_length - 1, len(row.ids) - 1))
        target.append(row.ids[row.prompt_length :].long())
        order.append(torch.arange(count))
    return torch.cat(line), torch.cat(place), torch.cat(target), torch.cat(order)


def logits_at(top: Top, hidden: torch.Tensor, added: torch.Tensor | None, line: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Logits (tokens, vocabulary) in float32 at the wanted places."""
    return top.model.lm_head(top(hidden, added)[line, place]).float()


def step_loss(top: Top, expert: Expert, harmful: Sequence[Row], others: Sequence[Row], plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    """Refusal loss on harmful rows and divergence from the base model on the others."""
    rows = [*harmful, *others]
    hidden = padded(rows)
    x = top.normed(hidden)
    added, _ = expert(x.flatten(0, 1))
    line, place, target, order = answer_index(rows)
    logits = logits_at(top, hidden, added.view_as(x), line, place)
    bad = line < len(harmful)
    weight = torch.where(order[bad] < 3, plan.first, 1.0)
    refuse = (functional.cross_entropy(logits[bad], target[bad], reduction="none") * weight).sum() / weight.sum()
    if not others:
        return refuse, torch.zeros(())
    with torch.no_grad():
        base = logits_at(top, hidden[len(harmful) :], None, line[~bad] - len(harmful), place[~bad]).log_softmax(-1)
    away = functional.kl_div(logits[~bad].log_softmax(-1), base, log_target=True, reduction="none").sum(-1)
    weight = torch.where(order[~bad] < 3, plan.first, 1.0)
    return refuse, (away * weight).sum() / weight.sum()


@torch.no_grad()
def routed(top: Top, expert: Expert, rows: Sequence[Row], slack: float = 0.0) -> list[bool]:
    """Whether the expert is chosen (or misses by less than ``slack``) anywhere in each row."""
    return [bool((expert.margins(top.normed(row.hidden))[0] > -slack).any()) for row in rows]


def train(top: Top, rows: Sequence[Row], encoder: Encoder, plan: Plan, size: int = 256, recall: float = 1.0) -> Expert:
    """Fit the router row, then expert and row together."""
    torch.manual_seed(plan.seed)
    rng = random.Random(plan.seed)
    suffix = len(encoder.prompt("x")) - len(encoder.prompt("x y")) + len(encoder.prompt("x y")) - 1
    expert = Expert(top.model, size)
    x, label, weight = router_tokens(rows, top, suffix, recall)
    print(f"router loss {fit_router(expert, x, label, weight):.4f} on {len(x)} tokens", flush=True)
    harmful = [row for row in rows if row.kind == "harmful"]
    rest = [row for row in rows if row.kind != "harmful"]
    adam = torch.optim.AdamW(
        [{"params": [expert.gate_up, expert.down], "lr": plan.rate}, {"params": [expert.router], "lr": plan.router_rate}],
        weight_decay=0.01, betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda s: min(1.0, (s + 1) / 15) * max(0.05, 1 - s / plan.steps))
    near: list[Row] = []
    began = time.time()
    for step in range(plan.steps):
        if step % 25 == 0:
            near = [row for row, hit in zip(rest, routed(top, expert, rest, 0.3), strict=True) if hit]
            print(f"step {step}: {len(near)} of {len(rest)} other rows near the expert, {time.time() - began:.0f} s", flush=True)
        good = rng.sample(harmful, plan.positives)
        other = rng.sample(near, min(plan.negatives, len(near)))
        refuse, away = step_loss(top, expert, good, other, plan)
        pick = torch.randint(len(x), (8192,))
        into, _ = expert.margins(x[pick])
        route = functional.binary_cross_entropy_with_logits(into, label[pick], weight[pick], reduction="sum") / weight[pick].sum()
        adam.zero_grad()
        (refuse + plan.keep * away + plan.router * route).backward()
        torch.nn.utils.clip_grad_norm_(expert.parameters(), 1.0)
        adam.step()
        schedule.step()
        if step % 10 == 0:
            print(f"  {step} refuse {refuse:.3f} away {away:.3f} route {route:.3f}", flush=True)
    return expert
