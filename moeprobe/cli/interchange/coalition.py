"""`moeprobe interchange coalition`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.interchange.options import bench_of, metric_options, run_options, source_options
from moeprobe.cli.interchange.result import check_result, finish
from moeprobe.cli.interchange.source import check_source, opened
from moeprobe.cli.options import force_option, json_option, model_options
from moeprobe.cli.terminal import printable, table

if TYPE_CHECKING:
    from moeprobe.interchange import Coalition


@click.command("coalition", short_help="A small set that carries most of what all carry.")
@click.argument("findings", metavar="[FINDINGS]", required=False, type=click.Path(path_type=Path))
@source_options
@click.option("--among", metavar="SITES", required=True, help="Candidates, e.g. L12-L22.E* or L14.E3+E7+E9.")
@click.option(
    "--effect",
    type=click.Choice(["necessity", "sufficiency", "knockout"]),
    default="sufficiency",
    show_default=True,
    help="What the set is to carry.",
)
@click.option(
    "--share", type=click.FloatRange(0, 1, min_open=True), default=0.8, show_default=True, help="Of what all carry."
)
@click.option("--most", type=click.IntRange(1), default=32, show_default=True, help="Members at most.")
@click.option("--width", type=click.IntRange(1), default=12, show_default=True, help="Candidates tried in each step.")
@click.option("--null", type=click.IntRange(1), default=19, show_default=True, help="Sets of like sites beside it.")
@metric_options
@run_options
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the result here, as JSON.")
@model_options
@json_option
@force_option
def coalition(findings: Path | None, out: Path | None, as_json: bool, force: bool, **options: Any) -> None:
    """Search a small set of sites that carries most of what all candidates carry together.

    The search sees half of the pairs; everything that is printed is measured on the other half: what the set carries,
    what its members carry alone and without each other, and what sets of other sites like them carry.
    """
    check_source(findings, options)
    check_result(findings, out, options, force=force)
    from moeprobe.editing import layout_of
    from moeprobe.interchange import Search
    from moeprobe.interchange import coalition as search
    from moeprobe.sites import parse_sites

    wish = Search(arm=options["effect"], **{name: options[name] for name in ("share", "most", "width", "null", "seed")})
    source = opened(findings, options)
    bench = bench_of(source.loaded, options)
    candidates = parse_sites(options["among"], layout_of(bench.places)).sites

    def say(text: str) -> None:
        click.echo(printable(text), err=True)

    found = search(bench, source.selection, candidates, wish, say=say)
    finish("moeprobe.coalition/1", source.loaded, found.to_json(), summary(found), out, as_json=as_json)


def summary(found: "Coalition") -> list[str]:
    """The coalition as text for the terminal."""
    record = found.record
    head = ("member", "alone %", "95 % CI", "set without it %")
    lines = []
    for site in found.members:
        alone, without = record["singles"][str(site)], record["without"].get(str(site))
        interval = f"[{alone['ci'][0]:.1f}, {alone['ci'][1]:.1f}]"
        lines.append((str(site), f"{alone['percent']:.1f}", interval, f"{without['percent']:.1f}" if without else "-"))
    pairs = f"Measured on {len(record['measured_on'])} pairs that the search has not seen."
    return [printable(found.sentence), pairs, "", table(head, lines)]
