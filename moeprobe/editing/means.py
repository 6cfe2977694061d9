"""The mean value of sites over a set of prompts, for mean ablation."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from moeprobe.editing.places import Places
from moeprobe.editing.seen import reading
from moeprobe.errors import InterchangeError
from moeprobe.models import LoadedModel
from moeprobe.sites import Site


def mean_values(
    loaded: LoadedModel, places: Mapping[int, Places], prompts: Sequence[Sequence[int]], sites: Iterable[Site]
) -> dict[Site, Tensor]:
    """Mean value of each site over all tokens of all prompts, unedited.

    The contribution of an expert is 0 where the router did not choose it, and those tokens count.

    Args:
        loaded: the model.
        places: its places.
        prompts: token ids of each prompt.
        sites: any but routers, whose choices have no mean.

    Returns:
        (width,) float32 for each site.

    Raises:
        InterchangeError: no prompts.
    """
    wanted = list(dict.fromkeys(sites))
    if not prompts or not wanted:
        raise InterchangeError("A mean ablation needs prompts to take the mean over, and sites.")
    total: dict[Site, Tensor] = {}
    # One prompt at a time: no padding, so no position and no state of a recurrent layer depends on the others.
    with torch.inference_mode():
        for ids in prompts:
            with reading(places, [(site.layer, site.kind) for site in wanted]) as seen:
                loaded.model(input_ids=torch.tensor([list(ids)], device=loaded.model.device), use_cache=False)
            rows = torch.arange(len(ids), device=loaded.model.device)
            for site in wanted:
                value = seen.value(site.layer, site.kind, torch.full_like(rows, site.index or 0), rows)
                total[site] = total.get(site, 0) + value.double().sum(dim=0).cpu()
    tokens = sum(len(ids) for ids in prompts)
    return {site: (value / tokens).float() for site, value in total.items()}
