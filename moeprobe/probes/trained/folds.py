"""Groups of examples that must not be parted, and folds that keep them together.

A model that has seen a text, or another answer to the same prompt, is not tried by it. So examples of one prompt, and
texts that are nearly the same, are one group, and a group lies in one fold.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import ProbeError
from moeprobe.probes.probe import Example
from moeprobe.probes.trained.ngrams import Ngrams, count_ngrams

Ints = NDArray[np.int64]

ALIKE = 0.7
"""Texts are near-duplicates from this Jaccard index of their 5-character runs on (Broder 1997)."""

CONTAINED = 0.9
"""So are texts of which one holds this share of the other's runs, if the shorter one has at least `LEAST_RUNS`."""

LEAST_RUNS = 60
_READ = 20_000  # characters of each text that are compared; a copy shows itself long before
_BLOCK = 256  # texts compared at once: memory is _BLOCK times the number of texts
_SHAPE = Ngrams(words=(1, 0), characters=(5, 5))
_NOT_LETTERS = re.compile(r"[\W\d_]+")


def example_groups(examples: Sequence[Example]) -> Ints:
    """(examples,) the group of each example, numbered from 0 in the order of the first members.

    Two examples are of one group if they have one prompt (without a prompt, one `unit`; capitals and white space
    aside), or if their texts are near-duplicates: capitals, digits, punctuation and white space aside, they share their
    5-character runs (`ALIKE`, `CONTAINED`), or they are the same. Chains count: what is like a member is a member.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # digits and signs tell prompts apart: "What is 0 + 0?", "What is 1 + 7?"
    prompts = [" ".join(one.cluster.casefold().split()) for one in examples]
    links = [*_same(prompts), *_same([_flat(one.text) for one in examples])]
    links += _alike([one.text for one in examples])
    first, second = np.array(links, dtype=np.int64).reshape(-1, 2).T
    size = len(examples)
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(size, size))
    _, found = connected_components(graph, directed=False)
    _, where, renumbered = np.unique(found, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(where))
    return np.asarray(order[renumbered], dtype=np.int64)


def grouped_folds(labels: Ints, groups: Ints, folds: int, seed: int) -> Ints:
    """(examples,) the fold of each example, 0 to `folds` - 1; groups are kept together, both labels spread evenly.

    The largest groups are dealt first, each to the fold with the fewest examples of its labels. Fewer folds are made
    where fewer groups hold one of the labels.

    Raises:
        ProbeError: a label occurs in fewer than two groups: every fold would be tried without having seen it.
    """
    size = int(groups.max()) + 1
    counts = np.zeros((size, 2))
    np.add.at(counts, (groups, labels), 1)
    holders = (counts > 0).sum(axis=0)
    if holders.min() < 2:
        label = int(holders.argmin())
        raise ProbeError(
            f"All examples with label {label} belong to {int(holders[label])} prompt or set of near-copies. "
            "A probe cannot be tried on text that it has not seen. Label answers to more prompts."
        )
    folds = min(folds, int(holders.min()))
    order = np.random.default_rng(seed).permutation(size)
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    share = counts / counts.sum(axis=0)
    dealt = np.zeros((folds, 2))
    fold_of = np.zeros(size, np.int64)
    for group in order:
        # the unevenness after the deal: squared shares of both labels, over all folds
        gain = ((dealt + share[group]) ** 2 - dealt**2).sum(axis=1)
        fold_of[group] = int(np.argmin(gain))
        dealt[fold_of[group]] += share[group]
    return np.asarray(fold_of[groups], dtype=np.int64)


def _flat(text: str) -> str:
    return _NOT_LETTERS.sub(" ", text[:_READ].casefold()).strip()


def _same(keys: Sequence[str]) -> list[tuple[int, int]]:
    """Each example beside the first with the same key; empty keys are unlike each other."""
    first: dict[str, int] = {}
    return [(first.setdefault(key, index), index) for index, key in enumerate(keys) if key]


def _alike(texts: Sequence[str]) -> list[tuple[int, int]]:
    from scipy.sparse import csr_array

    found = [count_ngrams(_flat(text), _SHAPE).columns for text in texts]
    sizes = np.array([len(one) for one in found], dtype=np.int64)
    _, places = np.unique(np.concatenate([np.zeros(0, np.int64), *found]), return_inverse=True)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    shape = (len(texts), int(places.max(initial=0)) + 1)
    runs = csr_array((np.ones(len(places), np.int32), places, ends), shape=shape)
    turned, links = runs.T.tocsr(), []
    for start in range(0, len(texts), _BLOCK):
        common = (runs[start : start + _BLOCK] @ turned).tocoo()
        one, other, shared = common.row + start, common.col, common.data
        small = np.minimum(sizes[one], sizes[other])
        alike = shared >= ALIKE * (sizes[one] + sizes[other] - shared)
        alike |= (shared >= CONTAINED * small) & (small >= LEAST_RUNS)
        chosen = alike & (one < other)
        links += list(zip(one[chosen].tolist(), other[chosen].tolist(), strict=True))
    return links
