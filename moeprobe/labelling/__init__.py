"""Blind labelling: sheets of windows for people or models, and what their labels say.

The labeller sees text and a question. What each window is stands in a key, a file of its own.
"""

from moeprobe.labelling.answers import Answers, read_answers, read_key
from moeprobe.labelling.association import Association, DecileShare, associate
from moeprobe.labelling.files import check_sheet, key_path, write_sheet
from moeprobe.labelling.outcome import Outcome, judge_sheet
from moeprobe.labelling.sheet import COLUMNS, Key, KeyWindow, make_sheet

__all__ = [
    "COLUMNS", "Answers", "Association", "DecileShare", "Key", "KeyWindow", "Outcome", "associate", "check_sheet",
    "judge_sheet", "key_path", "make_sheet", "read_answers", "read_key", "write_sheet",
]  # fmt: skip
