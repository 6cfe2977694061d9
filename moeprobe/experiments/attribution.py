"""Direct logit attribution: how much of a logit difference each part of a model writes, and a check that it is all.

Every head, chosen expert, shared expert, dense MLP and bias adds a vector to the residual stream. Read through the last
norm with its scale frozen and the unembedding, these give numbers that sum to the logit difference. That is an account
of one forward, not a cause: what a part writes for later layers to read does not show here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from moeprobe.editing import Places, find_places
from moeprobe.errors import InterchangeError
from moeprobe.experiments.lens import Direction, Lens, lens
from moeprobe.experiments.parts import Parts, multiplier_of, same, take_apart, tolerance
from moeprobe.experiments.stream import Stream, columns_of, watching
from moeprobe.models import LoadedModel
from moeprobe.pairs.batch import Side, check_room, forward, pad_left

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Attribution:
    """Parts of the logit difference, per prompt.

    Attributes:
        direction: the token sets.
        prompts: names of the prompts.
        names: of the parts: "embedding", "L2.H0", "L2.E5", "L2.shared", "L2.attention", "L2.mlp", "biases".
        values: (prompts, parts); an expert that was not chosen has 0.
        difference: (prompts,) the logit difference of the forward.
        error: (prompts,) sum of the parts minus `difference`.
        capped: whether the model caps its logits; the difference is then that before the cap.
    """

    direction: Direction
    prompts: tuple[str, ...]
    names: tuple[str, ...]
    values: Floats
    difference: Floats
    error: Floats
    capped: bool

    def of(self, name: str) -> Floats:
        """(prompts,) the values of one part.

        Raises:
            InterchangeError: the model has no such part.
        """
        if name not in self.names:
            raise InterchangeError(f"There is no part {name!r}; the first are {', '.join(self.names[:6])}.")
        found: Floats = self.values[:, self.names.index(name)]
        return found

    def to_json(self) -> dict[str, Any]:
        """All values as JSON; experts that no prompt chose are left out."""
        kept = [place for place, name in enumerate(self.names) if ".E" not in name or self.values[:, place].any()]
        return {
            "what": self.direction.name,
            "positive": list(self.direction.positive),
            "negative": list(self.direction.negative),
            "before_cap": self.capped,
            "prompts": list(self.prompts),
            "difference": self.difference.tolist(),
            "error": self.error.tolist(),
            "parts": {self.names[place]: self.values[:, place].tolist() for place in kept},
        }

    def table(self, top: int = 15) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Head and lines: the parts with the largest mean, and the sum of the others."""
        means = self.values.mean(axis=0)
        order = np.argsort(-np.abs(means), kind="stable")
        lines = [(self.names[place], f"{means[place]:+.4f}") for place in order[:top]]
        lines.append((f"{len(order) - len(lines)} others", f"{means[order[top:]].sum():+.4f}"))
        return ("part", "mean"), [*lines, ("sum", f"{means.sum():+.4f}"), ("forward", f"{self.difference.mean():+.4f}")]


@dataclass(frozen=True)
class Account:
    """One forward taken apart: the parts of every layer, what came in, and how to read them."""

    embedding: Tensor
    parts: dict[int, Parts]
    lens: Lens
    places: dict[int, Places]

    def values(self) -> tuple[tuple[str, ...], Tensor]:
        """Names of all parts, and what each accounts for (n, parts)."""
        names, values = ["embedding"], [self.lens.read(self.embedding)[:, None]]
        for layer, parts in self.parts.items():
            if parts.heads is not None:
                names += [f"L{layer}.H{head}" for head in range(parts.heads.shape[1])]
                values.append(self.lens.read(parts.heads))
            site = self.places[layer].experts
            if parts.slots is not None and parts.ids is not None and site is not None:
                names += [f"L{layer}.E{expert}" for expert in range(site.experts)]
                read = self.lens.read(parts.slots)
                empty = read.new_zeros(len(read), site.experts)
                values.append(empty.scatter_add(1, parts.ids.clamp(min=0).to(read.device), read))
            names += [f"L{layer}.{name}" for name in parts.others]
            values += [self.lens.read(value)[:, None] for value in parts.others.values()]
        values = [value.cpu() for value in values]
        return (*names, "biases"), torch.cat([*values, self.lens.constant.cpu()[:, None]], dim=1)


