"""`moeprobe interchange behaviour` and `rescue`: swaps held at every step, judged on the generated text."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.interchange.result import finish
from moeprobe.cli.options import Command, force_option, json_option, model_options, probe_option
from moeprobe.cli.terminal import printable, progress_bar, quiet_libraries, table
from moeprobe.files import check_output

if TYPE_CHECKING:
    from moeprobe.judging.rates import Change


def _options(function: Command) -> Command:
    for option in (
        click.option("-o", "--out", type=click.Path(path_type=Path), help="Write texts and effects here, as JSON."),
        click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Answers per batch."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything drawn."),
        click.option("--max-new-tokens", type=click.IntRange(1), default=48, show_default=True, help="Per answer."),
        click.option("--limit", type=click.IntRange(2), metavar="N", help="Only the first N pairs."),
        probe_option(required=True, help="Judges each answer."),
        click.option("--positive", required=True, metavar="LABEL", help="Label of the sensitive prompts."),
        click.option(
            "--pairs", "pair_file", required=True, type=click.Path(path_type=Path), help="Prompts with pair and label."
        ),
        click.option("--site", required=True, metavar="SITES", help="What is swapped, all of it at once."),
        click.argument("model", metavar="MODEL"),
    ):
        function = option(function)
    return function


@click.command("behaviour", short_help="Swaps at every step of the answer, judged by a probe.")
@_options
@click.option(
    "--swap",
    type=click.Choice(["swap", "swap-output", "swap-routing"]),
    default="swap",
    show_default=True,
    help="What of an expert is swapped.",
)
@model_options
@json_option
@force_option
def behaviour(model: str, as_json: bool, force: bool, swap: str, **options: Any) -> None:
    """Generate answers of MODEL with sites swapped between paired prompts at every step, or knocked out, and count how
    often the behaviour appears."""
    from moeprobe.experiments.behaviour import behaviour as experiment

    loaded, pairs, probe, decoding = _prepared(model, options, force=force)
    with progress_bar(0, "answer", "behaviour") as bar:
        found = experiment(
            loaded, pairs, options["site"], probe, decoding, swap=swap, seed=options["seed"], progress=_shown(bar)
        )
    lines = [f"{len(found.pairs)} pairs, judged by {found.probe}; {found.sites} held at every step.", ""]
    lines.append(_table({name: found.effects[name] for name in found.effects}))
    result = found.to_json()
    finish("moeprobe.behaviour/1", loaded, result, list(map(printable, lines)), options["out"], as_json=as_json)


@click.command("rescue", short_help="A donor's site injected at every step of other runs.")
@_options
@model_options
@json_option
@force_option
def rescue(model: str, as_json: bool, force: bool, **options: Any) -> None:
    """Inject the sites of sensitive prompts into the answers to their controls, at every step, against a random site,
    a placebo donor and noise of the same length."""
    from moeprobe.experiments.rescue import rescue as experiment

    loaded, pairs, probe, decoding = _prepared(model, options, force=force)
    with progress_bar(0, "answer", "rescue") as bar:
        found = experiment(loaded, pairs, options["site"], probe, decoding, seed=options["seed"], progress=_shown(bar))
    instead = (
        "nothing else runs and writes, so no site to compare with"
        if found.random_sites is None
        else (f"or {found.random_sites} instead")
    )
    lines = [
        f"{len(found.pairs)} pairs, judged by {found.probe}; {found.sites} injected; {instead}.",
        "",
        _table(found.effects),
        "",
        *(
            f"Rescue beyond {name.replace('_', ' ')}: shown in {one.after} of {one.pairs} against {one.before}, "
            f"{one.points:+.0f} points [{one.points_ci[0]:.0f}, {one.points_ci[1]:.0f}], McNemar p {one.p:.2g}."
            for name, one in found.beyond.items()
        ),
    ]
    finish("moeprobe.rescue/2", loaded, found.to_json(), list(map(printable, lines)), options["out"], as_json=as_json)


def _prepared(model: str, options: dict[str, Any], *, force: bool) -> Any:
    """Model, pairs, probe and decoding; files are read before the model is loaded."""
    from moeprobe.engines import Decoding
    from moeprobe.experiments.behaviour import prompt_pairs
    from moeprobe.models import load_model
    from moeprobe.probes import load_probe
    from moeprobe.prompts import read_prompts

    if options["out"] is not None:
        check_output(options["out"], force=force, inputs=[options["pair_file"]])
    pairs = prompt_pairs(read_prompts(options["pair_file"]), options["positive"])[: options["limit"]]
    probe = load_probe(options["probe"])
    quiet_libraries()
    loaded = load_model(model, dtype=options["dtype"], device_map=options["device_map"], revision=options["revision"])
    decoding = Decoding(max_new_tokens=options["max_new_tokens"], batch_size=options["batch_size"])
    return loaded, pairs, probe, decoding


def _shown(bar: Any) -> Any:
    def step(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return step


def _table(effects: "dict[str, Change]") -> str:
    """The change of each arm as it is (a minus sign: fewer answers show the behaviour) and what it did to the gap."""
    from moeprobe.findings.changes import as_it_is, to_the_gap

    head = ("arm", "shown before", "after", "change, points", "95 % CI", "what it does", "McNemar p")
    lines = []
    for name, one in effects.items():
        change, (low, high) = as_it_is(name, one.points, one.points_ci)
        counts = (f"{one.before} of {one.pairs}", f"{one.after} of {one.pairs}")
        did = to_the_gap(one.points, one.percent)
        lines.append(
            (name, *counts, f"{change:+.0f}" if change else "0", f"[{low:.0f}, {high:.0f}]", did, f"{one.p:.2g}")
        )
    return table(head, lines)
