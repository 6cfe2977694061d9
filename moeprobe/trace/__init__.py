"""The on-disk format of a run: write, read, validate. numpy and safetensors only, never torch."""

from moeprobe.trace.generation import Generation
from moeprobe.trace.manifest import PHASES, SEGMENTS, LayerInfo, Manifest
from moeprobe.trace.reader import Trace, load_trace
from moeprobe.trace.shard import Routing, Shard, ShardData
from moeprobe.trace.writer import TraceWriter

__all__ = [
    "PHASES", "SEGMENTS", "Generation", "LayerInfo", "Manifest", "Routing", "Shard", "ShardData", "Trace",
    "TraceWriter", "load_trace",
]  # fmt: skip
