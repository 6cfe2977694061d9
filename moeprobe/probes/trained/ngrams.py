"""Word and character n-grams of a text as hashed counts: the same numbers on every machine and in every process."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moeprobe.probes.voice import plain

Ints = NDArray[np.int64]
_Hashes = NDArray[np.uint64]

SCHEME = "splitmix64/1"
"""Name of the hash below, kept with every trained probe: another hash would give other columns."""

ROOM = 1 << 22
"""Columns of each kind: words take [0, ROOM), characters [ROOM, 2 ROOM)."""

KINDS = ("word", "character")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Ngrams:
    """Which n-grams are counted, as (shortest, longest).

    Attributes:
        words: runs of words; the text is put in lower case and its typographic quotes are made plain.
        characters: runs of characters of the same text, with each run of white space as one space, and one at each end.
    """

    words: tuple[int, int] = (1, 2)
    characters: tuple[int, int] = (3, 5)


@dataclass(frozen=True, eq=False)
class Counts:
    """How often each n-gram stands in one text: (n,) sorted columns, (n,) counts from 1 on."""

    columns: Ints
    counts: Ints


@dataclass(frozen=True, eq=False)
class Run:
    """All n-grams of one length: `columns[i]` is that of the n-gram which begins at word or character `i`."""

    kind: str
    length: int
    columns: Ints
    words: tuple[str, ...]
    text: str

    def shown(self, place: int) -> str:
        """The n-gram itself."""
        if self.kind == "word":
            return " ".join(self.words[place : place + self.length])
        return self.text[place : place + self.length]


def count_ngrams(text: str, ngrams: Ngrams) -> Counts:
    """Counts of one text. Time is linear in its length, but for one sort."""
    runs = [run.columns for run in ngram_runs(text, ngrams)]
    columns, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *runs]), return_counts=True)
    return Counts(columns, counts.astype(np.int64))


def ngram_runs(text: str, ngrams: Ngrams) -> Iterator[Run]:
    """The n-grams of `text`, one length after the other."""
    lowered = plain(text).lower()
    words = tuple(_WORD.findall(lowered))
    hashes = np.fromiter((_word_hash(word) for word in words), np.uint64, len(words))
    for length in range(ngrams.words[0], ngrams.words[1] + 1):
        yield Run("word", length, _columns(hashes, length, 0), words, "")
    flat = f" {_SPACE.sub(' ', lowered).strip()} " if words or lowered.strip() else ""
    # UTF-32 gives one number a character, unpaired surrogates included
    codes = np.frombuffer(flat.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    for length in range(ngrams.characters[0], ngrams.characters[1] + 1):
        yield Run("character", length, _columns(codes, length, ROOM), (), flat)


def _columns(units: _Hashes, length: int, first: int) -> Ints:
    """Column of each run of `length` units, (max(0, units - length + 1),)."""
    places = max(0, len(units) - length + 1)
    mixed = np.full(places, length, np.uint64)
    for step in range(length):
        mixed = _mix(mixed ^ units[step : step + places])
    return (mixed % np.uint64(ROOM)).astype(np.int64) + first


def _mix(values: _Hashes) -> _Hashes:
    """The output function of SplitMix64 (Steele, Lea & Flood 2014): every input bit moves every output bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=1 << 16)
def _word_hash(word: str) -> int:
    # Python's own hash() of a text differs from process to process
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
