"""`moeprobe report`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.options import force_option
from moeprobe.cli.terminal import printable
from moeprobe.files import check_output, write_text

if TYPE_CHECKING:
    from moeprobe.findings import Findings

# Suffix of the output -> form of the report.
_FORMS = {"": "html", ".html": "html", ".htm": "html", ".md": "md", ".json": "json", ".csv": "csv"}

_STDOUT = Path("-")


@click.command(short_help="One offline HTML page that anyone can read.")
@click.argument("findings", metavar="FINDINGS...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The page; its suffix says which --format. - writes it to standard output.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "md", "json", "csv"]),
    help="html: the page. md: its words. json: the same for a program. csv: every expert on a line.",
)
@click.option("--title", metavar="TEXT", help="Heading of the page.")
@click.option("--no-text", is_flag=True, help="Leave out all prompt and answer text (md, json and csv never hold any).")
@click.option(
    "--figures",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write figures for a paper there (needs matplotlib).",
)
@click.option(
    "--figure-format",
    type=click.Choice(["svg", "png", "pdf"]),
    default="svg",
    show_default=True,
    help="Of --figures; png has 300 dots per inch.",
)
@force_option
def report(
    findings: tuple[Path, ...],
    out: Path | None,
    form: str | None,
    title: str | None,
    no_text: bool,
    figures: Path | None,
    figure_format: str,
    force: bool,
) -> None:
    """Turn findings files into one HTML page: what was asked, what was found, and what may not be concluded.

    Results that `moeprobe interchange screen`, `coalition`, `dose`, `cascade`, `behaviour` and `rescue` wrote with -o
    may stand beside them, or alone.
    """
    if out is None and figures is None:
        raise click.UsageError("Nothing to write: give -o FILE for the report, or --figures DIR.")
    chosen = _form(out, form)
    if out is not None and out != _STDOUT:
        check_output(out, force=force, inputs=findings)
    documents, results = _read(findings)
    page = None if out is None else _page(chosen, documents, results, title, text=not no_text)
    if figures is not None:
        from moeprobe.report.paper import save_figures

        for path in save_figures([one.to_json() for one in documents], figures, figure_format, force=force):
            click.echo(printable(str(path)), err=out == _STDOUT)
    if page is not None and out is not None:
        _write(out, page, chosen)


def _write(out: Path, page: str, form: str) -> None:
    """The page into its file, or on standard output for `-`."""
    if out == _STDOUT:
        click.echo(page, nl=False)
        return
    write_text(out, page)
    opens = ", opens offline in any browser" if form == "html" else ""
    click.echo(printable(f"{out}: {len(page.encode()) / 1e6:.2f} MB{opens}."))


def _form(out: Path | None, form: str | None) -> str:
    """The form that was asked for, else that of the suffix; a name without one is a page.

    Raises:
        click.UsageError: no form was named and the suffix is of none.
    """
    if form is not None or out is None:
        return form or "html"
    if out.suffix.lower() not in _FORMS:
        raise click.UsageError(
            f"The suffix of {printable(out.name)!r} says no form. Add --format html, md, json or csv."
        )
    return _FORMS[out.suffix.lower()]


def _read(paths: tuple[Path, ...]) -> "tuple[list[Findings], list[dict[str, Any]]]":
    """Findings, and results of other experiments, told apart by what the files say they are."""
    from moeprobe.errors import FindingsError
    from moeprobe.fields import parse_json, read_text
    from moeprobe.findings import load_findings
    from moeprobe.report.results import SCHEMAS, load_result

    documents, results = [], []
    for path in paths:
        content = parse_json(read_text(path, FindingsError), str(path), FindingsError)
        if isinstance(content, dict) and content.get("schema") in SCHEMAS:
            found = load_result(path)
            if found not in results:  # one file named twice is one experiment
                results.append(found)
        else:
            documents.append(load_findings(path))
    return documents, results


def _page(
    form: str, documents: "list[Findings]", results: "list[dict[str, Any]]", title: str | None, *, text: bool
) -> str:
    from moeprobe.report import as_csv, as_json, as_markdown, render

    objects = [one.to_json() for one in documents]
    if form == "csv":
        if not documents:
            raise click.UsageError("A CSV holds the rows of findings, and none was given. Choose html, md or json.")
        return as_csv(documents)
    if form == "md":
        return as_markdown(objects, results, title=title)
    if form == "json":
        return as_json(objects, results, title=title)
    return render(objects, results, text=text, title=title)
