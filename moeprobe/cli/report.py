"""`moeprobe report`."""

from pathlib import Path

import click

from moeprobe.cli.options import force_option
from moeprobe.cli.terminal import printable
from moeprobe.files import check_output, write_text


@click.command(short_help="One offline HTML page that anyone can read.")
@click.argument("findings", metavar="FINDINGS...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The HTML file.")
@click.option("--title", metavar="TEXT", help="Heading of the page.")
@click.option("--no-text", is_flag=True, help="Leave out all prompt and answer text.")
@force_option
def report(findings: tuple[Path, ...], out: Path, title: str | None, no_text: bool, force: bool) -> None:
    """Turn findings files into one HTML page: what was asked, what was found, and what may not be concluded."""
    check_output(out, force=force, inputs=findings)
    from moeprobe.findings import load_findings
    from moeprobe.report import render

    documents = [load_findings(path).to_json() for path in findings]
    page = render(documents, text=not no_text, title=title)
    write_text(out, page)
    click.echo(printable(f"{out}: {len(page.encode()) / 1e6:.2f} MB, opens offline in any browser."))
