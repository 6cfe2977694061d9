"""Editing: reading and changing what a model computes at named sites, exactly and without a trace afterwards."""

from moeprobe.editing.generating import EditedText, generate_edited
from moeprobe.editing.places import Heads, Places, find_places, layout_of
from moeprobe.editing.routing import Reroute, Rerouter, bias_for, rerouting
from moeprobe.editing.seen import Seen, reading
from moeprobe.editing.spec import VERBS, Edit, arm_name, parse_edits
from moeprobe.editing.write import Editor, Write, writing

__all__ = [
    "VERBS", "Edit", "EditedText", "Editor", "Heads", "Places", "Reroute", "Rerouter", "Seen", "Write", "arm_name",
    "bias_for", "find_places", "generate_edited", "layout_of", "parse_edits", "reading", "rerouting", "writing",
]  # fmt: skip
