"""Routers of a simulated world: hidden states to chosen experts and gate weights."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.stats.simulation.draws import Stream, draw
from moeprobe.stats.simulation.world import World

Array = NDArray[Any]
# Planted experts are drawn from those whose bias lies between these quantiles: neither rare nor everywhere.
LOWEST, HIGHEST = 0.55, 0.92


@dataclass(frozen=True)
class Router:
    """One layer.

    Attributes:
        weights, bias: (width, experts) and (experts,), float32; logits = hidden @ weights + bias.
        planted: (planted,) experts that follow the register.
        shift: (planted,) by how much their logit moves at full strength.
        k: choices per token.
    """

    weights: Array
    bias: Array
    planted: NDArray[np.int64]
    shift: Array
    k: int

    def logits(self, hidden: Array, strength: Array) -> Array:
        """Router logits, (tokens, experts) float32.

        Args:
            hidden: (tokens, width).
            strength: (tokens,) of the register.
        """
        logits: Array = hidden.astype(np.float32) @ self.weights + self.bias
        logits[:, self.planted] += (strength[:, None] * self.shift).astype(np.float32)
        return logits

    def choose(self, logits: Array) -> tuple[Array, Array]:
        """The k largest logits and their softmax, each (tokens, k), the largest first."""
        ids = np.argpartition(-logits, self.k - 1, axis=1)[:, : self.k]
        order = np.argsort(-np.take_along_axis(logits, ids, axis=1), axis=1, kind="stable")
        ids = np.take_along_axis(ids, order, axis=1)
        top = np.take_along_axis(logits, ids, axis=1)
        weights = np.exp(top - top[:, :1])
        weights /= weights.sum(axis=1, keepdims=True)
        return ids.astype(np.uint8 if logits.shape[1] <= 256 else np.uint16), weights


def make_router(seed: int, world: World, layer: int) -> Router:
    """The router of one layer; the first `planted_layers` layers hold planted experts."""
    rng = draw(seed, Stream.LAYER, layer)
    weights = rng.normal(size=(world.width, world.experts)).astype(np.float32)
    bias = rng.normal(0, world.bias_sd, world.experts).astype(np.float32)
    planted = np.zeros(0, dtype=np.int64)
    if layer < world.planted_layers:
        high = max(int(np.ceil(HIGHEST * world.experts)), world.planted)
        low = max(0, min(int(LOWEST * world.experts), high - world.planted))
        planted = rng.choice(np.argsort(bias)[low:high], world.planted, replace=False).astype(np.int64)
    signs = np.where(np.arange(planted.size) % 2 == 0, 1.0, -1.0)
    return Router(weights, bias, planted, world.delta * signs, world.k)
