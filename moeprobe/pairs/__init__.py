"""Pairs of prompts, how they are aligned and batched, who else may give, and what is measured of their runs."""

from moeprobe.pairs.alignment import Alignment, check_alignment, partners
from moeprobe.pairs.coverage import Coverage, coverage
from moeprobe.pairs.divergence import neutral_kl
from moeprobe.pairs.donors import donors
from moeprobe.pairs.from_trace import trace_pairs
from moeprobe.pairs.metrics import (
    ContinuationLogProb,
    ControlNLL,
    LogitDifference,
    Metric,
    RefusalLogOdds,
    make_metric,
)
from moeprobe.pairs.pair_file import PairText, encode_pairs, is_pair_file, read_pairs
from moeprobe.pairs.pairs import PairSelection, TokenPair, label_members, select_pairs, sourced
from moeprobe.pairs.spans import place_spans

__all__ = [
    "Alignment", "ContinuationLogProb", "ControlNLL", "Coverage", "LogitDifference", "Metric", "PairSelection",
    "PairText", "RefusalLogOdds", "TokenPair", "check_alignment", "coverage", "donors", "encode_pairs", "is_pair_file",
    "label_members", "make_metric", "neutral_kl", "partners", "place_spans", "read_pairs", "select_pairs", "sourced",
    "trace_pairs",
]  # fmt: skip
