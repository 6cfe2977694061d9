"""Reading labelled sheets back: every row must be one of the sheet, unaltered but for its label."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeprobe.errors import LabelError
from moeprobe.fields import MAX_JSON_BYTES, json_lines, parse_json, read_text
from moeprobe.labelling.cells import answer_of, csv_rows, same_cell
from moeprobe.labelling.sheet import Key, KeyWindow, parse_key

NEEDED = ("id", "before", "text", "after", "label")


@dataclass(frozen=True)
class Answers:
    """What one labeller said.

    Attributes:
        labeller: name of the file, without its ending.
        by_id: 1, 0 or None (no answer) for every window of the sheet.
    """

    labeller: str
    by_id: Mapping[str, int | None]


def read_key(path: Path) -> Key:
    """Read a key file.

    Raises:
        LabelError: it cannot be read, or as `parse_key`.
    """
    return parse_key(parse_json(read_text(path, LabelError), str(path), LabelError), str(path))


def read_answers(path: Path, key: Key) -> Answers:
    """Read one labelled sheet: .jsonl, or CSV as spreadsheet programs write it.

    Raises:
        LabelError: the file cannot be read, an id or text is not of this sheet, a window is missing or there twice, a
            label is none, or nothing is labelled; the message names the row.
    """
    rows = _lines(path) if path.suffix.lower() == ".jsonl" else _table(path)
    windows = {one.id: one for one in key.windows}
    found: dict[str, int | None] = {}
    for where, cells in rows:
        name = str(cells["id"]).strip()
        if name not in windows:
            raise LabelError(f"{where}: the id {name[:40]!r} is not on this sheet. Was the right key given?")
        if name in found:
            raise LabelError(f"{where}: the id {name} stands twice. Each window has one row.")
        _check_text(cells, windows[name], where)
        found[name] = answer_of(cells["label"], where)
    missing = [name for name in windows if name not in found]
    if missing:
        raise LabelError(
            f"{path}: {len(missing)} of {len(windows)} windows are missing, for example {missing[0]}. Leave a label "
            "empty rather than take out its row."
        )
    if all(one is None for one in found.values()):
        raise LabelError(f"{path}: no window is labelled.")
    return Answers(path.stem, found)


def _check_text(cells: Mapping[str, Any], window: KeyWindow, where: str) -> None:
    for column, text in zip(("before", "text", "after"), window.shown, strict=True):
        if not same_cell(str(cells[column]), text):
            raise LabelError(
                f"{where}: the {column} of window {window.id} was altered. Its label may be of another text; label the "
                "sheet as it was written."
            )


def _table(path: Path) -> list[tuple[str, dict[str, str]]]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise LabelError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB; that is no labelling sheet.")
        content = path.read_bytes()
    except OSError as error:
        raise LabelError(f"Could not read {path}: {error.strerror or error}.") from error
    return csv_rows(content, str(path), NEEDED)


def _lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    made = []
    for fields in json_lines(path, LabelError):
        cells = {column: fields.text(column) for column in NEEDED[:-1]}
        if "label" not in fields.data:
            raise LabelError(f"{fields.where}: the field 'label' is missing. Write 1, 0 or null.")
        label = fields.data["label"]
        if isinstance(label, list | dict):
            raise LabelError(f"{fields.where}: the label {json.dumps(label)[:40]} is none. Write 1, 0 or null.")
        made.append((fields.where, {**cells, "label": label}))
    return made
