"""Probes: judges of text. What one is, where they are found, how good they are, and the built-in registers."""

from moeprobe.probes.contract import CheckedProbe, checked
from moeprobe.probes.functions import FunctionProbe, probe
from moeprobe.probes.labels import read_labels
from moeprobe.probes.listing import ProbeListing, list_probes
from moeprobe.probes.loading import load_probe
from moeprobe.probes.probe import Example, Level, Passage, Probe, Reading, Span
from moeprobe.probes.quality import Mistake, Quality, check_probe_quality, probe_quality
from moeprobe.probes.rates import Rate
from moeprobe.probes.sentences import Sentence, split_sentences

__all__ = [
    "CheckedProbe",
    "Example",
    "FunctionProbe",
    "Level",
    "Mistake",
    "Passage",
    "Probe",
    "ProbeListing",
    "Quality",
    "Rate",
    "Reading",
    "Sentence",
    "Span",
    "check_probe_quality",
    "checked",
    "list_probes",
    "load_probe",
    "probe",
    "probe_quality",
    "read_labels",
    "split_sentences",
]
