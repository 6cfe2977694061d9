"""What a cascade found: changes of later routers, experts and parts, per prompt, against those under sham experts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.judging.intervals import Means, means, number, numbers
from moeprobe.sites import Site

Floats = NDArray[np.float64]
_STILL = {"norm_ratio": 1.0, "cosine": 1.0}


@dataclass(frozen=True)
class Units:
    """Measures of several units (routers, experts, heads and other parts).

    Attributes:
        names: of the units, for example "L19.H3".
        measures: (prompts, units) by name of the measure; NaN where a prompt has no value.
    """

    names: tuple[str, ...]
    measures: Mapping[str, Floats]

    def of(self, unit: str, measure: str) -> Floats:
        """(prompts,) one measure of one unit."""
        found: Floats = self.measures[measure][:, self.names.index(unit)]
        return found

    def changed(self) -> NDArray[np.bool_]:
        """(units,) whether anything about a unit changed in any prompt."""
        result = np.zeros(len(self.names), dtype=bool)
        for name, values in self.measures.items():
            result |= (np.nan_to_num(values, nan=_STILL.get(name, 0.0)) != _STILL.get(name, 0.0)).any(axis=0)
        return result


@dataclass(frozen=True)
class Consequences:
    """What knocking one expert out did.

    Attributes:
        routers, experts, parts: of all later layers; `parts` are heads, shared experts, attention as a whole where its
            heads cannot be told apart, dense MLPs.
        total: (prompts,) change of the logit difference.
        direct: (prompts,) of it, what the site's own layer no longer writes, through the unedited forward's last norm.
        indirect: (prompts,) the same of all later layers. total - direct - indirect is what the last norm's changed
            scale does.
    """

    routers: Units
    experts: Units
    parts: Units
    total: Floats
    direct: Floats
    indirect: Floats

    @property
    def kinds(self) -> dict[str, Units]:
        """The units by kind."""
        return {"routers": self.routers, "experts": self.experts, "parts": self.parts}

    @property
    def norm(self) -> Floats:
        """(prompts,) what the last norm's changed scale does to the logit difference."""
        found: Floats = self.total - self.direct - self.indirect
        return found


@dataclass(frozen=True)
class Compared:
    """A measure of all units of a kind, against the shams.

    Attributes:
        own: means under the knock-out of the site.
        shams: (units,) mean over shams and prompts; NaN without shams.
        beyond: means of site minus the shams' mean, prompt by prompt; None without shams.
        rank: (units,) place of the site's absolute mean change among its own and the shams', 1 = largest; ties count
            against the site.
    """

    own: Means
    shams: Floats
    beyond: Means | None
    rank: NDArray[np.int64]


