"""Capture: attach to routers and experts, record, check completeness."""

from moeprobe.capture.discover import ExpertsSite, find_experts
from moeprobe.capture.recorder import LayerRouting, Recorder

__all__ = ["ExpertsSite", "LayerRouting", "Recorder", "find_experts"]
