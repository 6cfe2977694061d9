"""What the shell is offered for a probe: names that are there, without importing any probe, and files."""

import ast
import importlib.metadata
import os
from pathlib import Path

import click
from click.shell_completion import CompletionItem

import moeprobe

_REGISTERS = Path(moeprobe.__file__).parent / "probes" / "registers"
_GROUP = "moeprobe.probes"  # as moeprobe.probes.listing.GROUP, which cannot be imported without numpy


def complete_probe(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of built-in and announced probes that begin so, outputs after "NAME.", else files.

    Sources are looked at and not run. Whatever is broken is left out: the command itself says what is wrong with it.
    """
    if _is_path(incomplete):
        return [CompletionItem(incomplete, type="file")]
    name, dot, _ = incomplete.partition(".")
    offered = [f"{name}.{output}" for output in _outputs(name)] if dot else probe_names()
    found = [one for one in offered if one.startswith(incomplete)]
    return [CompletionItem(one) for one in found] or [CompletionItem(incomplete, type="file")]


def probe_names() -> list[str]:
    """The names that `probes list` has, sorted: a built-in probe is called as its module, with hyphens."""
    builtin = {path.stem.replace("_", "-") for path in _REGISTERS.glob("[a-z]*.py")}
    try:
        announced = {entry.name for entry in importlib.metadata.entry_points(group=_GROUP)}
    except (AttributeError, KeyError, OSError, TypeError, ValueError):  # some package's metadata; not said in mid-line
        announced = set()
    return sorted(builtin | announced)


def _is_path(incomplete: str) -> bool:
    separators = {os.sep, os.altsep or os.sep, "/"}
    return incomplete[:1] in (".", "~") or any(one in incomplete for one in separators)


def _outputs(name: str) -> list[str]:
    """The further outputs that a built-in probe declares, as tuple of literals in its class."""
    path = _REGISTERS / f"{name.replace('-', '_')}.py"
    if name not in probe_names() or not path.is_file():
        return []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "outputs" for to in node.targets):
            return [str(one) for one in ast.literal_eval(node.value)]
    return []
