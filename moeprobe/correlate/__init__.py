"""Trace + probe -> which experts go with the register, as rows of a findings file. Association only, never cause."""

from moeprobe.correlate.document import findings_of
from moeprobe.correlate.pipeline import Options, correlate, correlate_probes
from moeprobe.designs.design import MIN_UNITS, WARN_UNITS
from moeprobe.designs.inspect_logs import read_inspect_log
from moeprobe.designs.label_records import Labels, frame_labels, read_label_records
from moeprobe.designs.regrouping import regroup

__all__ = [
    "MIN_UNITS", "WARN_UNITS", "Labels", "Options", "correlate", "correlate_probes", "findings_of", "frame_labels",
    "read_inspect_log", "read_label_records", "regroup",
]  # fmt: skip
