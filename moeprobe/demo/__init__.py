"""The demo: all four verbs on a built-in model, with prompts of its own."""

from moeprobe.demo.plan import PLANS
from moeprobe.demo.run import run_demo

__all__ = ["PLANS", "run_demo"]
