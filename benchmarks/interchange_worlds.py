"""Effects of swaps with a known truth, for benchmarks/interchange_null.py: arrays only, no model.

A pair has a gap (lognormal, 2.2 on average) and, for every site and direction, three heavy-tailed parts: what any swap
does to this recipient (the same for both donors), what this donor does (another for the placebo), and what the site
carries of the gap. A part of every noise is shared by all sites of a pair, and noise grows with the gap.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NAMES = ("necessity", "sufficiency")


@dataclass(frozen=True)
class World:
    """What the truth is. Percentages are of the mean gap.

    Attributes:
        pairs, sites: how many; `others` more sites are comparison sites without an effect.
        tails: "t3"; "right" or "left": a lognormal mixture with its long tail on that side; "normal".
        noise: standard deviation of the donor's part; that of the recipient's is half of it.
        shared: share of the noise's variance that all sites of a pair have in common.
        disturbance: mean of what any donor does.
        harm: mean of what a placebo donor does beyond that (its topic differs from the recipient's).
        null_effect: what the sites without a true effect carry: the minimum effect in the row at the border.
        true: number of sites with a true effect of `effect`, in both directions.
        shuffled: labels swapped in a random half of the pairs.
        patchy: the sites without a true effect carry 5 % more in nine pairs of ten, and 45 % less in the tenth.
    """

    pairs: int = 16
    sites: int = 24
    others: int = 20
    tails: str = "t3"
    noise: float = 10.0
    shared: float = 0.3
    disturbance: float = 0.0
    harm: float = 0.0
    null_effect: float = 0.0
    true: int = 0
    effect: float = 0.0
    shuffled: bool = False
    patchy: bool = False


def draw(world: World, generator: np.random.Generator) -> tuple[dict[int, dict[str, Floats]], Floats]:
    """Effects by site (the first `true` have an effect; those from `sites` on are comparison sites), and the gap."""
    pairs, every = world.pairs, world.sites + world.others
    gap = 2 * generator.lognormal(0, 0.4, pairs)
    unit = gap.mean() / 100
    carried = np.full(every, world.null_effect)
    carried[: world.true] = world.effect
    carried[world.sites :] = 0.0
    share = np.tile(carried, (pairs, 1))
    if world.patchy:
        patches = generator.random((pairs, world.sites - world.true)) < 0.9
        share[:, world.true : world.sites] += np.where(patches, 5, -45)
    grown = 0.5 + 0.5 * gap / gap.mean()

    def part(size: float, recipient: Floats) -> Floats:
        common = np.sqrt(world.shared) * heavy(generator, (pairs, 1), world.tails)
        own = np.sqrt(1 - world.shared) * heavy(generator, (pairs, every), world.tails)
        return recipient + unit * (world.disturbance + size * grown[:, None] * (common + own))

    by_name = {}
    for name in NAMES:
        recipient = part(world.noise / 2, np.zeros((pairs, every))) - unit * world.disturbance
        by_name[name] = gap[:, None] * share / 100 + part(world.noise, recipient)
        by_name[f"placebo_{name}"] = part(world.noise, recipient) - unit * world.harm
    if world.shuffled:
        swapped = generator.random(pairs) < 0.5
        gap = np.where(swapped, -gap, gap)
        # What was sensitive is control now: bringing in becomes taking out, with the other sign.
        for prefix in ("", "placebo_"):
            first, second = (by_name[prefix + name].copy() for name in NAMES)
            by_name[prefix + NAMES[0]][swapped] = -second[swapped]
            by_name[prefix + NAMES[1]][swapped] = -first[swapped]
    return {site: {name: values[:, site] for name, values in by_name.items()} for site in range(every)}, gap


def heavy(generator: np.random.Generator, shape: tuple[int, ...], tails: str) -> Floats:
    """Numbers with mean 0 and variance about 1."""
    if tails == "normal":
        return generator.standard_normal(shape)
    if tails == "t3":
        return generator.standard_t(3, shape) / np.sqrt(3)
    # Nine in ten are plain, one in ten comes from a lognormal tail; centred and scaled by their exact moments.
    tail = generator.lognormal(0.5, 1.0, shape)
    mixed = np.where(generator.random(shape) < 0.1, tail, generator.normal(0, 0.5, shape))
    mean = 0.1 * np.exp(1.0)
    variance = 0.9 * 0.25 + 0.1 * np.exp(3.0) - mean**2
    centred: Floats = (mixed - mean) / np.sqrt(variance)
    return centred if tails == "right" else -centred
