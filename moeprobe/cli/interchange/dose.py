"""`moeprobe interchange dose`."""

import math
from pathlib import Path
from typing import Any

import click

from moeprobe.cli.interchange.options import measure_options, metric_of, run_options, source_options
from moeprobe.cli.interchange.subject import Request, forwards, subject_options
from moeprobe.cli.options import force_option, json_option, model_options
from moeprobe.cli.terminal import printable, table

_BIAS = "bar,-8,-4,-2,-1,0,1,2,4,8,force"


@click.command(short_help="More and less of one expert: does the effect follow the dose?")
@click.argument("findings", metavar="[FINDINGS]", required=False, type=click.Path(path_type=Path))
@source_options
@subject_options
@measure_options
@click.option("--bias", default=_BIAS, show_default=True, metavar="LIST", help='Router biases; "" for none.')
@click.option("--scale", default="0,0.5,1,1.5,2,4", show_default=True, metavar="LIST", help='Scales; "" for none.')
@run_options
@model_options
@json_option
@force_option
def dose(findings: Path | None, as_json: bool, force: bool, **options: Any) -> None:
    """Give one expert a bias on its router score, and a scale on its contribution, from little to much, and measure
    what follows; the same for sham experts of its layer that are used as much.

    A cause has a dose and a response. Each dose is checked by how often the expert is chosen under it, and by how large
    the change is against the residual stream. Nothing is written into FINDINGS.
    """
    biases = _grid(options["bias"], "bias", {"bar": -math.inf, "force": math.inf})
    scales = _grid(options["scale"], "scale", {})
    request = Request(findings, options, force)

    from moeprobe.experiments.dose import DosePlan, dose_series

    draws = (options["sham_count"], options["bootstrap"], options["seed"], options["batch_size"])
    plan = DosePlan(biases, scales, *draws)
    loaded, pairs = request.open()
    metric = metric_of(loaded, options)
    with forwards("dose") as progress:
        result = dose_series(
            loaded, pairs, request.site, metric, side=options["side"], plan=plan, shams=request.shams,
            progress=progress,
        )  # fmt: skip
    shams = ", ".join(map(str, result.shams)) or "none"
    lines = [printable(f"{len(result.prompts)} prompts; outcome: {metric.sentence}. Shams: {shams}."), ""]
    lines += [table(*result.table()), "", *map(printable, result.sentences())]
    request.finish("moeprobe.dose/1", loaded, result, lines, as_json=as_json)


def _grid(text: str, what: str, names: dict[str, float]) -> tuple[float, ...]:
    """Doses from a list with commas.

    Raises:
        click.UsageError: something in it is no dose.
    """
    found = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        try:
            value = names[part] if part in names else float(part)
        except ValueError:
            value = math.nan
        if math.isnan(value) or (math.isinf(value) and part not in names):
            words = "".join(f" or {name}" for name in names)
            raise click.UsageError(f"--{what}: {printable(part[:20])} is no dose; write numbers{words}, with commas.")
        found.append(value)
    return tuple(found)
