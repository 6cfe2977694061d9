"""What stands beside the decision for whole layers: how differently the groups use each of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import ttest_1samp, ttest_ind

from moeprobe.designs.design import MIN_UNITS
from moeprobe.errors import StatsError
from moeprobe.gathering.counts import Counts
from moeprobe.sites import expert_site
from moeprobe.stats import adjust, standing_committee
from moeprobe.stats.divergence import Relabelled, jensen_shannon

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Json = dict[str, Any]


def layer_summaries(
    counts: Counts,
    labels: ArrayLike | None,
    *,
    entropy: ArrayLike | None = None,
    pairs: ArrayLike | None = None,
    blocks: ArrayLike | None = None,
    comparable: bool = True,
    draws: int = 10_000,
    seed: int = 0,
) -> list[Json]:
    """The `layers` of a question, in the order of the cells.

    Samples that were not routed in a layer do not count there (with pairs, nor does the other half of the pair). With
    fewer than two of a group all numbers but load and committee are null, with fewer than 5 there is no p.

    Args:
        counts: counts of samples, (samples, cells).
        labels: (samples,) 1 or 0; None where there are no groups (scores): then load and committee alone.
        entropy: (samples, layers) mean routing entropy of the sample's tokens divided by log k, NaN where there is
            none (k = 1); layers in the order of the cells. None: not measured, the fields are null.
        pairs: (samples,) code of each sample's pair, -1 for none; each pair with one sample of either label. Labels
            change places within pairs only, and samples in no pair are left out.
        blocks: (samples,) codes: labels change places within them only, and entropy has no p.
        comparable: whether samples of both labels hold about as many tokens. If not (parts of one generation), the
            divergence of relabelled samples says nothing, and it has no p.
        draws, seed: relabellings for the divergence; 0 leaves its p out.

    Returns:
        For each layer {"layer", "jsd" (bits), "jsd_p", "jsd_q", "largest_load", "committee", "entropy1", "entropy0"
        (mean over samples), "entropy_p" (Welch; for pairs the t-test of the differences), "entropy_q"}. q:
        Benjamini-Hochberg over the layers.

    Raises:
        StatsError: shapes that do not fit, labels other than 0 and 1, or pairs that are no pairs.
    """
    numbers = list(dict.fromkeys(counts.layers.tolist()))
    groups = None if labels is None else _labels(labels, counts.tokens.size)
    couples = None if pairs is None or groups is None else _pairs(pairs, groups)
    spread = np.full((counts.tokens.size, len(numbers)), np.nan) if entropy is None else np.asarray(entropy, float)
    if spread.shape != (counts.tokens.size, len(numbers)):
        raise StatsError(f"Entropy is {spread.shape}, expected {counts.tokens.size} samples x {len(numbers)} layers.")
    found, dealt = (
        [],
        _Dealt(groups, couples if blocks is None else np.asarray(blocks), draws if comparable else 0, seed),
    )
    for column, layer in enumerate(numbers):
        inside = counts.layers == layer
        selected = counts.selected[:, inside]
        use = _Use(selected, counts.experts[inside], groups, couples)
        summary: Json = {"layer": layer, **_divergence(use, dealt), **_load(use, layer)}
        summary |= _entropy(spread[:, column], groups, couples)
        found.append(summary if blocks is None else summary | {"entropy_p": None})
    for name in ("jsd", "entropy"):
        p = np.array([np.nan if one[f"{name}_p"] is None else one[f"{name}_p"] for one in found], dtype=np.float64)
        for one, value in zip(found, adjust(p).tolist(), strict=True):
            one[f"{name}_q"] = None if np.isnan(value) else value
    return found


def recorded_families(manifest: object, layers: Iterable[int]) -> dict[int, str] | None:
    """The kind of each layer, where the trace's manifest says so (`model.layer_types`, one name for every layer of the
    model, as transformers' configs have it); None where it does not, so that somebody must give the mapping.

    Args:
        manifest: of the trace.
        layers: numbers of the layers that are compared.

    Raises:
        StatsError: the list is no list of names, or shorter than the model.
    """
    model = getattr(manifest, "model", None)
    kinds = model.get("layer_types") if isinstance(model, Mapping) else None
    if kinds is None:
        return None
    wanted = sorted(set(layers))
    if not isinstance(kinds, Sequence) or isinstance(kinds, str) or not all(isinstance(kind, str) for kind in kinds):
        raise StatsError("The manifest's model.layer_types is no list of names. Give the families of the layers.")
    if wanted and wanted[-1] >= len(kinds):
        raise StatsError(f"The manifest's model.layer_types names {len(kinds)} layers; there is no layer {wanted[-1]}.")
    return {layer: kinds[layer] for layer in wanted}


@dataclass(frozen=True, eq=False)
class _Use:
    """Selections of one layer, (samples, experts), and who is in which group and pair."""

    selected: Ints
    experts: Ints
    groups: Ints | None
    pairs: Ints | None

    @property
    def busy(self) -> Flags:
        """(samples,) those that count: routed here, and with pairs, the other half too."""
        busy: Flags = self.selected.sum(axis=1) > 0
        return busy if self.pairs is None else _whole(busy, self.pairs)


def _labels(labels: ArrayLike, size: int) -> Ints:
    groups = np.asarray(labels)
    if groups.shape != (size,) or not np.isin(groups, (0, 1)).all():
        raise StatsError(f"Labels must be 0 or 1, one for each of {size} samples; found shape {groups.shape}.")
    return groups.astype(np.int64)


def _pairs(pairs: ArrayLike, groups: Ints) -> Ints:
    codes = np.asarray(pairs)
    if codes.shape != groups.shape or codes.dtype.kind not in "iu":
        raise StatsError(f"Pairs must be {groups.size} whole numbers; found {codes.dtype} {codes.shape}.")
    for label in (0, 1):
        members = codes[(groups == label) & (codes >= 0)]
        if np.unique(members).size < members.size or set(members) != set(codes[codes >= 0]):
            raise StatsError("Every pair needs exactly one sample of either label.")
    return codes.astype(np.int64)


def _whole(usable: Flags, pairs: Ints) -> Flags:
    """Samples of the pairs whose two halves are usable."""
    both = np.bincount(pairs[usable & (pairs >= 0)], minlength=int(pairs.max(initial=0)) + 1) == 2
    whole: Flags = usable & (pairs >= 0) & both[np.maximum(pairs, 0)]
    return whole


def _smallest(groups: Ints) -> int:
    return int(min((groups == 1).sum(), (groups == 0).sum()))


class _Dealt:
    """Labels dealt out anew; the same dealings serve all layers in which every sample was routed."""

    def __init__(self, groups: Ints | None, pairs: Ints | None, draws: int, seed: int) -> None:
        self.groups, self.pairs, self.draws, self.seed = groups, pairs, draws, seed
        self._whole: Relabelled | None = None

    def of(self, busy: Flags) -> Relabelled:
        """Dealings of the samples of `busy`; those of all are made once."""
        if not busy.all():
            return self._make(busy)
        if self._whole is None:
            self._whole = self._make(busy)
        return self._whole

    def _make(self, busy: Flags) -> Relabelled:
        if self.groups is None:
            raise StatsError("Without groups there is nothing to deal out.")
        blocks = None if self.pairs is None else self.pairs[busy]
        return Relabelled(self.groups[busy], blocks=blocks, draws=self.draws, seed=self.seed)


def _divergence(use: _Use, dealt: _Dealt) -> Json:
    """`jsd` and `jsd_p`."""
    nothing: Json = {"jsd": None, "jsd_p": None}
    if use.groups is None:
        return nothing
    busy = use.busy
    selected, groups = use.selected[busy], use.groups[busy]
    smallest = _smallest(groups)
    if smallest < 2:
        return nothing
    if not dealt.draws or smallest < MIN_UNITS:
        arms = [selected[groups == label].sum(axis=0) for label in (1, 0)]
        return {"jsd": float(jensen_shannon(*arms)), "jsd_p": None}
    result = dealt.of(busy).test(selected)
    return {"jsd": float(result.divergence), "jsd_p": float(result.p)}


def _load(use: _Use, layer: int) -> Json:
    """`largest_load` and `committee`."""
    busy = use.busy
    groups = None if use.groups is None else use.groups[busy]
    if busy.sum() < 2 or (groups is not None and _smallest(groups) < 2):
        return {"largest_load": None, "committee": []}
    load = standing_committee(use.selected[busy], groups)
    members = use.experts[load.members].tolist()
    return {"largest_load": float(load.largest), "committee": [str(expert_site(layer, expert)) for expert in members]}


def _entropy(entropy: Array, groups: Ints | None, pairs: Ints | None) -> Json:
    """`entropy1`, `entropy0` and `entropy_p`."""
    nothing: Json = {"entropy1": None, "entropy0": None, "entropy_p": None}
    known = np.isfinite(entropy)
    if groups is None:
        return nothing
    known = known if pairs is None else _whole(known, pairs)
    one, zero = (entropy[known & (groups == label)] for label in (1, 0))
    if min(one.size, zero.size) < 2:
        return nothing
    summary: Json = {"entropy1": float(one.mean()), "entropy0": float(zero.mean()), "entropy_p": None}
    if min(one.size, zero.size) < MIN_UNITS:
        return summary
    if pairs is None:
        still = np.ptp(one) == np.ptp(zero) == 0
        return summary if still else summary | {"entropy_p": _p(ttest_ind(one, zero, equal_var=False).pvalue)}
    places = [np.flatnonzero(known & (groups == label)) for label in (1, 0)]
    first, second = (entropy[place[np.argsort(pairs[place])]] for place in places)
    difference = first - second
    still = np.ptp(difference) <= 64 * np.finfo(np.float64).eps
    return summary if still else summary | {"entropy_p": _p(ttest_1samp(difference, 0.0).pvalue)}


def _p(value: float) -> float | None:
    return float(max(value, np.finfo(np.float64).tiny)) if np.isfinite(value) else None
