"""One expert under an experiment, the shams it is compared with, and the prompts in batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from moeprobe.editing import Places, find_places
from moeprobe.editing.oracle import refused
from moeprobe.editing.seen import experts_of, place_of
from moeprobe.errors import InterchangeError
from moeprobe.experiments.shams import nearest, usage_of
from moeprobe.models import LoadedModel
from moeprobe.pairs.batch import check_room
from moeprobe.sites import Site


@dataclass(frozen=True)
class Subject:
    """One expert of a model.

    Attributes:
        loaded: the model.
        places: where its sites live.
        site: the expert.
        shams: other experts of its layer.
    """

    loaded: LoadedModel
    places: dict[int, Places]
    site: Site
    shams: tuple[Site, ...]

    @property
    def sites(self) -> tuple[Site, ...]:
        """The site first, then its shams."""
        return (self.site, *self.shams)

    @property
    def experts(self) -> int:
        """Number of experts of the layer."""
        return int(experts_of(self.places[self.site.layer]).experts)


def subject(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    site: Site,
    *,
    shams: Sequence[Site] | int = 5,
    batch_size: int = 8,
) -> Subject:
    """An expert that can be edited, with shams.

    Args:
        loaded: the model.
        prompts: token ids, forced tokens included; at least 2.
        site: the expert.
        shams: other experts of its layer, or how many are chosen: the nearest in selection rate and contribution norm.
        batch_size: prompts per forward.

    Raises:
        InterchangeError: fewer than 2 prompts or an empty one, a site or sham the layer has not, or a family whose
            experts cannot be asked one at a time.
    """
    if len(prompts) < 2 or not all(len(prompt) for prompt in prompts):
        raise InterchangeError(f"At least 2 prompts are needed, none of them empty; there are {len(prompts)}.")
    check_room(loaded, [len(prompt) for prompt in prompts])
    places = find_places(loaded.model)
    if site.kind != "expert":
        raise InterchangeError(f"{site} is no expert. Name one, for example L14.E114.")
    place_of(places, site.layer, "expert")
    reason = refused(experts_of(places[site.layer]))
    if reason is not None:
        raise InterchangeError(f"{site} cannot be edited: {reason}.")
    count = experts_of(places[site.layer]).experts
    for one in (site, *(() if isinstance(shams, int) else shams)):
        if one.layer != site.layer or one.kind != "expert" or not 0 <= one.expert < count:
            raise InterchangeError(f"L{site.layer} has experts E0 to E{count - 1}; {one} is none of them.")
    if isinstance(shams, int):
        usage = usage_of(loaded, prompts, site.layer, batch_size=batch_size) if shams else None
        shams = [] if usage is None else nearest(site, usage, shams)
    return Subject(loaded, places, site, tuple(dict.fromkeys(one for one in shams if one != site)))
