"""Measured pairs on disk, one line each, so that an interrupted experiment goes on where it stopped."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moeprobe.errors import InterchangeError, OutputError
from moeprobe.interchange.measure import PairEffects

SCHEMA = "moeprobe.interchange-journal/1"


class Journal:
    """A file of measured pairs. Its first line says what was asked; only the same question goes on with it.

    Args:
        path: the file; made when the first pairs are kept.
        asked: everything a result depends on: model, pairs, sites, arms, metric, alignment, seeds, versions.
        resume: go on with a file that is there. Without it such a file is an error: nobody's work is dropped unasked.

    Attributes:
        done: pairs that are in the file, by id.

    Raises:
        InterchangeError: the file is there and `resume` is not, it is of another question, or it is no such file.
        OutputError: the file can't be written.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any], *, resume: bool) -> None:
        self.path = path
        self.digest = digest(asked)
        self.done: dict[str, PairEffects] = {}
        if path.exists() and not resume:
            raise InterchangeError(
                f"{path} holds pairs of an interrupted run. Add --resume to go on with it, or remove the file."
            )
        if path.exists():
            self._read()

    def keep(self, measured: Sequence[PairEffects]) -> None:
        """Append pairs and make sure that they are on disk."""
        lines = [json.dumps(asdict(one), allow_nan=False) for one in measured]
        # Made with the first pairs: an experiment that cannot begin leaves no file.
        head = [] if self.path.exists() else [json.dumps({"schema": SCHEMA, "asked": self.digest})]
        self._write([*head, *lines], "x" if head else "a")
        self.done.update({one.pair: one for one in measured})

    def remove(self) -> None:
        """Delete the file: its pairs are in the findings now."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")
            head = json.loads(lines[0])
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise InterchangeError(f"{self.path} is no journal of interchange: {error}. Remove it.") from error
        if not isinstance(head, dict) or head.get("schema") != SCHEMA:
            raise InterchangeError(f"{self.path} is no journal of interchange ({SCHEMA}). Name another file.")
        if head.get("asked") != self.digest:
            raise InterchangeError(
                f"{self.path} is of another experiment: model, pairs, sites or options differ. Repeat the "
                "command as it was, or remove the file."
            )
        # What a kill cut off stands after the last line end, and is measured again.
        whole = [line for line in lines[1:-1] if line]
        for number, line in enumerate(whole, 2):
            self._take(number, line)
        if lines[-1]:
            self._cut(sum(len(line.encode()) + 1 for line in lines[:-1]))

    def _take(self, number: int, line: str) -> None:
        try:
            one = json.loads(line)
            effects = {
                str(name): {str(arm): float(value) for arm, value in found.items()}
                for name, found in one["effects"].items()
            }
            pair = PairEffects(str(one["pair"]), float(one["sensitive"]), float(one["control"]), effects)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InterchangeError(f"Line {number} of {self.path} is damaged ({error!r}). Remove the file.") from error
        self.done[pair.pair] = pair

    def _cut(self, length: int) -> None:
        try:
            with self.path.open("r+b") as file:
                file.truncate(length)
        except OSError as error:
            raise OutputError(f"Could not write {self.path}: {error.strerror}.") from error

    def _write(self, lines: Sequence[str], mode: str) -> None:
        try:
            with self.path.open(mode, encoding="utf-8", newline="\n") as file:
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"Could not write {self.path}: {error.strerror}.") from error


def digest(asked: Mapping[str, Any]) -> str:
    """One digest of everything that was asked."""
    text = json.dumps(asked, sort_keys=True, allow_nan=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
