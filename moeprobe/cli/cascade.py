"""`moeprobe interchange cascade`."""

from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.options import force_option, json_option, model_options
from moeprobe.cli.subjects import Request, forwards, subject_options, word_list
from moeprobe.cli.terminal import printable, table

if TYPE_CHECKING:
    from moeprobe.interchange.downstream import CascadeResult

_SHOWN = (
    ("routers", "replaced", "Later routers: share of their choices that are others now, mean over positions"),
    ("experts", "rate", "Later experts: change of the share of positions that choose them"),
    ("experts", "attribution", "Later experts: change of what they write toward the logit difference"),
    ("parts", "attribution", "Later heads and other parts: change of what they write toward the logit difference"),
)


@click.command(short_help="Knock one expert out: what every later router, expert and head does then.")
@click.argument("model", metavar="MODEL")
@subject_options
@click.option("--toward", multiple=True, required=True, metavar="WORD",
              help="Tokens whose mean logit is attributed; word or #id; may be repeated.")  # fmt: skip
@click.option("--against", multiple=True, metavar="WORD", help="Tokens whose mean logit is taken off it.")
@click.option("--edit", "edits", multiple=True, type=click.Choice(["zero", "bar"]), default=("zero", "bar"),
              show_default=True, help="Contribution set to zero, or barred before top-k.")  # fmt: skip
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Lines per table.")
@model_options
@json_option
@force_option
def cascade(model: str, as_json: bool, force: bool, **options: Any) -> None:
    """Knock one expert of MODEL out at every position, and list what changes in every later router, expert and head,
    against the same for sham experts of its layer that are used as much.

    Layers before the expert must not change by a bit; that is checked.
    """
    from moeprobe.interchange.cascade import CascadePlan
    from moeprobe.interchange.cascade import cascade as experiment
    from moeprobe.interchange.lens import Direction
    from moeprobe.interchange.token_sets import refuse_overlap, token_set

    plan = CascadePlan(
        tuple(dict.fromkeys(options["edits"])), options["sham_count"], options["bootstrap"], options["seed"],
        options["batch_size"],
    )  # fmt: skip
    request = Request(model, options, force=force)
    loaded = request.load()
    toward = token_set(loaded, word_list(options["toward"], "--toward"), "set --toward")
    name, negative = f"mean logit of {toward.words}", tuple[int, ...]()
    if options["against"]:
        against = token_set(loaded, word_list(options["against"], "--against"), "set --against")
        refuse_overlap(toward, against, ("set --toward", "set --against"))
        name, negative = f"{name} minus that of {against.words}", against.ids
    pairs = request.pairs(loaded)
    with forwards("cascade") as progress:
        result = experiment(
            loaded, [pair.side(options["side"]) for pair in pairs], request.site, Direction(toward.ids, negative, name),
            plan=plan, shams=request.chosen_shams, names=[pair.id for pair in pairs], progress=progress,
        )  # fmt: skip
    lines = _lines(result, options["top"])
    request.finish(request.document("moeprobe.cascade/1", loaded, result.to_json()), lines, as_json=as_json)


def _lines(result: "CascadeResult", top: int) -> list[str]:
    shams = ", ".join(map(str, result.shams)) or "none"
    lines = [printable(f"{len(result.prompts)} prompts. Shams: {shams}."), *map(printable, result.sentences())]
    for edit in result.edits:
        for kind, measure, words in _SHOWN:
            units = result.edits[edit][result.site].kinds[kind]
            if measure not in units.measures:
                if not result.refused:
                    lines += ["", f"{edit}: there are no later {kind}."]
                continue
            head, rows = result.table(edit, kind, measure, top)
            lines += ["", f"{edit}. {words}", table(head, rows) if rows else "  none changed"]
    return lines
