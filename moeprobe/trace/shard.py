"""One shard: a safetensors file whose rows are routed tokens.

Columns (rows,): token_id int32, generation int32, position int32 (0 = first prompt token, padding not counted),
phase uint8, segment uint8, char_start and char_end int32 (offsets of the token in the generation's prompt_text or
text). For each layer L: `L14.experts` (rows, k) uint8 up to 256 experts, else uint16; `L14.weights` (rows, k), the
gate weights as the model computed them, float16 where that loses nothing, else float32; `L14.mask` (rows, k) bool,
only where a choice is absent (False).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from moeprobe.errors import TraceError
from moeprobe.trace.manifest import LayerInfo

Array = NDArray[Any]
COLUMNS = {
    "token_id": np.int32,
    "generation": np.int32,
    "position": np.int32,
    "phase": np.uint8,
    "segment": np.uint8,
    "char_start": np.int32,
    "char_end": np.int32,
}


@dataclass(frozen=True)
class Routing:
    """Routing of one layer: experts (rows, k), weights (rows, k), mask (rows, k) or None when every choice exists."""

    experts: Array
    weights: Array
    mask: Array | None = None


@dataclass(frozen=True)
class ShardData:
    """What the writer is handed: columns (rows,) by name, and routing by layer index."""

    columns: Mapping[str, Array]
    routing: Mapping[int, Routing] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.columns["token_id"])


def write_shard(path: Path, data: ShardData, layers: tuple[LayerInfo, ...]) -> None:
    """Write a shard to `path` (the caller renames it).

    Raises:
        TraceError: a column or layer has another number of rows than `token_id`.
    """
    tensors: dict[str, Array] = {}
    for name, dtype in COLUMNS.items():
        tensors[name] = np.ascontiguousarray(data.columns[name], dtype=dtype)
    for info in layers:
        routing = data.routing[info.layer]
        tensors[f"L{info.layer}.experts"] = np.ascontiguousarray(routing.experts, dtype=_id_dtype(info))
        tensors[f"L{info.layer}.weights"] = np.ascontiguousarray(_narrow(routing.weights))
        if routing.mask is not None:
            tensors[f"L{info.layer}.mask"] = np.ascontiguousarray(routing.mask, dtype=np.bool_)
    for name, array in tensors.items():
        if len(array) != data.rows:
            raise TraceError(f"Column {name} has {array.shape} for {data.rows} rows. This is a bug in the recorder.")
    save_file(tensors, path)


class Shard:
    """A shard on disk. Nothing is read until asked for; each array is checked when it is.

    Raises:
        TraceError: on opening, when names, shapes or dtypes are not those of the manifest.
    """

    def __init__(self, path: Path, layers: tuple[LayerInfo, ...], rows: int, generations: int, segments: int) -> None:
        self.path, self.rows = path, rows
        self._layers = {info.layer: info for info in layers}
        self._limits = {"generation": generations, "segment": segments, "phase": 2}
        try:
            # The stub of safe_open leaves its methods untyped; Any keeps mypy --strict from refusing the calls.
            opened: Any = safe_open(path, framework="numpy")
            self._names: set[str] = set(opened.keys())
        except (SafetensorError, OSError, ValueError) as problem:
            raise TraceError(f"{path} is damaged or no safetensors file ({problem}).") from problem
        self._file = opened
        self._check_header()

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

    def experts(self, layer: int) -> Array:
        """Chosen experts, (rows, k), uint8 or uint16. Where `mask` is False the entry means nothing (it is 0)."""
        info = self._info(layer)
        ids = self._read(f"L{layer}.experts")
        if ids.size and int(ids.max()) >= info.experts:
            raise TraceError(f"{self.path}: L{layer} names expert {int(ids.max())}, but the layer has {info.experts}.")
        return ids

    def weights(self, layer: int) -> Array:
        """Gate weights as the model computed them, (rows, k), float32."""
        self._info(layer)
        weights = self._read(f"L{layer}.weights").astype(np.float32)
        if not np.isfinite(weights).all():
            raise TraceError(f"{self.path}: L{layer}.weights holds NaN or infinity; such a run says nothing.")
        return weights

    def mask(self, layer: int) -> Array | None:
        """Which choices exist, (rows, k) bool, or None when all do."""
        self._info(layer)
        name = f"L{layer}.mask"
        return self._read(name) if name in self._names else None

    def _column(self, name: str) -> Array:
        values = self._read(name)
        limit = self._limits.get(name)
        if values.size and (int(values.min()) < 0 or (limit is not None and int(values.max()) >= limit)):
            raise TraceError(f"{self.path}: column {name} holds values outside 0..{limit}. The shard is damaged.")
        return values

    def _read(self, name: str) -> Array:
        try:
            array: Array = self._file.get_tensor(name)
        except (SafetensorError, OSError, ValueError) as problem:
            raise TraceError(f"{self.path}: could not read {name} ({problem}).") from problem
        return array

    def _info(self, layer: int) -> LayerInfo:
        if layer not in self._layers:
            known = ", ".join(f"L{number}" for number in sorted(self._layers))
            raise TraceError(f"The trace holds no routing of L{layer}. It holds {known}.")
        return self._layers[layer]

    def _check_header(self) -> None:
        expected: dict[str, tuple[set[str], list[int]]] = {
            name: ({"I32"} if np.dtype(dtype) == np.int32 else {"U8"}, [self.rows]) for name, dtype in COLUMNS.items()
        }
        optional: dict[str, tuple[set[str], list[int]]] = {}
        for info in self._layers.values():
            shape = [self.rows, info.k]
            expected[f"L{info.layer}.experts"] = ({"U8" if info.experts <= 256 else "U16"}, shape)
            expected[f"L{info.layer}.weights"] = ({"F16", "F32"}, shape)
            optional[f"L{info.layer}.mask"] = ({"BOOL"}, shape)
        missing = sorted(set(expected) - self._names)
        if missing:
            raise TraceError(f"{self.path}: {missing[0]} is missing. The shard is damaged or of another run.")
        for name in sorted(self._names):
            wanted = expected.get(name) or optional.get(name)
            if wanted is None:
                raise TraceError(f"{self.path}: unknown column {name!r}. The shard is of another run or version.")
            piece = self._file.get_slice(name)
            dtype, shape = piece.get_dtype(), list(piece.get_shape())
            if dtype not in wanted[0] or shape != wanted[1]:
                raise TraceError(
                    f"{self.path}: {name} is {dtype} {shape}, expected {'/'.join(sorted(wanted[0]))} {wanted[1]}."
                )


def _id_dtype(info: LayerInfo) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if info.experts <= 256 else np.uint16


def _narrow(weights: Array) -> Array:
    """float16 where every weight survives the round trip (bfloat16 gates mostly do), else float32."""
    full = np.asarray(weights, dtype=np.float32)
    with np.errstate(over="ignore"):
        half = full.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), full) else full
