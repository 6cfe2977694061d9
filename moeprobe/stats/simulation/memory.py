"""A simulated trace in memory, of the shape that `moeprobe.trace.Trace` has; `save` writes a real one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import moeprobe
from moeprobe.errors import StatsError
from moeprobe.stats.simulation.world import Label, World

Array = NDArray[Any]
# As in moeprobe.trace, which is imported only when a trace is saved.
SEGMENTS = ("prompt", "answer", "system", "user", "thinking", "assistant", "tool")


@dataclass(frozen=True)
class SimulatedLayer:
    """A layer: its number, experts and choices per token."""

    layer: int
    experts: int
    k: int
    stack: str = ""

    @property
    def name(self) -> str:
        return f"L{self.layer}"


@dataclass(frozen=True)
class SimulatedManifest:
    """The parts of a manifest that say how to read the shards."""

    layers: tuple[SimulatedLayer, ...]
    segments: tuple[str, ...] = SEGMENTS

    @property
    def main_layers(self) -> tuple[SimulatedLayer, ...]:
        return self.layers


@dataclass(frozen=True)
class SimulatedGeneration:
    """One generation; fields as in `moeprobe.trace.Generation`.

    `metadata` holds "topic", the scores if the world has any, and, where the register comes and goes, "register": the
    stretches of `text` in it, as [start, end] in characters.
    """

    index: int
    prompt_id: str
    sample: int
    prompt_text: str
    text: str
    prompt_rows: int
    answer_rows: int
    pair: str | None = None
    label: Label = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return self.prompt_rows + self.answer_rows


@dataclass(frozen=True)
class SimulatedShard:
    """Rows of some generations. `columns` are (rows,); `routing` has experts and weights (rows, k) of each layer;
    `signals` has (rows, experts) router logits, if the world keeps them."""

    columns: Mapping[str, Array]
    routing: Mapping[str, tuple[Array, Array]]
    signals: Mapping[str, Array] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.columns["generation"])

    @property
    def token_id(self) -> Array:
        return self.columns["token_id"]

    @property
    def generation(self) -> Array:
        return self.columns["generation"]

    @property
    def position(self) -> Array:
        return self.columns["position"]

    @property
    def phase(self) -> Array:
        return self.columns["phase"]

    @property
    def segment(self) -> Array:
        return self.columns["segment"]

    @property
    def char_start(self) -> Array:
        return self.columns["char_start"]

    @property
    def char_end(self) -> Array:
        return self.columns["char_end"]

    def experts(self, layer: int | str) -> Array:
        """Chosen experts, (rows, k), the one with the largest weight first; `layer` is 0 or "L0"."""
        return self._routing(layer)[0]

    def weights(self, layer: int | str) -> Array:
        """Gate weights, (rows, k), float32; they add up to 1."""
        return self._routing(layer)[1]

    def mask(self, layer: int | str) -> Array | None:
        """None: every choice exists."""
        self._routing(layer)
        return None

    def signal(self, name: str) -> Array:
        """Router logits, (rows, experts), by the name "L0.logits".

        Raises:
            StatsError: the world did not keep them.
        """
        if name not in self.signals:
            raise StatsError(f"The simulated trace holds no signal {name[:60]!r}; World(logits=True) keeps L0.logits.")
        return self.signals[name]

    def take(self, rows: Array) -> "SimulatedShard":
        """Some of the rows, by number."""
        return SimulatedShard(
            {name: values[rows] for name, values in self.columns.items()},
            {name: (ids[rows], weights[rows]) for name, (ids, weights) in self.routing.items()},
            {name: values[rows] for name, values in self.signals.items()},
        )

    def _routing(self, layer: int | str) -> tuple[Array, Array]:
        name = layer if isinstance(layer, str) else f"L{layer}"
        if name not in self.routing:
            raise StatsError(f"The simulated trace has no layer {name[:60]}. It has {', '.join(self.routing)}.")
        return self.routing[name]


@dataclass(frozen=True)
class SimulatedTrace:
    """A trace that no model made, and what is true of it.

    Attributes:
        seed, world: `simulate(seed, world)` makes the same trace again.
        effects: shift of the logit at full strength, by the name of each planted expert ("L0.E3"); with delta 0 all 0.
        manifest, generations, pieces: the trace itself; `shards()` yields the pieces.
    """

    seed: int
    world: World
    effects: Mapping[str, float]
    manifest: SimulatedManifest
    generations: list[SimulatedGeneration]
    pieces: tuple[SimulatedShard, ...]

    @property
    def truth(self) -> frozenset[str]:
        """Names of the experts that follow the register; empty where delta is 0."""
        return frozenset(name for name, shift in self.effects.items() if shift)

    @property
    def silent_layers(self) -> tuple[int, ...]:
        """Layers without any planted expert. In the others, experts are displaced by those that are planted."""
        held = {name.partition(".")[0] for name in self.truth}
        return tuple(info.layer for info in self.manifest.layers if info.name not in held)

    @property
    def spans(self) -> tuple[NDArray[np.int64], ...]:
        """For each generation the stretches of its text in the register, (stretches, 2) characters [start, end)."""
        return tuple(
            np.array(one.metadata.get("register", []), dtype=np.int64).reshape(-1, 2) for one in self.generations
        )

    def shards(self) -> Iterator[SimulatedShard]:
        """The rows, piece by piece."""
        yield from self.pieces

    def relabelled(self, labels: Sequence[Label]) -> "SimulatedTrace":
        """The same rows with other labels; `truth` still says which experts follow the register.

        Args:
            labels: one for each generation, in their order.

        Raises:
            StatsError: another number of labels.
        """
        if len(labels) != len(self.generations):
            raise StatsError(f"{len(labels)} labels for {len(self.generations)} generations.")
        made = [replace(one, label=label) for one, label in zip(self.generations, labels, strict=True)]
        return replace(self, generations=made)

    def resharded(self, order: Sequence[Sequence[int]]) -> "SimulatedTrace":
        """The same rows in other shards.

        Args:
            order: for each new shard the generations it holds; each generation once.

        Raises:
            StatsError: a generation is missing or comes twice.
        """
        if sorted(one for members in order for one in members) != list(range(len(self.generations))):
            raise StatsError(f"The new shards must hold each of the {len(self.generations)} generations once.")
        whole = _joined(self.pieces)
        pieces = [np.concatenate([np.flatnonzero(whole.generation == one) for one in members]) for members in order]
        return replace(self, pieces=tuple(whole.take(rows) for rows in pieces))

    def save(self, path: str | Path) -> Path:
        """Write a real trace, that `moeprobe.trace.load_trace` and every command reads.

        `run.json` says under "model" that it was simulated, with the seed, the world and the truth. Where the register
        comes and goes, its words stand in capitals in the text, so that a probe can read them.

        Args:
            path: the name of the trace; nothing may stand there yet.

        Returns:
            Where it was written.

        Raises:
            OutputError: something stands there already, or the disk refuses.
        """
        from moeprobe.trace import Generation, Routing, ShardData, TraceWriter

        manifest = _real_manifest(self)
        ordered = sorted(self.pieces, key=lambda piece: int(piece.generation[0]))
        numbers = np.concatenate([piece.generation for piece in ordered])
        pieces = ordered if (np.diff(numbers) >= 0).all() else [_sorted(_joined(ordered))]
        end = self.world.vocabulary
        with TraceWriter(Path(path)) as writer:
            for piece in pieces:
                routing = {name: Routing(ids, weights) for name, (ids, weights) in piece.routing.items()}
                records = [
                    Generation(stop="eos", generated=one.answer_rows + 1, last_token=end, **vars(one))
                    for one in (self.generations[number] for number in np.unique(piece.generation))
                ]
                writer.add(ShardData(piece.columns, routing, piece.signals), records, manifest)
            return writer.finish()


def _joined(pieces: Sequence[SimulatedShard]) -> SimulatedShard:
    first = pieces[0]
    return SimulatedShard(
        {name: np.concatenate([piece.columns[name] for piece in pieces]) for name in first.columns},
        {
            name: (
                np.concatenate([piece.routing[name][0] for piece in pieces]),
                np.concatenate([piece.routing[name][1] for piece in pieces]),
            )
            for name in first.routing
        },
        {name: np.concatenate([piece.signals[name] for piece in pieces]) for name in first.signals},
    )


def _sorted(shard: SimulatedShard) -> SimulatedShard:
    return shard.take(np.lexsort((shard.position, shard.generation)))


def _real_manifest(trace: SimulatedTrace) -> Any:
    """The manifest of `moeprobe.trace` (whose type is not named here: this room imports that one only to save)."""
    from moeprobe.trace import LayerInfo, Manifest, Signal

    layers = tuple(
        LayerInfo(one.layer, one.experts, one.k, 1.0, False, f"simulated.layers.{one.layer}.experts")
        for one in trace.manifest.layers
    )
    signals = tuple(
        Signal(name, values.shape[1], "float", False, "router logits before the choice")
        for name, values in trace.pieces[0].signals.items()
    )
    told = {
        "id": "simulated",
        "family": "simulated",
        "num_hidden_layers": len(layers),
        "seed": trace.seed,
        "world": asdict(trace.world),
        "effects": dict(trace.effects),
    }
    return Manifest(
        layers=layers,
        created="1970-01-01T00:00:00+00:00",  # fixed, so that the same world gives the same files
        moeprobe=moeprobe.__version__,
        model=told,
        tokenizer={"id": "simulated"},
        decoding={"seed": trace.seed},
        engine={"name": "moeprobe.stats.simulate"},
        versions={"numpy": np.__version__},
        prompts={"source": "simulated"},
        segments=trace.manifest.segments,
        signals=signals,
    )
