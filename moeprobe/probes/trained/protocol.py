"""What a probe that learns has beyond a probe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from moeprobe.probes.probe import Example, Probe


@runtime_checkable
class TrainableProbe(Probe, Protocol):
    """A probe with scikit-learn's manners. No base class is needed.

    What `fit` learns is kept in names that end in `_`. `version` must change whenever a score may, so it is best a
    hash of what was learnt. State goes into JSON and safetensors, never into a pickle: loading a pickle runs code.
    """

    def fit(self, examples: Sequence[Example]) -> Self:
        """Learn from labelled examples."""

    def save(self, folder: Path) -> None:
        """Write what was learnt into a new folder."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it back; the scores are then the same to the last bit."""
