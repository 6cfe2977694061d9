"""How well a screen ranked: its estimates against exact swaps of the selected sites and of a random audit sample."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from moeprobe.errors import InterchangeError
from moeprobe.interchange.screen import Screen
from moeprobe.sites import Site


@dataclass(frozen=True)
class Quality:
    """A screen's record against exact effects.

    Attributes:
        effect: which effect was ranked.
        sites: how many sites were screened that some run used.
        selected, audited: how many of them were swapped exactly, and why.
        others: how many were not selected; the audit is a random sample of these.
        wanted: the number n of sites with the largest exact |effect| that the screen is asked to find.
        found: how many of the first n of all exactly tested sites had been selected.
        beaten: audited sites whose exact |effect| reaches that of the n-th selected site: each of them was missed.
        most: with the confidence below, at most so many of `others` reach it; None: without an audit nothing is known.
        confidence: of `most`, one-sided.
        correlation: Spearman's rank correlation of |estimate| and |exact effect| over selected and audited sites; None
            where it is not defined (fewer than 3 sites, or all equal).
        audit_correlation: the same over the audited sites alone, a random sample of those not selected.
    """

    effect: str
    sites: int
    selected: int
    audited: int
    others: int
    wanted: int
    found: int
    beaten: int
    most: int | None
    confidence: float
    correlation: float | None
    audit_correlation: float | None

    @property
    def recall(self) -> float:
        """Share of the exact first n, of all exactly tested sites, that the screen had selected. The whole truth only
        where the audit took all others."""
        return self.found / self.wanted

    @property
    def least_recall(self) -> float | None:
        """Share of the exact first n of ALL sites that were selected: at least this, with `confidence`."""
        return None if self.most is None else max(self.wanted - self.most, 0) / self.wanted

    @property
    def sentence(self) -> str:
        """The record in words, for a report."""
        counts = f"{self.selected} of {self.sites} sites were selected by their estimates"
        if self.most is None:
            return f"{counts}; none of the {self.others} others was swapped exactly, so what was missed is not known."
        agreement = (
            ""
            if self.correlation is None
            else (
                f" Rank correlation of estimated and exact {self.effect} over all sites tested: {self.correlation:.2f}."
            )
        )
        if self.audited == self.others:
            return (
                f"{counts}, and all {self.others} others were swapped exactly as well: "
                f"{self.found} of the first {self.wanted} had been selected.{agreement}"
            )
        least = max(self.wanted - self.most, 0)
        claim = (
            f"so at least {least} of the first {self.wanted} of all were selected"
            if least
            else f"which says nothing of how many of the first {self.wanted} were selected: "
            f"that takes an audit of {audit_size(self.others, self.wanted - 1, self.confidence)} or more"
        )
        return (
            f"{counts}. Of the {self.others} others {self.audited} were drawn at random and swapped exactly, and "
            f"{self.beaten} of these would have been among the first {self.wanted}. With {100 * self.confidence:g} % "
            f"confidence at most {self.most} of the {self.others} would, {claim}.{agreement}"
        )

    def to_json(self) -> dict[str, Any]:
        """The record, with its sentence."""
        return {
            **vars(self),
            "recall": self.recall,
            "least_recall": self.least_recall,
            "sentence": self.sentence,
        }


def quality(
    screen: Screen,
    effect: str,
    exact: Mapping[Site, float],
    *,
    selected: Iterable[Site],
    audited: Iterable[Site],
    wanted: int = 10,
    confidence: float = 0.95,
) -> Quality:
    """Compare estimates with exact effects.

    The bound on what was missed: the n-th largest |effect| of the selected sites is a threshold that does not depend on
    the draw of the audit. Sites beyond it among those not selected are counted in a simple random sample without
    replacement, so their number has the exact hypergeometric upper limit. Every site of the true first n that was not
    selected lies beyond the threshold, so there are no more of them than that.

    Args:
        screen: the estimates.
        effect: which to compare.
        exact: mean exact effect over the same pairs, of every selected and audited site.
        selected, audited: from `Screen.select` and `Screen.audit`.
        wanted: n.
        confidence: of the bound, one-sided.

    Raises:
        InterchangeError: sites without an exact effect, audited ones that were selected or that the screen has not, or
            fewer than `wanted` selected.
    """
    chosen, drawn = list(dict.fromkeys(selected)), list(dict.fromkeys(audited))
    others = screen.others(chosen)
    _check(chosen, drawn, others, exact)
    if wanted < 1 or len(chosen) < wanted or not 0 < confidence < 1:
        raise InterchangeError(
            f"Of {len(chosen)} selected sites the first {wanted} cannot be named; and the confidence ({confidence}) "
            "lies between 0 and 1."
        )
    sizes = {site: abs(exact[site]) for site in [*chosen, *drawn]}
    threshold = sorted((sizes[site] for site in chosen), reverse=True)[wanted - 1]
    # An effect of exactly 0 is never one of the first, however few there are.
    beaten = sum(sizes[site] >= threshold and sizes[site] > 0 for site in drawn)
    leading = sorted([*chosen, *drawn], key=lambda site: (-sizes[site], site in chosen))[:wanted]
    shares = dict(zip(screen.sites, np.abs(screen.estimates[effect].mean(axis=0)), strict=True))
    return Quality(
        effect=effect,
        sites=len(chosen) + len(others),
        selected=len(chosen),
        audited=len(drawn),
        others=len(others),
        wanted=wanted,
        found=sum(site in set(chosen) for site in leading),
        beaten=beaten,
        most=most_beyond(len(others), len(drawn), beaten, confidence) if drawn or not others else None,
        confidence=confidence,
        correlation=_spearman([shares[site] for site in sizes], list(sizes.values())),
        audit_correlation=_spearman([shares[site] for site in drawn], [sizes[site] for site in drawn]),
    )


def _check(chosen: Sequence[Site], drawn: Sequence[Site], others: Sequence[Site], exact: Mapping[Site, float]) -> None:
    missing = [site for site in [*chosen, *drawn] if site not in exact]
    if missing:
        raise InterchangeError(f"The screen cannot be judged: there is no exact effect of {missing[0]}.")
    strange = [site for site in drawn if site not in set(others)]
    if strange:
        raise InterchangeError(f"The screen cannot be judged: {strange[0]} is none of the sites not selected.")


def most_beyond(others: int, audited: int, beaten: int, confidence: float) -> int:
    """Exact upper limit for how many of `others` lie beyond a threshold, of which `audited` drawn at random without
    replacement showed `beaten`: the largest number that the sample does not reject (hypergeometric, one-sided)."""
    if others == audited:
        return beaten  # all of them were looked at
    numbers = np.arange(beaten, others - (audited - beaten) + 1)
    # P(at most `beaten` in the sample) falls with the number there are.
    likely = stats.hypergeom.cdf(beaten, others, numbers, audited) > 1 - confidence
    return int(numbers[likely].max())


def audit_size(others: int, most: int, confidence: float = 0.95) -> int:
    """How many of `others` must be audited so that finding none bounds those beyond the threshold by `most`."""
    sizes = range(others + 1)
    return next(size for size in sizes if most_beyond(others, size, 0, confidence) <= most)


def _spearman(one: list[float], two: list[float]) -> float | None:
    if len(one) < 3 or len(set(one)) < 2 or len(set(two)) < 2:
        return None
    return float(stats.spearmanr(one, two).statistic)
