"""Options and loading that `interchange dose` and `interchange cascade` share: a model, prompts, one expert, shams."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.options import Command
from moeprobe.cli.terminal import command_line, printable, progress_bar, quiet_libraries
from moeprobe.errors import InterchangeError
from moeprobe.files import check_output, write_text

if TYPE_CHECKING:
    from moeprobe.interchange.pair_file import PairText
    from moeprobe.interchange.pairs import TokenPair
    from moeprobe.models import LoadedModel
    from moeprobe.prompts import Prompt

_FILE = click.Path(path_type=Path)


def subject_options(function: Command) -> Command:
    """--pairs, --positive, --prompts, --side, --site, --sham, --shams, --raw, --bootstrap, --seed, --batch-size, -o."""
    for option in (
        click.option("-o", "--out", type=_FILE, help="Write everything, prompt by prompt, as JSON."),
        click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Prompts per forward."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the bootstrap."),
        click.option("--bootstrap", type=click.IntRange(100), default=2_000, show_default=True, help="Draws."),
        click.option("--raw", is_flag=True, help="Do not put plain prompts through the chat template."),
        click.option("--shams", "sham_count", type=click.IntRange(0), default=5, show_default=True,
                     help="Other experts of the layer to compare with, nearest in use."),
        click.option("--sham", "shams", multiple=True, metavar="SITE", help="Or name them; may be repeated."),
        click.option("--site", required=True, metavar="SITE", help="The expert, e.g. L14.E114."),
        click.option("--side", type=click.Choice(["sensitive", "control"]), default="sensitive", show_default=True,
                     help="With --pairs: which prompts are run."),
        click.option("--positive", metavar="LABEL", help="With --pairs and a prompt file: the sensitive label."),
        click.option("--prompts", "prompt_file", type=_FILE, help="Or single prompts, one a line or JSONL."),
        click.option("--pairs", "pair_file", type=_FILE, help="JSONL with pairs."),
    ):  # fmt: skip
        function = option(function)
    return function


class Request:
    """What the options ask for, checked before a model is loaded: a mistake should cost a second.

    Args:
        options: as `subject_options` and `model_options` give them.

    Raises:
        click.UsageError: options that contradict each other.
        MoeprobeError: a file that cannot be read, a site that is none, an output that exists.
    """

    def __init__(self, model: str, options: dict[str, Any], *, force: bool) -> None:
        from moeprobe.interchange.pair_file import is_pair_file, read_pairs
        from moeprobe.prompts import read_prompts
        from moeprobe.sites import parse_expert

        self.model, self.options = model, options
        pairs, prompts = options["pair_file"], options["prompt_file"]
        if (pairs is None) == (prompts is None):
            raise click.UsageError("Give --pairs FILE or --prompts FILE, and not both.")
        if options["positive"] is not None and pairs is None:
            raise click.UsageError("--positive goes with --pairs; --prompts runs every prompt.")
        self.source: Path = pairs if prompts is None else prompts
        if options["out"] is not None:
            check_output(options["out"], force=force, inputs=[self.source])
        self.site = parse_expert(options["site"])
        self.shams = [parse_expert(name) for name in options["shams"]]
        self._written: list[PairText] | None = None
        self._prompts: list[Prompt] = []
        if pairs is not None and is_pair_file(pairs):
            if options["positive"] is not None:
                raise click.UsageError(f"{pairs} says itself which prompts are sensitive; leave --positive out.")
            self._written = read_pairs(pairs)
        else:
            self._prompts = read_prompts(self.source)
            if pairs is not None and options["positive"] is None:
                raise click.UsageError(f"{pairs} holds prompts with labels; say which label is sensitive: --positive.")

    @property
    def chosen_shams(self) -> Any:
        """The shams that were named, or None."""
        return self.shams or None

    def load(self) -> "LoadedModel":
        """The model."""
        from moeprobe.models import load_model

        quiet_libraries()
        names = ("dtype", "device_map", "revision")
        return load_model(self.model, **{name: self.options[name] for name in names})

    def pairs(self, loaded: "LoadedModel") -> "list[TokenPair]":
        """The pairs as token ids; a single prompt stands on both sides of its own."""
        from moeprobe.chat.encode import encode_prompt
        from moeprobe.interchange.pair_file import encode_pairs
        from moeprobe.interchange.pairs import TokenPair, label_members, select_pairs

        raw = self.options["raw"]
        if self._written is not None:
            return list(encode_pairs(loaded, self._written, name=self.source.name, raw=raw).pairs)
        ids = [tuple(encode_prompt(loaded.tokenizer, prompt, raw=raw)) for prompt in self._prompts]
        if self.options["pair_file"] is None:
            return [TokenPair(prompt.id, one, one) for prompt, one in zip(self._prompts, ids, strict=True)]
        members = label_members(self._prompts, ids, self.options["positive"])
        return list(select_pairs(members, what=str(self.source)).pairs)

    def document(self, schema: str, loaded: "LoadedModel", result: dict[str, Any]) -> dict[str, Any]:
        """The result with what it was made with."""
        from moeprobe.models import engine_section, versions_section

        return {
            "schema": schema, "command": command_line(), "model": loaded.provenance,
            "engine": engine_section(loaded.model), "versions": versions_section(),
            "prompts_from": self.source.name, **result,
        }  # fmt: skip

    def finish(self, document: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
        """Write and print the result."""
        text = json.dumps(document, indent=1, allow_nan=False)
        out: Path | None = self.options["out"]
        if out is not None:
            write_text(out, text + "\n")
        if as_json:
            click.echo(text)
            return
        for line in lines:
            click.echo(line)
        if out is not None:
            click.echo(printable(f"\nWritten to {out}."))


@contextmanager
def forwards(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar as experiments call it: with (done, all)."""
    with progress_bar(0, "forward", label) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def word_list(words: tuple[str, ...], what: str) -> list[str | int]:
    """Words, or token ids written as #123.

    Raises:
        InterchangeError: a # without a number behind it.
    """
    result: list[str | int] = []
    for word in words:
        if word.startswith("#"):
            if not word[1:].isascii() or not word[1:].isdigit() or len(word) > 10:
                raise InterchangeError(f"{word[:20]!r} of {what} is no token id. Write for example #1234.")
            result.append(int(word[1:]))
        else:
            result.append(word)
    return result
