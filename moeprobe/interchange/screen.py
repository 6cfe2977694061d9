"""What a screen found: estimates for every site and pair, which sites they select, and which are audited.

Numbers only; the estimates come from `screening`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import InterchangeError
from moeprobe.sites import Site

Floats = NDArray[np.float64]
SWAPS = ("necessity", "sufficiency")
# What is tested exactly at the least: a quarter of the sites, and three times as many as are wanted (STATISTICS 8: of
# the exact first 10 of 128, 8 and 10 stood in the first quarter of two screens, 7 in the first 10).
SHARE, TIMES = 0.25, 3


@dataclass(frozen=True)
class Screen:
    """First-order estimates of the effects of every site.

    Attributes:
        pair_ids: names of the pairs.
        sites: names of the sites.
        sensitive, control: (pairs,) the metric of the unedited runs.
        estimates: by effect (pairs, sites) in the metric's unit: "necessity", "sufficiency", "knockout", and those of
            control donors. Signs as for exact swaps: positive is in the direction of the gap.
        used: (sites,) bool: False for experts that no run chose at any token; swapping those changes no bit.
    """

    pair_ids: tuple[str, ...]
    sites: tuple[Site, ...]
    sensitive: Floats
    control: Floats
    estimates: Mapping[str, Floats]
    used: NDArray[np.bool_]

    def __post_init__(self) -> None:
        shape = (len(self.pair_ids), len(self.sites))
        for name, values in self.estimates.items():
            if values.shape != shape or not np.isfinite(values).all():
                raise InterchangeError(
                    f"The estimates of {name} must be finite numbers (pairs, sites) = {shape}, not {values.shape}."
                )
        if self.used.shape != shape[1:] or self.sensitive.shape != shape[:1] or self.control.shape != shape[:1]:
            raise InterchangeError(
                f"{shape[0]} pairs and {shape[1]} sites got scores {self.sensitive.shape} and {self.control.shape} and "
                f"{self.used.shape} marks of use."
            )

    @property
    def gap(self) -> Floats:
        """(pairs,) m(sensitive) - m(control)."""
        return self.sensitive - self.control

    def shares(self, effect: str) -> Floats:
        """(sites,) the estimated effect in percent of the gap: a signed ratio of sums over pairs, times 100.

        Raises:
            InterchangeError: an effect that was not estimated, or no gap to take a share of.
        """
        values, gap = self._of(effect).sum(axis=0), self.gap.sum()
        if gap == 0:
            raise InterchangeError("The two sides of the pairs score the same, so there is no gap to explain.")
        result: Floats = 100 * values / gap
        return result

    def ranking(self, effect: str) -> tuple[Site, ...]:
        """All sites, the largest |estimate| first: of the mean over pairs; ties in the order of `sites`.

        Raises:
            InterchangeError: an effect that was not estimated.
        """
        order = np.argsort(-np.abs(self._of(effect).mean(axis=0)), kind="stable")
        return tuple(self.sites[place] for place in order)

    def of(self, sites: Iterable[Site]) -> "Screen":
        """The same screen of some of its sites, in its own order.

        Raises:
            InterchangeError: a site that was not screened, or none at all.
        """
        wanted = set(sites)
        unknown = sorted(wanted - set(self.sites))
        if unknown or not wanted:
            what = f"{unknown[0]} was not screened." if unknown else "No site is named."
            raise InterchangeError(f"{what} The screen has {len(self.sites)} sites.")
        places = [place for place, site in enumerate(self.sites) if site in wanted]
        return Screen(
            self.pair_ids,
            tuple(self.sites[place] for place in places),
            self.sensitive,
            self.control,
            {name: values[:, places] for name, values in self.estimates.items()},
            self.used[places],
        )

    def kind(self, kind: str) -> "Screen":
        """The same screen of the sites of one kind. Kinds are best ranked apart: errors of their estimates differ.

        Raises:
            InterchangeError: no site of that kind was screened.
        """
        found = [site for site in self.sites if site.kind == kind]
        if not found:
            raise InterchangeError(f"No site of kind {kind!r} was screened.")
        return self.of(found)

    def select(self, *, share: float = SHARE, wanted: int = 10, effects: Sequence[str] = SWAPS) -> tuple[Site, ...]:
        """The sites to be tested exactly, in the order of `sites`: those that lead in any of the effects.

        In each effect the first ceil(`share` * sites) are taken, and at the least 3 * `wanted`; experts that no run
        chose never are. Both swaps count by default, also where only one is of interest: each is the other's estimate
        with the slope taken at the donor's end. Where the metric is saturated at one end, the slope there is 0 and
        misses everything (the compiled model's control runs), and the other end's does not.

        Args:
            share: of all sites, above 0 and up to 1.
            wanted: how many sites one hopes to find.
            effects: which estimates count; those of the sites that lead in one of them are joined.

        Raises:
            InterchangeError: a share or number out of bounds, or an effect that was not estimated.
        """
        if not 0 < share <= 1 or wanted < 1 or not effects:
            raise InterchangeError(
                f"A share lies above 0 and up to 1 and the number wanted is 1 or more, not {share} and "
                f"{wanted}; and at least one effect is named."
            )
        count = max(math.ceil(share * len(self.sites)), TIMES * wanted)
        used = dict(zip(self.sites, self.used.tolist(), strict=True))
        leading = {site for effect in effects for site in [one for one in self.ranking(effect) if used[one]][:count]}
        return tuple(site for site in self.sites if site in leading)

    def audit(self, selected: Iterable[Site], number: int, seed: int) -> tuple[Site, ...]:
        """A simple random sample of the sites that were not selected, in the order of `sites`.

        Experts that no run chose are left out: their effect is exactly 0.

        Args:
            selected: from `select`.
            number: how many; all there are where there are fewer.
            seed: of the draw.

        Raises:
            InterchangeError: a negative number.
        """
        if number < 0:
            raise InterchangeError(f"An audit draws 0 sites or more, not {number}.")
        others = self.others(selected)
        order = np.random.default_rng([seed, len(others)]).permutation(len(others))[:number]
        return tuple(others[place] for place in sorted(order))

    def others(self, selected: Iterable[Site]) -> tuple[Site, ...]:
        """The sites that were not selected and that some run used, in the order of `sites`."""
        taken = set(selected)
        return tuple(site for site, used in zip(self.sites, self.used, strict=True) if used and site not in taken)

    def _of(self, effect: str) -> Floats:
        if effect not in self.estimates:
            raise InterchangeError(f"{effect!r} was not estimated. There are: {', '.join(self.estimates)}.")
        return self.estimates[effect]
