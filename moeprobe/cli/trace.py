"""`moeprobe trace`."""

import sys
from pathlib import Path
from typing import Any, BinaryIO

import click

from moeprobe.cli.options import force_option, model_options
from moeprobe.cli.terminal import printable, progress_bar, quiet_libraries
from moeprobe.errors import PromptError
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
@click.option("--raw", is_flag=True, help="Do not put plain prompts through the chat template.")
@model_options
@force_option
def trace(prompts: str, **options: Any) -> None:
    """Generate for every prompt and record which experts every token chose, and with what weight.

    PROMPTS is a JSONL file with one object per line (id, prompt or messages, optional pair, label, metadata), a text
    file with one prompt per line, or - for standard input.
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
    check_output(out, force=force)
    from moeprobe.engines import Decoding, record
    from moeprobe.models import load_model

    names = ("max_new_tokens", "sample", "temperature", "top_p", "samples", "seed", "batch_size")
    decoding = Decoding(**{name: options[name] for name in names})
    quiet_libraries()
    loaded = load_model(model, dtype=options["dtype"], device_map=options["device_map"], revision=options["revision"])
    with progress_bar(len(entries) * decoding.samples, "generation", "tracing") as bar:

        def show(done: int, total: int, tokens: int) -> None:
            del total
            bar.update(done - bar.n)
            bar.set_postfix_str(f"{tokens / max(bar.format_dict['elapsed'], 1e-9):,.0f} tokens/s")

        source = "standard input" if prompts == "-" else Path(prompts).name
        result = record(loaded, entries, out, decoding=decoding, raw=raw, source=source, force=force, progress=show)
    sites = len(result.manifest.layers)
    click.echo(
        printable(f"{out}: {result.manifest.generations} generations, {result.manifest.rows:,} routed tokens, ")
        + f"{sites} MoE layer{'s' if sites != 1 else ''}."
    )
