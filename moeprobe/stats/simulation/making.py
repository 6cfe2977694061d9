"""`simulate`: from a seed and a world to a trace."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import StatsError
from moeprobe.sites import expert_site
from moeprobe.stats.simulation.layout import Layout, lay_out
from moeprobe.stats.simulation.memory import (
    SimulatedGeneration,
    SimulatedLayer,
    SimulatedManifest,
    SimulatedShard,
    SimulatedTrace,
)
from moeprobe.stats.simulation.routers import Router, make_router
from moeprobe.stats.simulation.tokens import Speaker, Tokens
from moeprobe.stats.simulation.world import World

Array = NDArray[Any]


def simulate(seed: int, world: World | None = None) -> SimulatedTrace:
    """Make a trace without a model: logits = h . W + b, the k largest are chosen, their softmax are the gate weights.

    h is the sum of the token's embedding (Zipf, reweighed by the topic), the generation's effect, the pair's effect and
    an AR(1) context. Planted experts get +-delta on their logit where a token of the answer is in the register; the
    prompt never is. Formulas and measured properties: docs/simulation.md.

    Args:
        seed: any whole number from 0; the same seed and world give the same trace, bit for bit on one machine.
        world: the settings; None for the defaults.

    Returns:
        A trace of `world.generations` generations, to be handed to `moeprobe.correlate.correlate` or saved.

    Raises:
        StatsError: the seed is negative or no whole number.
    """
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise StatsError(f"The seed is {seed!r}, expected a whole number from 0.")
    seed, world = int(seed), world or World()
    layout = lay_out(seed, world)
    routers = [make_router(seed, world, layer) for layer in range(world.layers)]
    generations: list[SimulatedGeneration] = []
    pieces: list[SimulatedShard] = []
    batch: list[Tokens] = []
    for index, tokens in enumerate(Speaker(seed, world, layout).generations()):
        generations.append(_generation(index, tokens, layout, world))
        batch.append(tokens)
        if len(batch) == world.shard_generations or index == world.generations - 1:
            pieces.append(_shard(batch, index + 1 - len(batch), routers, world))
            batch = []
    return SimulatedTrace(
        seed=seed,
        world=world,
        effects={
            str(expert_site(layer, int(expert))): float(shift)
            for layer, router in enumerate(routers)
            for expert, shift in zip(router.planted, router.shift, strict=True)
        },
        manifest=SimulatedManifest(tuple(SimulatedLayer(one, world.experts, world.k) for one in range(world.layers))),
        generations=generations,
        pieces=tuple(pieces),
    )


def _generation(index: int, tokens: Tokens, layout: Layout, world: World) -> SimulatedGeneration:
    start = world.prompt_tokens
    digits = _digits(world)
    marked = world.within & (tokens.strength > 0)
    texts = [f"{'W' if loud else 'w'}{word:0{digits}d} " for word, loud in zip(tokens.words, marked, strict=True)]
    metadata: dict[str, Any] = {"topic": f"t{tokens.topic}", **layout.metadata[index]}
    if world.within:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], marked[start:], [False]]).astype(np.int8)))
        metadata["register"] = ((digits + 2) * edges.reshape(-1, 2)).tolist()
    return SimulatedGeneration(
        index=index,
        prompt_id=layout.prompt_id[index],
        sample=int(layout.sample[index]),
        prompt_text="".join(texts[:start]),
        text="".join(texts[start:]),
        prompt_rows=start,
        answer_rows=tokens.words.size - start,
        pair=layout.pair[index],
        label=layout.label[index],
        metadata=metadata,
    )


def _shard(batch: list[Tokens], first: int, routers: list[Router], world: World) -> SimulatedShard:
    lengths = np.array([one.words.size for one in batch])
    position = np.concatenate([np.arange(length) for length in lengths])
    answer = position >= world.prompt_tokens
    size = _digits(world) + 2  # a letter, the digits and a space
    start = size * np.where(answer, position - world.prompt_tokens, position)
    columns: dict[str, Array] = {
        "token_id": np.concatenate([one.words for one in batch]).astype(np.int32),
        "generation": np.repeat(np.arange(first, first + len(batch)), lengths).astype(np.int32),
        "position": position.astype(np.int32),
        "phase": answer.astype(np.uint8),
        "segment": answer.astype(np.uint8),
        "char_start": start.astype(np.int32),
        "char_end": (start + size).astype(np.int32),
    }
    hidden = np.concatenate([one.hidden for one in batch])
    strength = np.concatenate([one.strength for one in batch])
    routing: dict[str, tuple[Array, Array]] = {}
    signals: dict[str, Array] = {}
    for layer, router in enumerate(routers):
        logits = router.logits(hidden, strength)
        routing[f"L{layer}"] = router.choose(logits)
        if world.logits:
            signals[f"L{layer}.logits"] = logits
    return SimulatedShard(columns, routing, signals)


def _digits(world: World) -> int:
    return max(4, len(str(world.vocabulary - 1)))
