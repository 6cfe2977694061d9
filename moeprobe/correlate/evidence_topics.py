"""Words of prompts: which differ between two sides, and how well they alone tell the sides apart."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.probes.auc import newcombe

Json = dict[str, Any]
Array = NDArray[np.float64]
Ints = NDArray[np.int64]

PER_SIDE = 8
FOLDS = 5
# Fewer prompts on a side than this say nothing about words.
LEAST_PROMPTS = 10
# The words of all prompts, as prior, weigh a tenth of the words that were seen.
PRIOR = 0.1
_SHOWN = 40
# Letters and digits in a row; scripts without spaces between words give pairs of characters.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(f"[{_UNSPACED}]+|(?:(?![{_UNSPACED}])[^\\W_])+(?:['\u2019](?:(?![{_UNSPACED}])[^\\W_])+)*")
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")
# Words that no topic is made of; the prior would keep most of them down, but not those of short prompts.
_FUNCTION_WORDS = frozenset(
    word
    for line in (
        "a about after all also am an and any are as at be because been before but by can could did do does doing don",
        "for from had has have he her here him his how i if in into is it its just me more most my no not of on or our",
        "out over please s she should so some such t than that the their them then there these they this those to too",
        "under up us very was we were what when where which while who whom why will with would you your",
    )
    for word in line.split()
)


@dataclass(frozen=True)
class Prompt:
    """A prompt of one side.

    Attributes:
        text: what it says.
        side: 1 or 0.
        unit: prompts of one unit are never parted by cross-validation (a pair; else the text itself).
    """

    text: str
    side: int
    unit: str


def words_of(text: str) -> set[str]:
    """The distinct words of a text, in lower case; long ones are cut."""
    found: set[str] = set()
    for match in _WORD.finditer(text.casefold()):
        word = match[0]
        if not _UNSPACED_RUN.fullmatch(word):
            found.add(word[:_SHOWN])
        elif len(word) == 1:
            found.add(word)
        else:
            found |= {word[at : at + 2] for at in range(len(word) - 1)}
    return found


def topics(prompts: Sequence[Prompt]) -> list[Json]:
    """The words whose use differs most, at most PER_SIDE in either direction, strongest first.

    z is delta / sqrt(var) of Monroe, Colaresi and Quinn (2008), "Fightin' Words", equations 16, 19 and 20, of the
    number of prompts that hold a word (a prompt counts a word once, so that one prompt cannot make a topic). The prior
    is the words of all prompts with a tenth of their weight. Function words of English are left out of the list, but
    not of the sums. Words with |z| < 1.96 differ no more than by chance and are left out, too.
    """
    counts = [_counted(one.text for one in prompts if one.side == side) for side in (1, 0)]
    every = sorted(counts[0] | counts[1])
    if not every or not all(counts):
        return []
    one, zero = (np.array([count[word] for word in every], dtype=np.float64) for count in counts)
    z = dirichlet_z(one, zero)
    order = sorted(range(len(every)), key=lambda index: (-abs(z[index]), every[index]))
    made: list[Json] = []
    for sign in (1, -1):
        differing = [
            index for index in order if sign * z[index] >= 1.96 and every[index] not in _FUNCTION_WORDS
        ]  # fmt: skip
        made += [
            {"word": every[index], "z": round(float(z[index]), 3), "positive": int(one[index]),
             "negative": int(zero[index])}
            for index in differing[:PER_SIDE]
        ]  # fmt: skip
    return made


def dirichlet_z(one: Array, zero: Array) -> Array:
    """z of the log odds ratio of each word under an informative Dirichlet prior, (words,).

    Args:
        one, zero: (words,) how often each word was seen on either side.
    """
    prior = PRIOR * (one + zero)
    total = prior.sum()
    rest1, rest0 = one.sum() + total - one - prior, zero.sum() + total - zero - prior
    # a single word has no others to be compared with
    safe1, safe0 = np.maximum(rest1, 1e-12), np.maximum(rest0, 1e-12)
    delta = np.log((one + prior) / safe1) - np.log((zero + prior) / safe0)
    z: Array = delta / np.sqrt(1 / (one + prior) + 1 / (zero + prior))
    return np.where((rest1 > 0) & (rest0 > 0), z, 0.0)


def sort_by_words(prompts: Sequence[Prompt], seed: int) -> Json:
    """How well the words of a prompt alone tell the sides apart: an entry of `confounds.sorting`.

    A naive Bayes classifier of the distinct words (log ratio of how many prompts of either side hold a word, half a
    prompt added), cross-validated in five folds; prompts of one unit share a fold. Only prompts of one fold are
    compared with each other, since scores of different folds have different origins.

    Args:
        prompts: distinct prompts of either side.
        seed: of the folds.
    """
    how = f"a bag of words of the prompt, naive Bayes, cross-validated by prompt, {FOLDS} folds"
    sizes = [sum(one.side == side for one in prompts) for side in (1, 0)]
    entry: Json = {"sorter": "prompt words", "auc": None, "ci": None, "how": how, "reason": None}
    if min(sizes) < LEAST_PROMPTS:
        return entry | {"reason": f"fewer than {LEAST_PROMPTS} different prompts on a side ({min(sizes)})"}
    words = [words_of(one.text) for one in prompts]
    side = np.array([one.side for one in prompts], dtype=np.int64)
    fold = _folds(prompts, seed)
    higher = pairs = 0.0
    for number in range(FOLDS):
        inside = fold == number
        score = _scored(words, side, ~inside, inside)
        one, zero = score[side[inside] == 1], score[side[inside] == 0]
        higher += float((np.sign(one[:, None] - zero[None, :]) / 2 + 0.5).sum())
        pairs += one.size * zero.size
    if not pairs:
        return entry | {"reason": "no fold holds prompts of both sides"}
    low, high = newcombe(higher / pairs, sizes[0], sizes[1])
    return entry | {"auc": round(higher / pairs, 4), "ci": [round(low, 4), round(high, 4)]}


def _counted(texts: Iterable[str]) -> Counter[str]:
    return Counter(word for text in texts for word in words_of(text))


def _folds(prompts: Sequence[Prompt], seed: int) -> Ints:
    """(prompts,) fold of each: units of either kind are dealt out in turn, in an order drawn from the seed."""
    rng = np.random.default_rng(seed)
    kinds: dict[str, set[int]] = {}
    for one in prompts:
        kinds.setdefault(one.unit, set()).add(one.side)
    fold: dict[str, int] = {}
    for kind in ({1}, {0}, {0, 1}):
        units = sorted(unit for unit, sides in kinds.items() if sides == kind)
        fold |= {units[place]: turn % FOLDS for turn, place in enumerate(rng.permutation(len(units)).tolist())}
    return np.array([fold[one.unit] for one in prompts], dtype=np.int64)


def _scored(words: Sequence[set[str]], side: Ints, known: NDArray[np.bool_], asked: NDArray[np.bool_]) -> Array:
    """Sum over the words of a prompt of their log ratio in the known ones; words not seen there say nothing."""
    counts = [
        Counter(word for index in np.flatnonzero(known & (side == code)).tolist() for word in words[index])
        for code in (1, 0)
    ]
    sizes = [int((known & (side == code)).sum()) for code in (1, 0)]
    ratio = {
        word: np.log((counts[0][word] + 0.5) / (sizes[0] + 1)) - np.log((counts[1][word] + 0.5) / (sizes[1] + 1))
        for word in counts[0] | counts[1]
    }
    # in order of the words, so that rounding does not depend on the order of a set
    return np.array(
        [sum(ratio.get(word, 0.0) for word in sorted(words[index])) for index in np.flatnonzero(asked).tolist()],
        dtype=np.float64,
    )
