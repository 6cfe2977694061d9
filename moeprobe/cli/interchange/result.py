"""Results of interchange commands that are no findings: JSON with what they were made with."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.terminal import command_line, printable
from moeprobe.files import check_output, write_text

if TYPE_CHECKING:
    from moeprobe.models import LoadedModel


def check_result(findings: Path | None, out: Path | None, options: dict[str, Any], *, force: bool) -> None:
    """Whether the result can be written, before anything is run.

    Raises:
        OutputError: it exists and not `force`, or it is one of the inputs.
    """
    if out is not None:
        inputs = [path for path in (findings, options["pair_file"]) if path is not None]
        check_output(out, force=force, inputs=inputs)


def finish(
    schema: str, loaded: "LoadedModel", result: dict[str, Any], lines: list[str], out: Path | None, *, as_json: bool
) -> None:
    """Write and print a result."""
    from moeprobe.models import engine_section, versions_section

    document = {
        "schema": schema,
        "command": command_line(),
        "model": loaded.provenance,
        "engine": engine_section(loaded.model),
        "versions": versions_section(),
        **result,
    }
    text = json.dumps(document, indent=1, allow_nan=False)
    if out is not None:
        write_text(out, text + "\n")
    if as_json:
        click.echo(text)
        return
    click.echo("\n".join(lines))
    if out is not None:
        click.echo(printable(f"\nWritten to {out}."))
