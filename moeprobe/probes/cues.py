"""Weighing cues: a register's rule is a table of patterns with weights, added up and put through a logistic curve."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

LONGEST = 1500
"""Characters of one sentence that are looked at; what runs on without an end (a data dump) is not prose."""


@dataclass(frozen=True)
class Cue:
    """A pattern in one sentence and what it adds to the log odds."""

    name: str
    weight: float
    pattern: re.Pattern[str]


def cue(name: str, weight: float, pattern: str) -> Cue:
    """A cue whose pattern ignores case; write it in re.VERBOSE-free form, with spaces as they stand in the text."""
    return Cue(name, weight, re.compile(pattern, re.IGNORECASE))


def present(cues: Iterable[Cue], sentence: str) -> dict[str, float]:
    """Name -> weight of the cues found in `sentence`."""
    looked_at = sentence[:LONGEST]
    return {one.name: one.weight for one in cues if one.pattern.search(looked_at)}


def logistic(log_odds: float) -> float:
    """1 / (1 + exp(-x)), rounded to 6 digits so that the last bits of exp on another machine change nothing."""
    return round(1 / (1 + math.exp(-max(-50.0, min(50.0, log_odds)))), 6)