@dataclass(frozen=True)
class CascadeResult:
    """A knock-out cascade with its shams.

    Attributes:
        site: the expert that was knocked out.
        shams: experts of its layer that were knocked out for comparison.
        prompts: names.
        what: name of the logit difference that is attributed.
        edits: by knock-out ("zero", "bar"), then by site.
        refused: why contributions were not compared, only routing; "" where they were.
        bootstrap, seed: of the intervals.
    """

    site: Site
    shams: tuple[Site, ...]
    prompts: tuple[str, ...]
    what: str
    edits: Mapping[str, Mapping[Site, Consequences]]
    refused: str
    bootstrap: int
    seed: int

    def compared(self, edit: str, kind: str, measure: str) -> Compared:
        """One measure of all units of a kind ("routers", "experts", "parts") under one knock-out."""
        own = self.edits[edit][self.site].kinds[kind].measures[measure]
        others = [self.edits[edit][sham].kinds[kind].measures[measure] for sham in self.shams]
        return _compared(own, others, _STILL.get(measure, 0.0), self.bootstrap, self.seed)

    def to_json(self) -> dict[str, Any]:
        """Everything but units in which nothing changed, neither under the site nor under a sham."""
        return {
            "site": str(self.site),
            "shams": [str(sham) for sham in self.shams],
            "prompts": list(self.prompts),
            "what": self.what,
            "contributions_refused": self.refused,
            "edits": {edit: self._edit(edit) for edit in self.edits},
            "bootstrap": self.bootstrap,
            "seed": self.seed,
        }

    def _edit(self, edit: str) -> dict[str, Any]:
        own = self.edits[edit][self.site]
        result: dict[str, Any] = {}
        for name in ("total", "direct", "indirect", "norm"):
            others = [getattr(self.edits[edit][sham], name)[:, None] for sham in self.shams]
            found = _compared(getattr(own, name)[:, None], others, 0.0, self.bootstrap, self.seed)
            result[name] = {**_record(found, 0), "per_prompt": numbers(getattr(own, name))}
        for kind, units in own.kinds.items():
            shown = np.logical_or.reduce([found.kinds[kind].changed() for found in self.edits[edit].values()])
            compared = {measure: self.compared(edit, kind, measure) for measure in units.measures}
            result[kind] = {
                units.names[place]: {
                    measure: {**_record(found, int(place)), "per_prompt": numbers(units.measures[measure][:, place])}
                    for measure, found in compared.items()
                }
                for place in np.flatnonzero(shown)
            }
            result[f"{kind}_unchanged"] = int((~shown).sum())
        return result

    def table(
        self, edit: str = "zero", kind: str = "parts", measure: str = "attribution", top: int = 12
    ) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Head and lines: the units that change most by one measure."""
        found = self.compared(edit, kind, measure)
        still = _STILL.get(measure, 0.0)
        size = np.abs(np.nan_to_num(found.own.mean, nan=still) - still)
        order = np.argsort(-size, kind="stable")[:top]
        names = self.edits[edit][self.site].kinds[kind].names
        lines: list[tuple[str, ...]] = [
            (names[place], f"{found.own.mean[place]:+.4g}", _interval(found.own, place), _plain(found.shams[place]),
             "-" if found.beyond is None else _interval(found.beyond, place),
             "-" if found.beyond is None else f"{found.rank[place]} of {len(self.shams) + 1}")
            for place in order if size[place] > 0
        ]  # fmt: skip
        return ("unit", measure, "95 % CI", "shams", "site - shams", "place"), lines

    def sentences(self) -> list[str]:
        """What went and through what, in words."""
        result = []
        for edit, sites in self.edits.items():
            own = sites[self.site]
            texts = []
            for name in ("total",) if self.refused else ("total", "direct", "indirect", "norm"):
                found = means(getattr(own, name), bootstrap=self.bootstrap, seed=self.seed)
                texts.append(f"{name} {found.mean[0]:+.4g} {_interval(found, 0)}")
            changed = {kind: int(units.changed().sum()) for kind, units in own.kinds.items()}
            counts = ", ".join(
                f"{changed[kind]} of {len(units.names)} later {kind}" for kind, units in own.kinds.items()
            )
            how = {"zero": "its contribution set to zero", "bar": "barred before top-k"}[edit]
            result.append(f"{self.site}, {how}: {self.what} {', '.join(texts)}. Changed: {counts}.")
        if self.refused:
            result.append(f"Contributions of heads and experts were not compared, only routing. {self.refused}")
        return result


def joined(batches: Sequence[Consequences]) -> Consequences:
    """Batches of prompts as one."""

    def units(kind: str) -> Units:
        every = [batch.kinds[kind] for batch in batches]
        names = every[0].measures
        return Units(every[0].names, {name: np.concatenate([one.measures[name] for one in every]) for name in names})

    arrays = {name: np.concatenate([getattr(one, name) for one in batches]) for name in ("total", "direct", "indirect")}
    return Consequences(units("routers"), units("experts"), units("parts"), **arrays)


def _compared(own: Floats, others: Sequence[Floats], still: float, bootstrap: int, seed: int) -> Compared:
    draw = {"bootstrap": bootstrap, "seed": seed}
    found = means(own, **draw)
    units = own.shape[1]
    if not others:
        return Compared(found, np.full(units, np.nan), None, np.ones(units, dtype=np.int64))
    stacked = np.stack(others)
    per_prompt = _mean(stacked, 0)
    size = np.abs(np.nan_to_num(found.mean, nan=still) - still)
    sizes = np.abs(np.nan_to_num(_mean(stacked, 1), nan=still) - still)
    rank = 1 + (sizes >= size).sum(axis=0)
    return Compared(found, _mean(per_prompt, 0), means(own - per_prompt, **draw), rank)


def _mean(values: Floats, axis: int) -> Floats:
    """Mean over the values that are there, NaN where none is."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    result: Floats = np.where(count > 0, np.where(known, values, 0).sum(axis=axis) / np.maximum(count, 1), np.nan)
    return result


def _record(found: Compared, place: int) -> dict[str, Any]:
    shams = {} if found.beyond is None else {
        "shams": number(found.shams[place]), "beyond_shams": found.beyond.one(place), "rank": int(found.rank[place]),
    }  # fmt: skip
    return {**found.own.one(place), **shams}


def _interval(found: Means, place: int) -> str:
    return f"[{found.low[place]:.4g}, {found.high[place]:.4g}]"


def _plain(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:+.4g}"
