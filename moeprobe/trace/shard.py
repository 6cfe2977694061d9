"""One shard: a safetensors file whose rows are routed tokens.

Columns (rows,): token_id int32, generation int32, position int32 (0 = first prompt token, padding not counted),
phase uint8, segment uint8, char_start and char_end int32 (offsets of the token in the generation's prompt_text or
text). For each layer, by its name: `L14.experts` (rows, k) uint8 up to 256 experts, else uint16; `L14.weights`
(rows, k), the gate weights as the model computed them, float16 where that loses nothing, else float32; `L14.mask`
(rows, k) bool, only where a choice is absent (False). A token that was not routed in a layer is False in all k.
Signals have their own names, (rows,) or (rows, width).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import TraceError
from moeprobe.trace.index import ShardInfo
from moeprobe.trace.manifest import PHASES, LayerInfo, Manifest
from moeprobe.trace.tensors import Planned, Spec, TensorFile

Array = NDArray[Any]
COLUMNS: dict[str, type[np.generic]] = {
    "token_id": np.int32,
    "generation": np.int32,
    "position": np.int32,
    "phase": np.uint8,
    "segment": np.uint8,
    "char_start": np.int32,
    "char_end": np.int32,
}
_HALF = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)


@dataclass(frozen=True)
class Routing:
    """Routing of one layer: experts (rows, k), weights (rows, k), mask (rows, k) or None when every choice exists."""

    experts: Array
    weights: Array
    mask: Array | None = None


@dataclass(frozen=True)
class ShardData:
    """What the writer is handed: columns (rows,) by name, routing by layer name ("L14"), signals by name."""

    columns: Mapping[str, Array]
    routing: Mapping[str, Routing] = field(default_factory=dict)
    signals: Mapping[str, Array] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.columns["token_id"])

    def part(self, rows: slice) -> "ShardData":
        """Some of the rows, without copying."""
        routing = {
            name: Routing(one.experts[rows], one.weights[rows], None if one.mask is None else one.mask[rows])
            for name, one in self.routing.items()
        }
        columns = {name: values[rows] for name, values in self.columns.items()}
        return ShardData(columns, routing, {name: values[rows] for name, values in self.signals.items()})


def row_bytes(manifest: Manifest) -> int:
    """Most bytes one row takes."""
    columns = sum(np.dtype(dtype).itemsize for dtype in COLUMNS.values())
    layers = sum(info.k * (_id_dtype(info)().itemsize + 4 + 1) for info in manifest.layers)
    signals = sum((signal.width or 1) * (4 if signal.kind == "float" else 1) for signal in manifest.signals)
    return columns + layers + signals


def tensors_of(data: ShardData, manifest: Manifest) -> dict[str, Planned]:
    """The arrays as they go to disk: narrowed, contiguous, and of the shapes that the manifest announces.

    Raises:
        TraceError: a column, layer or signal is missing or has another shape, ids are out of range, weights are not
            finite.
    """
    rows = data.rows
    tensors = {name: _planned(_shaped(data.columns, name, (rows,)), np.dtype(dtype)) for name, dtype in COLUMNS.items()}
    for info in manifest.layers:
        if info.name not in data.routing:
            raise TraceError(f"There is no routing of {info.name} in this batch. This is a bug in the recorder.")
        tensors |= _layer_tensors(info, data.routing[info.name], rows)
    for signal in manifest.signals:
        shape = (rows,) if signal.width is None else (rows, signal.width)
        values = _shaped(data.signals, signal.name, shape)
        if signal.kind == "float" and not signal.nan and not _finite(values):
            raise TraceError(f"Signal {signal.name} holds NaN or infinity, which its description rules out.")
        tensors[signal.name] = _planned(values, np.dtype(np.bool_)) if signal.kind == "flag" else _floats(values)
    return tensors


class Shard:
    """A shard on disk. Nothing but the header is read until asked for; each array is checked when it is.

    Raises:
        TraceError: on opening, when names, shapes or dtypes are not those of the manifest.
    """

    def __init__(self, path: Path, info: ShardInfo, manifest: Manifest) -> None:
        self.path, self.rows = path, info.rows
        self._layers = {layer.name: layer for layer in manifest.layers}
        self._signals = {signal.name: signal for signal in manifest.signals}
        self._limits = {
            "generation": manifest.generations,
            "segment": len(manifest.segments),
            "phase": len(PHASES),
        }
        self._file = TensorFile(path, info.stamp, _expected(manifest, info.rows))
        # 22 bytes a row; the columns are asked for again and again, the layers are not.
        self._columns: dict[str, Array] = {}

    @property
    def token_id(self) -> Array:
        return self._column("token_id")

    @property
    def generation(self) -> Array:
        return self._column("generation")

    @property
    def position(self) -> Array:
        return self._column("position")

    @property
    def phase(self) -> Array:
        return self._column("phase")

    @property
    def segment(self) -> Array:
        return self._column("segment")

    @property
    def char_start(self) -> Array:
        return self._column("char_start")

    @property
    def char_end(self) -> Array:
        return self._column("char_end")

    def experts(self, layer: int | str) -> Array:
        """Chosen experts, (rows, k), uint8 or uint16. Where `mask` is False the entry means nothing (it is 0).

        Args:
            layer: "L14", "encoder.L3"; a number means the main stack.
        """
        info = self._info(layer)
        ids = self._file.read(f"{info.name}.experts")
        if int(ids.max()) >= info.experts:
            raise TraceError(
                f"{self.path}: {info.name} names expert {int(ids.max())}, but the layer has {info.experts}. "
                "The shard is damaged."
            )
        return ids

    def weights(self, layer: int | str) -> Array:
        """Gate weights as the model computed them, (rows, k), float32."""
        info = self._info(layer)
        return widened(self.stored(f"{info.name}.weights"))

    def stored(self, name: str) -> Array:
        """A column as it lies on disk, for example "L14.weights": float16 weights stay float16.

        Raises:
            TraceError: there is no such column, or it was altered.
        """
        if name not in self._file.names:
            raise TraceError(f"{self.path} holds no column {name[:100]!r}.")
        values = self._file.read(name)
        if name.endswith(".weights") and not _finite(values):
            raise TraceError(f"{self.path}: {name} holds NaN or infinity; such a run says nothing.")
        return values

    def mask(self, layer: int | str) -> Array | None:
        """Which choices exist, (rows, k) bool, or None when all do."""
        name = f"{self._info(layer).name}.mask"
        return self._file.read(name) if name in self._file.names else None

    def signal(self, name: str) -> Array:
        """A signal, (rows,) or (rows, width), float32 or bool.

        Raises:
            TraceError: the trace does not hold it, or it was altered.
        """
        if name not in self._signals:
            known = ", ".join(sorted(self._signals)) or "none"
            raise TraceError(f"The trace holds no signal {name[:100]!r}. It holds {known}.")
        values = self._file.read(name)
        if values.dtype == np.bool_:
            return values
        values = widened(values)
        if not self._signals[name].nan and not np.isfinite(values).all():
            raise TraceError(f"{self.path}: {name} holds NaN or infinity, which run.json rules out.")
        return values

    def _column(self, name: str) -> Array:
        if name not in self._columns:
            values = self._file.read(name)
            limit = self._limits.get(name)
            if int(values.min()) < 0 or (limit is not None and int(values.max()) >= limit):
                bound = "below 0" if limit is None else f"outside 0 to {limit - 1}"
                raise TraceError(f"{self.path}: column {name} holds values {bound}. The shard is damaged.")
            values.setflags(write=False)
            self._columns[name] = values
        return self._columns[name]

    def _info(self, layer: int | str) -> LayerInfo:
        name = layer if isinstance(layer, str) else f"L{layer}"
        if name not in self._layers:
            raise TraceError(f"The trace holds no routing of {name[:60]}. It holds {', '.join(self._layers)}.")
        return self._layers[name]


def _expected(manifest: Manifest, rows: int) -> dict[str, Spec]:
    specs = {name: Spec(("I32",) if dtype is np.int32 else ("U8",), (rows,)) for name, dtype in COLUMNS.items()}
    for info in manifest.layers:
        shape = (rows, info.k)
        specs[f"{info.name}.experts"] = Spec(("U8",) if info.experts <= 256 else ("U16",), shape)
        specs[f"{info.name}.weights"] = Spec(("F16", "F32"), shape)
        specs[f"{info.name}.mask"] = Spec(("BOOL",), shape, optional=True)
    for signal in manifest.signals:
        dtypes = ("BOOL",) if signal.kind == "flag" else ("F16", "F32")
        specs[signal.name] = Spec(dtypes, (rows,) if signal.width is None else (rows, signal.width))
    return specs


def _layer_tensors(info: LayerInfo, routing: Routing, rows: int) -> dict[str, Planned]:
    shape = (rows, info.k)
    arrays = {"experts": routing.experts, "weights": routing.weights}
    ids, weights = (_shaped(arrays, name, shape, info.name) for name in arrays)
    if _largest(ids) >= info.experts:
        found = f"{int(ids.min())} to {int(ids.max())}"
        raise TraceError(f"{info.name}: expert ids from {found}, but there are {info.experts} experts.")
    if not _finite(weights):
        raise TraceError(f"{info.name}: the gate weights hold NaN or infinity; such a run says nothing.")
    tensors = {
        f"{info.name}.experts": _planned(ids, np.dtype(_id_dtype(info))),
        f"{info.name}.weights": _floats(weights),
    }
    if routing.mask is not None:
        mask = _shaped({"mask": routing.mask}, "mask", shape, info.name)
        tensors[f"{info.name}.mask"] = _planned(mask, np.dtype(np.bool_))
    return tensors


def _largest(ids: Array) -> int:
    """The largest number; negative ones count as larger than all."""
    if ids.dtype.kind == "u":
        return int(ids.max())
    return int(np.ascontiguousarray(ids, dtype=np.int64).view(np.uint64).max())


def _finite(values: Array) -> bool:
    infinity = {"float16": (np.uint16, 0x7C00), "float32": (np.uint32, 0x7F800000)}.get(values.dtype.name)
    if infinity is not None:
        # As bits, NaN, infinity and everything negative are no smaller than infinity: one look settles most arrays.
        bits = np.ascontiguousarray(values).view(infinity[0])
        if int(bits.max()) < infinity[1]:
            return True
    return bool(np.isfinite(values).all())


def _planned(values: Array, dtype: np.dtype[Any]) -> Planned:
    return Planned(dtype, values.shape, lambda: np.ascontiguousarray(values, dtype=dtype))


def _shaped(arrays: Mapping[str, Array], name: str, shape: tuple[int, ...], where: str = "column") -> Array:
    array = arrays.get(name)
    if array is None or np.shape(array) != shape:
        found = "missing" if array is None else f"of shape {np.shape(array)}"
        raise TraceError(f"{where} {name} is {found}, expected {shape}. This is a bug in the recorder.")
    return np.asarray(array)


def _id_dtype(info: LayerInfo) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if info.experts <= 256 else np.uint16


def _floats(values: Array) -> Planned:
    """float16 where every number survives the round trip (bfloat16 gates mostly do), else float32."""
    if values.dtype == np.float16:
        return _planned(values, values.dtype)
    full = np.ascontiguousarray(values, dtype=np.float32)
    # float16 has 13 bits of mantissa less; a number that uses one of them does not survive.
    if int(np.bitwise_or.reduce(full.view(np.uint32), axis=None)) & 0x1FFF:
        return Planned(np.dtype(np.float32), full.shape, lambda: full)
    size = full.view(np.uint32) & np.uint32(0x7FFFFFFF)
    if int(size.min()) >= 0x38800000 and int(size.max()) < 0x47800000:
        return Planned(np.dtype(np.float16), full.shape, lambda: _shifted(full))
    with np.errstate(over="ignore"):
        half = full.astype(np.float16)
    if np.array_equal(half.astype(np.float32), full, equal_nan=True):
        return Planned(np.dtype(np.float16), full.shape, lambda: half)
    return Planned(np.dtype(np.float32), full.shape, lambda: full)


def _shifted(full: Array) -> Array:
    """float16 of numbers with 2**-14 <= |x| < 2**16: only the offset of the exponent changes. Ten times as fast as
    astype."""
    bits = full.view(np.uint32)
    size = (bits & np.uint32(0x7FFFFFFF)) >> np.uint32(13)
    half = size - np.uint32(0x1C000) | (bits >> np.uint32(16)) & np.uint32(0x8000)
    return half.astype(np.uint16).view(np.float16)


def widened(values: Array) -> Array:
    """float32; twice to four times as fast as astype."""
    if values.dtype != np.float16:
        return values
    bits = values.view(np.uint16)
    if int(bits.min()) >= 0x0400 and int(bits.max()) < 0x7C00:  # positive, normal: the exponent moves
        wide = bits.astype(np.uint32)
        wide <<= np.uint32(13)
        wide += np.uint32(0x38000000)
        return wide.view(np.float32)
    full: Array = _HALF.take(bits)
    return full
