"""From counts of n-grams to weighted features: sublinear term frequency, inverse document frequency, unit length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.probes.trained.ngrams import ROOM, Counts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The n-grams that training texts share, and how rare each is.

    Attributes:
        columns: (features,) hashed columns, strictly rising.
        idf: (features,) ln((1 + texts) / (1 + texts with it)) + 1, as scikit-learn's `smooth_idf`.
    """

    columns: Ints
    idf: Floats

    @classmethod
    def learnt(cls, counts: Sequence[Counts], least: int) -> "Vocabulary":
        """The n-grams that stand in at least `least` of the texts."""
        every = np.concatenate([np.zeros(0, np.int64), *(one.columns for one in counts)])
        columns, texts = np.unique(every, return_counts=True)
        kept = texts >= least
        return cls(columns[kept], np.log((1 + len(counts)) / (1 + texts[kept])) + 1)

    def features(self, counts: Sequence[Counts]) -> Any:
        """Features of texts as a sparse matrix (texts, features), float64.

        A value is (1 + ln count) * idf. Words and characters each have unit length (Euclidean) in every text, so that
        the many characters do not drown the words. Each row depends on its own text only, to the last bit.
        """
        from scipy.sparse import csr_array

        rows = [self._row(one) for one in counts]
        ends = np.cumsum([0, *(len(places) for places, _ in rows)])
        places = np.concatenate([np.zeros(0, np.int64), *(row[0] for row in rows)])
        values = np.concatenate([np.zeros(0), *(row[1] for row in rows)])
        return csr_array((values, places, ends), shape=(len(counts), len(self.columns)))

    def _row(self, counts: Counts) -> tuple[Ints, Floats]:
        places = np.searchsorted(self.columns, counts.columns)
        known = places < len(self.columns)
        known[known] = self.columns[places[known]] == counts.columns[known]
        places = places[known]
        values = (1 + np.log(counts.counts[known])) * self.idf[places]
        words = int(np.searchsorted(self.columns[places], ROOM))
        for part in (slice(0, words), slice(words, None)):
            if values[part].size:
                values[part] /= np.sqrt(np.square(values[part]).sum())
        return places, values
