"""A small set of sites that carries most of what all of them carry together, searched on half of the pairs and measured
on the other half.

Single effects do not add up: redundant sites each do little alone, so a list of single effects can miss all of them.
The search adds, one after the other, the site whose addition carries most, and then takes out members that are not
missed. Everything that is reported is measured on pairs that the search has not seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import InterchangeError
from moeprobe.interchange.comparison import comparisons
from moeprobe.interchange.lab import Lab
from moeprobe.interchange.measure import Effects, measure
from moeprobe.judging.additivity import additivity
from moeprobe.judging.confirming import split_pairs
from moeprobe.judging.ratio import check_gap, oriented, ratios, resamples, tail
from moeprobe.pairs.pairs import TokenPair
from moeprobe.sites import Site, SiteSet

Floats = NDArray[np.float64]
# Called with a sentence on what has been done.
Say = Callable[[str], None]


@dataclass(frozen=True)
class Search:
    """How a coalition is searched.

    Attributes:
        arm: effect that is to be carried: "necessity", "sufficiency" or "knockout".
        share: of the effect of all candidates together, at which the search stops.
        most: members at most.
        width: in each step so many candidates are tried, those with the largest effect beside the members of an earlier
            step first; the others keep their rank (lazy greedy search).
        tolerance: a member is taken out when the set without it keeps all but so much of the effect of all candidates.
        null: random sets of like sites that the found set is compared with.
        bootstrap: draws of the intervals.
        seed: of the halves, the comparison sets and the draws.
    """

    arm: str = "necessity"
    share: float = 0.8
    most: int = 32
    width: int = 12
    tolerance: float = 0.01
    null: int = 19
    bootstrap: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.arm not in ("necessity", "sufficiency", "knockout"):
            raise InterchangeError(f"A coalition carries necessity, sufficiency or knockout, not {self.arm!r}.")
        if not 0 < self.share <= 1 or min(self.most, self.width, self.null, self.bootstrap) < 1 or self.tolerance < 0:
            raise InterchangeError("The share must lie above 0 and not above 1, and counts must be at least 1.")


@dataclass(frozen=True)
class Step:
    """One step of the search, on the half that it sees.

    Attributes:
        site: that was added or taken out.
        added: whether it was added.
        percent: of the gap that the set carried afterwards.
    """

    site: Site
    added: bool
    percent: float


@dataclass(frozen=True)
class Coalition:
    """What the search found.

    Attributes:
        members: the set, in the order in which members were added.
        steps: of the search.
        record: what was measured on the other half, in the form of `to_json`.
    """

    members: tuple[Site, ...]
    steps: tuple[Step, ...]
    record: dict[str, Any] = field(repr=False)

    @property
    def site_set(self) -> SiteSet:
        """The members as a set."""
        return SiteSet("", self.members)

    def to_json(self) -> dict[str, Any]:
        """Members, steps and measurements."""
        steps = [{"site": str(one.site), "added": one.added, "percent": one.percent} for one in self.steps]
        return {"members": [str(site) for site in self.members], "steps": steps, **self.record}

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        found, whole = self.record["set"], self.record["all"]
        head = (
            f"{len(self.members)} of {self.record['candidates']} sites together carry {found['percent']:.0f} % of the "
            f"gap {_range(found['ci'])} ({self.record['arm']}); all of them {whole['percent']:.0f} % "
            f"{_range(whole['ci'])}."
        )
        null = self.record["null"]
        if null["sites"]:
            most = f"{max(null['percent']):.0f} %"
            head += f" Of {len(null['percent'])} sets of other sites like them the largest carries {most}."
        parts = self.record["additivity"]
        if parts is None:
            return head
        more = {
            "redundant": "more than the set: members do the same work twice",
            "more than its members": "less than the set: each alone is made up for by the others",
            "not told apart from additive": "not told apart from the set",
        }[parts["words"]]
        return f"{head} One by one its members sum to {parts['sum']['percent']:.0f} %, {more}."


def coalition(
    lab: Lab, pairs: Sequence[TokenPair], candidates: Sequence[Site], search: Search | None = None, *, say: Say = print
) -> Coalition:
    """Search a small set among candidate sites.

    Args:
        lab: model, metric, alignment, swap.
        pairs: at least 16: half of them are searched on, the others measured.
        candidates: sites to choose from, for example those that a screen leaves.
        search: how.
        say: told each step.

    Raises:
        InterchangeError: fewer than 16 pairs or 2 candidates, no gap, or all candidates together carry nothing.
    """
    search = search or Search()
    candidates = list(dict.fromkeys(candidates))
    if len(candidates) < 2:
        raise InterchangeError(f"A coalition is searched among at least 2 sites; {len(candidates)} were given.")
    seen, unseen = split_pairs(len(pairs), search.seed)
    hunt = _Hunt(lab, [pairs[place] for place in seen], candidates, search, say)
    members = hunt.run()
    say(f"Measuring {len(members)} members on the {len(unseen)} pairs that the search has not seen ...")
    record = _measured(lab, [pairs[place] for place in unseen], candidates, members, search)
    record["searched_on"] = [pairs[place].id for place in seen]
    return Coalition(tuple(members), tuple(hunt.steps), record)


class _Hunt:
    """The search on its half of the pairs."""

    def __init__(
        self, lab: Lab, pairs: Sequence[TokenPair], candidates: Sequence[Site], search: Search, say: Say
    ) -> None:
        self.lab, self.pairs, self.candidates, self.search, self.say = lab, pairs, candidates, search, say
        self.known: dict[frozenset[Site], float] = {}
        self.steps: list[Step] = []

    def run(self) -> list[Site]:
        """Members, in the order in which they were added."""
        whole = self._carried([frozenset(self.candidates)])[0]
        if whole <= 0:
            raise InterchangeError(
                f"All {len(self.candidates)} candidates together carry {whole:.3g} % of the gap ({self.search.arm}): "
                "there is nothing to search. Take other candidates, or another effect."
            )
        goal = self.search.share * whole
        self.say(
            f"All {len(self.candidates)} candidates together carry {whole:.1f} % of the gap; looking for {goal:.1f} %."
        )
        members = self._grown(goal)
        return self._pruned(members, goal, whole)

    def _grown(self, goal: float) -> list[Site]:
        members: list[Site] = []
        gains = dict(zip(self.candidates, self._carried([frozenset([site]) for site in self.candidates]), strict=True))
        now = 0.0
        while now < goal and len(members) < min(self.search.most, len(self.candidates)):
            order = sorted((site for site in gains if site not in members), key=lambda site: -gains[site])
            tried = order[: self.search.width]
            values = self._carried([frozenset([*members, site]) for site in tried])
            gains.update({site: value - now for site, value in zip(tried, values, strict=True)})
            best = max(range(len(tried)), key=lambda place: values[place])
            if values[best] <= now:
                self.say(f"No candidate adds to these {len(members)}; the search stops at {now:.1f} %.")
                break
            members.append(tried[best])
            now = values[best]
            self.steps.append(Step(tried[best], True, now))
            self.say(f"+ {tried[best]}: {now:.1f} %")
        return members

    def _pruned(self, members: list[Site], goal: float, whole: float) -> list[Site]:
        """Take out the member that is missed least, as long as the rest keeps the goal."""
        floor = goal - self.search.tolerance * whole
        while len(members) > 1:
            values = self._carried([frozenset(one for one in members if one != site) for site in members])
            best = max(range(len(members)), key=lambda place: values[place])
            if values[best] < floor:
                break
            self.steps.append(Step(members[best], False, values[best]))
            self.say(f"- {members[best]}: {values[best]:.1f} %")
            members = [site for place, site in enumerate(members) if place != best]
        return members

    def _carried(self, sets: Sequence[frozenset[Site]]) -> list[float]:
        """Percent of the gap that each set carries; sets that were measured before are not measured again."""
        new = [one for one in dict.fromkeys(sets) if one not in self.known]
        if new:
            asked = [SiteSet("", tuple(one)) for one in new]
            effects = measure(self.lab, self.pairs, asked, [self.search.arm])
            if not self.known:
                check_gap(
                    effects.gap, resamples(len(self.pairs), 2000, self.search.seed), signed=self.lab.metric.signed
                )
            total = effects.gap.sum()
            for one, asked_set in zip(new, asked, strict=True):
                self.known[one] = float(100 * effects.sites[asked_set][self.search.arm].sum() / total)
        return [self.known[one] for one in sets]


def _range(ci: Sequence[float]) -> str:
    return f"[{ci[0]:.0f}, {ci[1]:.0f}]"


def _measured(
    lab: Lab, pairs: Sequence[TokenPair], candidates: Sequence[Site], members: Sequence[Site], search: Search
) -> dict[str, Any]:
    """The found set, its members, the sets without each of them, all candidates and sets like it, on other pairs."""
    found, whole = SiteSet("", tuple(members)), SiteSet("", tuple(candidates))
    singles = [SiteSet("", (site,)) for site in members]
    without = [SiteSet("", tuple(one for one in members if one != site)) for site in members if len(members) > 1]
    others = comparisons(lab, pairs, [found], search.null)[found] or ()
    arms = [search.arm] if search.arm == "knockout" else [search.arm, f"placebo_{search.arm}"]
    effects = measure(lab, pairs, list(dict.fromkeys([found, whole, *singles, *without, *others])), arms)
    weights = resamples(len(pairs), search.bootstrap, search.seed)
    check_gap(effects.gap, weights, signed=lab.metric.signed)
    share = _Shares(effects, search.arm, weights)
    alone = np.column_stack([effects.sites[one][search.arm] for one in singles])
    return {
        "arm": search.arm,
        "candidates": len(candidates),
        "measured_on": [pair.id for pair in pairs],
        "set": share.of(found),
        "all": share.of(whole),
        "share_of_all": share.between(found, whole),
        "minus_placebo": None if search.arm == "knockout" else share.contrast(found),
        "singles": {str(one): share.of(one) for one in singles},
        "without": {str(site): share.of(one) for site, one in zip(members, without, strict=False)},
        "null": {"sites": [str(one) for one in others], "percent": [share.of(one)["percent"] for one in others]},
        "additivity": additivity(effects.sites[found][search.arm], alone, effects.gap, weights)
        if len(members) > 1
        else None,
    }


@dataclass(frozen=True)
class _Shares:
    """Percentages of the gap with bootstrap intervals over pairs."""

    effects: Effects
    arm: str
    weights: Floats

    def of(self, one: SiteSet) -> dict[str, Any]:
        """A set's effect."""
        return self._ratio(self.effects.sites[one][self.arm])

    def contrast(self, one: SiteSet) -> dict[str, Any]:
        """A set's effect minus that of a placebo donor."""
        own = self.effects.sites[one]
        return self._ratio(own[self.arm] - own[f"placebo_{self.arm}"])

    def between(self, one: SiteSet, whole: SiteSet) -> dict[str, Any] | None:
        """What one set carries of what another carries, in percent; None where the other carries nothing clear."""
        parts = [self.effects.sites[each][self.arm] for each in (one, whole)]
        top, bottom = (self.weights @ part for part in parts)
        usable = bottom * np.sign(parts[1].mean()) > 0
        drawn = 100 * top[usable] / bottom[usable]
        if not usable.mean() > 0.95:
            return None  # all candidates carry nothing clear on these pairs, so there is no share of it
        cut = tail(len(parts[0]))
        low, high = np.quantile(drawn, [cut, 1 - cut])
        return {"percent": float(100 * parts[0].sum() / parts[1].sum()), "ci": [float(low), float(high)]}

    def _ratio(self, values: Floats) -> dict[str, Any]:
        gap = self.effects.gap
        found = ratios(oriented(values, gap)[:, None], oriented(gap, gap), self.weights)
        return {"percent": float(found.percent[0]), "ci": [float(found.low[0]), float(found.high[0])]}
