"""Options that the interchange commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.options import Command, probe_option

if TYPE_CHECKING:
    from moeprobe.interchange import Alignment, Lab, Metric
    from moeprobe.models import LoadedModel

METRICS = ("control-nll", "logit-difference", "refusal-log-odds", "continuation-log-prob")
ALIGNMENTS = ("end", "span", "tokens", "equal", "start")


def source_options(function: Command) -> Command:
    """-m, --trace, --pairs, --positive, --probe, --labels: the model and the pairs."""
    for option in (
        click.option(
            "--labels",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The labels that FINDINGS were asked with.",
        ),
        probe_option(help="Which question of FINDINGS; your own probe by its path."),
        click.option("--positive", metavar="LABEL", help="With --pairs of labelled prompts: the sensitive label."),
        click.option(
            "--pairs",
            "pair_file",
            type=click.Path(path_type=Path),
            help="A JSONL file of pairs, or of prompts with pair and label.",
        ),
        click.option(
            "--trace", "run", type=click.Path(path_type=Path), help="Source of pairs [default: the trace of FINDINGS]"
        ),
        click.option("-m", "--model", metavar="MODEL", help="The model [default: as recorded in FINDINGS]"),
    ):
        function = option(function)
    return function


def metric_options(function: Command) -> Command:
    """--metric and what metrics need; --align, --positions, --span."""
    for option in (
        click.option("--span", metavar="TEXT", help="With --align span: the text that is the span in every prompt."),
        click.option("--positions", default="all", show_default=True, help="Prompt positions: all, last, or N last."),
        click.option(
            "--align",
            type=click.Choice(ALIGNMENTS),
            default="end",
            show_default=True,
            help="How prompt positions are paired.",
        ),
    ):
        function = option(function)
    return measure_options(function)


def measure_options(function: Command) -> Command:
    """--metric and what metrics need, for experiments that align nothing."""
    for option in (
        click.option("--continuation", metavar="TEXT", help="With continuation-log-prob: the text that is scored."),
        click.option("--refusal", multiple=True, metavar="WORD", help="With refusal-log-odds: how refusals begin."),
        click.option("--away", multiple=True, metavar="WORD", help="With logit-difference: words it counts against."),
        click.option("--toward", multiple=True, metavar="WORD", help="With logit-difference: words it counts for."),
        click.option("--tokens", type=click.IntRange(1), help="With control-nll: tokens scored [default: 5]"),
        click.option(
            "--metric", type=click.Choice(METRICS), default="control-nll", show_default=True, help="What is measured."
        ),
    ):
        function = option(function)
    return function


def run_options(function: Command) -> Command:
    """--seed, --batch-size."""
    for option in (
        click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Runs per forward."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything drawn."),
    ):
        function = option(function)
    return function


def metric_of(loaded: "LoadedModel", options: dict[str, Any]) -> "Metric":
    """The metric that the options describe.

    Raises:
        click.UsageError: an option of another metric.
        InterchangeError: a word outside the vocabulary, or an option that is missing.
    """
    from moeprobe.interchange import make_metric

    name = options["metric"]
    given = {
        "control-nll": {"tokens": options["tokens"]},
        "logit-difference": {"positive": list(options["toward"]) or None, "negative": list(options["away"]) or None},
        "refusal-log-odds": {"tokens": list(options["refusal"]) or None},
        "continuation-log-prob": {"text": options["continuation"]},
    }
    for other, values in given.items():
        if other != name and any(value is not None for value in values.values()):
            raise click.UsageError(f"An option of --metric {other} was given, but --metric is {name}.")
    if name == "logit-difference" and None in given[name].values():
        raise click.UsageError("--metric logit-difference needs --toward WORD and --away WORD.")
    return make_metric(name, loaded, **given[name])


def bench_of(loaded: "LoadedModel", options: dict[str, Any]) -> "Lab":
    """The model with the metric and alignment that the options describe.

    Raises:
        click.UsageError, InterchangeError: as `metric_of` and `alignment_of`.
    """
    from moeprobe.interchange import lab

    return lab(
        loaded,
        metric=metric_of(loaded, options),
        alignment=alignment_of(options),
        seed=options["seed"],
        batch_size=options["batch_size"],
    )


def alignment_of(options: dict[str, Any]) -> "Alignment":
    """The alignment that the options describe.

    Raises:
        click.UsageError: positions that are no number, or a span without --align span.
    """
    from moeprobe.interchange import Alignment

    if options["span"] is not None and options["align"] != "span":
        raise click.UsageError("--span TEXT goes with --align span.")
    positions: str | int = options["positions"]
    if positions not in ("all", "last"):
        try:
            positions = int(positions)
        except ValueError as error:
            raise click.UsageError("--positions is all, last, or a number of last positions.") from error
    return Alignment(options["align"], positions=positions, text=options["span"])
