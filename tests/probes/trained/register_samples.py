"""Labelled texts of a made-up register, politeness, over topics that say nothing about it."""

from itertools import product

import numpy as np

from moeprobe.probes import Example

TOPICS = ("bread", "boats", "maps", "rain", "wool", "clocks", "bees", "roads", "salt", "glass", "paper", "coal")
POLITE = ("would you kindly", "please be so good", "may I ask you")
BLUNT = ("go on now", "quick and no fuss", "at once then")
_WORDS = np.array(["".join(parts) for parts in product("bdfgklm", "aeiou", "nprstvz")])


def register(topics: int = 12) -> list[Example]:
    """Three polite and three blunt texts on each topic, with words that say nothing; the topic is the prompt."""
    rng = np.random.default_rng(7)
    pairs = [(words, label) for label, kinds in ((1, POLITE), (0, BLUNT)) for words in kinds]
    return [
        Example(f"{words} {' '.join(rng.choice(_WORDS, 8))} {topic}.".capitalize(), label, prompt=f"Speak of {topic}.")
        for topic, (words, label) in product(TOPICS[:topics], pairs)
    ]


def noise(prompts: int, copies: int, seed: int = 0) -> list[Example]:
    """Random words with random labels, each text `copies` times with small changes: nothing can be learnt from it."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(prompts):
        text, label = " ".join(rng.choice(_WORDS, 12)), index % 2
        made += [Example(f"{text}{' !' * copy}", label) for copy in range(copies)]
    return made
