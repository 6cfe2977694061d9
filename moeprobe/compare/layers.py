"""Whole layers: do the routers agree on the same tokens, and are the same experts busy?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.compare.aligned import Agreement
from moeprobe.correlate import MIN_UNITS
from moeprobe.gathering.counts import Counts
from moeprobe.gathering.inputs import LayerLike
from moeprobe.sites import expert_site
from moeprobe.stats import Overlap, overlap, standing_committee

Flags = NDArray[np.bool_]
Json = dict[str, Any]


def layer_summaries(counts: Counts, infos: list[LayerLike], agreements: list[Agreement]) -> tuple[list[Json], Json]:
    """The `layers` of docs/compare.md, and the overlaps over all layers together.

    Args:
        counts: of the prompts of run A, then of run B, (2 * prompts, cells).
        infos: the layers, in the order of the cells.
        agreements: what the routers of each layer do with the same tokens.
    """
    made, prompts = [], counts.tokens.size // 2
    kinds: dict[str, list[list[Flags]]] = {"committee": [[], []], "top": [[], []]}
    for info, agreement in zip(infos, agreements, strict=True):
        inside = counts.layers == info.layer
        halves = [counts.selected[part][:, inside] for part in (slice(0, prompts), slice(prompts, None))]
        sets = {
            "committee": [_committee(half) for half in halves],
            "top": [_top(half, info.k) for half in halves],
        }
        summary: Json = {"layer": info.layer, "saturation": agreement.saturation, "chance": agreement.chance}
        for kind, (one, two) in sets.items():
            same = overlap(one, two, np.full(one.size, info.layer))
            named = {name: _sites(info.layer, members) for name, members in zip("ab", (one, two), strict=True)}
            summary[kind] = named | overlap_numbers(same, tested=prompts >= MIN_UNITS)
            kinds[kind][0].append(one)
            kinds[kind][1].append(two)
        made.append(summary)
    every = {
        kind: overlap_numbers(
            overlap(np.concatenate(one), np.concatenate(two), counts.layers), tested=prompts >= MIN_UNITS
        )
        for kind, (one, two) in kinds.items()
    }
    return made, every


def overlap_numbers(found: Overlap, *, tested: bool = True) -> Json:
    """An overlap as numbers of a file; without p where too few prompts carry it."""
    return {
        "first": found.first,
        "second": found.second,
        "universe": found.universe,
        "shared": found.shared,
        "expected": found.expected,
        "jaccard": float(found.jaccard) if np.isfinite(found.jaccard) else None,
        "p_more": found.p_more if tested else None,
        "p_fewer": found.p_fewer if tested else None,
    }


def _committee(selected: NDArray[np.int64]) -> Flags:
    busy = selected[selected.sum(axis=1) > 0]
    return standing_committee(busy).members if len(busy) >= 2 else np.zeros(selected.shape[1], dtype=bool)


def _top(selected: NDArray[np.int64], k: int) -> Flags:
    """The k busiest experts, as many as a token chooses; of equally busy ones the first."""
    members = np.zeros(selected.shape[1], dtype=bool)
    members[np.argsort(-selected.sum(axis=0), kind="stable")[:k]] = True
    return members


def _sites(layer: int, members: Flags) -> list[str]:
    return [str(expert_site(layer, int(expert))) for expert in np.flatnonzero(members)]
