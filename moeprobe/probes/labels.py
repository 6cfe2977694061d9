"""Labelled examples from JSON Lines: an object a line: `text`, `label` 0 or 1, optional `prompt`, `note`, `outputs`."""

from collections.abc import Iterable
from pathlib import Path

from moeprobe.errors import ProbeError
from moeprobe.fields import Fields, json_lines
from moeprobe.probes.probe import Example

_KEYS = {"text", "label", "prompt", "note", "outputs"}
# Where the text comes from, in files that `moeprobe correlate --labels` reads too (docs/labels.md).
_PLACE = {"generation", "prompt_id", "sample", "window", "sampled_by", "labeller"}
_FORM = 'Write {"text": "...", "label": 0 or 1}, and "prompt" and "note" if you like.'


def read_labels(path: Path) -> list[Example]:
    """Read labelled examples, one a line; empty lines are skipped, and lines whose label is null: nobody could say.

    Raises:
        ProbeError: the file cannot be read, holds no example, or a line is malformed; the message names file and line.
    """
    return labelled(json_lines(path, ProbeError), path)


def labelled(lines: Iterable[Fields], path: Path) -> list[Example]:
    """The same from lines of `path` that were read already.

    Raises:
        ProbeError: as `read_labels`.
    """
    found = [_example(fields) for fields in lines]
    examples = [one for one in found if one is not None]
    if not examples:
        raise ProbeError(f"{path} holds no examples. Write one JSON object a line with text and label.")
    return examples


def _example(fields: Fields) -> Example | None:
    record, where = fields.data, fields.where
    unknown = sorted(set(record) - _KEYS - _PLACE)
    if unknown:
        raise ProbeError(f"{where}: unknown key {unknown[0]!r}. {_FORM}")
    for key in ("text", "prompt", "note"):
        if not isinstance(record.get(key, "" if key != "text" else None), str):
            raise ProbeError(f"{where}: {key!r} is missing or no text. {_FORM}")
    if "label" in record and record["label"] is None:
        return None
    if type(record.get("label")) is not int or record["label"] not in (0, 1):
        raise ProbeError(f"{where}: 'label' is {record.get('label')!r}, not 0 or 1. {_FORM}")
    outputs = record.get("outputs", {})
    if not isinstance(outputs, dict) or not all(type(right) is int and right in (0, 1) for right in outputs.values()):
        raise ProbeError(f"{where}: 'outputs' must be an object of 0 and 1, such as {{\"mild\": 1}}. {_FORM}")
    prompt, note = record.get("prompt", ""), record.get("note", "")
    return Example(record["text"], record["label"], prompt, note, outputs, _unit(fields))


def _unit(fields: Fields) -> str:
    """What the text is a part of: texts of one prompt, and windows of one answer, are not independent."""
    prompt_id, generation = fields.data.get("prompt_id"), fields.data.get("generation")
    if prompt_id is not None and not isinstance(prompt_id, str):
        raise ProbeError(f"{fields.where}: 'prompt_id' is {prompt_id!r}, no text. Write the prompt's id as text.")
    if generation is not None and type(generation) is not int:
        raise ProbeError(f"{fields.where}: 'generation' is {generation!r}. Write its number in the trace, from 0.")
    if prompt_id:
        return prompt_id
    return "" if generation is None else f"generation {generation}"
