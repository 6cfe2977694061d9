"""Cells of spreadsheets: CSV both ways, and answers as people and programs write them."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from moeprobe.errors import LabelError
from moeprobe.visible import guarded

_YES = {"1", "1.0", "1,0", "yes", "y", "true", "positive", "x"}
_NO = {"0", "0.0", "0,0", "no", "n", "false", "negative"}
_SILENT = {"", "-", "?", "na", "n/a", "none", "null", "skip", "abstain", "unsure"}
_DELIMITERS = (",", ";", "\t")


def same_cell(cell: str, text: str) -> bool:
    """Whether a cell still holds `text`, whatever a spreadsheet did to its quotation mark, line ends and spaces."""
    wanted = " ".join(text.split())
    found = " ".join(cell.split())
    return found == wanted or (found.startswith("'") and found[1:].strip() == wanted)


def answer_of(cell: object, where: str) -> int | None:
    """1, 0 or None (no answer) from what stands in a label cell.

    Raises:
        LabelError: it is none of the words for yes, no and no answer.
    """
    text = "" if cell is None else str(int(cell)) if isinstance(cell, bool) else str(cell)
    word = text.strip().strip("'\"").lower()
    if word in _YES:
        return 1
    if word in _NO:
        return 0
    if word in _SILENT:
        return None
    raise LabelError(f"{where}: the label {text[:40]!r} is none. Write 1 or yes, 0 or no, or leave it empty.")


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> str:
    """A CSV file (RFC 4180, with a byte order mark, without which some programs do not take it for UTF-8)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([guarded(row[column]) for column in columns])
    return "\ufeff" + out.getvalue()


def csv_rows(content: bytes, path: str, needed: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The rows of a CSV file as (where, cells by column), with commas, semicolons or tabs, in UTF-8 or UTF-16.

    Columns may stand in any order, and others beside them.

    Raises:
        LabelError: it cannot be decoded, or a needed column is missing or there twice.
    """
    text = _decoded(content, path)
    head = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = max(_DELIMITERS, key=head.count)
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise LabelError(f"{path} is no CSV file ({error}). Save the sheet as CSV in UTF-8.") from error
    numbered = [(number, row) for number, row in enumerate(table, 1) if any(cell.strip() for cell in row)]
    names = [cell.strip().strip("'").lower() for cell in numbered[0][1]] if numbered else []
    for column in needed:
        if names.count(column) != 1:
            raise LabelError(
                f"{path}: the column {column!r} is {'missing' if column not in names else 'there twice'}. The first "
                f"line must name {', '.join(needed)}."
            )
    places = {column: names.index(column) for column in needed}
    return [
        (f"{path}, row {number}", {column: row[at] if at < len(row) else "" for column, at in places.items()})
        for number, row in numbered[1:]
    ]


def _decoded(content: bytes, path: str) -> str:
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is not UTF-8 text (byte {error.start}). Save the sheet as CSV in UTF-8.") from error
    if "\0" in text:
        raise LabelError(f"{path} holds zero bytes: it is no CSV file. Save the sheet as CSV in UTF-8.")
    return text
