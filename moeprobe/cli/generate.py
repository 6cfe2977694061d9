"""`moeprobe generate`."""

import json
import os
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.options import json_option, model_options
from moeprobe.cli.terminal import printable, progress_bar, quiet_libraries
from moeprobe.errors import PromptError

if TYPE_CHECKING:
    from moeprobe.editing import Edit, EditedText
    from moeprobe.prompts import Prompt

# Stands before the first character that an edit changed.
_MARK = "‖"
_NARROWEST = 40


@click.command(short_help="Text with and without edits of experts, heads, streams.")
@click.argument("model", metavar="MODEL")
@click.option("--prompt", "texts", multiple=True, metavar="TEXT", help="What to ask; repeatable.")
@click.option("--prompts", type=click.Path(path_type=Path), metavar="FILE", help="Or a prompt file, as for trace.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N prompts of the file.")
@click.option("--edit", "edits", multiple=True, metavar="EDIT", help="An arm of edits (see above); repeatable.")
@click.option("--donor", "donors", multiple=True, metavar="TEXT", help="Donor prompt: one for all, or one for each.")
@click.option("--pair-donors", is_flag=True, help="The donor of a prompt is the other prompt of its pair.")
@click.option("--resample-from", type=click.Path(path_type=Path), metavar="FILE", help="Prompts resample draws from.")
@click.option("--mean-prompts", type=click.Path(path_type=Path), metavar="FILE", help="Prompts of the mean.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=64, show_default=True, help="Per generation.")
@click.option("--sample", is_flag=True, help="Draw tokens; without it decoding is greedy.")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="With --sample.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="With --sample.")
@click.option("--samples", type=click.IntRange(1), default=1, show_default=True, help="Generations per prompt.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all draws.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Sequences per batch.")
@click.option(
    "--prefill-chunk", type=click.IntRange(0), default=0, metavar="N", help="Forward N prompt tokens at once."
)
@click.option(
    "--cache",
    type=click.Choice(["dynamic", "static"]),
    default="dynamic",
    show_default=True,
    help="Key-value cache that grows, or one of fixed size.",
)
@click.option("--stop", multiple=True, metavar="TEXT", help="End a generation where TEXT is complete; repeatable.")
@click.option("--keep-loops", is_flag=True, help="Do not trim a verbatim loop at the end of a generation.")
@click.option("--raw", is_flag=True, help="Do not put plain prompts through the chat template.")
@click.option(
    "--template-option", multiple=True, metavar="NAME=JSON", help="For the chat template: enable_thinking=false."
)
@click.option("--columns", is_flag=True, help="Without and with the edit in two columns.")
@model_options
@json_option
def generate(model: str, **options: Any) -> None:
    """Generate text with MODEL, without and with edits that are held at every step, of the prompt and of the answer.

    \b
    An EDIT is VERB:SITES, then =NUMBER where the verb takes one:
      zero:L18.E5           the expert's contribution is 0 (a hole: nothing stands in for it)
      scale:L18.E5=0.5      its contribution times a number
      bar:L18.E5            never chosen; the router takes the next best
      force:L18.E5          always chosen
      bias:L18.E5=+2.5      added to its router score
      mean:L18.E5           its mean contribution over --mean-prompts
      swap:L18.E5           its contribution in the donor's run (--donor, --pair-donors)
      swap-output:, swap-routing:   only what it computes, only its weight
      noise:L18.E5          noise as long as what the swap would change
      resample:L18.E5       as swap, from a prompt drawn from --resample-from
    SITES: L18.E5, L18.E3+E5, L13-L16.H*, L18.router, L18.shared, L18.moe, L18.residual.
    "@prompt" or "@answer" at the end: only there. " / " between edits: both at once, in one arm.

    With --json one object per prompt, sample and arm is printed, each on its own line.
    """
    entries = _prompts(options)
    parts = _run(model, entries, options)
    if options["as_json"]:
        for part in parts:
            click.echo(json.dumps(_record(model, part)))
        return
    shown: tuple[str, int] | None = None
    color = False if os.environ.get("NO_COLOR") else None
    for part in parts:
        one = part.made
        if shown != (one.prompt.id, one.sample):
            shown = one.prompt.id, one.sample
            click.echo(_heading(one, options["samples"]), color=color)
        if one.edits or not (options["columns"] and options["edits"]):
            click.echo(_block(part, columns=options["columns"]), color=color)


@dataclass(frozen=True)
class Part:
    """One generation of one arm, and the one it is compared with: the same batch, unedited."""

    made: "EditedText"
    without: "EditedText"

    @property
    def first_token(self) -> int | None:
        """The first generated token that differs, counted from 0; None where none does."""
        left, right = self.without.tokens, self.made.tokens
        same = _same(left, right)
        return None if same == len(left) == len(right) else same

    @property
    def first_character(self) -> int:
        """How many characters at the beginning are the same."""
        return _same(self.without.text, self.made.text)


def _same(left: Sequence[object], right: Sequence[object]) -> int:
    """How many items at the beginning are the same."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(left), len(right)))


def _prompts(options: dict[str, Any]) -> list["Prompt"]:
    """The prompts that were asked for. Before the model is loaded: a mistake should cost a second, not minutes."""
    from moeprobe.prompts import Prompt, read_prompts

    if bool(options["texts"]) == (options["prompts"] is not None):
        raise click.UsageError("What is to be asked? Give --prompt TEXT, or --prompts FILE, and not both.")
    if options["donors"] and options["pair_donors"]:
        raise click.UsageError("Donors come from --donor or from --pair-donors, not from both.")
    if options["prompts"] is not None:
        return read_prompts(options["prompts"], limit=options["limit"])
    if options["pair_donors"] or options["limit"] is not None:
        raise click.UsageError("--pair-donors and --limit go with --prompts FILE.")
    return [Prompt(f"prompt-{number}", text) for number, text in enumerate(options["texts"], 1)]


def _donors(entries: Sequence["Prompt"], options: dict[str, Any]) -> "list[Prompt] | Prompt | None":
    """One donor for each prompt, one for all, or none."""
    from moeprobe.prompts import Prompt

    if options["pair_donors"]:
        return partners(entries)
    given = [Prompt(f"donor-{number}", text) for number, text in enumerate(options["donors"], 1)]
    return given[0] if len(given) == 1 else given or None


def partners(entries: Sequence["Prompt"]) -> list["Prompt"]:
    """The other prompt of each prompt's pair.

    Raises:
        PromptError: a prompt without a pair, or a pair that has not exactly two.
    """
    pairs: dict[str | None, list[Prompt]] = {}
    for entry in entries:
        pairs.setdefault(entry.pair, []).append(entry)
    for entry in entries:
        size = len(pairs[entry.pair])
        if entry.pair is None or size != 2:
            found = "no pair" if entry.pair is None else f"a pair of {size} ({entry.pair!r})"
            raise PromptError(f"--pair-donors needs pairs of two prompts; {entry.id!r} has {found}.")
    return [next(other for other in pairs[entry.pair] if other is not entry) for entry in entries]


def _run(name: str, entries: list["Prompt"], options: dict[str, Any]) -> list[Part]:
    """All arms of all prompts, ordered by prompt, sample and arm."""
    from moeprobe.cli.trace import parse_template
    from moeprobe.prompts import read_prompts

    files = {key: options[key] for key in ("resample_from", "mean_prompts")}
    pool, mean = ([] if path is None else read_prompts(path) for path in files.values())
    donors, template = _donors(entries, options), parse_template(options["template_option"])
    quiet_libraries()
    from moeprobe.editing import find_places, generate_edited, layout_of, parse_edits
    from moeprobe.engines import Decoding
    from moeprobe.models import load_model

    names = ("max_new_tokens", "sample", "temperature", "top_p", "samples", "seed", "batch_size", "prefill_chunk",
             "cache", "stop")  # fmt: skip
    decoding = Decoding(**{key: options[key] for key in names}, trim_loops=not options["keep_loops"])
    loaded = load_model(name, **{key: options[key] for key in ("dtype", "device_map", "revision")})
    arms = [parse_edits(text, layout_of(find_places(loaded.model))) for text in dict.fromkeys(options["edits"])]
    _check_donors(arms, options)
    with progress_bar(0, "generation", "generating") as bar:

        def produce(edits: "tuple[Edit, ...]", beside: Any) -> "list[EditedText]":
            """One arm over all prompts, with donors beside them or not."""
            bar.total = (bar.total or 0) + len(entries) * decoding.samples
            before = bar.n

            def show(done: int, total: int) -> None:
                del total
                bar.update(before + done - bar.n)

            return generate_edited(
                loaded, entries, edits, decoding, donors=beside, pool=pool, mean_prompts=mean, raw=options["raw"],
                template=template, progress=show,
            )  # fmt: skip

        return _compared(arms, donors, decoding.samples, produce)


def _check_donors(arms: "list[tuple[Edit, ...]]", options: dict[str, Any]) -> None:
    needed = {edit.needs for arm in arms for edit in arm}
    given = {
        "donor": ("--donor or --pair-donors", bool(options["donors"] or options["pair_donors"])),
        "pool": ("--resample-from", options["resample_from"] is not None),
        "means": ("--mean-prompts", options["mean_prompts"] is not None),
    }
    for need, (option, there) in given.items():
        if there and need not in needed:
            raise click.UsageError(f"No edit makes use of {option}; leave it out, or add the edit.")
        if need in needed and not there:
            raise click.UsageError(f"An edit needs {option}.")


def _compared(
    arms: "list[tuple[Edit, ...]]", donors: Any, samples: int, produce: "Callable[..., list[EditedText]]"
) -> list[Part]:
    """Every arm beside the same batch unedited: with donors in it where the arm has them."""
    plain = produce((), None)
    columns = [[Part(one, one) for one in plain]]
    beside: dict[str, list[EditedText]] = {}
    for arm in arms:
        needs = {edit.needs for edit in arm}
        made = produce(arm, donors if "donor" in needs else None)
        base = plain
        lending = [one.donor for one in made[::samples]]
        if lending[0] is not None:
            key = repr(lending)
            if key not in beside:
                beside[key] = produce((), lending)
            base = beside[key]
        columns.append([Part(one, without) for one, without in zip(made, base, strict=True)])
    return [column[place] for place in range(len(plain)) for column in columns]


def _record(model: str, part: Part) -> dict[str, Any]:
    from moeprobe.editing import arm_name

    one = part.made
    first = part.first_token
    return {
        "model": model,
        "prompt": one.prompt.id,
        "sample": one.sample,
        "arm": arm_name(one.edits),
        "donor": None if one.donor is None else one.donor.id,
        "unpaired_prompt_tokens": one.unpaired,
        "text": one.text,
        "tokens": len(one.tokens),
        "stop": one.stop,
        "without": part.without.text,
        "first_difference": None if first is None else {"token": first, "character": part.first_character},
    }


def _heading(one: "EditedText", samples: int) -> str:
    asked = one.prompt.prompt if one.prompt.messages is None else one.prompt.messages[-1].get("content", "")
    number = f" (sample {one.sample + 1})" if samples > 1 else ""
    title = click.style(printable(one.prompt.id) + number, bold=True)
    return f"{title}: {printable(' '.join(str(asked).split()))}\n"


def _block(part: Part, *, columns: bool) -> str:
    """One arm of one prompt, as text for the terminal."""
    from moeprobe.editing import arm_name

    one = part.made
    if not one.edits:
        return f"  without an edit:\n{_indented(_shown(one.text))}\n"
    notes = []
    if one.donor is not None:
        notes.append(f"donor {one.donor.id}")
    if one.unpaired:
        notes.append(f"the first {one.unpaired} prompt tokens have no partner and keep their own value")
    notes.append("the same text" if part.first_token is None else f"differs from token {part.first_token + 1} on")
    head = f"  {printable(arm_name(one.edits))} ({printable('; '.join(notes))}):"
    if columns:
        return f"{head}\n{_beside(_shown(part.without.text), _marked(part, style=False))}\n"
    return f"{head}\n{_indented(_marked(part, style=True))}\n"


def _marked(part: Part, *, style: bool) -> str:
    """The edited text with a mark before the first character that differs."""
    if part.first_token is None:
        return _shown(part.made.text)
    start, end = part.made.text[: part.first_character], part.made.text[part.first_character :]
    rest = _MARK + printable(end)
    return printable(start) + (click.style(rest, bold=True) if style else rest)


def _shown(text: str) -> str:
    return printable(text) if text.strip() else "(nothing)"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _beside(left: str, right: str) -> str:
    """Two texts in two columns as wide as the terminal allows."""
    width = max(_NARROWEST, (shutil.get_terminal_size().columns - 7) // 2)
    sides = [
        [row for line in text.split("\n") for row in textwrap.wrap(line.expandtabs(4), width) or [""]]
        for text in (left, right)
    ]
    height = max(map(len, sides))
    rows = zip(*(side + [""] * (height - len(side)) for side in sides), strict=True)
    return "\n".join(f"    {one.ljust(width)} | {other}".rstrip() for one, other in rows)
