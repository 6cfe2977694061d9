"""The findings file: written by correlate, completed by interchange, read by report."""

from moeprobe.findings.causes import (
    ALPHA,
    CAUSAL_EFFECTS,
    EFFECTS,
    MIN_PAIRS,
    allowed_above,
    judgement,
    material_effect,
    opposes,
    passes,
    rule,
    undecided,
    verdict,
)  # fmt: skip
from moeprobe.findings.document import SCHEMA, Findings, load_findings
from moeprobe.findings.row import ASSOCIATIONS, VERDICTS

__all__ = [
    "ALPHA", "ASSOCIATIONS", "CAUSAL_EFFECTS", "EFFECTS", "MIN_PAIRS", "SCHEMA", "VERDICTS", "Findings",
    "allowed_above", "judgement", "load_findings", "material_effect", "opposes", "passes", "rule", "undecided",
    "verdict",
]  # fmt: skip
