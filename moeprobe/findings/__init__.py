"""The findings file: written by correlate, completed by interchange, read by report."""

from moeprobe.findings.document import SCHEMA, Findings, load_findings
from moeprobe.findings.row import ASSOCIATIONS, EFFECTS, VERDICTS, verdict

__all__ = ["ASSOCIATIONS", "EFFECTS", "SCHEMA", "VERDICTS", "Findings", "load_findings", "verdict"]
