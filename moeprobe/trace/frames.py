"""Traces as pandas data frames. pandas is imported when a frame is asked for."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from moeprobe.trace.manifest import GENERATED_SEGMENTS, PHASES
from moeprobe.trace.shard import Shard

if TYPE_CHECKING:
    from moeprobe.trace.reader import Trace


def generation_frame(trace: "Trace") -> pd.DataFrame:
    """One row per generation, indexed by `generation`."""
    names = (
        "prompt_id", "sample", "pair", "label", "stop", "generated", "prompt_rows", "answer_rows", "prompt_text",
        "text",
    )  # fmt: skip
    columns = {name: [getattr(record, name) for record in trace.generations] for name in names}
    frame = pd.DataFrame(columns)
    frame.index.name = "generation"
    return frame


def selection_frame(trace: "Trace", layers: list[int] | list[str] | None = None) -> pd.DataFrame:
    """One row per (token, layer, choice); absent choices have no row.

    Columns: generation, position, phase, segment, token_id, token, layer, rank (order among the k choices as the model
    gave them), site ("L18.E5", "encoder.L3.E5"), expert, weight. `layer` is the number; its stack stands in the site.
    """
    wanted = [info.name for info in trace.manifest.layers] if layers is None else layers
    parts = [_layer_frame(trace, shard, layer) for shard in trace.shards() for layer in wanted]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _layer_frame(trace: "Trace", shard: Shard, layer: int | str) -> pd.DataFrame:
    name = layer if isinstance(layer, str) else f"L{layer}"
    experts, weights, mask = shard.experts(layer), shard.weights(layer), shard.mask(layer)
    k = experts.shape[1]
    frame = pd.DataFrame(
        {
            "generation": np.repeat(shard.generation, k),
            "position": np.repeat(shard.position, k),
            "phase": np.repeat(np.array(PHASES)[shard.phase], k),
            "segment": np.repeat(np.array(trace.manifest.segments)[shard.segment], k),
            "token_id": np.repeat(shard.token_id, k),
            "token": np.repeat(np.array(_tokens(trace, shard), dtype=object), k),
            "layer": int(name.rpartition("L")[2]),
            "rank": np.tile(np.arange(k), len(experts)),
            "expert": experts.reshape(-1).astype(np.int64),
            "weight": weights.reshape(-1),
        }
    )
    frame.insert(9, "site", f"{name}.E" + frame["expert"].astype(str))
    return frame if mask is None else frame[mask.reshape(-1)].reset_index(drop=True)


def _tokens(trace: "Trace", shard: Shard) -> list[str]:
    generated = [trace.manifest.segments.index(name) for name in GENERATED_SEGMENTS]
    texts = [(record.prompt_text, record.text) for record in trace.generations]
    columns = (shard.generation, np.isin(shard.segment, generated), shard.char_start, shard.char_end)
    return [texts[g][int(a)][start:end] for g, a, start, end in zip(*(c.tolist() for c in columns), strict=True)]
