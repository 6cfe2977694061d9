"""Reading fields out of JSON that came from elsewhere: wrong types become sentences, not tracebacks."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moeprobe.errors import MoeprobeError

Json = dict[str, Any]
# A line or manifest beyond this is no honest one; it bounds what json.loads may allocate.
MAX_JSON_BYTES = 256 << 20
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair: no character, and no file of UTF-8 can hold it."""


class Fields:
    """A JSON object with typed access. Every error names `where` (file, line) and the key.

    Args:
        data: the parsed value; must be an object.
        where: file and line for messages.
        error: class of the error to raise.
    """

    def __init__(self, data: object, where: str, error: type[MoeprobeError]) -> None:
        self.where, self.error = where, error
        if not isinstance(data, dict):
            raise error(f"{where}: expected a JSON object {{...}}, found {_kind(data)}.")
        self.data: Json = data

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a text", value)
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self.data.get(key) is None else self.text(key)

    def integer(self, key: str, low: int = 0, high: int = 2**53) -> int:
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._wrong(key, f"a whole number from {low} to {high}", value)
        return value

    def number(self, key: str) -> float:
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            raise self._wrong(key, "a finite number", value)
        return float(value)

    def optional_number(self, key: str) -> float | None:
        return None if self.data.get(key) is None else self.number(key)

    def flag(self, key: str) -> bool:
        value = self._get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def items(self, key: str) -> list[Any]:
        value = self._get(key)
        if not isinstance(value, list):
            raise self._wrong(key, "a list", value)
        return value

    def section(self, key: str) -> Json:
        value = self._get(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return value

    def _get(self, key: str) -> object:
        if key not in self.data:
            raise self.error(f"{self.where}: the field {key!r} is missing.")
        return self.data[key]

    def _wrong(self, key: str, expected: str, value: object) -> MoeprobeError:
        return self.error(f"{self.where}: {key!r} must be {expected}, found {_kind(value)}.")


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of floats
        return False


def parse_json(text: str, where: str, error: type[MoeprobeError]) -> Any:
    """Parse strict JSON (no NaN, no Infinity).

    Raises:
        MoeprobeError: of class `error`, with `where` and the column.
    """

    def refuse(constant: str) -> None:
        raise error(f"{where}: {constant} is no JSON number. Write null instead.")

    def finite(digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            raise error(f"{where}: {digits} is too large for a number.")
        return number

    try:
        return json.loads(text, parse_constant=refuse, parse_float=finite)
    except json.JSONDecodeError as problem:
        raise error(f"{where}: not valid JSON ({problem.msg}, column {problem.colno}).") from problem
    except (RecursionError, ValueError) as problem:
        raise error(f"{where}: not readable as JSON ({problem}).") from problem


def read_text(path: Path, error: type[MoeprobeError]) -> str:
    """Read a UTF-8 file of bounded size; OS and decoding problems become `error`."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise error(f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB; that is no file moeprobe wrote.")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not UTF-8 text (byte {problem.start}). Save it as UTF-8.") from problem
    except OSError as problem:
        raise error(f"Could not read {path}: {problem.strerror or problem}.") from problem


def json_lines(path: Path, error: type[MoeprobeError]) -> Iterator[Fields]:
    """The JSON objects of a file, one a line; empty lines are skipped. `where` is "PATH:LINE".

    Raises:
        MoeprobeError: of class `error`: the file cannot be read, or a line is no JSON object of whole characters.
    """
    # only newlines end a line: str.splitlines would also break at U+2028 inside a text
    for number, line in enumerate(read_text(path, error).removeprefix("\ufeff").split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            fields = Fields(parse_json(line, where, error), where, error)
            if "\\u" in line and LONE_SURROGATE.search(json.dumps(fields.data, ensure_ascii=False)):
                raise error(f"{where}: the text holds half of a surrogate pair (like \\ud800), which is no character.")
            yield fields


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, str | int | float):
        shown = json.dumps(value)
        return shown if len(shown) <= 60 else shown[:57] + "..."
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else type(value).__name__
