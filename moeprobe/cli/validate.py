"""`moeprobe validate`."""

import json
from pathlib import Path

import click

from moeprobe.cli.options import json_option
from moeprobe.cli.terminal import printable


@click.command(short_help="Check a trace from end to end.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@json_option
@click.pass_context
def validate(ctx: click.Context, run: Path, as_json: bool) -> None:
    """Check every file of the trace RUN: checksums, that everything adds up, and every value against what it may be.

    Exit status 1 when something is wrong, with the place and what to do.
    """
    from moeprobe.trace import validate as validate_trace

    found = validate_trace(run)
    manifest = found.manifest
    if as_json:
        sizes = (
            {} if manifest is None else {name: getattr(manifest, name) for name in ("shards", "generations", "rows")}
        )
        click.echo(json.dumps({"path": str(run), "valid": found.valid, **sizes, "problems": found.problems}, indent=1))
    elif found.valid and manifest is not None:
        click.echo(
            printable(f"{run}: valid. {manifest.generations} generations, {manifest.rows:,} routed tokens, ")
            + f"{len(manifest.layers)} MoE layer{'s' if len(manifest.layers) != 1 else ''}; every checksum matches."
        )
    else:
        for problem in found.problems:
            click.echo(printable(problem), err=True)
        count = len(found.problems)
        click.echo(printable(f"{run}: not valid, {count} problem{'s' if count != 1 else ''}."), err=True)
    ctx.exit(0 if found.valid else 1)
