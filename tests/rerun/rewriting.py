"""Traces with planted faults: written anew from a good one, so that every checksum is right."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from moeprobe.trace import Generation, Manifest, Routing, ShardData, Trace, TraceWriter, load_trace
from moeprobe.trace.shard import COLUMNS

Change = Callable[[ShardData, list[Generation]], tuple[ShardData, list[Generation]]]


def rewritten(trace: Trace, out: Path, change: Change | None = None, **manifest: Any) -> Trace:
    """The same run with `change` applied to each batch, and fields of the manifest replaced."""
    header: Manifest = replace(
        trace.manifest, complete=False, shards=0, generations=0, rows=0, shards_sha256="", generations_sha256="",
        **manifest,
    )  # fmt: skip
    records = list(trace.iter_generations())
    with TraceWriter(out) as writer:
        for shard in trace.shards():
            routing = {
                info.name: Routing(shard.experts(info.name), shard.weights(info.name), shard.mask(info.name))
                for info in trace.manifest.layers
            }
            columns = {name: getattr(shard, name).copy() for name in COLUMNS}
            signals = {one.name: shard.signal(one.name) for one in trace.manifest.signals}
            mine = [one for one in records if one.index in set(shard.generation.tolist())]
            data = ShardData(columns, routing, signals)
            writer.add(*((data, mine) if change is None else change(data, mine)), header)
        writer.finish()
    return load_trace(out)
