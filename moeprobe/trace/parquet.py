"""A trace as one Parquet file: one row per token, one column of lists per layer. Needs pyarrow (extra `parquet`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import OutputError, TraceError
from moeprobe.files import check_output, replacing
from moeprobe.prompts import label_text
from moeprobe.trace.generation import Generation
from moeprobe.trace.manifest import GENERATED_SEGMENTS, PHASES, LayerInfo, Manifest
from moeprobe.trace.reader import Trace
from moeprobe.trace.shard import Shard

Array = NDArray[Any]


def export_parquet(trace: Trace, out: str | Path, *, force: bool = False) -> int:
    """Write a Parquet file, one row group per shard. Memory for one shard.

    Columns: generation, prompt_id, sample, pair, label (as text), position, phase, segment, token_id, token; per layer
    `L14.experts` and `L14.weights`, lists of k, null where a choice is absent; then the signals.

    Args:
        trace: the run.
        out: the file.
        force: replace a file that stands there.

    Returns:
        Rows written.

    Raises:
        OutputError: pyarrow is not installed, `out` exists, or the disk refuses.
        TraceError: the trace is damaged.
    """
    path = Path(out)
    check_output(path, force=force)
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as problem:
        raise OutputError(
            'Parquet files need pyarrow. Install it: python -m pip install "moeprobe[parquet]".'
        ) from problem
    schema = _schema(pa, trace.manifest)
    rows = 0
    with replacing(path) as temporary, parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for columns in _tables(pa, trace):
            table = pa.table(columns, schema=schema)
            writer.write_table(table, row_group_size=max(len(table), 1))
            rows += len(table)
    return rows


def _schema(pa: Any, manifest: Manifest) -> Any:
    word = pa.dictionary(pa.int32(), pa.string())
    fields = [
        ("generation", pa.int32()), ("prompt_id", word), ("sample", pa.int32()), ("pair", word), ("label", word),
        ("position", pa.int32()), ("phase", word), ("segment", word), ("token_id", pa.int32()), ("token", pa.string()),
    ]  # fmt: skip
    for info in manifest.layers:
        fields.append((f"{info.name}.experts", pa.list_(_ids(pa, info), info.k)))
        fields.append((f"{info.name}.weights", pa.list_(pa.float32(), info.k)))
    for signal in manifest.signals:
        kind = pa.bool_() if signal.kind == "flag" else pa.float32()
        fields.append((signal.name, kind if signal.width is None else pa.list_(kind, signal.width)))
    return pa.schema(fields, metadata={"moeprobe": "one row per routed token; null: the choice is absent"})


def _ids(pa: Any, info: LayerInfo) -> Any:
    return pa.uint8() if info.experts <= 256 else pa.uint16()


def _tables(pa: Any, trace: Trace) -> Iterator[list[Any]]:
    for info, records in trace.pieces():
        yield _columns(pa, trace.manifest, trace.open(info), records)


def _columns(pa: Any, manifest: Manifest, shard: Shard, records: list[Generation]) -> list[Any]:
    first = records[0].index
    if int(shard.generation.min()) < first or int(shard.generation.max()) >= first + len(records):
        raise TraceError(f"{shard.path} holds rows of generations that generations.jsonl puts elsewhere.")
    local = shard.generation.astype(np.int32) - np.int32(first)

    def words(values: list[str | None], codes: Array) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(values, pa.string()))

    columns = [
        pa.array(shard.generation),
        words([one.prompt_id for one in records], local),
        pa.array(np.array([one.sample for one in records], dtype=np.int32)[local]),
        _optional(pa, [one.pair for one in records], local),
        _optional(pa, [label_text(one.label) for one in records], local),
        pa.array(shard.position),
        words(list(PHASES), shard.phase.astype(np.int32)),
        words(list(manifest.segments), shard.segment.astype(np.int32)),
        pa.array(shard.token_id),
        pa.array(_tokens(shard, records, local, manifest), pa.string()),
    ]
    for info in manifest.layers:
        mask = shard.mask(info.name)
        absent = None if mask is None else ~mask.reshape(-1)
        for values, kind in ((shard.experts(info.name), _ids(pa, info)), (shard.weights(info.name), pa.float32())):
            flat = pa.array(values.reshape(-1), kind, mask=absent)
            columns.append(pa.FixedSizeListArray.from_arrays(flat, info.k))
    for signal in manifest.signals:
        values = shard.signal(signal.name)
        flat = pa.array(values.reshape(-1), from_pandas=False)
        columns.append(flat if signal.width is None else pa.FixedSizeListArray.from_arrays(flat, signal.width))
    return columns


def _optional(pa: Any, values: list[str | None], local: Array) -> Any:
    """Words of which some are missing: null in the rows, not a word of its own."""
    missing = np.array([value is None for value in values])
    codes = pa.array(local, pa.int32(), mask=missing[local])
    return pa.DictionaryArray.from_arrays(codes, pa.array([value or "" for value in values], pa.string()))


def _tokens(shard: Shard, records: list[Generation], local: Array, manifest: Manifest) -> list[str]:
    generated = np.isin(shard.segment, [manifest.segments.index(name) for name in GENERATED_SEGMENTS])
    texts = [(one.prompt_text, one.text) for one in records]
    columns = (local, generated, shard.char_start, shard.char_end)
    return [texts[g][int(a)][start:end] for g, a, start, end in zip(*(c.tolist() for c in columns), strict=True)]
