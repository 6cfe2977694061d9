"""The price of an edit: how much it changes what the model says where the behaviour is not asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moeprobe.editing import Write, reading, writing
from moeprobe.errors import InterchangeError
from moeprobe.interchange.lab import Lab
from moeprobe.pairs.batch import forward, pad_left
from moeprobe.pairs.divergence import neutral_kl
from moeprobe.sites import SiteSet

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Price:
    """KL(unedited || knocked out) on neutral prompts, in nats per token.

    Attributes:
        kl: (prompts,) mean over the positions of each prompt.
    """

    kl: Floats

    def to_json(self, draws: int = 2000, seed: int = 0) -> dict[str, Any]:
        """Mean with a 95 % percentile bootstrap interval over prompts."""
        generator = np.random.default_rng(seed)
        resampled = self.kl[generator.integers(0, len(self.kl), (draws, len(self.kl)))].mean(axis=1)
        low, high = np.percentile(resampled, [2.5, 97.5])
        return {"kl": float(self.kl.mean()), "ci": [float(low), float(high)], "prompts": len(self.kl)}


def price(lab: Lab, prompts: Sequence[tuple[int, ...]], sets: Sequence[SiteSet]) -> dict[SiteSet, Price]:
    """What the knock-out (contribution zero, at every position) of each set costs on neutral prompts.

    Args:
        lab: the model; alignment and metric play no part.
        prompts: token ids of each neutral prompt.
        sets: knocked out one set at a time.

    Raises:
        InterchangeError: no prompts, or a site that has no contribution.
    """
    if not prompts:
        raise InterchangeError("The price needs at least one neutral prompt.")
    found: dict[SiteSet, list[Floats]] = {one: [] for one in sets}
    with torch.inference_mode():
        for start in range(0, len(prompts), lab.batch_size):
            batch = pad_left(prompts[start : start + lab.batch_size], lab.loaded.pad_token)
            with reading(lab.places, [(site.layer, site.kind) for one in sets for site in one.sites]) as seen:
                base = forward(lab.loaded.model, batch)
            rows = torch.arange(batch.mask.numel(), device=lab.loaded.model.device)
            for one in sets:
                writes = []
                for site in one.sites:
                    index = torch.full_like(rows, site.index or 0)
                    own = seen.value(site.layer, site.kind, index, rows)
                    writes.append(Write(site.layer, site.kind, index, "replace", torch.zeros_like(own)))
                with writing(lab.places, writes):
                    edited = forward(lab.loaded.model, batch)
                kl: Floats = neutral_kl(base, edited, batch.mask.to(base.device)).cpu().numpy()
                found[one].append(kl)
    return {one: Price(np.concatenate(parts)) for one, parts in found.items()}
