"""Trace + probe -> which experts go with the register, as rows of a findings file. Association only, never cause."""

from moeprobe.correlate.document import findings_of
from moeprobe.correlate.groups import regroup
from moeprobe.correlate.pipeline import correlate
from moeprobe.correlate.testing import MIN_UNITS, WARN_UNITS

__all__ = ["MIN_UNITS", "WARN_UNITS", "correlate", "findings_of", "regroup"]
