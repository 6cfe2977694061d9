"""Checking a whole trace: every digest, and every value against what it may be. Memory for one shard."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import MoeprobeError, TraceError
from moeprobe.trace.generation import Generation
from moeprobe.trace.index import ShardInfo, shard_name
from moeprobe.trace.journal import GATE_STEPS, gate_sums, with_weight_sums
from moeprobe.trace.manifest import GENERATED_SEGMENTS, PHASES, LayerInfo, Manifest
from moeprobe.trace.reader import Trace, load_trace
from moeprobe.trace.shard import Routing, Shard, ShardData

Array = NDArray[Any]


@dataclass(frozen=True)
class Validation:
    """Result of `validate`.

    Attributes:
        path: the trace.
        problems: what is wrong, each with its place and what to do; empty when nothing is.
        manifest: run.json, or None when it could not be read.
    """

    path: Path
    problems: tuple[str, ...]
    manifest: Manifest | None = None

    @property
    def valid(self) -> bool:
        return not self.problems


def validate(path: str | Path) -> Validation:
    """Check a trace from end to end. A damaged shard does not keep the others from being checked.

    Checked: run.json; the digests of all files and columns; that shards, generations and rows add up; that the rows of
    each generation lie together, at positions 0 to n-1, prefill before decode, prompt segments before generated ones,
    with character offsets inside their texts; that expert ids, masks, weights and signals are in range.

    An interrupted run is a problem too, since not all prompts were run.
    """
    folder = Path(path)
    try:
        trace = load_trace(folder, incomplete=True)
    except MoeprobeError as problem:
        return Validation(folder, (str(problem),))
    problems = []
    if not trace.manifest.complete:
        problems.append(f"{folder} is the rest of an interrupted run. Go on with it by `moeprobe trace --resume`.")
    try:
        problems += [str(problem) for problem in _problems(trace)]
    except MoeprobeError as problem:
        problems.append(str(problem))
    return Validation(folder, tuple(problems), trace.manifest)


def check_trace(trace: Trace) -> None:
    """Check a trace that was opened.

    Raises:
        TraceError: the first thing that is wrong.
    """
    for problem in _problems(trace):
        raise problem


def _problems(trace: Trace) -> Iterator[MoeprobeError]:
    """What is wrong, shard by shard. Raises what makes going on senseless."""
    gate: list[tuple[int, int]] = [(0, 0)] * len(trace.manifest.layers)
    for info, records in trace.pieces():
        try:
            _check_shard(trace.open(info), info, records, trace.manifest)
        except MoeprobeError as problem:
            yield problem
        gate = [(a + c, b + d) for (a, b), (c, d) in zip(gate, info.gate, strict=True)]
    wrong = _wrong_mean(trace.manifest.layers, gate)
    if wrong is not None:
        yield TraceError(f"{trace.path / 'run.json'}: {wrong}. Copy the trace again, or record it again.")
    if trace.manifest.complete:  # an interrupted run has the shards of the batch that was in flight
        yield from _strangers(trace)


def _wrong_mean(layers: tuple[LayerInfo, ...], gate: list[tuple[int, int]]) -> str | None:
    for told, found in zip(layers, with_weight_sums(layers, gate), strict=True):
        if told.weight_sum != found.weight_sum:
            return f"{told.name}: weight_sum is {told.weight_sum}, but shards.jsonl gives {found.weight_sum}"
    return None


def _strangers(trace: Trace) -> Iterator[TraceError]:
    """Shards that no line lists: another program may take them for part of the run."""
    listed, folder = trace.manifest.shards, trace.path / "shards"
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        stem = entry.name.partition(".")[0]
        if not (stem.isascii() and stem.isdigit() and int(stem) < listed and entry.name == shard_name(int(stem))):
            yield TraceError(f"{entry} belongs to no shard of the trace. Remove it.")


def _check_shard(shard: Shard, info: ShardInfo, records: list[Generation], manifest: Manifest) -> None:
    """Read every column of a shard."""
    _check_columns(shard, records, manifest)
    for layer, told in zip(manifest.layers, info.gate, strict=True):
        ids, weights, mask = shard.experts(layer.name), shard.weights(layer.name), shard.mask(layer.name)
        columns = {"token_id": shard.token_id}
        found = gate_sums(ShardData(columns, {layer.name: Routing(ids, weights, mask)}), (layer,))[0]
        # Another processor may add float64 numbers in another order.
        slack = 1e-9 * (abs(told[0]) + GATE_STEPS * info.rows)
        if found[1] != told[1] or abs(found[0] - told[0]) > slack:
            raise TraceError(
                f"{shard.path}: the gate weights of {layer.name} do not add up to what shards.jsonl says of them. "
                "Record the run again."
            )
    for signal in manifest.signals:
        shard.signal(signal.name)


def _check_columns(shard: Shard, records: list[Generation], manifest: Manifest) -> None:
    rows = np.array([one.rows for one in records], dtype=np.int64)
    prompts = np.array([one.prompt_rows for one in records], dtype=np.int64)
    start = np.cumsum(rows) - rows
    position = np.arange(rows.sum()) - np.repeat(start, rows)
    decoded = position >= np.repeat(prompts, rows)
    generated = np.isin(shard.segment, [manifest.segments.index(name) for name in GENERATED_SEGMENTS])
    texts = np.array([(len(one.prompt_text), len(one.text)) for one in records], dtype=np.int64)
    length = np.where(generated, np.repeat(texts[:, 1], rows), np.repeat(texts[:, 0], rows))
    wrong = {
        "generation": shard.generation != np.repeat([one.index for one in records], rows),
        "position": shard.position != position,
        "phase": shard.phase != np.where(decoded, PHASES.index("decode"), PHASES.index("prefill")),
        "segment": generated != decoded,
        "char_start": (shard.char_start > shard.char_end),
        "char_end": shard.char_end > length,
        "token_id": shard.token_id < 0,
    }
    for name, rows_wrong in wrong.items():
        if rows_wrong.any():
            row = int(np.flatnonzero(rows_wrong)[0])
            raise TraceError(
                f"{shard.path}: column {name} has {int(getattr(shard, name)[row])} at row {row}, which does not fit "
                f"generation {int(np.repeat([one.index for one in records], rows)[row])}. Record the run again."
            )
