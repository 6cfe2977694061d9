"""Routing read without moeprobe's capture: the reference that traces are compared with."""

import numpy as np
import torch

from moeprobe.capture import find_experts
from moeprobe.models import LoadedModel
from moeprobe.trace import Trace


def independent_routing(loaded: LoadedModel, ids: list[int]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Ids and weights of one uncached forward of one unpadded sequence, read by wrapping each experts' forward: no code
    of moeprobe's capture is involved but the list of modules."""
    seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    originals = []
    for site in find_experts(loaded.model):
        original = site.module.forward
        originals.append((site.module, original))

        def spy(hidden, index, weights, *args, layer=site.layer, original=original, **kwargs):
            seen[layer] = (index.numpy().copy(), weights.float().numpy().copy())
            return original(hidden, index, weights, *args, **kwargs)

        site.module.forward = spy
    try:
        with torch.inference_mode():
            loaded.model(input_ids=torch.tensor([ids]), use_cache=False)
    finally:
        for module, original in originals:
            module.forward = original
    return seen


def sequences(trace: Trace) -> list[tuple[list[int], dict[int, np.ndarray], dict[int, np.ndarray]]]:
    """Token ids (routed ones), experts and weights by layer, of every generation."""
    result = []
    shards = list(trace.shards())
    for one in trace.generations:
        shard, rows = shards[one.shard], slice(one.first_row, one.first_row + one.rows)
        assert (shard.generation[rows] == one.index).all()
        assert (shard.position[rows] == np.arange(one.rows)).all()
        layers = [info.layer for info in trace.manifest.layers]
        result.append(
            (
                shard.token_id[rows].tolist(),
                {layer: shard.experts(layer)[rows] for layer in layers},
                {layer: shard.weights(layer)[rows] for layer in layers},
            )
        )
    return result


def check_against_teacher_forcing(loaded: LoadedModel, trace: Trace) -> None:
    for ids, experts, weights in sequences(trace):
        for layer, (index, gates) in independent_routing(loaded, ids).items():
            assert (experts[layer] == index).all()
            np.testing.assert_allclose(weights[layer], gates, atol=4e-6)
