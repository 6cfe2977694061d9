"""`moeprobe probes`."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from moeprobe.cli.checking import agree_command, check_command
from moeprobe.cli.completing import complete_probe
from moeprobe.cli.options import json_option
from moeprobe.cli.terminal import printable, table
from moeprobe.cli.training import train_command

# Columns of the list that are left out where no probe has anything there.
_OPTIONAL = ("outputs", "parameters")


@click.group(short_help="List, show and check register probes.")
def probes() -> None:
    """Probes are classifiers of text: they say where a register (refusal, self-examination ...) occurs.

    They look at text, never at routing. A probe of your own is one Python file, named by its path; it runs only then.

    \b
    Wherever a probe is asked for (PROBE, --probe):
      refusal                            by name
      mine.py                            by path
      "mine.py(least=3)"                 with a parameter
      certainty.hedged, mine.py:hedged   one of several outputs
      "refusal and not mine.py"          joined by and, or, not and parentheses
      "refusal within answer"            only in the answer (or thinking, or where another probe marks)
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
    head = ("name", "version", "level", "held out", "outputs", "parameters", "source", "definition")
    lines = [
        (
            one.name, one.version, one.level, "-" if one.held_out is None else str(one.held_out),
            ", ".join(one.outputs), _set_to(one.parameters), one.source, one.definition,
        )
        for one in found
    ]  # fmt: skip
    empty = [number for number, name in enumerate(head) if name in _OPTIONAL and not any(row[number] for row in lines)]
    kept = [number for number in range(len(head)) if number not in empty]
    click.echo(table([head[number] for number in kept], [[row[number] for number in kept] for row in lines]))


@probes.command("show")
@click.argument("probe", metavar="NAME|PATH", shell_complete=complete_probe)
@json_option
def show_command(probe: str, as_json: bool) -> None:
    """Definition, outputs, parameters and labelled examples of one probe, or of several joined by and, or, not."""
    from moeprobe.probes import load_probe

    judge = load_probe(probe)
    examples, held_out = [asdict(one) for one in judge.examples()], [asdict(one) for one in judge.held_out()]
    if as_json:
        names = ("name", "version", "level", "definition", "outputs", "parameters")
        facts = {name: getattr(judge, name) for name in names}
        click.echo(json.dumps({**facts, "examples": examples, "held_out": held_out}, indent=1))
        return
    click.echo(printable(f"{judge.name} {judge.version} ({judge.level} level)\n\n{judge.definition}\n"))
    if judge.outputs:
        click.echo(printable(f"Outputs: {', '.join(f'{judge.name}.{name}' for name in judge.outputs)}"))
    if judge.parameters:
        click.echo(printable(f"Parameters: {_set_to(judge.parameters)}"))
    if held_out:
        held = sum(one["label"] for one in held_out)
        click.echo(f"{len(held_out)} held-out examples, on which the rule was not made, {held} positive.")
    if not examples:
        click.echo("No examples of its own, so its quality is not measured.")
        return
    positives = sum(one["label"] for one in examples)
    click.echo(f"{len(examples)} labelled examples, {positives} positive. Some of them:")
    for label, sign in ((1, "+"), (0, "-")):
        for one in [example for example in examples if example["label"] == label][:4]:
            click.echo(printable(f"  {sign} {one['text'][:110]}".replace("\n", " ")))


@probes.command("new")
@click.argument("name")
@click.option(
    "--level", type=click.Choice(["token", "sentence", "generation"]), default="generation", show_default=True,
    help="The finest piece of text that it will judge.",
)  # fmt: skip
@click.option(
    "--kind", type=click.Choice(["class", "function"]), default="class", show_default=True,
    help="A function is shorter; a class can have several outputs.",
)  # fmt: skip
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="[default: NAME with underscores.py]"
)
def new_command(name: str, level: Any, kind: Any, out: Path | None) -> None:
    """Write a probe that works, to be changed into yours, and its test beside it.

    NAME is lower-case words joined by hyphens, for example second-person. Nothing is overwritten.
    """
    from moeprobe.probes.new import new_probe

    path, test = new_probe(name, level=level, kind=kind, path=out)
    called = shlex.quote(str(path))
    click.echo(
        printable(
            f"Written: {path} and {test}. The probe works as it stands, on an example (enthusiasm): make it yours.\n\n"
            f"Next: moeprobe probes check {called}\n"
            f"      python -m pytest {shlex.quote(str(test))}\n"
            f"      moeprobe correlate RUN.trace --probe {called}"
        )
    )


def _set_to(parameters: dict[str, Any]) -> str:
    """For example "every=2, strict=true"."""
    from moeprobe.probes.parameters import spelled

    return spelled(parameters)[1:-1]


probes.add_command(check_command)
probes.add_command(agree_command)
