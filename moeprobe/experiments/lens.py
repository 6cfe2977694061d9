"""From a vector of the residual stream to a difference of logits: the last norm with its scale frozen, and unembedding.

Which norm it is, is found by what reproduces its output from its input, not by its class: RMS or centred, with weight
or 1 + weight.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprobe.errors import InterchangeError
from moeprobe.experiments.parts import same, tolerance
from moeprobe.experiments.stream import Stream

# What configs call the largest logit, beyond which a tanh bends.
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "logit_softcap", "output_logit_soft_cap", "softcap")


@dataclass(frozen=True)
class Direction:
    """Two token sets, and the difference of their mean logits.

    Attributes:
        positive, negative: token ids. `negative` may be empty: the mean logit of `positive` alone.
        name: how it is called in results.
    """

    positive: tuple[int, ...]
    negative: tuple[int, ...] = ()
    name: str = "logit difference"

    def __post_init__(self) -> None:
        if not self.positive or set(self.positive) & set(self.negative):
            raise InterchangeError("A logit difference needs token ids on its positive side, and none on both sides.")

    def __call__(self, logits: Tensor) -> Tensor:
        """(n,) mean logit of `positive` minus mean logit of `negative`, from (n, vocabulary).

        Raises:
            InterchangeError: a token beyond the vocabulary.
        """
        self.check(logits.shape[-1])
        value = logits[:, list(self.positive)].float().mean(dim=1)
        return value - logits[:, list(self.negative)].float().mean(dim=1) if self.negative else value

    def check(self, vocabulary: int) -> None:
        """Raise InterchangeError where a token id is none of `vocabulary`."""
        wrong = [token for token in (*self.positive, *self.negative) if not 0 <= token < vocabulary]
        if wrong:
            raise InterchangeError(f"The model has {vocabulary} tokens; {wrong[:5]} are none of them.")


@dataclass(frozen=True)
class Lens:
    """A linear map from the stream to the logit difference, for the rows of one forward.

    Attributes:
        rows: (n, width): what a vector of the stream is multiplied with, per row.
        constant: (n,) what biases of norm and unembedding add.
        capped: whether the model caps its logits: then the difference is that of the logits before the cap.
    """

    rows: Tensor
    constant: Tensor
    capped: bool

    def read(self, value: Tensor) -> Tensor:
        """(n,) or (n, parts) logit difference that vectors (n, width) or (n, parts, width) account for."""
        rows = self.rows.to(value.device)
        return (value * (rows if value.dim() == 2 else rows[:, None])).sum(dim=-1)


def lens(model: PreTrainedModel, stream: Stream, logits: Tensor, direction: Direction) -> Lens:
    """The lens of one forward.

    Args:
        model: the model.
        stream: from `watching`.
        logits: (n, vocabulary) at the kept rows.
        direction: which tokens.

    Raises:
        InterchangeError: the model has no last norm or unembedding that can be followed; the message says which.
    """
    if stream.norm is None or stream.norm_module is None or stream.head is None:
        raise InterchangeError(
            f"{type(model).__name__} has no last norm and unembedding that direct attribution knows."
        )
    entered, left = (value.float() for value in stream.norm)
    bound = tolerance(stream.head[0].dtype)
    if not same(left.cpu(), stream.head[0].float().cpu(), bound):
        raise InterchangeError(
            f"{type(model).__name__} changes the stream between its last norm and its unembedding, which direct "
            "attribution does not follow."
        )
    gain, offset, centred = _norm(stream.norm_module, entered, left, bound)
    weight, bias = (one.to(gain.device) for one in _difference(model.get_output_embeddings(), direction))
    scale, capped = _after(model, stream.head[1].float(), logits.float(), direction, bound)
    rows = gain * weight * scale
    if centred:  # subtracting the mean is linear: it moves to the other factor
        rows = rows - rows.mean(dim=-1, keepdim=True)
    return Lens(rows, ((offset @ weight + bias) * scale).expand(len(rows)), capped)


def _norm(module: nn.Module, entered: Tensor, left: Tensor, bound: float) -> tuple[Tensor, Tensor, bool]:
    """What the norm multiplies each row by (n, width), what it adds (width,), and whether it subtracts the mean."""
    width = entered.shape[-1]
    weight = getattr(module, "weight", None)
    plain = torch.ones(width, device=entered.device)
    gains = [plain] if weight is None else [weight.detach().float(), 1 + weight.detach().float()]
    bias = getattr(module, "bias", None)
    offset = torch.zeros_like(plain) if bias is None else bias.detach().float()
    for centred in (False, True):
        base = entered - entered.mean(dim=-1, keepdim=True) if centred else entered
        for gain in gains:
            if gain.shape != (width,):
                continue
            shape = base * gain
            # The frozen scale: what best turns the input into the output, whatever the epsilon.
            scale = (shape * (left - offset)).sum(dim=-1, keepdim=True) / shape.square().sum(dim=-1, keepdim=True)
            if same(shape * scale, left - offset, bound):
                return gain * scale, offset, centred
    raise InterchangeError(
        f"The last norm ({type(module).__name__}) is neither an RMS nor a layer norm with weight or 1 + weight; direct "
        "attribution does not follow it."
    )


def _difference(unembedding: Any, direction: Direction) -> tuple[Tensor, Tensor]:
    """Difference (width,) of the mean rows of the unembedding, and of its bias ()."""
    weight = getattr(unembedding, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2 or not weight.is_floating_point():
        raise InterchangeError(f"The unembedding ({type(unembedding).__name__}) has no plain weight to read rows from.")
    direction.check(len(weight))
    given = getattr(unembedding, "bias", None)
    bias = torch.zeros(len(weight), device=weight.device) if given is None else given.detach().float()

    def mean(values: Tensor) -> Tensor:
        detached = values.detach().float()
        found = detached[list(direction.positive)].mean(dim=0)
        return found - detached[list(direction.negative)].mean(dim=0) if direction.negative else found

    return mean(weight), mean(bias)


def _after(
    model: PreTrainedModel, raw: Tensor, logits: Tensor, direction: Direction, bound: float
) -> tuple[float, bool]:
    """What the unembedding's output is multiplied by to give logits, and whether they are capped after that."""
    tokens = [*direction.positive, *direction.negative]
    before, after = raw[:, tokens], logits[:, tokens]

    def fits(found: Tensor) -> bool:
        return torch.allclose(found, after, rtol=bound, atol=bound * float(after.abs().max()))

    config = model.config.get_text_config()
    cap = next((float(getattr(config, name)) for name in _CAPS if getattr(config, name, None)), None)
    scales = [1.0, *(float(getattr(config, name)) for name in ("logit_scale",) if getattr(config, name, None))]
    scales += [1 / float(getattr(config, name)) for name in ("logits_scaling",) if getattr(config, name, None)]
    # A named cap comes first: on small logits it is nearly a straight line, which a ratio would fit as well.
    for one in scales if cap is not None else []:
        if cap is not None and fits(cap * torch.tanh(before * one / cap)):
            return one, True
    scale = float((before * after).sum() / before.square().sum())
    if fits(before * scale):
        return scale, False
    raise InterchangeError(
        f"The logits of {type(model).__name__} are no multiple of what its unembedding gives, nor a cap of it that its "
        "config names; direct attribution does not follow what happens in between."
    )
