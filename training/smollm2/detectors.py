"""Linear directions that are fitted rather than trained: when to choose the expert, and how harmful a prompt looks.

All are logistic or ridge regressions on the frozen states that the expert sees, so that few prompts cannot be learned
by heart: an expert whose every weight was trained end to end refused 82 % of the harmful dev prompts and 20 % of the
look-alikes; these regressions separate the same prompts at 90 % and 8 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from states import Expert, Row
from torch.nn import functional

#: A gate of this size is open where its indicator is 1 (silu(8) = 8) and shut where it is -1 (silu(-8) = -0.003).
OPEN = 8.0


@dataclass(frozen=True)
class Detectors:
    """Fitted directions over states (H,)."""

    router: torch.Tensor  # (H,) row of the router
    places: torch.Tensor  # (suffix + 1, H) indicators: each end-of-prompt token; tokens of a refusal
    evidence: torch.Tensor  # (suffix, H) log odds of harm, one direction per end-of-prompt token
    one: torch.Tensor  # (H,) direction along which every state is 1


def logistic(
    x: torch.Tensor, label: torch.Tensor, weight: torch.Tensor, penalty: float, steps: int = 150
) -> torch.Tensor:
    """Weights (columns of ``x``,) of a logistic regression, no intercept, L2 ``penalty`` on standardised columns."""
    spread = x.std(0)
    scale = torch.where(spread > 1e-4, spread, 1.0)  # a constant column stays as it is
    scaled = x / scale
    row = torch.zeros(x.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS([row], max_iter=steps, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        each = functional.binary_cross_entropy_with_logits(scaled @ row, label, weight, reduction="sum") / weight.sum()
        total = each + penalty * row.pow(2).sum()
        total.backward()
        return total

    solver.step(loss)
    if not bool(row.detach().any()) or not bool(torch.isfinite(row.detach()).all()):
        raise RuntimeError("the logistic regression did not move; are the columns of a sensible size?")
    return row.detach() / scale


def ridge(x: torch.Tensor, wanted: torch.Tensor, penalty: float = 1e-4) -> torch.Tensor:
    """Weights (columns of ``x``, columns of ``wanted``) of a ridge regression without intercept."""
    gram = x.T @ x / len(x)
    return torch.linalg.solve(gram + penalty * gram.diagonal().mean() * torch.eye(len(gram)), x.T @ wanted / len(x))


def router_tokens(
    states: Sequence[torch.Tensor], rows: Sequence[Row], suffix: int, recall: float
) -> list[torch.Tensor]:
    """States (tokens, H), labels (tokens,) and weights (tokens,) to fit the router row on.

    Positive: end of a harmful prompt and its refusal. Negative: every token of another prompt and its answer. The
    user's words of a harmful prompt are left out: nothing says at which word harm begins.
    """
    kept, labels, weights = [], [], []
    for x, row in zip(states, rows, strict=True):
        words, answer = row.prompt_length - suffix, len(row.ids) - row.prompt_length
        harmful = row.kind == "harmful"
        parts = [(words, 0.0 if harmful else 0.5), (suffix, recall if harmful else 1.0), (answer, 0.5)]
        weight = torch.cat([torch.full((count,), share / max(count, 1)) for count, share in parts])
        used = slice(words, None) if harmful else slice(None)
        kept.append(x[used])
        weights.append(weight[used])
        labels.append(torch.full((len(weights[-1]),), float(harmful)))
    return [torch.cat(kept), torch.cat(labels), torch.cat(weights)]


def fit(expert: Expert, states: Sequence[torch.Tensor], rows: Sequence[Row], suffix: int, recall: float) -> Detectors:
    """Fit all directions on the states (tokens, H) of ``rows``.

    Args:
        expert: Gives the frozen router rows of the other experts.
        states: What the router sees, one tensor (tokens, H) per row.
        rows: The texts.
        suffix: Number of template tokens that end a prompt.
        recall: Weight of a harmful prompt's end against another's when the router row is fitted. It is large, since the
            evidence can still say no where the router said yes, but not the other way round.
    """
    x, label, weight = router_tokens(states, rows, suffix, recall)
    router = logistic(x, label, weight, penalty=1e-4)
    ends = torch.stack(
        [state[row.prompt_length - suffix : row.prompt_length] for state, row in zip(states, rows, strict=True)]
    )
    into, over = margins(ends, router, expert.others)
    gates = (into > 0) * torch.sigmoid(over)
    harmful = torch.tensor([float(row.kind == "harmful") for row in rows])
    share = torch.tensor([0.5 if row.source.startswith("template") else 1.0 for row in rows])
    share = share * torch.where(harmful == 1, share[harmful == 0].sum() / share[harmful == 1].sum(), 1.0)
    # What the network above can add up: the chosen tokens' evidence, each with its router weight; and a constant.
    features = torch.cat([(ends * gates[..., None]).flatten(1), torch.ones(len(rows), 1)], dim=1)
    evidence = logistic(features, harmful, share, penalty=3e-4, steps=80)[:-1].view(suffix, -1)
    return Detectors(router, places(states, rows, ends, suffix), evidence, ridge(x, torch.ones(len(x), 1))[:, 0])


def margins(x: torch.Tensor, router: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Router logit of the expert minus the second best and minus the best other expert's; ``x`` is (..., H)."""
    best = (x @ others.T).topk(2, dim=-1).values
    mine = x @ router
    return mine - best[..., 1], mine - best[..., 0]


def places(states: Sequence[torch.Tensor], rows: Sequence[Row], ends: torch.Tensor, suffix: int) -> torch.Tensor:
    """Indicators (suffix + 1, H): 1 on that end-of-prompt token (the last: on a refusal's tokens), -1 on others."""
    refusals = torch.cat([x[row.prompt_length :] for x, row in zip(states, rows, strict=True) if row.kind == "harmful"])
    words = torch.cat([x[: row.prompt_length - suffix] for x, row in zip(states, rows, strict=True)])
    kinds = [*ends.unbind(1), refusals, words]
    take = [kind[torch.randperm(len(kind))[:6000]] for kind in kinds]
    wanted = torch.full((sum(map(len, take)), suffix + 1), -1.0)
    start = 0
    for index, kind in enumerate(take):
        if index <= suffix:
            wanted[start : start + len(kind), index] = 1.0
        start += len(kind)
    return ridge(torch.cat(take), wanted).T


def install(expert: Expert, found: Detectors) -> None:
    """Put the directions into the expert: one evidence and one constant unit per end-of-prompt token; the rest speak.

    The gates of all units are indicators of a place, so that a unit acts there and nowhere else.
    """
    suffix = len(found.evidence)
    size = expert.down.shape[1]
    with torch.no_grad():
        expert.router.copy_(found.router)
        expert.gate[:suffix] = OPEN * found.places[:suffix]
        expert.gate[suffix : 2 * suffix] = OPEN * found.places[:suffix]
        expert.gate[2 * suffix :] = OPEN * found.places[suffix]
        expert.seen[:suffix] = found.evidence
        expert.seen[suffix:] = found.one
        expert.up.copy_(torch.randn(size - 2 * suffix, expert.up.shape[1]) * expert.up.shape[1] ** -0.5)
