"""Families of layers, for example linear and full attention: does one of them differ between the groups as a whole?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeprobe.designs.design import MIN_UNITS
from moeprobe.designs.frame import MOST_PRIOR_DF
from moeprobe.errors import StatsError
from moeprobe.stats import adjust
from moeprobe.stats.permutation import Rearranged

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Cells:
    """What was found out about each cell; arrays are (cells,).

    Attributes:
        layers: layer of each cell.
        tested: whether the deciding test was made.
        associated: whether it was found.
        difference: selection rate beyond the strata, positive less negative.
    """

    layers: Ints
    tested: Flags
    associated: Flags
    difference: Array


def family_summaries(
    values: ArrayLike,
    labels: ArrayLike | None,
    cells: Cells,
    families: Mapping[int, str],
    *,
    blocks: ArrayLike | None = None,
    abundance: ArrayLike | None = None,
    floor: ArrayLike | None = None,
    draws: int = 2_000,
    seed: int = 0,
) -> list[Json]:
    """Test every family of layers as one, by the mean squared moderated t of its tested experts.

    t as in `permutation_max_t`: the prior is fitted without labels, so that t is the same function of every
    arrangement. All families see the same arrangements. p = (1 + arrangements with at least this mean) / (1 + draws).
    It says that the family holds something, not that another holds less; for that compare `excess`. Differences in
    covariates are not taken out: leave the families out of a design with covariates.

    Args:
        values: (samples, cells) what the deciding test saw, for example (O - E) / sqrt(V); cells that were not tested
            are not looked at. For pairs either all samples with `blocks`, or one row of differences for each pair.
        labels: (samples,) 1 or 0, or scores; None where rows are differences, whose sign is then dealt out.
        cells: what is known of them.
        families: the family of each layer. Layers that it does not name belong to none.
        blocks: (samples,) pair, topic or the like: labels are dealt out within.
        abundance: (cells,) what the trend of the prior follows; None: one prior for all.
        floor: (cells,) lower bound of the variance.
        draws, seed: arrangements, and their seed.

    Returns:
        For each family, in the order of its first layer: {"family", "layers", "experts", "tested", "associated",
        "mean_difference" (mean |difference| of the tested; null without any), "mean_t2", "expected_t2" (mean over the
        arrangements), "excess" (their ratio), "p", "p_holm"}; the last five null where nothing was tested or a group
        (for differences, the table) has fewer than 5 samples, and p with 0 draws too.

    Raises:
        StatsError: shapes that do not fit, a layer that is not there, or labels that do not vary within blocks.
    """
    table = _table(values, cells)
    names = _names(cells, families)
    tested = cells.tested & np.isin(cells.layers, list(families))
    member = np.array([[families.get(int(layer)) == name for name in names] for layer in cells.layers], dtype=bool)
    member = member.reshape(cells.layers.size, len(names))
    found = [_counted(name, cells, member[:, at]) for at, name in enumerate(names)]
    if not tested.any() or draws < 1 or _few(labels, len(table)):
        return found
    trend = None if abundance is None else np.asarray(abundance, dtype=np.float64)[tested]
    lowest = np.broadcast_to(np.asarray(0.0 if floor is None else floor, dtype=np.float64), tested.shape)[tested]
    source = Rearranged(
        table[:, tested], labels, blocks=blocks, abundance=trend, floor=lowest, most_prior_df=MOST_PRIOR_DF
    )  # fmt: skip
    sizes = member[tested].sum(axis=0)
    share = member[tested] / np.maximum(sizes, 1)
    observed, mean, p = _permuted(source, share, draws, seed)
    p = np.where(sizes > 0, p, np.nan)
    holm = adjust(p, "holm")
    for at, one in enumerate(found):
        if sizes[at]:
            one |= {"mean_t2": float(observed[at]), "expected_t2": float(mean[at]), "p": float(p[at])}
            one |= {"excess": float(observed[at] / mean[at]) if mean[at] > 0 else None, "p_holm": float(holm[at])}
    return found


def _permuted(source: Rearranged, share: Array, draws: int, seed: int) -> tuple[Array, Array, Array]:
    """Mean squared t of each family, its mean over the arrangements, and p; each (families,)."""
    observed: Array = source.observed() @ share
    reached, total = np.zeros(share.shape[1]), np.zeros(share.shape[1])
    for squares in source.drawn(draws, seed):
        null = squares @ share
        reached += (null >= observed * (1 - 1e-10)).sum(axis=0)
        total += null.sum(axis=0)
    return observed, total / draws, (1 + reached) / (1 + draws)


def _table(values: ArrayLike, cells: Cells) -> Array:
    table = np.asarray(values, dtype=np.float64)
    shapes = {array.shape for array in (cells.layers, cells.tested, cells.associated, cells.difference)}
    if table.ndim != 2 or shapes != {table.shape[1:]} or not np.isfinite(table[:, cells.tested]).all():
        raise StatsError(
            f"Values {table.shape} and cells {sorted(shapes)} do not fit, or tested values are not finite."
        )
    return table


def _names(cells: Cells, families: Mapping[int, str]) -> list[str]:
    unknown = sorted(set(families) - set(cells.layers.tolist()))
    if unknown or not families:
        raise StatsError(f"The families name {unknown or 'no'} layers; the trace has {sorted(set(cells.layers))}.")
    return list(dict.fromkeys(families[layer] for layer in sorted(families)))


def _counted(name: str, cells: Cells, inside: Flags) -> Json:
    tested = inside & cells.tested
    return {
        "family": name,
        "layers": int(np.unique(cells.layers[inside]).size),
        "experts": int(inside.sum()),
        "tested": int(tested.sum()),
        "associated": int((inside & cells.associated).sum()),
        "mean_difference": float(np.abs(cells.difference[tested]).mean()) if tested.any() else None,
        **dict.fromkeys(("mean_t2", "expected_t2", "excess", "p", "p_holm")),
    }


def _few(labels: ArrayLike | None, rows: int) -> bool:
    """Fewer than 5 samples in a group; scores have none, and need 5 samples on each side of their mean."""
    if labels is None:
        return rows < MIN_UNITS
    numbers = np.asarray(labels, dtype=np.float64)
    high = numbers > numbers.mean()
    return bool(min(high.sum(), (~high).sum()) < MIN_UNITS)
