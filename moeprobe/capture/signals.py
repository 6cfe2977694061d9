"""Signals recorded on request: what each is called, and the tap that takes it.

| name | columns | what |
|---|---|---|
| logits | `L14.logits` or `L14.probabilities` (rows, E) | what the router returned for every expert |
| margin | `L14.margin`, `L14.gate_sensitive` (rows,) | k-th minus (k+1)-th selection score; may rounding flip it |
| shared-gate | `L14.shared_gate` (rows,) | weight of the shared expert, after its sigmoid |
| router-input | `L14.router_input` (rows, width) | what the router reads |
| norms | `L14.norms` (rows, k) | length of each chosen expert's output before its weight |
| residual:N | `residual.L14` (rows, width) | the residual stream after layer N |
| entropy | `entropy` (rows,) | of the next-token distribution, in nats |
| logprob | `logprob` (rows,) | natural log-probability of the token that came next, in the model's own distribution |
"""

import difflib
import re
from collections.abc import Sequence

from transformers import PreTrainedModel

from moeprobe.capture.discover import ExpertsSite
from moeprobe.capture.margin import MarginTap
from moeprobe.capture.outputs import EntropyTap, LogprobTap
from moeprobe.capture.tap import Tap
from moeprobe.capture.taps import LogitsTap, NormsTap, ResidualTap, RouterInputTap, SharedGateTap
from moeprobe.errors import CaptureError

_PER_LAYER = {
    "logits": LogitsTap,
    "margin": MarginTap,
    "shared-gate": SharedGateTap,
    "router-input": RouterInputTap,
    "norms": NormsTap,
}
_PER_RUN = {"entropy": EntropyTap, "logprob": LogprobTap}
ALWAYS = ("experts", "weights")
NAMES = (*ALWAYS, *_PER_LAYER, *_PER_RUN, "residual:LAYER")


def make_taps(model: PreTrainedModel, sites: Sequence[ExpertsSite], what: Sequence[str]) -> list[Tap]:
    """Taps for the names in `what` ("experts" and "weights" are always recorded and need none).

    Args:
        model: the model.
        sites: layers that are recorded.
        what: names as in the table above; per-layer ones take ":14,20" for some layers only ("logits:14").

    Raises:
        CaptureError: an unknown name (with the nearest known one), a layer that is not there, or a signal the model
            does not have.
    """
    taps: list[Tap] = []
    for item in dict.fromkeys(what):
        name, _, layers = item.partition(":")
        if item in ALWAYS:
            continue
        if name == "residual":
            taps.extend(ResidualTap(model, sites, layer) for layer in _numbers(item, layers, required=True))
        elif name in _PER_RUN and not layers:
            taps.append(_PER_RUN[name](model))
        elif name in _PER_LAYER:
            chosen = _chosen(item, sites, _numbers(item, layers))
            made = [_PER_LAYER[name](model, site) for site in chosen if _PER_LAYER[name].exists(model, site)]
            if not made:
                raise CaptureError(f"The model has no {name} in the recorded layers. Leave {item!r} out.")
            taps.extend(made)
        else:
            near = difflib.get_close_matches(name, [*ALWAYS, *_PER_LAYER, *_PER_RUN, "residual"], 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise CaptureError(f"{item!r} is nothing that can be recorded.{hint} Known: {', '.join(NAMES)}.")
    # "logits" and "logits:14" name one tap twice.
    return list({tap.names: tap for tap in taps}.values())


def _numbers(item: str, layers: str, *, required: bool = False) -> list[int]:
    if not layers and not required:
        return []
    if not re.fullmatch(r"\d{1,6}(,\d{1,6})*", layers):
        raise CaptureError(f"{item!r} needs layer numbers after the colon, for example {item.split(':')[0]}:14,20.")
    return [int(number) for number in layers.split(",")]


def _chosen(item: str, sites: Sequence[ExpertsSite], layers: list[int]) -> list[ExpertsSite]:
    if not layers:
        return list(sites)
    missing = sorted(set(layers) - {site.layer for site in sites})
    if missing:
        have = ", ".join(site.name for site in sites)
        raise CaptureError(f"{item!r}: L{missing[0]} is no recorded layer of experts. Recorded: {have}.")
    return [site for site in sites if site.layer in layers]
