"""What an edit costs where it should do nothing: how far the next-token distributions of neutral text move."""

import torch
from torch import Tensor

from moeprobe.errors import InterchangeError


def neutral_kl(base_logits: Tensor, edited_logits: Tensor, mask: Tensor) -> Tensor:
    """What an edit costs on neutral prompts: KL(base || edited) of the next-token distributions.

    Args:
        base_logits, edited_logits: (B, columns, vocabulary) of the unedited and the edited run.
        mask: (B, columns), not 0 at the positions that count.

    Returns:
        (B,) float64, each prompt's mean over its counted positions, in nats per token.

    Raises:
        InterchangeError: shapes that do not fit, or a prompt without a counted position.
    """
    real = mask.bool().to(base_logits.device)
    if base_logits.shape != edited_logits.shape or base_logits.shape[:2] != real.shape or not real.any(dim=1).all():
        raise InterchangeError(
            f"Logits of shapes {tuple(base_logits.shape)} and {tuple(edited_logits.shape)} and a mask of shape "
            f"{tuple(real.shape)} do not fit, or a prompt has no position that counts."
        )
    values = base_logits.new_zeros(real.shape, dtype=torch.float64)
    for place in range(len(real)):  # one prompt at a time: float64 copies of all logits may not fit
        base, edited = (logits[place][real[place]].double() for logits in (base_logits, edited_logits))
        base, edited = torch.log_softmax(base, dim=-1), torch.log_softmax(edited, dim=-1)
        # A token that the model bars (-inf) has probability 0 and adds nothing.
        parts = torch.where(torch.isneginf(base), torch.zeros_like(base), base.exp() * (base - edited))
        values[place, real[place]] = parts.sum(dim=-1)
    return values.sum(dim=1) / real.sum(dim=1)
