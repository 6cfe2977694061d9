"""`moeprobe interchange screen`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.interchange.options import bench_of, metric_options, run_options, source_options
from moeprobe.cli.interchange.result import check_result, finish
from moeprobe.cli.interchange.source import check_source, opened
from moeprobe.cli.options import force_option, json_option, model_options
from moeprobe.cli.terminal import printable, progress_bar, table

if TYPE_CHECKING:
    from moeprobe.interchange.screened import Screened

KINDS = ("expert", "head", "shared", "moe", "residual")


@click.command("screen", short_help="All experts or heads by gradient, the leading ones exactly.")
@click.argument("findings", metavar="[FINDINGS]", required=False, type=click.Path(path_type=Path))
@source_options
@metric_options
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="What is screened [default: expert]")
@click.option("--wanted", type=click.IntRange(1), default=10, show_default=True, help="Leading sites hoped for.")
@click.option(
    "--share", type=click.FloatRange(0, 1, min_open=True), default=0.25, show_default=True, help="Swapped exactly."
)
@click.option("--audit", type=click.IntRange(0), default=10, show_default=True, help="Random others swapped exactly.")
@click.option("--all-pairs", is_flag=True, help="Use all pairs; nothing is left to test on.")
@run_options
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the screen here, as JSON.")
@model_options
@json_option
@force_option
def screen(findings: Path | None, out: Path | None, as_json: bool, force: bool, **options: Any) -> None:
    """Estimate the effect of every expert (or head ...) from one backward pass per pair, swap the leading quarter and a
    random audit sample exactly, and say how well the estimate ranked.

    Half of the pairs is used. `interchange test --screen OUT.json` tests the leading sites on the other half.
    """
    check_source(findings, options)
    check_result(findings, out, options, force=force)
    from moeprobe.interchange.screened import SCHEMA, screened

    source = opened(findings, options)
    bench = bench_of(source.loaded, options)
    with progress_bar(0, "pair", "screen") as bar:

        def step(what: str, done: int, total: int) -> None:
            bar.set_description(what, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        found = screened(
            bench,
            source.selection,
            kinds=tuple(dict.fromkeys(options["kinds"])) or ("expert",),
            wanted=options["wanted"],
            share=options["share"],
            audit=options["audit"],
            whole=options["all_pairs"],
            progress=step,
        )
    finish(SCHEMA, source.loaded, found.to_json(), summary(found, options["wanted"]), out, as_json=as_json)


def summary(found: "Screened", top: int) -> list[str]:
    """The screen as text for the terminal."""
    head = ("site", "necessity %", "estimated", "sufficiency %", "estimated")
    places = {site: number for number, site in enumerate(found.screen.sites)}
    estimated = {effect: found.screen.shares(effect) for effect in ("necessity", "sufficiency")}
    lines = [
        (
            str(site),
            *(
                f"{value:.1f}"
                for effect in ("necessity", "sufficiency")
                for value in (found.percent(site, effect), estimated[effect][places[site]])
            ),
        )
        for site in found.leading(top)
    ]
    used = int(found.screen.used.sum())
    first = f"{len(found.screen.sites)} sites ({used} used) over {len(found.screen.pair_ids)} pairs; the leading ones:"
    told = [f"{one.sentence}" for one in found.qualities.values()]
    steady = [
        f"Leading {one['top']} by {effect} under resampled pairs: mean Jaccard {one['mean']:.2f} (chance "
        f"{one['chance']:.2f}). This is no test."
        for effect, one in found.stability.items()
    ]
    return [first, "", table(head, lines), "", *map(printable, [*told, *steady])]
