"""Labelled examples from JSON Lines: an object a line, with `text`, `label` 0 or 1, and optional keys."""

import json
from pathlib import Path

from moeprobe.errors import ProbeError
from moeprobe.probes.probe import Example

_KEYS = {"text", "label", "prompt", "note", "outputs"}


def read_labels(path: Path) -> list[Example]:
    """Read labelled examples, one a line; empty lines are skipped.

    Raises:
        ProbeError: the file cannot be read, holds no example, or a line is malformed; the message names file and line.
    """
    try:
        lines = path.read_bytes().split(b"\n")  # bytes: str.splitlines would also cut at U+2028 inside a text
    except OSError as error:
        raise ProbeError(f"Could not read the labels {path}: {error.strerror or error}.") from error
    examples = [_example(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not examples:
        raise ProbeError(f"{path} holds no examples. Write one JSON object a line with text and label.")
    return examples


def _example(line: bytes, where: str) -> Example:
    form = 'Write {"text": "...", "label": 0 or 1}, and "prompt", "note" and "outputs" if you like.'
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ProbeError(f"{where}: this line is not JSON in UTF-8 ({error}). {form}") from error
    if not isinstance(record, dict):
        raise ProbeError(f"{where}: this line is no JSON object. {form}")
    unknown = sorted(set(record) - _KEYS)
    if unknown:
        raise ProbeError(f"{where}: unknown key {unknown[0]!r}. {form}")
    for key in ("text", "prompt", "note"):
        if not isinstance(record.get(key, "" if key != "text" else None), str):
            raise ProbeError(f"{where}: {key!r} is missing or no text. {form}")
    if type(record.get("label")) is not int or record["label"] not in (0, 1):
        raise ProbeError(f"{where}: 'label' is {record.get('label')!r}, not 0 or 1. {form}")
    outputs = record.get("outputs", {})
    if not isinstance(outputs, dict) or not all(type(right) is int and right in (0, 1) for right in outputs.values()):
        raise ProbeError(f"{where}: 'outputs' must be an object of 0 and 1, such as {{\"mild\": 1}}. {form}")
    return Example(record["text"], record["label"], record.get("prompt", ""), record.get("note", ""), outputs)
