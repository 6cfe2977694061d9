"""Interchange: swap what an expert writes between two runs and see whether the behaviour moves."""

from moeprobe.interchange.experiment import Effects, SiteEffects, measure
from moeprobe.interchange.from_trace import trace_pairs
from moeprobe.interchange.pairs import PairSelection, TokenPair, label_members, select_pairs, sourced
from moeprobe.interchange.run import Outcome, Plan, check_former, choose_nulls, enter, interchange, leading_sites

__all__ = [
    "Effects", "Outcome", "PairSelection", "Plan", "SiteEffects", "TokenPair", "check_former", "choose_nulls", "enter",
    "interchange", "label_members", "leading_sites", "measure", "select_pairs", "sourced",
    "trace_pairs",
]  # fmt: skip
