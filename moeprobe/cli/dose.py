"""`moeprobe interchange dose`."""

import math
from typing import Any

import click

from moeprobe.cli.options import force_option, json_option, model_options
from moeprobe.cli.subjects import Request, forwards, subject_options, word_list
from moeprobe.cli.terminal import printable, table

_METRICS = ("control-nll", "logit-difference", "refusal-log-odds", "continuation-log-prob")
_BIAS = "bar,-8,-4,-2,-1,0,1,2,4,8,force"


@click.command(short_help="More and less of one expert: does the effect follow the dose?")
@click.argument("model", metavar="MODEL")
@subject_options
@click.option("--metric", type=click.Choice(_METRICS), help="What is measured [default: logit-difference with "
              "--toward, else control-nll]")  # fmt: skip
@click.option("--toward", multiple=True, metavar="WORD", help="Tokens counted for; word or #id; may be repeated.")
@click.option("--against", multiple=True, metavar="WORD", help="Tokens counted against; may be repeated.")
@click.option("--tokens", type=click.IntRange(1), help="Of control-nll: continuation tokens scored [default: 5]")
@click.option("--text", metavar="TEXT", help="Of continuation-log-prob: the continuation.")
@click.option("--bias", default=_BIAS, show_default=True, metavar="LIST", help='Router biases; "" for none.')
@click.option("--scale", default="0,0.5,1,1.5,2,4", show_default=True, metavar="LIST", help='Scales; "" for none.')
@model_options
@json_option
@force_option
def dose(model: str, as_json: bool, force: bool, **options: Any) -> None:
    """Give one expert of MODEL a bias on its router score, and a scale on its contribution, from little to much, and
    measure what follows; the same for sham experts of its layer that are used as much.

    A cause has a dose and a response. Each dose is checked by how often the expert is chosen under it, and by how large
    the change is against the residual stream.
    """
    from moeprobe.interchange.dose import DosePlan, dose_series
    from moeprobe.interchange.metrics import make_metric

    biases = _grid(options["bias"], "bias", {"bar": -math.inf, "force": math.inf})
    plan = DosePlan(
        biases, _grid(options["scale"], "scale", {}), options["sham_count"], options["bootstrap"], options["seed"],
        options["batch_size"],
    )  # fmt: skip
    name = options["metric"] or ("logit-difference" if options["toward"] else "control-nll")
    if bool(options["toward"] or options["against"]) != (name == "logit-difference"):
        raise click.UsageError("--toward and --against say what logit-difference compares, and no other metric.")
    request = Request(model, options, force=force)
    loaded = request.load()
    words = {
        "positive": word_list(options["toward"], "--toward") or None,
        "negative": word_list(options["against"], "--against") or None,
    }
    metric = make_metric(name, loaded, tokens=options["tokens"], text=options["text"], **words)
    with forwards("dose") as progress:
        result = dose_series(
            loaded, request.pairs(loaded), request.site, metric, side=options["side"], plan=plan,
            shams=request.chosen_shams, progress=progress,
        )  # fmt: skip
    shams = ", ".join(map(str, result.shams)) or "none"
    lines = [printable(f"{len(result.prompts)} prompts; outcome: {metric.sentence}. Shams: {shams}."), ""]
    lines += [table(*result.table()), "", *map(printable, result.sentences())]
    request.finish(request.document("moeprobe.dose/1", loaded, result.to_json()), lines, as_json=as_json)


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
