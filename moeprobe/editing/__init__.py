"""Editing: reading and changing what a model computes at named sites, exactly and without a trace afterwards."""

from moeprobe.editing.places import Heads, Places, find_places, layout_of
from moeprobe.editing.routing import Reroute, Rerouter, bias_for, rerouting
from moeprobe.editing.seen import Seen, reading
from moeprobe.editing.write import Editor, Write, writing

__all__ = [
    "Editor", "Heads", "Places", "Reroute", "Rerouter", "Seen", "Write", "bias_for", "find_places", "layout_of",
    "reading", "rerouting", "writing",
]  # fmt: skip
