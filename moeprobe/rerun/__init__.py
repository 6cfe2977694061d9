"""Making a recorded run again, from the trace alone, and comparing tokens and routing."""

from moeprobe.rerun.repeating import rerun
from moeprobe.rerun.verdict import Rerun

__all__ = ["Rerun", "rerun"]
