"""Who is compared with whom, on which tokens, in which units, with what held fixed. Nothing here looks at routing."""

from moeprobe.designs.design import MIN_UNITS, WARN_UNITS, Design
from moeprobe.designs.frame import Frame
from moeprobe.designs.groups import Groups
from moeprobe.designs.planning import plan
from moeprobe.designs.regrouping import regroup

__all__ = ["MIN_UNITS", "WARN_UNITS", "Design", "Frame", "Groups", "plan", "regroup"]
