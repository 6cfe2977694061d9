"""How often each expert was chosen, by group of generations: one pass over the shards, memory for one column."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import TraceError
from moeprobe.trace.manifest import LayerInfo
from moeprobe.trace.reader import Trace
from moeprobe.trace.shard import Shard

Ints = NDArray[np.int64]
# What generations can be grouped by.
FIELDS = ("label", "stop", "prompt_id", "pair", "sample", "generation")


@dataclass(frozen=True)
class ExpertCounts:
    """Counts by group; the sum over runs is the count of their merge.

    Attributes:
        groups: the values that were found, in order of appearance; None for generations without one.
        tokens: (groups,) rows counted.
        selected: by layer name, (groups, experts) how many choices of those rows fell on each expert.
    """

    groups: tuple[Any, ...]
    tokens: Ints
    selected: Mapping[str, Ints]


def count_experts(
    trace: Trace, *, by: str | None = None, segment: str | None = None, layers: list[str] | None = None
) -> ExpertCounts:
    """Count choices by expert and group of generations. Only the columns that are needed are read.

    Args:
        trace: the run.
        by: what to group generations by, one of `FIELDS`; all together when None.
        segment: count rows of this segment only, for example "answer"; all when None.
        layers: names such as "L14"; all recorded layers when None.

    Raises:
        TraceError: an unknown field, segment or layer, or a damaged trace.
    """
    if by is not None and by not in FIELDS:
        raise TraceError(f"Generations cannot be grouped by {by[:60]!r}. Choose one of {', '.join(FIELDS)}.")
    if segment is not None and segment not in trace.manifest.segments:
        raise TraceError(f"The trace has no segment {segment[:60]!r}. It has {', '.join(trace.manifest.segments)}.")
    known = {info.name: info for info in trace.manifest.layers}
    unknown = [name for name in layers or () if name not in known]
    if unknown:
        raise TraceError(f"The trace holds no routing of {unknown[0][:60]}. It holds {', '.join(known)}.")
    infos = [known[name] for name in (known if layers is None else layers)]
    group, groups = _groups(trace, by)
    tokens = np.zeros(len(groups), dtype=np.int64)
    selected = {info.name: np.zeros((len(groups), info.experts), dtype=np.int64) for info in infos}
    code = None if segment is None else trace.manifest.segments.index(segment)
    for shard in trace.shards():
        parts = _rows(shard, group, code)
        for number, rows in parts:
            tokens[number] += len(rows)
        for info in infos:
            _add(selected[info.name], shard, info, parts)
    return ExpertCounts(groups, tokens, selected)


def _groups(trace: Trace, by: str | None) -> tuple[Ints, tuple[Any, ...]]:
    """Group number of each generation, and the groups' values. Eight bytes per generation."""
    numbers = np.zeros(trace.manifest.generations, dtype=np.int64)
    if by is None:
        return numbers, ("all",)
    seen: dict[tuple[str, Any], int] = {}
    for one in trace.iter_generations():
        value = one.index if by == "generation" else getattr(one, by)
        # True and 1 are equal, and yet two labels.
        numbers[one.index] = seen.setdefault((type(value).__name__, value), len(seen))
    return numbers, tuple(value for _, value in seen)


def _rows(shard: Shard, group: Ints, code: int | None) -> list[tuple[int, Ints]]:
    """Which rows of a shard belong to which group."""
    member = group[shard.generation]
    if code is not None:
        member = np.where(shard.segment == code, member, -1)
    order = np.argsort(member, kind="stable")
    values, starts = np.unique(member[order], return_index=True)
    parts = np.split(order, starts[1:])
    return [(int(value), rows) for value, rows in zip(values, parts, strict=True) if value >= 0]


def _add(total: Ints, shard: Shard, info: LayerInfo, parts: list[tuple[int, Ints]]) -> None:
    ids, mask = shard.experts(info.name), shard.mask(info.name)
    for number, rows in parts:
        chosen = ids[rows] if mask is None else ids[rows][mask[rows]]
        total[number] += np.bincount(chosen.reshape(-1), minlength=info.experts)
