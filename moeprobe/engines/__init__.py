"""How a run is produced. Today: transformers' generate, on one machine."""

from moeprobe.engines.decoding import Decoding
from moeprobe.engines.recording import record

__all__ = ["Decoding", "record"]
