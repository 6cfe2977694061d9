"""`moeprobe interchange`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.options import force_option, json_option, model_options
from moeprobe.cli.terminal import command_line, printable, progress_bar, quiet_libraries, table
from moeprobe.errors import InterchangeError
from moeprobe.files import check_output

if TYPE_CHECKING:
    from moeprobe.findings import Findings
    from moeprobe.interchange import Outcome, PairSelection
    from moeprobe.models import LoadedModel


@click.command(short_help="Test whether associated experts cause the behaviour.")
@click.argument("findings", metavar="FINDINGS", type=click.Path(path_type=Path))
@click.option("-m", "--model", metavar="MODEL", help="[default: the model of the findings]")
@click.option(
    "--trace", "run", type=click.Path(path_type=Path), help="Where pairs come from [default: that of FINDINGS]"
)
@click.option(
    "--pairs", "pair_file", type=click.Path(path_type=Path), help="Or: a JSONL prompt file with pair ids and labels."
)
@click.option("--positive", metavar="LABEL", help="With --pairs: the label of the sensitive prompts.")
@click.option(
    "--probe", metavar="NAME|PATH", help="Which question of FINDINGS, where it has several (or a probe by path)."
)
@click.option("--site", "sites", multiple=True, metavar="SITE", help="Expert to test, e.g. L14.E114; may be repeated.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Without --site: the leading N.")
@click.option(
    "--null", type=click.IntRange(1), default=5, show_default=True, help="Other experts per layer to compare with."
)
@click.option("--tokens", type=click.IntRange(1), default=5, show_default=True, help="Continuation tokens scored.")
@click.option("--minimum-effect", type=click.FloatRange(0), default=10.0, show_default=True, help="Percent of the gap.")
@click.option("--bootstrap", type=click.IntRange(100), default=10_000, show_default=True, help="Draws over pairs.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Pairs per forward.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write here instead of completing FINDINGS.")
@model_options
@json_option
@force_option
def interchange(findings: Path, out: Path | None, as_json: bool, force: bool, **options: Any) -> None:
    """Swap the contribution of experts between paired runs, in both directions, and knock it out.

    Necessity: how much of the effect goes when the site is taken from the control run. Sufficiency: how much comes when
    the site of the sensitive run is put into the control run. The verdicts are written into FINDINGS.
    """
    from moeprobe.findings import load_findings

    if out is not None:
        check_output(out, force=force)
    document = load_findings(findings)
    question, outcome, selection = test(document, findings, **options)
    from moeprobe.interchange import enter

    enter(document, question, outcome)
    document.commands.append(command_line())
    document.write(out or findings, force=True)
    if as_json:
        click.echo(json.dumps(document.to_json(), indent=1))
        return
    click.echo(summary(outcome, selection))
    click.echo(printable(f"Written to {out or findings}. Next: moeprobe report {out or findings} -o report.html"))


def test(
    document: "Findings", path: Path, *, probe: str | None, sites: tuple[str, ...], top: int, **options: Any
) -> tuple[dict[str, Any], "Outcome", "PairSelection"]:
    """Run the experiment that the options describe."""
    from moeprobe.interchange import Plan, leading_sites
    from moeprobe.interchange import interchange as experiment
    from moeprobe.models import load_model
    from moeprobe.probes import load_probe
    from moeprobe.sites import parse_expert

    judge = None if probe is None or probe.startswith("label") else load_probe(probe)
    question = document.question(probe if judge is None else judge.name)
    chosen = [parse_expert(name) for name in sites] or leading_sites(document, question["name"], top)
    names = ("tokens", "null", "bootstrap", "seed", "minimum_effect", "batch_size")
    plan = Plan(**{name: options[name] for name in names})
    recorded = document.trace["provenance"]["engine"].get("dtype", "auto")
    quiet_libraries()
    if options["pair_file"] is None:
        # Before the model is loaded: pairs that do not exist should cost a second.
        selection = _trace_pairs(document, path, question, judge, options["run"])
    loaded = load_model(
        options["model"] or document.model["id"],
        dtype=recorded if options["dtype"] == "auto" else options["dtype"],
        device_map=options["device_map"],
        revision=options["revision"],
    )
    if options["pair_file"] is not None:
        selection = _file_pairs(loaded, options["pair_file"], options["positive"])
    with progress_bar(0, "swap", "interchange") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        outcome = experiment(loaded, selection, chosen, plan, progress=show)
    return question, outcome, selection


def summary(outcome: "Outcome", selection: "PairSelection") -> str:
    """The outcome as text for the terminal."""
    head = ("site", "necessity %", "95 % CI", "sufficiency %", "95 % CI", "knock-out %", "null max %", "verdict")
    lines = []
    for site, effect in outcome.effects.items():
        null = max([*effect["null"]["necessity"], *effect["null"]["sufficiency"]], default=0.0)
        words = [
            name for name, holds in (("necessary", effect["necessary"]), ("sufficient", effect["sufficient"])) if holds
        ]
        lines.append(
            (
                str(site), f"{effect['necessity']['percent']:.1f}", _interval(effect["necessity"]["ci"]),
                f"{effect['sufficiency']['percent']:.1f}", _interval(effect["sufficiency"]["ci"]),
                f"{effect['knockout']['percent']:.1f}", f"{null:.1f}",
                " and ".join(words) or ("nothing changed at all" if effect["exactly_zero"] else "neither"),
            )
        )  # fmt: skip
    gap = outcome.run["gap"]
    left = f" {len(selection.left_out)} pairs did not split and were left out." if selection.left_out else ""
    first = (
        f"{outcome.run['pairs']} pairs, gap {gap['mean']:.2f} nats per token [{gap['ci'][0]:.2f}, {gap['ci'][1]:.2f}]."
    )
    return f"{first}{left}\n\n{table(head, lines)}\n\nRule: {outcome.run['rule']}.\n"


def _trace_pairs(
    document: "Findings", path: Path, question: dict[str, Any], judge: Any, run: Path | None
) -> "PairSelection":
    from moeprobe.correlate.groups import regroup
    from moeprobe.interchange.from_trace import trace_pairs
    from moeprobe.trace import load_trace

    trace = load_trace(run or path.parent / document.trace["path"])
    if trace.digest != document.trace["digest"]:
        raise InterchangeError(
            f"{trace.path} is not the trace these findings were made from. Name the right one with --trace."
        )
    return trace_pairs(trace, regroup(trace.generations, question, judge))


def _file_pairs(loaded: "LoadedModel", path: Path, positive: str | None) -> "PairSelection":
    from moeprobe.engines.encode import encode_prompt
    from moeprobe.interchange import label_members, select_pairs
    from moeprobe.prompts import read_prompts

    if positive is None:
        raise click.UsageError("--pairs needs --positive LABEL: which label is the sensitive side?")
    prompts = read_prompts(path)
    ids = [encode_prompt(loaded.tokenizer, prompt) for prompt in prompts]
    return select_pairs(label_members(prompts, ids, positive), what=str(path))


def _interval(interval: list[float]) -> str:
    return f"[{interval[0]:.1f}, {interval[1]:.1f}]"
