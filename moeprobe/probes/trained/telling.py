"""What a trained probe goes by: the n-grams that move its scores most. A reader sees when it learnt the topic."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprobe.probes.trained.ngrams import ROOM, count_ngrams, ngram_runs
from moeprobe.probes.trained.text_probe import TextProbe


@dataclass(frozen=True)
class Telling:
    """An n-gram and what it does.

    Attributes:
        ngram: its text, in lower case; of several n-grams in one hashed column, the first that was met.
        kind: "word" or "character".
        side: the label that it speaks for, 0 or 1.
        pull: how far it moves the raw log odds of that label's texts, on average over all of them.
        positive_texts, negative_texts: training texts with label 1 and 0 that hold it.
    """

    ngram: str
    kind: str
    side: int
    pull: float
    positive_texts: int
    negative_texts: int


def telling_ngrams(probe: TextProbe, count: int = 10) -> list[Telling]:
    """The `count` n-grams of each kind and side that pull most: positive side first, words before characters."""
    model, texts = probe.model_, [one.text for one in probe.examples_]
    labels = np.array([one.label for one in probe.examples_])
    counts = [count_ngrams(text, probe.recipe.ngrams) for text in texts]
    features = model.vocabulary.features(counts)
    pulls = {side: features[np.flatnonzero(labels == side)].mean(axis=0) * model.coefficients for side in (1, 0)}
    present = features.copy()
    present.data[:] = 1.0
    holding = {side: present[np.flatnonzero(labels == side)].sum(axis=0) for side in (1, 0)}
    chosen = {}
    for side, sign in ((1, 1), (0, -1)):
        pull = sign * np.asarray(pulls[side]).ravel()
        for kind, part in _kinds(probe).items():
            # more than are asked for, since of characters the parts and the whole say one thing
            best = part[np.argsort(-pull[part], kind="stable")[: 20 * count]]
            chosen[side, kind] = [(int(place), float(pull[place])) for place in best if pull[place] > 0]
    wanted = np.unique([place for found in chosen.values() for place, _ in found]).astype(np.int64)
    names = _names(probe, texts, model.vocabulary.columns[wanted])
    ones, zeros = np.ravel(holding[1]), np.ravel(holding[0])
    return [
        Telling(name, kind, side, pull, int(ones[place]), int(zeros[place]))
        for (side, kind), found in chosen.items()
        for name, place, pull in _parted([(names[int(model.vocabulary.columns[p])], p, q) for p, q in found])[:count]
    ]


def _parted(found: list[tuple[str, int, float]]) -> list[tuple[str, int, float]]:
    """Those whose text neither holds nor is held by that of one before it."""
    kept: list[tuple[str, int, float]] = []
    for one in found:
        if not any(one[0] in other[0] or other[0] in one[0] for other in kept):
            kept.append(one)
    return kept


def _kinds(probe: TextProbe) -> dict[str, NDArray[np.int64]]:
    columns = probe.model_.vocabulary.columns
    return {"word": np.flatnonzero(columns < ROOM), "character": np.flatnonzero(columns >= ROOM)}


def _names(probe: TextProbe, texts: list[str], columns: NDArray[np.int64]) -> dict[int, str]:
    """The n-gram behind each column, found by hashing the texts again."""
    names: dict[int, str] = {}
    for text in texts:
        if len(names) == len(columns):
            break
        for run in ngram_runs(text, probe.recipe.ngrams):
            for place in np.flatnonzero(np.isin(run.columns, columns)).tolist():
                names.setdefault(int(run.columns[place]), run.shown(place))
    return names
