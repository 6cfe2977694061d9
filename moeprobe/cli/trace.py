"""`moeprobe trace`."""

import json
import re
import sys
from pathlib import Path
from typing import Any, BinaryIO

import click

from moeprobe.cli.options import force_option, model_options
from moeprobe.cli.terminal import printable, progress_bar, quiet_libraries
from moeprobe.errors import CaptureError, PromptError
from moeprobe.files import check_output


@click.command(short_help="Record every routing decision of a generation run.")
@click.argument("prompts", metavar="PROMPTS")
@click.option("-m", "--model", required=True, metavar="MODEL", help="Folder, hub id, or built in: compiled, smollm2.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Directory of the trace.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Run only the first N prompts.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=64, show_default=True, help="Per generation.")
@click.option("--sample", is_flag=True, help="Draw tokens; without it decoding is greedy.")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="With --sample.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="With --sample.")
@click.option("--samples", type=click.IntRange(1), default=1, show_default=True, help="Generations per prompt.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Sequences per batch.")
@click.option("--beams", type=click.IntRange(1), default=1, show_default=True, help="Width of a beam search.")
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
@click.option("--compile", is_flag=True, help="Compile decoding; needs --cache static.")
@click.option("--continuous", is_flag=True, help="transformers' continuous batching: packed rows, no padding.")
@click.option("--prompt-lookup", type=click.IntRange(0), default=0, metavar="N", help="Draft N tokens from the prompt.")
@click.option("--assistant", metavar="MODEL", help="A smaller model with the same tokenizer that drafts tokens.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End a generation where TEXT is complete; repeatable.")
@click.option("--keep-loops", is_flag=True, help="Do not trim a verbatim loop at the end of a generation.")
@click.option("--raw", is_flag=True, help="Do not put plain prompts through the chat template.")
@click.option(
    "--template-option", multiple=True, metavar="NAME=JSON", help="For the chat template: enable_thinking=false."
)
@click.option("--layers", metavar="LIST", help="Record these layers only, for example 3,14-20.")
@click.option("--what", multiple=True, metavar="SIGNAL", help="Record this too (see above); repeatable.")
@click.option(
    "--hash-weights", is_flag=True, help="Hash every byte of the weight files, not a sample, for the manifest."
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run of the same command.")
@model_options
@force_option
def trace(prompts: str, **options: Any) -> None:
    """Generate for every prompt and record which experts every token chose, and with what weight.

    PROMPTS is a JSONL file with one object per line (id, prompt or messages, optional pair, label, metadata), a text
    file with one prompt per line, or - for standard input.

    \b
    Signals for --what (":14,20" after a name: these layers only):
      logits        what the router returned for every expert
      margin        k-th minus (k+1)-th score, and whether rounding may flip it
      shared-gate   weight of the shared expert
      router-input  what the router reads
      norms         length of each chosen expert's output
      residual:14   the residual stream after layer 14
      entropy       of the next-token distribution
      logprob       of the token that came next
    """
    run(prompts, **options)


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise PromptError("Standard input is closed, so no prompts can be read from it.")
    return sys.stdin.buffer


def run(prompts: str, *, model: str, out: Path, force: bool, limit: int | None, raw: bool, **options: Any) -> None:
    """The work of the command; options as on the command line."""
    from moeprobe.prompts import read_prompts

    # Before the model is loaded: a mistake should cost a second, not minutes.
    entries = read_prompts(_stdin() if prompts == "-" else Path(prompts), limit=limit)
    layers, template = parse_layers(options["layers"]), parse_template(options["template_option"])
    check_output(out, force=force or options["resume"])
    from moeprobe.engines import Decoding, record
    from moeprobe.models import load_model

    decoding = Decoding(**_decoding(options))
    quiet_libraries()
    names = ("dtype", "device_map", "revision", "hash_weights")
    loaded = load_model(model, **{name: options[name] for name in names})
    assistant = None
    if options["assistant"] is not None:
        assistant = load_model(options["assistant"], dtype=options["dtype"], device_map=options["device_map"])
    with progress_bar(len(entries) * decoding.samples, "generation", "tracing") as bar:

        def show(done: int, total: int, tokens: int) -> None:
            del total
            bar.update(done - bar.n)
            bar.set_postfix_str(f"{tokens / max(bar.format_dict['elapsed'], 1e-9):,.0f} tokens/s")

        result = record(
            loaded, entries, out, decoding=decoding, raw=raw, template=template, force=force, resume=options["resume"],
            source="standard input" if prompts == "-" else Path(prompts).name,
            what=options["what"], layers=layers, assistant=assistant, progress=show,
            announce=lambda size: bar.write(printable(f"{out}: {size}."), file=sys.stderr),
        )  # fmt: skip
    sites = len(result.manifest.layers)
    click.echo(
        printable(f"{out}: {result.manifest.generations} generations, {result.manifest.rows:,} routed tokens, ")
        + f"{sites} MoE layer{'s' if sites != 1 else ''}."
    )


def parse_layers(text: str | None) -> list[int] | None:
    """Read "3,14-20".

    Raises:
        CaptureError: another form.
    """
    if text is None:
        return None
    layers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*L?(\d{1,6})(?:\s*-\s*L?(\d{1,6}))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise CaptureError(f"--layers {text!r} is no list of layers; write for example 3,14-20.")
        layers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(layers)


def parse_template(items: tuple[str, ...]) -> dict[str, Any]:
    """Read "NAME=JSON" items; what is no JSON is a text.

    Raises:
        PromptError: another form, or a name the tokenizer itself uses.
    """
    options: dict[str, Any] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            raise PromptError(f"--template-option {item!r} is no NAME=JSON; write for example enable_thinking=false.")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    if options:
        from moeprobe.chat.encode import check_template

        check_template(options)
    return options


def _decoding(options: dict[str, Any]) -> dict[str, Any]:
    names = (
        "max_new_tokens", "sample", "temperature", "top_p", "samples", "seed", "batch_size", "beams", "prefill_chunk",
        "cache", "compile", "continuous", "prompt_lookup", "stop",
    )  # fmt: skip
    assistant = {"assistant": options["assistant"] or ""}
    return {name: options[name] for name in names} | {"trim_loops": not options["keep_loops"]} | assistant
