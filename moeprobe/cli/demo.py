"""`moeprobe demo`."""

from pathlib import Path

import click

from moeprobe.cli.options import force_option
from moeprobe.cli.terminal import printable, quiet_libraries
from moeprobe.errors import MoeprobeError


@click.command(short_help="All four verbs on a built-in model, ending with a report.")
@click.option(
    "--model", type=click.Choice(["compiled", "smollm2"]), help="[default: smollm2 if installed, else compiled]"
)
@click.option("-o", "--out", type=click.Path(path_type=Path), default="demo", show_default=True, help="Folder to fill.")
@force_option
def demo(model: str | None, out: Path, force: bool) -> None:
    """Trace, correlate, interchange and report on a model whose truth is known.

    smollm2 is a real chat model with one added expert that carries refusal. compiled is a tiny model written by
    construction, always there. Leaves run.trace, findings.json and report.html in the folder.
    """
    from moeprobe.demo import run_demo
    from moeprobe.findings import Findings
    from moeprobe.findings.verdicts import said
    from moeprobe.models import smollm2

    quiet_libraries()
    if out.exists() and not out.is_dir():
        raise MoeprobeError(f"{out} is a file; -o names a folder.")
    if model is None:
        model = "smollm2" if smollm2.is_installed() else "compiled"
        if model == "compiled":
            click.echo("SmolLM2 is not installed, so the built-in compiled model is shown instead.", err=True)
    findings: Findings = run_demo(model, out, force=force, say=lambda line: click.echo(line, err=True))
    for row in sorted(findings.rows, key=lambda row: (row["probe"], row["q"] is None, row["q"] or 0)):
        if row["interchange"] is not None:
            click.echo(printable(f"{row['site']}  {row['probe']}  {said(row['verdict'], row['interchange'])}"))
    click.echo(printable(f"Open {out / 'report.html'} in a browser."))
