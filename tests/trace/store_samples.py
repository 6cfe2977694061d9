"""Small traces without a model: two stacks, masks, wide and narrow ids, signals with NaN."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from moeprobe.trace import Generation, LayerInfo, Manifest, Routing, ShardData, Signal, Trace, TraceWriter, load_trace

LAYERS = (
    LayerInfo(3, 300, 2, 0.0, False, "model.layers.3.mlp.experts"),
    LayerInfo(5, 16, 3, 0.0, True, "model.layers.5.mlp.experts"),
    LayerInfo(1, 8, 1, 0.0, False, "encoder.layers.1.mlp.experts", "encoder"),
)
SIGNALS = (
    Signal("L3.margin", None, "float", True, "distance between the last choice and the next"),
    Signal("L5.logits", 16, "float", False, "router logits"),
    Signal("L3.sensitive", None, "flag", False, "whether the dtype could turn the choice"),
)


def manifest(**changes: Any) -> Manifest:
    base = Manifest(
        layers=LAYERS,
        signals=SIGNALS,
        created="2026-01-01T00:00:00+00:00",
        moeprobe="0",
        model={"id": "toy", "config_digest": "sha256:1"},
        tokenizer={"digest": "sha256:2"},
        decoding={"seed": 0},
        engine={"dtype": "float32"},
        versions={"torch": "2"},
        prompts={"digest": "sha256:3"},
    )
    return replace(base, **changes)


def batch(first: int = 0, count: int = 2, seed: int = 0) -> tuple[ShardData, list[Generation]]:
    """Generations `first` onwards; what they hold depends on their number and the seed alone."""
    parts, records = zip(*(_one(index, seed) for index in range(first, first + count)), strict=True)
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    signals = {name: np.concatenate([part.signals[name] for part in parts]) for name in parts[0].signals}
    routing = {}
    for name, one in parts[0].routing.items():
        masks = [part.routing[name].mask for part in parts]
        routing[name] = Routing(
            np.concatenate([part.routing[name].experts for part in parts]),
            np.concatenate([part.routing[name].weights for part in parts]),
            None if one.mask is None else np.concatenate([mask for mask in masks if mask is not None]),
        )
    return ShardData(columns, routing, signals), list(records)


def _one(index: int, seed: int) -> tuple[ShardData, Generation]:
    rng = np.random.default_rng([seed, index])
    prompt, answer = int(rng.integers(2, 5)), int(rng.integers(0, 6))
    rows = prompt + answer
    start = np.concatenate([np.arange(prompt), np.arange(answer)])
    decoded = np.arange(rows) >= prompt
    columns = {
        "token_id": rng.integers(0, 1000, rows),
        "generation": np.full(rows, index),
        "position": np.arange(rows),
        "phase": decoded,
        "segment": np.where(decoded, 1, 0),
        "char_start": start,
        "char_end": start + 1,
    }
    mask = rng.random((rows, 3)) < 0.8
    encoder = np.repeat(~decoded[:, None], 1, axis=1)
    margin = rng.random(rows).astype(np.float32)
    margin[0] = np.nan
    routing = {
        "L3": Routing(_ids(rng, rows, 300, 2), rng.random((rows, 2), np.float32)),
        "L5": Routing(np.where(mask, _ids(rng, rows, 16, 3), 0), np.full((rows, 3), 0.25, np.float32), mask),
        "encoder.L1": Routing(_ids(rng, rows, 8, 1), np.ones((rows, 1), np.float32), encoder),
    }
    logits = rng.integers(-8, 8, (rows, 16)).astype(np.float32)
    signals = {"L3.margin": margin, "L5.logits": logits, "L3.sensitive": margin > 0.5}
    record = Generation(
        index, f"p{index}", 0, "abcd"[:prompt], "vwxyz"[:answer] + "!", "eos", answer + 1, 9, prompt, answer,
        label=index % 2, metadata={"n": index},
    )  # fmt: skip
    return ShardData(columns, routing, signals), record


def _ids(rng: np.random.Generator, rows: int, experts: int, k: int) -> np.ndarray:
    return np.argsort(rng.random((rows, experts)), axis=1)[:, :k]


def make(path: Path, batches: int = 3, *, seed: int = 0, size: int = 2, **changes: Any) -> Trace:
    """A whole trace."""
    with TraceWriter(path) as writer:
        for number in range(batches):
            writer.add(*batch(number * size, size, seed), manifest(**changes))
        writer.finish()
    return load_trace(path)


def contents(trace: Trace) -> dict[str, Any]:
    """Everything a trace holds, to compare two of them row by row."""
    arrays: dict[str, list[Any]] = {}
    for shard in trace.shards():
        for name in ("token_id", "generation", "position", "phase", "segment", "char_start", "char_end"):
            arrays.setdefault(name, []).extend(getattr(shard, name).tolist())
        for info in trace.manifest.layers:
            mask = shard.mask(info.name)
            arrays.setdefault(f"{info.name}.experts", []).extend(shard.experts(info.name).tolist())
            arrays.setdefault(f"{info.name}.weights", []).extend(shard.weights(info.name).tolist())
            arrays.setdefault(f"{info.name}.mask", []).extend([None] * shard.rows if mask is None else mask.tolist())
        for signal in trace.manifest.signals:
            arrays.setdefault(signal.name, []).extend(map(str, shard.signal(signal.name).tolist()))
    body = vars(replace(trace.manifest, created="", resumed=()))
    return {"arrays": arrays, "generations": [vars(one) for one in trace.iter_generations()], "manifest": body}
