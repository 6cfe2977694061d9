"""`run.json`: what was run and what was recorded. Format `moeprobe.trace/1`."""

import json
from dataclasses import dataclass, field
from typing import Any

from moeprobe.errors import TraceError
from moeprobe.fields import Fields, parse_json

FORMAT = "moeprobe.trace/1"
# Code in the `segment` column -> name. New names go to the end: the codes are on people's disks.
SEGMENTS = ("prompt", "answer", "system", "user", "thinking")
# Code in the `phase` column -> name.
PHASES = ("prefill", "decode")
MAX_EXPERTS = 65_536


@dataclass(frozen=True)
class LayerInfo:
    """One layer whose routing was recorded.

    Attributes:
        layer: the model's own layer index; dense layers count too.
        experts: number of experts E the router chooses from.
        k: choices per token.
        weight_sum: mean over tokens of the sum of the k gate weights (1.0 where they are renormalised).
        shared: whether shared experts run beside the routed ones, and so are not in the trace.
        module: path of the experts module inside the model.
    """

    layer: int
    experts: int
    k: int
    weight_sum: float
    shared: bool
    module: str

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class ShardInfo:
    """One shard file: its name inside `shards/`, its number of rows and its SHA-256."""

    name: str
    rows: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Manifest:
    """All of `run.json`. The sections that are plain objects are provenance, free to grow."""

    layers: tuple[LayerInfo, ...]
    shards: tuple[ShardInfo, ...]
    generations: int
    rows: int
    generations_sha256: str
    complete: bool
    created: str
    moeprobe: str
    model: dict[str, Any]
    tokenizer: dict[str, Any]
    decoding: dict[str, Any]
    engine: dict[str, Any]
    versions: dict[str, Any]
    prompts: dict[str, Any]
    captured: tuple[str, ...] = ("experts", "weights")
    segments: tuple[str, ...] = field(default=SEGMENTS)

    def to_json(self) -> str:
        """The manifest as indented JSON text."""
        body = {"format": FORMAT, **vars(self)}
        body["layers"] = [layer.to_json() for layer in self.layers]
        body["shards"] = [shard.to_json() for shard in self.shards]
        return json.dumps(body, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def parse_manifest(text: str, where: str) -> Manifest:
    """Read and validate `run.json`.

    Raises:
        TraceError: another format version, a missing or impossible field; the message names it.
    """
    fields = Fields(parse_json(text, where, TraceError), where, TraceError)
    if fields.text("format") != FORMAT:
        raise TraceError(
            f"{where}: format {fields.data['format']!r}, but this moeprobe reads {FORMAT!r}. "
            "Use the version of moeprobe that wrote the trace, or a newer one."
        )
    layers = tuple(_layer(item, f"{where}, layers[{index}]") for index, item in enumerate(fields.items("layers")))
    if not layers or len({info.layer for info in layers}) != len(layers):
        raise TraceError(f'{where}: "layers" must name at least one layer, and each layer once.')
    shards = tuple(_shard(item, f"{where}, shards[{index}]") for index, item in enumerate(fields.items("shards")))
    segments, captured = _texts(fields, "segments"), _texts(fields, "captured")
    if segments[: len(SEGMENTS)] != SEGMENTS:
        raise TraceError(f"{where}: unknown segment codes {segments!r}; this moeprobe knows {SEGMENTS!r}.")
    sections = ("model", "tokenizer", "decoding", "engine", "versions", "prompts")
    manifest = Manifest(
        layers=layers,
        shards=shards,
        generations=fields.integer("generations"),
        rows=fields.integer("rows"),
        generations_sha256=fields.text("generations_sha256"),
        complete=fields.flag("complete"),
        created=fields.text("created"),
        moeprobe=fields.text("moeprobe"),
        captured=captured,
        segments=segments,
        **{name: fields.section(name) for name in sections},
    )
    if sum(shard.rows for shard in shards) != manifest.rows:
        held = sum(shard.rows for shard in shards)
        raise TraceError(f"{where}: {manifest.rows} rows are announced, but the shards hold {held}.")
    return manifest


def _layer(item: object, where: str) -> LayerInfo:
    fields = Fields(item, where, TraceError)
    experts = fields.integer("experts", 1, MAX_EXPERTS)
    return LayerInfo(
        layer=fields.integer("layer", 0, 999_999),
        experts=experts,
        k=fields.integer("k", 1, experts),
        weight_sum=fields.number("weight_sum"),
        shared=fields.flag("shared"),
        module=fields.text("module"),
    )


def _shard(item: object, where: str) -> ShardInfo:
    fields = Fields(item, where, TraceError)
    name = fields.text("name")
    if not (len(name) == 18 and name[:6].isascii() and name[:6].isdigit() and name.endswith(".safetensors")):
        raise TraceError(f"{where}: {name!r} is no shard name; expected NNNNNN.safetensors.")
    return ShardInfo(name=name, rows=fields.integer("rows"), sha256=fields.text("sha256"))


def _texts(fields: Fields, key: str) -> tuple[str, ...]:
    items = fields.items(key)
    if not all(isinstance(item, str) for item in items):
        raise TraceError(f"{fields.where}: {key!r} must be a list of texts.")
    return tuple(items)
