"""Simulated traces whose truth is known: routing with the dependence that real routing has, made without a model.

See docs/simulation.md for the formulas, and for what was measured on them.
"""

from moeprobe.stats.simulation.making import simulate
from moeprobe.stats.simulation.memory import SimulatedGeneration, SimulatedShard, SimulatedTrace
from moeprobe.stats.simulation.world import World

__all__ = ["SimulatedGeneration", "SimulatedShard", "SimulatedTrace", "World", "simulate"]
