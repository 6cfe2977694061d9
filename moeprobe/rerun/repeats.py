"""How two recordings of the same text compare: first differing tokens, and routing layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.trace import LayerInfo

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class LayerRows:
    """Routing of some rows in one layer.

    Attributes:
        experts: (rows, k) ids, -1 where a choice is absent.
        weights: (rows, k) float32.
        sensitive: (rows,) gate-sensitive flags, or None where none were recorded.
    """

    experts: Ints
    weights: Floats
    sensitive: Flags | None = None

    def part(self, rows: Ints) -> "LayerRows":
        """Some of the rows."""
        flags = None if self.sensitive is None else self.sensitive[rows]
        return LayerRows(self.experts[rows], self.weights[rows], flags)


@dataclass
class LayerMatch:
    """How one layer's routing compares, summed over rows. A token flips where the set of its experts differs.

    Attributes:
        name: "L14".
        tokens: rows that were compared and routed in this layer.
        selections: (token, choice) pairs; where numbers of choices differ, the larger one.
        agree: pairs that both runs chose.
        flips: tokens whose set of experts differs.
        reordered: tokens with the same set in another order.
        weight_difference: largest difference of the gate weights of an expert that both chose.
        sensitive, sensitive_flips: gate-sensitive tokens among all and among the flips; None where no flags are known.
    """

    name: str
    tokens: int = 0
    selections: int = 0
    agree: int = 0
    flips: int = 0
    reordered: int = 0
    weight_difference: float = 0.0
    sensitive: int | None = None
    sensitive_flips: int | None = None

    @property
    def exact(self) -> bool:
        """Same experts in the same order for every token."""
        return self.flips == 0 and self.reordered == 0

    def add(self, then: LayerRows, now: LayerRows, sensitive: Flags | None) -> None:
        """Compare some rows: (rows, k) each, and (rows,) flags or None."""
        agree, difference = _matched(then, now)
        before, after = (then.experts >= 0).sum(axis=1), (now.experts >= 0).sum(axis=1)
        most = np.maximum(before, after)
        routed = most > 0
        flips = agree != most
        self.tokens += int(routed.sum())
        self.selections += int(most.sum())
        self.agree += int(agree.sum())
        self.flips += int(flips.sum())
        self.reordered += int(((then.experts != now.experts).any(axis=1) & ~flips).sum())
        self.weight_difference = max(self.weight_difference, difference)
        if sensitive is not None:
            self.sensitive = (self.sensitive or 0) + int((sensitive & routed).sum())
            self.sensitive_flips = (self.sensitive_flips or 0) + int((sensitive & flips).sum())

    def to_json(self) -> dict[str, Any]:
        """As an object of `moeprobe rerun --json`."""
        rates = {
            "agreement": ratio(self.agree, self.selections),
            "flip_rate": ratio(self.flips, self.tokens),
            "sensitive_share": None if self.sensitive is None else ratio(self.sensitive, self.tokens),
            "sensitive_share_of_flips": None
            if self.sensitive_flips is None
            else ratio(self.sensitive_flips, self.flips),
        }
        return {**vars(self), **rates}


@dataclass(frozen=True)
class Divergence:
    """A generation whose tokens differ.

    Attributes:
        index, prompt_id, sample: which generation.
        token: number of the first differing generated token, from 0.
        then, now: its id in both runs; None where a run had ended, or had been trimmed, before it.
    """

    index: int
    prompt_id: str
    sample: int
    token: int
    then: int | None
    now: int | None

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Answer:
    """Generated tokens of one generation, as far as a trace keeps them.

    Attributes:
        rows: (answer rows,) tokens that were fed back in and kept.
        generated: number of sampled tokens, trimmed ones included.
        last: the last of them.
    """

    rows: Ints
    generated: int
    last: int

    @property
    def known(self) -> list[int]:
        """Tokens from the first one on; without a trim, all."""
        whole = [int(token) for token in self.rows]
        return [*whole, self.last] if len(whole) == self.generated - 1 else whole


def first_difference(then: Answer, now: Answer) -> int | None:
    """Number of the first generated token that differs, or None. Where both were trimmed, what was cut is seen only in
    its length and last token; a difference there counts as standing right after what was kept."""
    before, after = then.known, now.known
    common = min(len(before), len(after))
    differs = np.flatnonzero(np.array(before[:common]) != np.array(after[:common]))
    if len(differs):
        return int(differs[0])
    same = len(before) == len(after) and (then.generated, then.last) == (now.generated, now.last)
    return None if same else common


@dataclass
class Comparison:
    """Everything that was compared.

    Attributes:
        layers: by name.
        generations: how many were compared.
        rows, compared: routed tokens of the trace, and how many of them had the same tokens before them in both runs.
        divergences: generations whose tokens differ.
    """

    layers: dict[str, LayerMatch]
    generations: int = 0
    rows: int = 0
    compared: int = 0
    divergences: list[Divergence] = field(default_factory=list)

    @classmethod
    def of(cls, infos: tuple[LayerInfo, ...]) -> "Comparison":
        """Nothing compared yet."""
        return cls({info.name: LayerMatch(info.name) for info in infos})

    @property
    def exact(self) -> bool:
        """Same tokens, same experts in the same order, everywhere."""
        return not self.divergences and all(layer.exact for layer in self.layers.values())

    def add(self, then: Mapping[str, LayerRows], now: Mapping[str, LayerRows], rows: tuple[Ints, Ints]) -> None:
        """Compare rows `rows[0]` of `then` with rows `rows[1]` of `now`. Gate-sensitive flags of `then` go first."""
        self.compared += len(rows[0])
        for name, match in self.layers.items():
            old, new = then[name].part(rows[0]), now[name].part(rows[1])
            match.add(old, new, new.sensitive if old.sensitive is None else old.sensitive)

    def total(self) -> LayerMatch:
        """All layers together."""
        every = LayerMatch("all")
        for layer in self.layers.values():
            for name in ("tokens", "selections", "agree", "flips", "reordered"):
                setattr(every, name, getattr(every, name) + getattr(layer, name))
            every.weight_difference = max(every.weight_difference, layer.weight_difference)
        judged = [layer for layer in self.layers.values() if layer.sensitive is not None]
        # A share over some layers only would be read as one over all.
        if judged and len(judged) == len(self.layers):
            every.sensitive = sum(layer.sensitive or 0 for layer in judged)
            every.sensitive_flips = sum(layer.sensitive_flips or 0 for layer in judged)
        return every


def ratio(part: int, whole: int) -> float | None:
    """part / whole, None where there is nothing."""
    return part / whole if whole else None


def _matched(then: LayerRows, now: LayerRows) -> tuple[Ints, float]:
    """(rows,) experts that both runs chose, and the largest difference of their weights. The loop is over k: memory
    stays (rows, k)."""
    agree = np.zeros(len(then.experts), dtype=np.int64)
    difference = 0.0
    for choice in range(now.experts.shape[1]):
        one = now.experts[:, choice, None]
        same = (then.experts == one) & (one >= 0)
        agree += same.any(axis=1)
        gap = np.abs(then.weights - now.weights[:, choice, None])[same]
        difference = max(difference, float(gap.max(initial=0.0)))
    return agree, difference
