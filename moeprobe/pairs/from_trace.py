"""Pairs from a recorded run: the prompts' own token ids, the groups from the probe or label that was asked about."""

import numpy as np
from numpy.typing import NDArray

from moeprobe.designs.groups import NEGATIVE, POSITIVE, Groups
from moeprobe.pairs.pairs import PairSelection, select_pairs, sourced
from moeprobe.trace import Trace

_SIDES = {POSITIVE: True, NEGATIVE: False}


def trace_pairs(trace: Trace, groups: Groups) -> PairSelection:
    """Pairs whose members fell into different groups, from the first sample of each prompt.

    With a probe this conditions on behaviour: the sensitive prompt is the one after which the model showed it.

    Raises:
        InterchangeError: the prompts have no pair ids, or no pair splits.
        TraceError: the trace is damaged.
    """
    ids = prompt_ids(trace)
    members = [
        (one.pair, _SIDES.get(int(groups.member[one.index])), ids[one.index])
        for one in trace.generations
        if one.sample == 0
    ]
    selection = select_pairs(members, what=f"the prompts of {trace.path}")
    return sourced(selection, kind="trace", name=trace.path.name, digest=trace.digest)


def prompt_ids(trace: Trace) -> list[tuple[int, ...]]:
    """Token ids of every generation's prompt, as they were run."""
    tokens: list[NDArray[np.int32]] = [shard.token_id for shard in trace.shards()]
    return [
        tuple(tokens[one.shard][one.first_row : one.first_row + one.prompt_rows].tolist()) for one in trace.generations
    ]
