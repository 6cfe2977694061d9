"""Interchange: swap what an expert writes between two runs and see whether the behaviour moves."""

from moeprobe.interchange.alignment import Alignment, check_alignment, partners
from moeprobe.interchange.coverage import Coverage, coverage
from moeprobe.interchange.divergence import neutral_kl
from moeprobe.interchange.donors import donors
from moeprobe.interchange.experiment import Effects, SiteEffects, measure
from moeprobe.interchange.from_trace import trace_pairs
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
from moeprobe.interchange.run import Outcome, Plan, check_former, choose_nulls, enter, interchange, leading_sites
from moeprobe.interchange.spans import place_spans

__all__ = [
    "Alignment", "ContinuationLogProb", "ControlNLL", "Coverage", "Effects", "LogitDifference", "Metric", "Outcome",
    "PairSelection", "PairText", "Plan", "RefusalLogOdds", "SiteEffects", "TokenPair", "check_alignment",
    "check_former", "choose_nulls", "coverage", "donors", "encode_pairs", "enter", "interchange", "is_pair_file",
    "label_members", "leading_sites", "make_metric", "measure", "neutral_kl", "partners", "place_spans", "read_pairs",
    "select_pairs", "sourced", "trace_pairs",
]  # fmt: skip