def take_layers(
    model: PreTrainedModel, places: Mapping[int, Places], stream: Stream
) -> tuple[Tensor, dict[int, Parts]]:
    """What came into the first layer (n, width), and the parts of every layer, held against the stream.

    Args:
        model, places: as watched.
        stream: from `watching`.

    Raises:
        InterchangeError: the stream departs from the sum of its parts; the message names the first layer where.
    """
    multiplier, parts = multiplier_of(model), {}
    before: Tensor | None = None
    for layer, kept in stream.layers.items():
        if before is not None and kept.before is not None and not _arrives(before, kept.before):
            raise InterchangeError(f"The stream departs before L{layer}: something stands between two layers.")
        parts[layer] = take_apart(places[layer], kept, stream.rows, multiplier)
        before = kept.after
    embedding = next(iter(stream.layers.values())).before
    if before is None or embedding is None or stream.norm is None or not _arrives(before, stream.norm[0]):
        raise InterchangeError("The stream departs after the last layer: something stands before the last norm.")
    return embedding.float(), parts


def _arrives(left: Tensor, entered: Tensor) -> bool:
    # Layers may lie on different devices.
    return same(entered.float().cpu(), left.float().cpu(), tolerance(left.dtype))


def attribute(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    direction: Direction,
    *,
    names: Sequence[str] | None = None,
    batch_size: int = 8,
) -> Attribution:
    """Direct logit attribution at the last token of each prompt.

    Args:
        loaded: the model.
        prompts: token ids.
        direction: the token sets.
        names: of the prompts; default their numbers.
        batch_size: prompts per forward.

    Raises:
        InterchangeError: no prompts, a token beyond the vocabulary, a family whose stream cannot be followed (the
            message says why), or parts that do not sum to the logit difference.
    """
    if not prompts or not all(prompts):
        raise InterchangeError("There are no prompts to attribute, or one of them is empty.")
    check_room(loaded, [len(prompt) for prompt in prompts])
    places = find_places(loaded.model)
    values: list[Floats] = []
    differences: list[Floats] = []
    parts: tuple[str, ...] = ()
    capped = False
    for start in range(0, len(prompts), batch_size):
        side = pad_left([tuple(prompt) for prompt in prompts[start : start + batch_size]], loaded.pad_token)
        account, difference = watch(loaded.model, places, side, direction)
        parts, found = account.values()
        capped = account.lens.capped
        values.append(found.double().numpy())
        differences.append(difference.double().cpu().numpy())
    every, whole = np.concatenate(values), np.concatenate(differences)
    error = every.sum(axis=1) - whole
    _complete(every, whole, error, tolerance(loaded.model.dtype))
    given = tuple(names) if names is not None else tuple(str(place) for place in range(len(prompts)))
    return Attribution(direction, given, parts, every, whole, error, capped)


@torch.inference_mode()
def watch(
    model: PreTrainedModel, places: dict[int, Places], side: Side, direction: Direction
) -> tuple[Account, Tensor]:
    """One forward taken apart, and its logit difference (batch,); before the cap where the model has one."""
    rows = columns_of(side.mask)
    with watching(model, places, rows) as stream:
        logits = forward(model, side, readouts=1)[:, -1]
    direction.check(logits.shape[-1])
    account = Account(*take_layers(model, places, stream), lens(model, stream, logits, direction), places)
    raw = logits if stream.head is None or not account.lens.capped else stream.head[1]
    return account, direction(raw)


def _complete(values: Floats, whole: Floats, error: Floats, bound: float) -> None:
    """Hold the sum of the parts against the logit difference, relative to the largest of it and its parts."""
    size = np.maximum(np.abs(whole), np.abs(values).max(axis=1))
    if not bool((np.abs(error) <= bound * size + 1e-9).all()):
        worst = int(np.argmax(np.abs(error) / size))
        raise InterchangeError(
            f"The parts sum to {values[worst].sum():.6g}, the logit difference is {whole[worst]:.6g} (prompt {worst}). "
            "Something between the stream and the logits is not followed."
        )
