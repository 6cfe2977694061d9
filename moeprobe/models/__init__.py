"""Models: loading any MoE by name, and the two demo models with a known truth."""

from moeprobe.models.load import DTYPES, LoadedModel, load_model
from moeprobe.models.provenance import engine_section, versions_section

__all__ = ["DTYPES", "LoadedModel", "engine_section", "load_model", "versions_section"]
