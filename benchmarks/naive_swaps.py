"""Swapping one expert after another as one would write it in an afternoon: plain hooks, one run per forward.

Needs torch alone, so that it also runs where other tools live (benchmarks/swap_server.py). A pair's two unedited runs
and its continuation are computed once; then one forward of the whole model for each expert and direction.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear

Floats = NDArray[np.float64]
Choice = tuple[Tensor, Tensor, Tensor]
# How the logits (1, columns, vocabulary) of a run are had, with something added to what the experts return, or not.
Forward = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Job:
    """All experts of a layer, both directions, over some pairs; measured is the NLL of the control's continuation.

    Attributes:
        layer, experts: the layer, and how many experts it has.
        tokens: length of the greedy continuation of each control prompt.
        ends: token ids that end it.
        pairs: (sensitive, control) prompt ids.
    """

    layer: int
    experts: int
    tokens: int
    ends: Sequence[int]
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def part(self, start: int, stop: int) -> "Job":
        """The same for some of the pairs."""
        return Job(self.layer, self.experts, self.tokens, self.ends, self.pairs[start:stop])


def experts_module(model: Any, layer: int) -> nn.Module:
    """Where Qwen's families keep the experts of a layer."""
    found: nn.Module = model.model.layers[layer].mlp.experts
    return found


def contribution(experts: Any, choice: Choice, expert: int) -> Tensor:
    """Weight times E(x) (rows, width), written out: 0 where the router did not choose the expert."""
    hidden, ids, weights = choice
    gate, up = linear(hidden, experts.gate_up_proj[expert]).chunk(2, dim=-1)
    weight = torch.where(ids == expert, weights, torch.zeros_like(weights)).sum(dim=1, keepdim=True)
    found: Tensor = linear(experts.act_fn(gate) * up, experts.down_proj[expert]) * weight
    return found


class Hooked:
    """Forwards with plain hooks on the experts of one layer."""

    def __init__(self, model: Any, layer: int) -> None:
        self.model, self.experts = model, experts_module(model, layer)

    def read(self, ids: Tensor) -> tuple[Tensor, Choice]:
        """Logits, and what the experts were called with."""
        seen: list[Choice] = []
        handle = self.experts.register_forward_pre_hook(lambda _, args: seen.append(args[:3]))
        logits = self.forward(ids, None)
        handle.remove()
        return logits, seen[0]

    def forward(self, ids: Tensor, added: Tensor | None) -> Tensor:
        """Logits of all columns."""
        handle = self.experts.register_forward_hook(
            lambda _, __, output: None if added is None else output + added.reshape(output.shape)
        )
        logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        handle.remove()
        return logits


def swap_all(way: Any, job: Job) -> dict[str, Floats]:
    """Necessity and sufficiency (experts, pairs), positive in the direction sensitive minus control.

    Args:
        way: `Hooked`, or another with its `read`, `forward` and `experts`.
        job: what is swapped.
    """
    found = {name: np.zeros((job.experts, len(job.pairs))) for name in ("necessity", "sufficiency")}
    with torch.inference_mode():
        for place, prompts in enumerate(job.pairs):
            forced, count = _greedy(way, prompts[1], job)
            runs = [torch.tensor([[*prompt, *forced[:-1]]]) for prompt in prompts]
            seen = [way.read(ids) for ids in runs]
            base = [_nll(logits, forced, count) for logits, _ in seen]
            for expert in range(job.experts):
                own = [contribution(way.experts, choice, expert) for _, choice in seen]
                for side, name in enumerate(found):
                    edited = way.forward(runs[side], _aligned(own[side], own[1 - side]))
                    moved = base[side] - _nll(edited, forced, count)
                    found[name][expert, place] = moved if side == 0 else -moved
    return found


def _aligned(recipient: Tensor, donor: Tensor) -> Tensor:
    """Donor minus recipient, paired from the end; rows without a partner keep their own value."""
    both = min(len(recipient), len(donor))
    added = torch.zeros_like(recipient)
    added[len(added) - both :] = donor[len(donor) - both :] - recipient[len(recipient) - both :]
    return added


def _greedy(way: Any, prompt: Sequence[int], job: Job) -> tuple[list[int], int]:
    """The most likely tokens after a prompt, and how many count (up to the end token)."""
    ids = list(prompt)
    for _ in range(job.tokens):
        ids.append(int(way.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    forced = ids[-job.tokens :]
    stops = [place + 1 for place, token in enumerate(forced) if token in job.ends]
    return forced, min([*stops, job.tokens])


def _nll(logits: Tensor, forced: Sequence[int], count: int) -> float:
    scores = torch.log_softmax(logits[0, -len(forced) :].double(), dim=-1)
    return -float(scores[torch.arange(count), torch.tensor(forced[:count])].mean())
