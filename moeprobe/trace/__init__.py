"""The on-disk format of a run: write, read, validate. numpy and safetensors only, never torch."""

from moeprobe.trace.expert_counts import ExpertCounts, count_experts
from moeprobe.trace.generation import Generation
from moeprobe.trace.manifest import PHASES, SEGMENTS, LayerInfo, Manifest, Signal
from moeprobe.trace.merging import merge
from moeprobe.trace.parquet import export_parquet
from moeprobe.trace.reader import Trace, load_trace
from moeprobe.trace.same import check_same_run
from moeprobe.trace.shard import Routing, Shard, ShardData
from moeprobe.trace.validation import Validation, validate
from moeprobe.trace.writer import TraceWriter

__all__ = [
    "PHASES", "SEGMENTS", "ExpertCounts", "Generation", "LayerInfo", "Manifest", "Routing", "Shard", "ShardData",
    "Signal", "Trace", "TraceWriter", "Validation", "check_same_run", "count_experts", "export_parquet", "load_trace",
    "merge", "validate",
]  # fmt: skip
