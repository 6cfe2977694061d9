"""The reference for edited generation: one forward of the whole text per step, without cache, padding or partners."""

from collections.abc import Sequence

import torch
from torch import Tensor

from moeprobe.editing import Edit, Places, Reroute, Write, reading, rerouting, writing
from moeprobe.models import LoadedModel

_HOW = {"swap": "replace", "swap-output": "output", "swap-routing": "routing"}


def next_logits(
    loaded: LoadedModel,
    places: dict[int, Places],
    edits: Sequence[Edit],
    prompt: list[int],
    donor: list[int] | None,
    answer: list[int],
    *,
    shift: int = 0,
) -> Tensor:
    """(vocabulary,) logits of the token after `answer`. `shift` misaligns the donor by so many tokens."""
    ids = prompt + answer
    rows = torch.arange(len(ids))
    writes, reroutes = [], []
    if donor is not None:
        other = donor + answer
        wanted = [(site.layer, site.kind) for edit in edits for site in edit.sites.sites if edit.verb in _HOW]
        with reading(places, wanted) as seen:
            _forward(loaded, other)
        theirs = rows + len(other) - len(ids) - shift
        theirs = torch.where(theirs < len(other), theirs, -1).clamp(min=-1)
    for edit in edits:
        here = {"all": rows >= 0, "prompt": rows < len(prompt), "answer": rows >= len(prompt)}[edit.where]
        for site in edit.sites.sites:
            number = site.index or 0
            if edit.verb in _HOW:
                index = torch.where(here & (theirs >= 0), number, -1)
                if site.kind == "router":
                    choice = seen.choice(site.layer)
                    at = theirs.clamp(min=0)
                    writes.append(Write(site.layer, "router", index, value=choice.weights[at], ids=choice.ids[at]))
                    continue
                value = seen.value(site.layer, site.kind, index, theirs, _HOW[edit.verb])
                writes.append(Write(site.layer, site.kind, index, _HOW[edit.verb], value))
            elif edit.verb in ("zero", "scale"):
                factor = torch.full((len(ids), 1), edit.amount or 0.0)
                writes.append(Write(site.layer, site.kind, torch.where(here, number, -1), "scale", factor))
            else:
                amount = {"bar": -torch.inf, "force": torch.inf}.get(edit.verb, edit.amount)
                bias = torch.zeros(len(ids), places[site.layer].experts.experts)
                bias[here, number] = amount
                reroutes.append(Reroute(site.layer, bias))
    with writing(places, writes), rerouting(places, reroutes):
        return _forward(loaded, ids)


def _forward(loaded: LoadedModel, ids: list[int]) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = loaded.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return logits
