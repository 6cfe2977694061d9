"""The findings file: written by correlate, completed by interchange, read by report."""

from moeprobe.findings.causes import CAUSAL_EFFECTS, EFFECTS, MIN_PAIRS, passes, rule, verdict
from moeprobe.findings.document import SCHEMA, Findings, load_findings
from moeprobe.findings.row import ASSOCIATIONS, VERDICTS

__all__ = [
    "ASSOCIATIONS", "CAUSAL_EFFECTS", "EFFECTS", "MIN_PAIRS", "SCHEMA", "VERDICTS", "Findings", "load_findings",
    "passes", "rule", "verdict",
]  # fmt: skip
