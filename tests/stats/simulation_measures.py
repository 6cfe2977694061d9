"""What is measured on simulated traces, and the naive tests that their confounds must fool.

`python tests/stats/simulation_measures.py` prints the tables of docs/simulation.md (about two minutes).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import chi2

from moeprobe.stats import adjust, asin_sqrt, moderated_t, moderated_t_paired
from moeprobe.stats.simulation import SimulatedTrace, World, simulate

ALPHA = 0.05
Array = Any


@dataclass(frozen=True)
class Answers:
    """Answer tokens of a trace: generation and word (tokens,), chosen experts of each layer (tokens, k)."""

    generation: Array
    word: Array
    start: Array
    end: Array
    ids: list[Array]


def answers(trace: SimulatedTrace) -> Answers:
    inside = [shard.segment == 1 for shard in trace.shards()]

    def column(read: Callable[[Any], Array]) -> Array:
        return np.concatenate([read(shard)[rows] for shard, rows in zip(trace.shards(), inside, strict=True)])

    return Answers(
        column(lambda shard: shard.generation),
        column(lambda shard: shard.token_id),
        column(lambda shard: shard.char_start),
        column(lambda shard: shard.char_end),
        [column(lambda shard, at=info.layer: shard.experts(at)) for info in trace.manifest.layers],
    )


def table(codes: Array, size: int, ids: Array, experts: int) -> Array:
    """(size, experts): how often tokens of each code chose each expert."""
    cells = codes.astype(np.int64)[:, None] * experts + ids
    return np.bincount(cells.ravel(), minlength=size * experts).reshape(size, experts).astype(float)


def selected(trace: SimulatedTrace, codes: Array | None = None, size: int = 0) -> tuple[Array, Array]:
    """Counts (codes, cells) and tokens (codes,) of the answers, by generation unless other codes are given."""
    found = answers(trace)
    if codes is None:
        codes, size = found.generation, len(trace.generations)
    counts = [table(codes, size, ids, trace.world.experts) for ids in found.ids]
    return np.concatenate(counts, axis=1), np.bincount(codes, minlength=size)


def sites(trace: SimulatedTrace) -> list[str]:
    return [f"L{info.layer}.E{expert}" for info in trace.manifest.layers for expert in range(info.experts)]


def labels(trace: SimulatedTrace) -> Array:
    return np.array([one.label for one in trace.generations])


def in_register(trace: SimulatedTrace) -> Array:
    """(answer tokens,) whether a span of their generation covers them."""
    found, covered = answers(trace), []
    for index, spans in enumerate(trace.spans):
        mine = found.generation == index
        start, end = found.start[mine, None], found.end[mine, None]
        covered.append(((start < spans[:, 1]) & (end > spans[:, 0])).any(axis=1))
    return np.concatenate(covered)


def properties(trace: SimulatedTrace) -> dict[str, float]:
    """STATISTICS.md 2: medians over the experts with 50 selections or more; quantiles of the rate over all experts."""
    found, made = answers(trace), []
    size, words = len(trace.generations), trace.world.vocabulary
    tokens, seen = np.bincount(found.generation), np.bincount(found.word, minlength=words)
    total, types = tokens.sum(), int((seen > 0).sum())
    for ids in found.ids:
        counts = table(found.generation, size, ids, trace.world.experts)
        rate = counts.sum(axis=0) / total
        use = rate * total >= 50
        counts, p = counts[:, use], rate[use]
        squares = p * (1 - p) * total
        between = (tokens[:, None] * (counts / tokens[:, None] - p) ** 2).sum(axis=0)
        mean_between, mean_within = between / (size - 1), (squares - between) / (total - size)
        each = (total - (tokens**2).sum() / total) / (size - 1)
        icc = (mean_between - mean_within) / (mean_between + (each - 1) * mean_within)
        by_word = table(found.word, words, ids, trace.world.experts)[seen > 0][:, use]
        times = seen[seen > 0, None]
        explained = (times * (by_word / times - p) ** 2).sum(axis=0) / squares
        adjusted = 1 - (1 - explained) * (total - 1) / (total - types)
        made.append((mean_between / (p * (1 - p)), icc, explained, adjusted, rate))
    effect, icc, explained, adjusted, rate = (np.concatenate(one) for one in zip(*made, strict=True))
    return {
        "design effect, median": np.median(effect),
        "design effect, 95 %": np.quantile(effect, 0.95),
        "ICC, median": np.median(icc),
        "R2 of token identity": np.median(explained),
        "R2 of token identity, adjusted": np.median(adjusted),
        "S, 5 %": np.quantile(rate, 0.05),
        "S, 50 %": np.quantile(rate, 0.5),
        "S, 90 %": np.quantile(rate, 0.9),
    }


def token_chi2(trace: SimulatedTrace, positive: Array | None = None) -> set[str]:
    """Tokens as if they were independent: 2 x 2 chi-square of every expert, BH."""
    if positive is None:
        positive = labels(trace)[answers(trace).generation]
    counts, tokens = selected(trace, np.asarray(positive).astype(np.int64), 2)
    rate = counts.sum(axis=0) / tokens.sum()
    seen = counts.sum(axis=0) >= 10
    variance = rate * (1 - rate) * (1 / tokens).sum()
    statistic = (counts[1] / tokens[1] - counts[0] / tokens[0])[seen] ** 2 / variance[seen]
    return _called(trace, seen, chi2.sf(statistic, 1))


def all_tokens(trace: SimulatedTrace, *, raw: bool = False, paired: bool = False) -> set[str]:
    """Moderated t of the generations' rates on all their tokens, whatever their lengths, BH.

    With `raw` of the rates themselves, else of asin(sqrt(S)); with `paired` of generations 2 i and 2 i + 1.
    """
    counts, tokens = selected(trace)
    seen = counts.sum(axis=0) >= 10
    rates = counts[:, seen] / tokens[:, None]
    values = rates if raw else asin_sqrt(rates)
    test = moderated_t_paired(values[::2], values[1::2]) if paired else moderated_t(values, labels(trace))
    return _called(trace, seen, test.p)


def _called(trace: SimulatedTrace, seen: Array, p: Array) -> set[str]:
    names = np.array(sites(trace))[seen]
    return set(names[adjust(p) < ALPHA].tolist())


def quality(test: Callable[[SimulatedTrace], set[str]], world: World, seeds: range) -> tuple[float, float, float]:
    """FDR with the false calls of the silent layers only, FDR with all of them, and power; means over the seeds.

    As STATISTICS.md 2: experts of the planted layers can be displaced by those that are planted. A calibrated test has
    about 0.025 and 0.05.
    """
    rows = []
    for seed in seeds:
        trace = simulate(seed, world)
        found = test(trace)
        true, silent = len(found & trace.truth), len(in_silent_layers(trace, found))
        rows.append((silent / max(silent + true, 1), 1 - true / max(len(found), 1), true / max(len(trace.truth), 1)))
        if not found:
            rows[-1] = (0.0, 0.0, 0.0)
    mean = np.mean(rows, axis=0)
    return float(mean[0]), float(mean[1]), float(mean[2])


def in_silent_layers(trace: SimulatedTrace, found: set[str]) -> set[str]:
    return {site for site in found if int(site[1:].partition(".")[0]) in trace.silent_layers}


def all_tokens_raw(trace: SimulatedTrace) -> set[str]:
    return all_tokens(trace, raw=True)


def main() -> None:
    made = [properties(simulate(seed, World(delta=0))) for seed in range(10)]
    for name in made[0]:
        print(f"{name:32} {np.mean([one[name] for one in made]):.3g}")
    plain, longer = World(), World(shorter_positives=6)
    both = (token_chi2, all_tokens)
    for tests, world, seeds in (
        (both, replace(plain, generations=10, delta=1.5), range(100, 140)),
        (both, replace(plain, generations=30, delta=1.0), range(100, 130)),
        (both, plain, range(100, 120)),
        ((all_tokens, all_tokens_raw), longer, range(100, 110)),
        ((all_tokens, all_tokens_raw), replace(longer, position_sd=0.5), range(100, 110)),
        (both, replace(plain, register_tokens=0.1), range(100, 110)),
        (both, replace(plain, register_tokens=0.3), range(100, 110)),
    ):
        told = {name: value for name, value in vars(world).items() if value != getattr(plain, name)}
        for test in tests:
            silent, every, power = quality(test, world, seeds)
            print(f"{test.__name__:14} FDR {silent:.3f}, all {every:.3f}, power {power:.3f} {told} {len(seeds)} runs")
    for pairs, delta in ((10, 1.2), (30, 0.7), (120, 0.4)):
        world = replace(plain, generations=2 * pairs, pairs=True, delta=delta)
        rows = [quality(partial(all_tokens, paired=way), world, range(100, 110)) for way in (True, False)]
        print(pairs, "pairs, paired / unpaired (FDR, FDR(all), power):", np.round(rows, 3).tolist())
    world = World(generations=10, mean_length=600, within=True, delta=0.6)
    silent, every, power = quality(lambda trace: token_chi2(trace, in_register(trace)), world, range(100, 110))
    print(f"within, token_chi2: FDR {silent:.3f}, all {every:.3f}, power {power:.3f}")


if __name__ == "__main__":
    main()
