"""Probes that learn: a text classifier that is tried on prompts it has not seen, and kept without pickle."""

from moeprobe.probes.trained.folds import example_groups, grouped_folds
from moeprobe.probes.trained.protocol import TrainableProbe
from moeprobe.probes.trained.store import is_trained
from moeprobe.probes.trained.telling import Telling, telling_ngrams
from moeprobe.probes.trained.text_probe import TextProbe

__all__ = [
    "Telling",
    "TextProbe",
    "TrainableProbe",
    "example_groups",
    "grouped_folds",
    "is_trained",
    "telling_ngrams",
]
