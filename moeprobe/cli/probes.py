"""`moeprobe probes`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeprobe.cli.options import json_option
from moeprobe.cli.terminal import printable, table
from moeprobe.cli.training import train_command

if TYPE_CHECKING:
    from moeprobe.probes import Quality


@click.group(short_help="List, show and check register probes.")
def probes() -> None:
    """Probes are classifiers of text: they say where a register (refusal, self-examination ...) occurs.

    They look at text, never at routing. A probe of your own is one Python file, named by its path; it runs only then.
    """


probes.add_command(train_command)


@probes.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """All probes that can be called by name. Sources are read, not run."""
    from moeprobe.probes import list_probes

    found = list_probes()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=1))
        return
    lines = [(one.name, one.version, one.level, one.source, one.definition) for one in found]
    click.echo(table(("name", "version", "level", "source", "definition"), lines))


@probes.command("show")
@click.argument("probe", metavar="NAME|PATH")
@json_option
def show_command(probe: str, as_json: bool) -> None:
    """Definition and labelled examples of one probe."""
    from moeprobe.probes import load_probe

    judge = load_probe(probe)
    examples = [asdict(one) for one in judge.examples()]
    facts = {"name": judge.name, "version": judge.version, "level": judge.level, "definition": judge.definition}
    if as_json:
        click.echo(json.dumps({**facts, "examples": examples}, indent=1))
        return
    click.echo(printable(f"{judge.name} {judge.version} ({judge.level} level)\n\n{judge.definition}\n"))
    positives = sum(one["label"] for one in examples)
    click.echo(f"{len(examples)} labelled examples, {positives} positive. Some of them:")
    for label, sign in ((1, "+"), (0, "-")):
        for one in [example for example in examples if example["label"] == label][:4]:
            click.echo(printable(f"  {sign} {one['text'][:110]}".replace("\n", " ")))


@probes.command("check")
@click.argument("probe", metavar="NAME|PATH")
@click.option("--labels", type=click.Path(path_type=Path), metavar="FILE", help="JSONL: text, label 0 or 1, prompt.")
@json_option
def check_command(probe: str, labels: Path | None, as_json: bool) -> None:
    """How good a probe is on its own examples, or on a labelled file."""
    from moeprobe.probes import check_probe_quality, load_probe, read_labels

    quality = check_probe_quality(load_probe(probe), None if labels is None else read_labels(labels))
    if as_json:
        click.echo(json.dumps(asdict(quality), indent=1))
        return
    click.echo(_quality_text(quality))


def _quality_text(quality: "Quality") -> str:
    names = ("balanced_accuracy", "precision", "recall", "specificity", "f1")
    rates = {name.replace("_", " "): getattr(quality, name) for name in names}
    lines = [
        (name, "-", "-") if rate.value is None else (name, f"{rate.value:.3f}", f"[{rate.low:.3f}, {rate.high:.3f}]")
        for name, rate in rates.items()
    ]
    wrong = [
        f"  {mistake.example.label} but scored {mistake.reading.score:.2f}: {mistake.example.text[:100]}".replace(
            "\n", " "
        )
        for mistake in quality.mistakes
    ]
    head = f"{quality.examples} examples, {len(quality.abstentions)} abstentions, {len(wrong)} wrong"
    return "\n".join([head, "", table(("measure", "value", "95 % CI"), lines), "", *map(printable, wrong)]).rstrip()
