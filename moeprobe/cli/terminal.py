"""What the command line prints: hostile characters made visible, numbers in columns, progress on stderr."""

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.variables import variables_used

if TYPE_CHECKING:
    from tqdm import tqdm


def printable(text: str) -> str:
    """`text` with terminal escapes, bidi and other hidden characters shown as codes."""
    from moeprobe.visible import visible

    return visible(text)


def command_line() -> str:
    """The command line as it was given, for the record, with the MOEPROBE_* variables that were taken from outside."""
    context = click.get_current_context(silent=True)
    names = [] if context is None else variables_used(context)
    given = [f"{name}={shlex.quote(os.environ[name])}" for name in names]
    return " ".join([*given, shlex.join(["moeprobe", *sys.argv[1:]])])


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A plain text table; columns of numbers are aligned on the right."""
    rows = [[printable(cell).replace("\n", " ") for cell in line] for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    numeric = [all(_is_number(cell) for cell in column) for column in zip(*rows, strict=True)] or [False] * len(head)

    def line(cells: Sequence[str]) -> str:
        pairs = zip(cells, widths, numeric, strict=True)
        return "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in pairs).rstrip()

    return "\n".join([line(head), "  ".join("-" * width for width in widths), *map(line, rows)])


@contextmanager
def progress_bar(total: int, unit: str, label: str) -> Iterator["tqdm[Any]"]:
    """A bar on stderr; silent where stderr is no terminal, so that logs stay readable."""
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, desc=label, file=sys.stderr, disable=None, dynamic_ncols=True) as bar:
        yield bar


def quiet_libraries() -> None:
    """Keep transformers' advice and bars off the terminal; errors still come through."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "").rstrip("%"))
    except ValueError:
        return cell == "-"
    return True
