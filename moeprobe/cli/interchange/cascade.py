"""`moeprobe interchange cascade`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.interchange.options import run_options, source_options
from moeprobe.cli.interchange.subject import Request, forwards, subject_options
from moeprobe.cli.options import force_option, json_option, model_options
from moeprobe.cli.terminal import printable, table

if TYPE_CHECKING:
    from moeprobe.experiments.downstream import CascadeResult
    from moeprobe.experiments.lens import Direction
    from moeprobe.models import LoadedModel

_SHOWN = (
    ("routers", "replaced", "Later routers: share of their choices that are others now, mean over positions"),
    ("experts", "rate", "Later experts: change of the share of positions that choose them"),
    ("experts", "attribution", "Later experts: change of what they write toward the logit difference"),
    ("parts", "attribution", "Later heads and other parts: change of what they write toward the logit difference"),
)


@click.command(short_help="Knock one expert out: what every later router, expert and head does then.")
@click.argument("findings", metavar="[FINDINGS]", required=False, type=click.Path(path_type=Path))
@source_options
@subject_options
@click.option("--toward", multiple=True, required=True, metavar="WORD", help="Words whose mean logit is attributed.")
@click.option("--away", multiple=True, metavar="WORD", help="Words whose mean logit is taken off it.")
@click.option("--edit", "edits", multiple=True, type=click.Choice(["zero", "bar"]), default=("zero", "bar"),
              show_default=True, help="Contribution set to zero, or barred before top-k.")  # fmt: skip
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Lines per table.")
@run_options
@model_options
@json_option
@force_option
def cascade(findings: Path | None, as_json: bool, force: bool, **options: Any) -> None:
    """Knock one expert out at every position, and list what changes in every later router, expert and head, against the
    same for sham experts of its layer that are used as much.

    Layers before the expert must not change by a bit; that is checked. Nothing is written into FINDINGS.
    """
    request = Request(findings, options, force)

    from moeprobe.experiments.cascade import CascadePlan
    from moeprobe.experiments.cascade import cascade as experiment

    edits = tuple(dict.fromkeys(options["edits"]))
    plan = CascadePlan(edits, options["sham_count"], options["bootstrap"], options["seed"], options["batch_size"])
    loaded, pairs = request.open()
    direction = _direction(loaded, options["toward"], options["away"])
    prompts, names = [pair.side(options["side"]) for pair in pairs], [pair.id for pair in pairs]
    with forwards("cascade") as progress:
        result = experiment(
            loaded, prompts, request.site, direction, plan=plan, shams=request.shams, names=names, progress=progress
        )
    request.finish("moeprobe.cascade/1", loaded, result, _lines(result, options["top"]), as_json=as_json)


def _direction(loaded: "LoadedModel", toward: tuple[str, ...], away: tuple[str, ...]) -> "Direction":
    from moeprobe.experiments.lens import Direction
    from moeprobe.pairs.token_sets import refuse_overlap, token_set

    positive = token_set(loaded, toward, "set --toward")
    if not away:
        return Direction(positive.ids, (), f"mean logit of {positive.words}")
    negative = token_set(loaded, away, "set --away")
    refuse_overlap(positive, negative, ("set --toward", "set --away"))
    name = f"mean logit of {positive.words} minus that of {negative.words}"
    return Direction(positive.ids, negative.ids, name)


def _lines(result: "CascadeResult", top: int) -> list[str]:
    shams = ", ".join(map(str, result.shams)) or "none"
    lines = [printable(f"{len(result.prompts)} prompts. Shams: {shams}."), *map(printable, result.sentences())]
    for edit in result.edits:
        for kind, measure, words in _SHOWN:
            units = result.edits[edit][result.site].kinds[kind]
            if measure not in units.measures:
                gone = f"{edit}: there are no later {kind}."
                if not result.refused and gone not in lines:
                    lines += ["", gone]
                continue
            head, rows = result.table(edit, kind, measure, top)
            lines += ["", f"{edit}. {words}", table(head, rows) if rows else "  none changed"]
    return lines
