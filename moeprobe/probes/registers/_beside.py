"""The examples of a built-in register, in the two files beside its module."""

import inspect
from collections.abc import Sequence
from pathlib import Path

from moeprobe.probes.labels import read_labels
from moeprobe.probes.probe import Example


class FromFiles:
    """`examples` and `held_out` of a register in NAME.py: those in NAME.jsonl and NAME.heldout.jsonl."""

    def examples(self) -> Sequence[Example]:
        """The labelled examples that the rule was made on."""
        return read_labels(_beside(self, ".jsonl"))

    def held_out(self) -> Sequence[Example]:
        """Examples that were written before the rule and read once after it."""
        return read_labels(_beside(self, ".heldout.jsonl"))


def _beside(register: object, ending: str) -> Path:
    return Path(inspect.getfile(type(register))).with_suffix(ending)
