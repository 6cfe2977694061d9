"""The manifest's description of the signals that were recorded."""

import numpy as np

from moeprobe.trace import ShardData, Signal

# Last part of the name (or the first, for the residual stream) -> whether NaN may stand for "not there", and meaning.
_MEANINGS = {
    "logits": (False, "what the router returned for each expert, before any softmax"),
    "probabilities": (False, "what the router returned for each expert: probabilities, after its softmax"),
    "margin": (True, "k-th minus (k+1)-th selection score; NaN where there was no other candidate"),
    "gate_sensitive": (False, "whether rounding in the router's number format may flip the last choice"),
    "shared_gate": (False, "weight of the shared expert, after its sigmoid"),
    "router_input": (False, "what the router reads"),
    "norms": (False, "Euclidean length of the output of each chosen expert before its weight; 0 for an absent choice"),
    "residual": (False, "the residual stream after this layer"),
    "entropy": (True, "entropy of the next-token distribution in nats, before temperature; NaN within the prompt"),
    "logprob": (True, "natural log-probability of the token that came next, before temperature; NaN within the prompt"),
}


def signal_infos(data: ShardData, *, stacks: bool) -> tuple[Signal, ...]:
    """One description per signal of a batch.

    Args:
        data: its rows.
        stacks: the model has several stacks: a row that another stack routed has NaN.
    """
    infos = []
    for name, values in data.signals.items():
        nan, meaning = _MEANINGS[name.split(".")[0] if name.startswith("residual.") else name.split(".")[-1]]
        kind = "flag" if values.dtype == np.bool_ else "float"
        width = None if values.ndim == 1 else int(values.shape[1])
        infos.append(Signal(name, width, kind, (nan or stacks) and kind == "float", meaning))
    return tuple(infos)
