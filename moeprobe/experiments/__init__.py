"""Experiments beside the swap: dose series, cascades, direct logit attribution, generated behaviour, rescue."""

from moeprobe.experiments.attribution import attribute
from moeprobe.experiments.behaviour import behaviour, prompt_pairs
from moeprobe.experiments.cascade import CascadePlan, cascade
from moeprobe.experiments.dose import DosePlan, dose_series
from moeprobe.experiments.rescue import rescue

__all__ = [
    "CascadePlan", "DosePlan", "attribute", "behaviour", "cascade", "dose_series", "prompt_pairs", "rescue",
]  # fmt: skip
