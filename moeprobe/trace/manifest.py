"""`run.json`: what was run and what was recorded. Format `moeprobe.trace/2`."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from moeprobe.errors import TraceError
from moeprobe.fields import Fields, parse_json

FORMAT = "moeprobe.trace/2"
# Code in the `segment` column -> name. New names go to the end: the codes are on people's disks.
SEGMENTS = ("prompt", "answer", "system", "user", "thinking", "assistant", "tool")
# Segments of tokens the model generated; char_start and char_end of all others point into `prompt_text`.
GENERATED_SEGMENTS = ("answer", "thinking")
# Code in the `phase` column -> name.
PHASES = ("prefill", "decode")
SECTIONS = ("model", "tokenizer", "decoding", "engine", "versions", "prompts")
MAX_EXPERTS = 65_536
MAX_LAYERS = 10_000
MAX_WIDTH = 1 << 20
# A manifest holds no list that grows with the run. The bound limits what parsing a hostile one may allocate.
MAX_MANIFEST_BYTES = 8 << 20
_STACK = re.compile(r"[a-z][a-z0-9_]{0,31}")
_SIGNAL = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_RESERVED = re.compile(r"(.*\.)?L\d+\.(experts|weights|mask)")
_COLUMNS = ("token_id", "generation", "position", "phase", "segment", "char_start", "char_end")
# Further columns of what `export_parquet` writes.
_EXPORTED = ("prompt_id", "sample", "pair", "label", "token")
_CHECK = ',\n "check": "'
_DIGEST = re.compile(r"([0-9a-f]{64})?")


@dataclass(frozen=True)
class LayerInfo:
    """One layer whose routing was recorded.

    Attributes:
        layer: the model's own layer index; dense layers count too.
        experts: number of experts E the router chooses from.
        k: choices per token.
        weight_sum: mean over the tokens routed there of the sum of their gate weights (1.0 where they are
            renormalised). The writer fills it in.
        shared: whether shared experts run beside the routed ones, and so are not in the trace.
        module: path of the experts module inside the model.
        stack: "" for the main (text decoder) stack, else its name, for example "encoder".
    """

    layer: int
    experts: int
    k: int
    weight_sum: float
    shared: bool
    module: str
    stack: str = ""

    @property
    def name(self) -> str:
        """ "L14", or "encoder.L14" outside the main stack."""
        return f"{self.stack}.L{self.layer}" if self.stack else f"L{self.layer}"

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Signal:
    """An optional column.

    Attributes:
        name: for example "L14.logits", "residual.L22", "entropy".
        width: numbers per token; None for one number, stored as (rows,) instead of (rows, width).
        kind: "float" or "flag" (true or false).
        nan: whether NaN may stand for "not there".
        meaning: one sentence for people.
    """

    name: str
    width: int | None
    kind: str
    nan: bool
    meaning: str

    def __post_init__(self) -> None:
        if not _SIGNAL.fullmatch(self.name) or len(self.name) > 100:
            raise TraceError(
                f"{self.name[:100]!r} is no name for a signal: write words of letters and digits, with dots between."
            )
        if self.name in (*_COLUMNS, *_EXPORTED) or _RESERVED.fullmatch(self.name):
            raise TraceError(
                f"A signal cannot be called {self.name!r}: that is a column of every trace, or of its export."
            )
        if self.kind not in ("float", "flag"):
            raise TraceError(f"Signal {self.name}: the kind is {self.kind!r}, expected 'float' or 'flag'.")
        if self.width is not None and not 1 <= self.width <= MAX_WIDTH:
            raise TraceError(f"Signal {self.name}: a width of {self.width}, expected 1 to {MAX_WIDTH}.")

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Manifest:
    """All of `run.json`. The sections that are plain objects are provenance, free to grow.

    Attributes:
        layers: the recorded layers, those of the main stack first.
        shards, generations, rows: how many there are.
        shards_sha256, generations_sha256: of `shards.jsonl` and `generations.jsonl`; "" while incomplete.
        created, resumed: when the run began, and when it was taken up again after an interruption.
        merged: for a merge of several runs, what each was.
    """

    layers: tuple[LayerInfo, ...]
    created: str
    moeprobe: str
    model: dict[str, Any]
    tokenizer: dict[str, Any]
    decoding: dict[str, Any]
    engine: dict[str, Any]
    versions: dict[str, Any]
    prompts: dict[str, Any]
    complete: bool = False
    shards: int = 0
    generations: int = 0
    rows: int = 0
    shards_sha256: str = ""
    generations_sha256: str = ""
    resumed: tuple[str, ...] = ()
    merged: tuple[dict[str, Any], ...] = ()
    captured: tuple[str, ...] = ("experts", "weights")
    segments: tuple[str, ...] = field(default=SEGMENTS)
    signals: tuple[Signal, ...] = ()

    @property
    def main_layers(self) -> tuple[LayerInfo, ...]:
        """The layers of the main (text decoder) stack."""
        return tuple(info for info in self.layers if not info.stack)

    def to_json(self) -> str:
        """The manifest as indented JSON text."""
        body = {"format": FORMAT, **vars(self)}
        body["layers"] = [layer.to_json() for layer in self.layers]
        body["signals"] = [signal.to_json() for signal in self.signals]
        return signed(json.dumps(body, indent=1, ensure_ascii=True, allow_nan=False).removesuffix("\n}"))


def signed(body: str) -> str:
    """JSON text without its last brace -> whole, with a SHA-256 of all that stands before it as the last field."""
    return f'{body}{_CHECK}{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


def parse_manifest(text: str, where: str) -> Manifest:
    """Read and validate `run.json`.

    Raises:
        TraceError: another format version, altered, a missing or impossible field; the message names it.
    """
    fields = Fields(parse_json(text, where, TraceError), where, TraceError)
    # Before the check: another version may have another one.
    _check_format(fields.text("format"), where)
    if text != signed(text.rpartition(_CHECK)[0]):
        raise TraceError(
            f"{where} was altered since it was written (it does not match the SHA-256 in its last line). "
            "Copy the trace again, or record it again."
        )
    layers = tuple(_layer(item, f"{where}, layers[{index}]") for index, item in enumerate(fields.items("layers")))
    if not 0 < len({info.name for info in layers}) == len(layers) <= MAX_LAYERS:
        raise TraceError(f'{where}: "layers" must name 1 to {MAX_LAYERS} layers, and each layer once.')
    signals = tuple(_signal(item, f"{where}, signals[{index}]") for index, item in enumerate(fields.items("signals")))
    if not len({signal.name for signal in signals}) == len(signals) <= MAX_LAYERS:
        raise TraceError(f'{where}: "signals" must name each signal once, and at most {MAX_LAYERS}.')
    segments = _texts(fields, "segments")
    if segments[: len(SEGMENTS)] != SEGMENTS:
        raise TraceError(f"{where}: unknown segment codes {str(segments)[:200]}; this moeprobe knows {SEGMENTS!r}.")
    if len(segments) > 256:
        raise TraceError(f"{where}: {len(segments)} segments; their codes are single bytes.")
    merged = fields.items("merged")
    if not all(isinstance(item, dict) for item in merged):
        raise TraceError(f"{where}: 'merged' must be a list of objects.")
    return Manifest(
        layers=layers,
        complete=fields.flag("complete"),
        shards=fields.integer("shards"),
        generations=fields.integer("generations", 0, 2**31 - 1),
        rows=fields.integer("rows"),
        shards_sha256=digest(fields, "shards_sha256"),
        generations_sha256=digest(fields, "generations_sha256"),
        created=fields.text("created"),
        resumed=_texts(fields, "resumed"),
        merged=tuple(merged),
        moeprobe=fields.text("moeprobe"),
        captured=_texts(fields, "captured"),
        segments=segments,
        signals=signals,
        **{name: fields.section(name) for name in SECTIONS},
    )


def digest(fields: Fields, key: str) -> str:
    """A hex SHA-256, or "" for none yet."""
    value = fields.text(key)
    if not _DIGEST.fullmatch(value):
        raise fields.error(f"{fields.where}: {key!r} is no SHA-256 (64 hex digits).")
    return value


def _check_format(found: str, where: str) -> None:
    if found == FORMAT:
        return
    known = re.fullmatch(r"moeprobe\.trace/(\d{1,6})", found)
    if known is None:
        remedy = "It is no trace of moeprobe."
    elif int(known[1]) > int(FORMAT.rpartition("/")[2]):
        remedy = "A newer moeprobe wrote it: upgrade with `pip install --upgrade moeprobe`."
    else:
        remedy = "A development version before the first release wrote it: record the run again."
    raise TraceError(f"{where}: format {found[:60]!r}, but this moeprobe reads {FORMAT!r}. {remedy}")


def _layer(item: object, where: str) -> LayerInfo:
    fields = Fields(item, where, TraceError)
    experts = fields.integer("experts", 1, MAX_EXPERTS)
    stack = fields.text("stack")
    if stack and not _STACK.fullmatch(stack):
        raise TraceError(f"{where}: {stack[:60]!r} is no name of a stack (small letters, digits and _).")
    return LayerInfo(
        layer=fields.integer("layer", 0, 999_999),
        experts=experts,
        k=fields.integer("k", 1, experts),
        weight_sum=number(fields, "weight_sum"),
        shared=fields.flag("shared"),
        module=fields.text("module"),
        stack=stack,
    )


def number(fields: Fields, key: str) -> float:
    """A finite number. JSON may hold whole numbers too large for a float, which `Fields.number` does not expect."""
    value = fields.data.get(key)
    if isinstance(value, int) and abs(value) > 2**53:
        raise fields.error(f"{fields.where}: {key!r} must be a finite number, found one of {len(str(value))} digits.")
    return fields.number(key)


def _signal(item: object, where: str) -> Signal:
    fields = Fields(item, where, TraceError)
    try:
        return Signal(
            name=fields.text("name"),
            width=None if fields.data.get("width") is None else fields.integer("width", 1, MAX_WIDTH),
            kind=fields.text("kind"),
            nan=fields.flag("nan"),
            meaning=fields.text("meaning"),
        )
    except TraceError as problem:
        raise problem if str(problem).startswith(where) else TraceError(f"{where}: {problem}") from problem


def _texts(fields: Fields, key: str) -> tuple[str, ...]:
    items = fields.items(key)
    if not all(isinstance(item, str) for item in items):
        raise TraceError(f"{fields.where}: {key!r} must be a list of texts.")
    return tuple(items)
