"""Options that several commands share."""

from collections.abc import Callable
from typing import Any

import click

from moeprobe.cli.completing import complete_probe

Command = Callable[..., Any]


def model_options(function: Command) -> Command:
    """--dtype, --device-map, --revision."""
    for option in (
        click.option("--revision", metavar="REV", help="Branch, tag or commit of a hub model."),
        click.option(
            "--device-map", metavar="MAP", help="Where to put the model: cpu, cuda:0, auto (needs accelerate)."
        ),
        click.option(
            "--dtype",
            type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
            default="auto",
            show_default=True,
            help="Number format of the weights; auto takes the checkpoint's.",
        ),
    ):
        function = option(function)
    return function


def probe_option(*declarations: str, **more: Any) -> Callable[[Command], Command]:
    """--probe, for which the shell is offered names; `declarations` and `more` are those of `click.option`."""
    return click.option("--probe", *declarations, metavar="NAME|PATH", shell_complete=complete_probe, **more)


def force_option(function: Command) -> Command:
    """--force."""
    return click.option("--force", is_flag=True, help="Replace an output that exists already.")(function)


def json_option(function: Command) -> Command:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")(function)
