"""Write docs/commands.md (every command's --help) and docs/api.md (every public name's docstring).

    python docs/make.py          writes both
    python docs/make.py --check  says which is out of date, exit status 1

A test runs the check, so neither can drift.
"""

import importlib
import inspect
import re
import sys
import typing
from pathlib import Path

import click

HERE = Path(__file__).parent
# The rooms that users of the library import from, in the order of work.
ROOMS = (
    "moeprobe", "moeprobe.prompts", "moeprobe.models", "moeprobe.engines", "moeprobe.trace", "moeprobe.probes",
"moeprobe.correlate", "moeprobe.compare",
    "moeprobe.findings", "moeprobe.findings.frames", "moeprobe.sites", "moeprobe.editing", "moeprobe.pairs",
    "moeprobe.interchange", "moeprobe.report", "moeprobe.report.results", "moeprobe.report.paper", "moeprobe.stats",
)  # fmt: skip
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def commands() -> str:
    """The help of every command."""
    from moeprobe.cli.main import cli

    parts = [
        "# Commands",
        "Written from `--help` by `python docs/make.py`. [What all commands share](cli.md): exit status, JSON, "
        "environment variables, completion.",
    ]
    for path, command in _walk(cli, ("moeprobe",)):
        context = click.Context(command, info_name=" ".join(path), max_content_width=100, terminal_width=100)
        parts.append(f"## {' '.join(path)}\n\n```\n{command.get_help(context)}\n```")
    return "\n\n".join(parts) + "\n"


def _walk(command: click.Command, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], click.Command]]:
    found = [(path, command)]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                found += _walk(child, (*path, name))
    return found


def api() -> str:
    """Every public name of every public room: signature and docstring."""
    parts = ["# Python", "Written from the docstrings by `python docs/make.py`. Rooms in the order of work."]
    for name in ROOMS:
        room = importlib.import_module(name)
        parts.append(f"## {name}\n\n{inspect.cleandoc(room.__doc__ or '')}")
        exported = getattr(room, "__all__", None) or _own(room)
        parts += [_entry(item, getattr(room, item)) for item in exported]
    return "\n\n".join(parts) + "\n"


def _own(room: typing.Any) -> list[str]:
    """Public functions and classes that the module itself defines, where it has no __all__."""
    return [
        name
        for name, value in vars(room).items()
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", "") == room.__name__
    ]


def _entry(name: str, value: object) -> str:
    if inspect.isfunction(value) or inspect.isclass(value):
        try:
            signature = _ADDRESS.sub("", str(inspect.signature(value)))
        except (ValueError, TypeError):
            signature = ""
        text = inspect.getdoc(value) or ""
        parts = [f"### `{name}`", f"```python\n{name}{signature}\n```", f"```text\n{text}\n```"]
        if inspect.isclass(value):
            parts += _members(name, value)
        return "\n\n".join(parts)
    shown = _ADDRESS.sub("", repr(value))
    return f"### `{name}`\n\n`{shown if len(shown) < 200 else type(value).__name__}`"


def _members(name: str, kind: type) -> list[str]:
    """Public methods and properties of the class itself, with the first paragraph of their docstrings."""
    lines = []
    for member, value in vars(kind).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if member.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        call = "" if isinstance(value, property) else str(inspect.signature(function))
        first = " ".join(inspect.cleandoc(function.__doc__).split("\n\n")[0].split())
        lines.append(f"- `{name}.{member}{_ADDRESS.sub('', call)}`: {first}")
    return ["\n".join(lines)] if lines else []


PAGES = {"commands.md": commands, "api.md": api}


def main() -> int:
    """Write both pages, or with --check compare them."""
    stale = []
    for name, make in PAGES.items():
        page, path = make(), HERE / name
        if "--check" not in sys.argv:
            path.write_text(page, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != page:
            stale.append(name)
    for name in stale:
        print(f"docs/{name} is out of date: run python docs/make.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
