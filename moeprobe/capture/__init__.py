"""Capture: attach to routers and experts, record, check completeness."""

from moeprobe.capture.discover import ExpertsSite, find_experts
from moeprobe.capture.recorder import Recorder
from moeprobe.capture.recording import LayerRouting, Recording

__all__ = ["ExpertsSite", "LayerRouting", "Recorder", "Recording", "find_experts"]
