"""Rescue: a donor's site injected at every step of runs in which the behaviour does not appear."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moeprobe.chat.encode import encode_prompt
from moeprobe.editing import Edit, find_places, layout_of
from moeprobe.editing.generating import Given
from moeprobe.engines import Decoding
from moeprobe.engines.session import Job
from moeprobe.experiments.behaviour import (
    Answers,
    Progress,
    PromptPair,
    TextArm,
    asked_of,
    effect,
    placebo_pairs,
    prompts_json,
    run_arms,
    site_set,
)
from moeprobe.interchange.comparison import comparisons
from moeprobe.interchange.lab import lab
from moeprobe.judging.rates import Change
from moeprobe.models import LoadedModel
from moeprobe.pairs.pairs import TokenPair
from moeprobe.probes import CheckedProbe
from moeprobe.prompts import Prompt
from moeprobe.sites import INDEXED, Layout, Site, SiteSet

CONTROLS = ("random_site", "placebo_donor", "noise")


@dataclass(frozen=True)
class Rescue:
    """A finished rescue.

    Attributes:
        pairs: their ids.
        probe: name of the judge.
        sites: what was injected.
        prompts: of each pair the sensitive one and the control.
        random_sites: what in their stead; None: nothing else runs and writes, so this control is missing.
        answers: by arm: "recipient" and "donor" unedited, "rescue", and the three of `CONTROLS`.
        effects: by arm, against the unedited recipient; a rise of the behaviour is positive.
        beyond: by control, how much more often the behaviour appears in "rescue" than in it.
    """

    pairs: tuple[str, ...]
    probe: str
    sites: SiteSet
    random_sites: SiteSet | None
    prompts: tuple[tuple[str, str], ...]
    answers: dict[str, Answers]
    effects: dict[str, Change]
    beyond: dict[str, Change]

    def to_json(self) -> dict[str, Any]:
        """All of it, every text and score included."""
        return {
            "pairs": list(self.pairs),
            "probe": self.probe,
            "sites": str(self.sites),
            "random_sites": None if self.random_sites is None else str(self.random_sites),
            "prompts": prompts_json(self.prompts),
            "answers": {name: one.to_json() for name, one in self.answers.items()},
            "effects": {name: one.to_json() for name, one in self.effects.items()},
            "beyond": {name: one.to_json() for name, one in self.beyond.items()},
        }


def rescue(
    loaded: LoadedModel,
    pairs: Sequence[PromptPair],
    sites: SiteSet | str,
    probe: CheckedProbe,
    decoding: Decoding | None = None,
    *,
    random_sites: SiteSet | str | None = None,
    placebo: Sequence[int] | None = None,
    bootstrap: int = 10_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Rescue:
    """Inject the sensitive prompt's sites into the control's generation, at every step.

    Three controls answer three doubts. random_site: would any site do? placebo_donor (a control of another pair): would
    any donor do? noise (as long as donor - own, in a random direction): would any disturbance do?

    Args:
        loaded: a decoder-only model.
        pairs: `sensitive` is the donor, `control` the recipient; at least two.
        sites: what is injected, all of it at once. Routers have no noise arm, so they are refused.
        probe: judges each text.
        decoding: greedy with 64 new tokens by default.
        random_sites: by default as many others, from `sites_instead`; without any, this control is left out.
        placebo: as in `behaviour`.
        bootstrap, seed: draws over pairs; the seed also of the random sites.
        progress: called after each batch.

    Raises:
        InterchangeError: fewer than two pairs, or a kind of site that cannot be injected.
    """
    chosen = site_set(loaded, sites)
    instead = sites_instead(loaded, pairs, chosen, seed) if random_sites is None else site_set(loaded, random_sites)
    others = placebo_pairs(len(pairs), placebo)
    donors, recipients = tuple(one.sensitive for one in pairs), tuple(one.control for one in pairs)
    inject = (Edit("swap", chosen),)
    arms = [
        TextArm("recipient", recipients, donors),
        TextArm("donor", donors, recipients),
        TextArm("rescue", recipients, donors, inject),
        *([] if instead is None else [TextArm("random_site", recipients, donors, (Edit("swap", instead),))]),
        TextArm("placebo_donor", recipients, tuple(recipients[other] for other in others), inject),
        TextArm("noise", recipients, donors, (Edit("noise", chosen),)),
    ]
    answers = run_arms(loaded, arms, probe, decoding, progress)
    gap = answers["donor"].shown - answers["recipient"].shown
    return Rescue(
        pairs=tuple(one.id for one in pairs),
        probe=probe.name,
        sites=chosen,
        random_sites=instead,
        prompts=asked_of(pairs),
        answers=answers,
        effects={arm.name: effect(answers, arm.name, "recipient", gap, bootstrap, seed) for arm in arms[2:]},
        beyond={name: effect(answers, "rescue", name, gap, bootstrap, seed) for name in CONTROLS if name in answers},
    )


def sites_instead(loaded: LoadedModel, pairs: Sequence[PromptPair], sites: SiteSet, seed: int) -> SiteSet | None:
    """As many other sites, as like the tested ones as can be: experts and heads by how often they run in these prompts
    and how much they write; other kinds in other layers, drawn at random.

    Returns:
        None where there are not as many others that run and write. One that writes nothing would be no control.
    """
    if any(site.kind in INDEXED for site in sites.sites):
        tokens = [TokenPair(one.id, _ids(loaded, one.sensitive), _ids(loaded, one.control)) for one in pairs]
        found = comparisons(lab(loaded, seed=seed), tokens, [sites], 1)[sites]
        return None if not found or set(found[0].sites) & set(sites.sites) else found[0]
    return drawn_sites(layout_of(find_places(loaded.model)), sites, seed)


def drawn_sites(layout: Layout, sites: SiteSet, seed: int) -> SiteSet | None:
    """As many sites of the same kinds in other layers, drawn at random; None where there are not as many."""
    chance = np.random.default_rng(seed)
    taken = set(sites.sites)
    found: list[Site] = []
    for site in sites.sites:
        free = [other for other in layout.sites(site.kind) if other not in taken]
        if not free:
            return None
        found.append(free[int(chance.integers(len(free)))])
        taken.add(found[-1])
    return SiteSet("", tuple(found))


def _ids(loaded: LoadedModel, given: Given) -> tuple[int, ...]:
    if isinstance(given, Job):
        return tuple(given.ids)
    prompt = given if isinstance(given, Prompt) else Prompt("text", given)
    return tuple(encode_prompt(loaded.tokenizer, prompt))
