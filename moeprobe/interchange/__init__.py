"""Interchange: swap what sites compute between two runs and see whether the behaviour moves."""

from moeprobe.interchange.alignment import Alignment, check_alignment, partners
from moeprobe.interchange.coalition import Coalition, Search, coalition
from moeprobe.interchange.coverage import Coverage, coverage
from moeprobe.interchange.divergence import neutral_kl
from moeprobe.interchange.donors import donors
from moeprobe.interchange.entering import check_former, enter, leading_sites
from moeprobe.interchange.from_trace import trace_pairs
from moeprobe.interchange.lab import Lab, lab
from moeprobe.interchange.measure import Effects, measure
from moeprobe.interchange.metrics import (
    ContinuationLogProb,
    ControlNLL,
    LogitDifference,
    Metric,
    RefusalLogOdds,
    make_metric,
)
from moeprobe.interchange.pair_file import PairText, encode_pairs, is_pair_file, read_pairs
from moeprobe.interchange.pairs import PairSelection, TokenPair, label_members, select_pairs, sourced
from moeprobe.interchange.plan import Plan
from moeprobe.interchange.run import Outcome, interchange
from moeprobe.interchange.spans import place_spans

__all__ = [
    "Alignment", "Coalition", "ContinuationLogProb", "ControlNLL", "Coverage", "Effects", "Lab", "LogitDifference",
    "Metric", "Outcome", "PairSelection", "PairText", "Plan", "RefusalLogOdds", "Search", "TokenPair",
    "check_alignment", "check_former", "coalition", "coverage", "donors", "encode_pairs", "enter", "interchange",
    "is_pair_file", "lab", "label_members", "leading_sites", "make_metric", "measure", "neutral_kl", "partners",
    "place_spans", "read_pairs", "select_pairs", "sourced", "trace_pairs",
]  # fmt: skip
