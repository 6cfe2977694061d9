"""Interchange: swap what sites compute between two runs and see whether the behaviour moves."""

from moeprobe.interchange.coalition import Coalition, Search, coalition
from moeprobe.interchange.entering import check_former, enter, leading_sites
from moeprobe.interchange.lab import Lab, lab
from moeprobe.interchange.measure import Effects, measure
from moeprobe.interchange.plan import Plan
from moeprobe.interchange.run import Outcome, interchange
from moeprobe.interchange.screened import Screened, screened
from moeprobe.pairs import (
    Alignment,
    ContinuationLogProb,
    ControlNLL,
    Coverage,
    LogitDifference,
    Metric,
    PairSelection,
    PairText,
    RefusalLogOdds,
    TokenPair,
    check_alignment,
    coverage,
    donors,
    encode_pairs,
    is_pair_file,
    label_members,
    make_metric,
    neutral_kl,
    partners,
    place_spans,
    read_pairs,
    select_pairs,
    sourced,
    trace_pairs,
)

__all__ = [
    "Alignment", "Coalition", "ContinuationLogProb", "ControlNLL", "Coverage", "Effects", "Lab", "LogitDifference",
    "Metric", "Outcome", "PairSelection", "PairText", "Plan", "RefusalLogOdds", "Screened", "Search", "TokenPair",
    "check_alignment", "check_former", "coalition", "coverage", "donors", "encode_pairs", "enter", "interchange",
    "is_pair_file", "lab", "label_members", "leading_sites", "make_metric", "measure", "neutral_kl", "partners",
    "place_spans", "read_pairs", "screened", "select_pairs", "sourced", "trace_pairs",
]  # fmt: skip
