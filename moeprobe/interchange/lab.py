"""What all runs of an experiment share: the model, its places, the metric, the alignment, the donors."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moeprobe.editing import Places, find_places
from moeprobe.errors import InterchangeError
from moeprobe.interchange.arms import ARMS, OTHER, SWAPS, check_arms
from moeprobe.models import LoadedModel
from moeprobe.pairs.alignment import Alignment, check_alignment
from moeprobe.pairs.batch import check_forward
from moeprobe.pairs.donors import donors
from moeprobe.pairs.metrics import ControlNLL, Metric
from moeprobe.pairs.pairs import SIDES, TokenPair, shown
from moeprobe.sites import Site

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Lab:
    """A model on the bench.

    Attributes:
        loaded: the model.
        places: where its sites live, by layer.
        metric: what is measured of each run.
        alignment: which positions stand for which.
        swap: "contribution", "output" or "routing"; of an expert's swaps. Other sites have contributions only.
        seed: of donors and noise.
        batch_size: runs per forward.
        means: contribution (width,) by site, of the knock-out by the mean; see `editing.means`.
    """

    loaded: LoadedModel
    places: Mapping[int, Places]
    metric: Metric = field(default_factory=ControlNLL)
    alignment: Alignment = field(default_factory=Alignment)
    swap: str = "contribution"
    seed: int = 0
    batch_size: int = 16
    means: Mapping[Site, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.swap not in SWAPS:
            raise InterchangeError(f"There is no swap {self.swap!r}. Choose one of {', '.join(SWAPS)}.")
        if self.batch_size < 1:
            raise InterchangeError("A forward needs at least one run: the batch size must be 1 or more.")


def lab(
    loaded: LoadedModel,
    *,
    metric: Metric | None = None,
    alignment: Alignment | None = None,
    swap: str = "contribution",
    seed: int = 0,
    batch_size: int = 16,
) -> Lab:
    """Put a model on the bench.

    Raises:
        InterchangeError: an unknown swap, or a batch size below 1.
        ModelError: a model without routed experts.
    """
    return Lab(
        loaded,
        find_places(loaded.model),
        metric or ControlNLL(),
        alignment or Alignment(),
        swap=swap,
        seed=seed,
        batch_size=batch_size,
    )


@dataclass(frozen=True)
class Givers:
    """Who gives to the recipients of a side.

    Attributes:
        pairs: (pairs,) number of the pair that gives to each pair.
        sides: which of its two prompts.
    """

    pairs: Ints
    sides: tuple[str, ...]


def givers_of(one: Lab, pairs: Sequence[TokenPair], arms: Sequence[str]) -> dict[tuple[str, str], Givers]:
    """By (recipient side, source), the givers of the arms whose donors are prompts of other pairs.

    A resampled donor is of either class, by lot; placebo donors are of the recipient's class, random ones of the other.

    Raises:
        InterchangeError: an unknown arm, or no other pair whose prompt could give.
    """
    check_arms(tuple(arms))
    found: dict[tuple[str, str], Givers] = {}
    for arm in (ARMS[name] for name in arms):
        if arm.source not in ("placebo", "random", "resample"):
            continue
        kinds = ["placebo", "random"] if arm.source == "resample" else [arm.source]
        same = one.alignment.name == "equal"
        chosen = [donors(pairs, kind, one.seed, recipient=arm.recipient, same_length=same) for kind in kinds]
        lot = np.random.default_rng([one.seed, len(pairs)]).integers(0, len(kinds), len(pairs))
        mine = {"placebo": arm.recipient, "random": OTHER[arm.recipient]}
        found[arm.recipient, arm.source] = Givers(
            np.stack(chosen)[lot, np.arange(len(pairs))], tuple(mine[kinds[which]] for which in lot)
        )
    return found


def check_pairs(one: Lab, pairs: Sequence[TokenPair]) -> None:
    """What can be wrong with pairs, before anything is computed.

    Raises:
        InterchangeError: none at all, two of one name, pairs that cannot be aligned so, prompts the model has no room
            for, or a model that does not compute the same of them a second time, behind padding, or beside others.
    """
    if not pairs:
        raise InterchangeError("There are no pairs to swap between.")
    # Results are kept by name: of two pairs of one name the last would stand for both.
    twice = next((name for name, count in Counter(pair.id for pair in pairs).items() if count > 1), None)
    if twice is not None:
        raise InterchangeError(f"Two pairs have the id {shown(twice)}. Give each pair a name of its own.")
    check_alignment(one.alignment, list(pairs))
    longest, limit = max(max(len(pair.sensitive), len(pair.control)) for pair in pairs), one.loaded.positions
    most = max(pairs, key=lambda pair: len(pair.continuation or ()))
    # A pair that brings no continuation, where one is asked for, would otherwise end a run in the middle.
    least = min(pairs, key=lambda pair: len(pair.continuation or ()))
    more = one.metric.prepare(one.loaded, [least, most]).tokens.shape[1]
    if limit is not None and longest + more > limit:
        raise InterchangeError(
            f"A prompt of {longest} tokens and {more} more do not fit the model's {limit} positions."
        )
    check_forward(one.loaded, [pair.side(side) for pair in pairs for side in SIDES])
