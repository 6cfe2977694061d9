"""Tested sites that are no single expert, in words: heads, blocks, streams, sets. They have no association."""

import re
from collections.abc import Mapping
from typing import Any

from moeprobe.findings.verdicts import CAUSAL, in_words
from moeprobe.report import swaps
from moeprobe.report.voice import Voice

Json = Mapping[str, Any]

_HEAD = re.compile(r"L(\d+)\.H(\d+)")
_SINGLE = re.compile(r"L(\d+)\.(router|shared|moe|residual)")
_NOUNS = {"router": "router", "shared": "group of shared experts", "moe": "MoE block", "residual": "stream"}
_WHAT = {"router": "choice", "stream": "value", "head": "contribution", "MoE block": "output"}
_NAMES = {
    "router": "The choice of experts in layer {}",
    "shared": "The shared experts of layer {}, together",
    "moe": "The MoE block of layer {}, all its experts together",
    "residual": "The residual stream after layer {}",
}


def noun(name: str) -> str:
    """What a site is, to be compared with others like it: ``head``, ``set``."""
    if _HEAD.fullmatch(name):
        return "head"
    found = _SINGLE.fullmatch(name)
    return _NOUNS[found[2]] if found else "set"


def opening(name: str) -> str:
    """The site as the subject of a sentence."""
    head, single = _HEAD.fullmatch(name), _SINGLE.fullmatch(name)
    if head:
        return f"Attention head {int(head[2])} of layer {int(head[1])}"
    return _NAMES[single[2]].format(int(single[1])) if single else f"The set {name}, its members swapped together"


def summary(other: Json, voice: Voice, run: Json) -> str:
    """A sentence or two on what the swaps did."""
    name, effects, verdict = str(other["site"]), other["interchange"], other["verdict"]
    if verdict in CAUSAL:
        thing = "the measured difference" if voice.given else voice.about
        what = _WHAT.get(noun(name), swaps.swapped(run))
        said = swaps.causal(verdict, effects, voice.runs(run), thing, what)
        return f"{opening(name)}: it {said} {_compared(effects, name)}".rstrip()
    return f"{opening(name)}: {swaps.inert(verdict, effects, run, noun(name), in_words(verdict))}"


def _compared(effects: Json, name: str) -> str:
    """Against the sites like it; that there are none stands in the notes."""
    return swaps.null_sentence(effects, noun(name)) if effects["null"]["asked"] else ""
