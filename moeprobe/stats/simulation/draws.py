"""Random numbers by purpose, so that switching one part of a world on or off leaves the draws of the others alone."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a stream of random numbers is for."""

    EMBEDDING = 0
    LAYER = 1
    FAMILY = 2
    PROMPT = 3
    LENGTH = 4
    WORDS = 5
    CONTEXT = 6
    EFFECT = 7
    SCORE = 8
    REGISTER = 9
    REPLACED = 10
    POSITION = 11


def draw(seed: int, stream: Stream, number: int = 0) -> np.random.Generator:
    """The generator for one purpose and one item (a layer, a prompt, a generation)."""
    return np.random.default_rng([seed, int(stream), number])
