"""`moeprobe merge`."""

from pathlib import Path

import click

from moeprobe.cli.options import force_option
from moeprobe.cli.terminal import printable


@click.command(short_help="Put several runs of one model into one trace.")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Directory of the trace.")
@click.option("--prefix", is_flag=True, help="Put the run's name before each prompt id, to keep the prompts apart.")
@click.option("--allow-different-decoding", is_flag=True, help="Also merge runs that were decoded differently.")
@force_option
def merge(runs: tuple[Path, ...], out: Path, prefix: bool, allow_different_decoding: bool, force: bool) -> None:
    """Put the traces RUN into one. They must be of the same model, tokenizer, layers, signals and decoding (seed,
    samples and batch size may differ).

    Where runs share a prompt (same id, same text), its generations become further samples of it.
    """
    from moeprobe.trace import merge as merge_traces

    done = merge_traces(
        runs, out, allow_different_decoding=allow_different_decoding, prefix=prefix, force=force
    ).manifest
    click.echo(printable(f"{out}: {done.generations} generations, {done.rows:,} routed tokens of {len(runs)} runs."))
