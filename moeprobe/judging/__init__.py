"""From effects over pairs to percentages, intervals, p and verdicts; on plain arrays."""

from moeprobe.judging.additivity import additivity
from moeprobe.judging.competitive import match_sites
from moeprobe.judging.confirming import confirm, split_pairs
from moeprobe.judging.judge import Criteria, judge
from moeprobe.judging.ratio import check_gap, ratio, resamples
from moeprobe.judging.stability import stability

__all__ = [
    "Criteria", "additivity", "check_gap", "confirm", "judge", "match_sites", "ratio", "resamples", "split_pairs",
    "stability",
]  # fmt: skip
