"""Environment variables for options: MOEPROBE_COMMAND_OPTION, as the option is written on the command line."""

import os

import click
from click.core import ParameterSource

PREFIX = "MOEPROBE"


def name_variables(command: click.Command, path: tuple[str, ...] = (PREFIX,)) -> None:
    """Give every option of a command and of its subcommands its variable: the longest of its names, in capitals.

    click would take the name of the Python argument, which no user sees (`probes` for `--probe`).
    """
    for one in command.params:
        if isinstance(one, click.Option) and one.envvar is None:
            longest = max(one.opts, key=len).lstrip("-")
            one.envvar = "_".join([*path, longest]).upper().replace("-", "_")
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            name_variables(child, (*path, name.replace("-", "_")))


def variables_used(context: click.Context) -> list[str]:
    """Variables that stood in for options of the command that runs, in the order of its options."""
    return [
        str(one.envvar)
        for one in context.command.params
        if one.name
        and context.get_parameter_source(one.name) is ParameterSource.ENVIRONMENT
        and str(one.envvar) in os.environ
    ]


def unknown_variables(command: click.Command) -> list[str]:
    """Variables that begin like ours and are no option's: a misspelt one would be ignored without a word."""
    known = _all(command)
    return sorted(name for name in os.environ if name.startswith(f"{PREFIX}_") and name not in known | OTHERS)


OTHERS = {"MOEPROBE_AXE"}  # of the tests


def _all(command: click.Command) -> set[str]:
    found = {str(one.envvar) for one in command.params if isinstance(one, click.Option)}
    for child in command.commands.values() if isinstance(command, click.Group) else ():
        found |= _all(child)
    return found
