"""`moeprobe export`."""

from pathlib import Path

import click

from moeprobe.cli.options import force_option
from moeprobe.cli.terminal import printable


@click.command(short_help="Write a trace as a Parquet file.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The Parquet file.")
@force_option
def export(run: Path, out: Path, force: bool) -> None:
    """Write the trace RUN as one Parquet file for DuckDB, Polars, Spark and others: one row per routed token, per layer
    a column with the list of its experts and one with their weights. Needs pyarrow.
    """
    from moeprobe.trace import export_parquet, load_trace

    rows = export_parquet(load_trace(run), out, force=force)
    click.echo(printable(f"{out}: {rows:,} rows."))
