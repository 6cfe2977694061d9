"""What `interchange dose` and `interchange cascade` share: one expert of a model, its shams, prompts, the result."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.interchange.result import finish
from moeprobe.cli.interchange.source import asked_question, check_source, open_source
from moeprobe.cli.options import Command
from moeprobe.cli.terminal import progress_bar, quiet_libraries
from moeprobe.files import check_output

if TYPE_CHECKING:
    from moeprobe.interchange import TokenPair
    from moeprobe.models import LoadedModel
    from moeprobe.sites import Site

_FILE = click.Path(path_type=Path)


def subject_options(function: Command) -> Command:
    """--prompts, --side, --site, --sham, --shams, --bootstrap, -o."""
    for option in (
        click.option("-o", "--out", type=_FILE, help="Write everything, prompt by prompt, as JSON."),
        click.option("--bootstrap", type=click.IntRange(100), default=2_000, show_default=True,
                     help="Draws over prompts."),
        click.option("--shams", "sham_count", type=click.IntRange(0), default=5, show_default=True,
                     help="Other experts of the layer to compare with, nearest in use."),
        click.option("--sham", "shams", multiple=True, metavar="SITE", help="Or name them; may be repeated."),
        click.option("--site", required=True, metavar="SITE", help="The expert, e.g. L14.E114."),
        click.option("--side", type=click.Choice(["sensitive", "control"]), default="sensitive", show_default=True,
                     help="Which prompts of the pairs are run."),
        click.option("--prompts", "prompt_file", type=_FILE, help="Instead of pairs: single prompts, with --model."),
    ):  # fmt: skip
        function = option(function)
    return function


@dataclass
class Request:
    """What the options ask for. Made, and so checked, before a model is loaded: a mistake should cost a second.

    Attributes:
        findings: a findings file, or None.
        options: as `source_options`, `subject_options` and `model_options` give them.
        force: replace an output that exists.

    Raises:
        click.UsageError: options that contradict each other.
        MoeprobeError: a site that is none, an output that exists.
    """

    findings: Path | None
    options: dict[str, Any]
    force: bool
    site: "Site" = field(init=False)
    shams: "list[Site] | None" = field(init=False)

    def __post_init__(self) -> None:
        from moeprobe.sites import parse_expert

        prompts = self.options["prompt_file"]
        if prompts is None:
            check_source(self.findings, self.options)
        elif self.findings is not None or self.options["model"] is None or self.options["pair_file"] is not None:
            raise click.UsageError("--prompts FILE goes with --model MODEL, without findings and without --pairs.")
        out = self.options["out"]
        if out is not None:
            inputs = [path for path in (self.findings, prompts, self.options["pair_file"]) if path is not None]
            check_output(out, force=self.force, inputs=inputs)
        self.site = parse_expert(self.options["site"])
        self.shams = [parse_expert(name) for name in self.options["shams"]] or None

    def open(self) -> "tuple[LoadedModel, Sequence[TokenPair]]":
        """The model and the pairs; a single prompt stands on both sides of its own."""
        if self.options["prompt_file"] is not None:
            return self._prompts(self.options["prompt_file"])
        document = question = None
        if self.findings is not None:
            from moeprobe.findings import load_findings

            document = load_findings(self.findings)
            question = asked_question(document, self.options["probe"])
        source = open_source(self.findings, document, question, self.options)
        return source.loaded, source.selection.pairs

    def _prompts(self, path: Path) -> "tuple[LoadedModel, Sequence[TokenPair]]":
        from moeprobe.chat.encode import encode_prompt
        from moeprobe.interchange import TokenPair
        from moeprobe.models import load_model
        from moeprobe.prompts import read_prompts

        prompts = read_prompts(path)
        quiet_libraries()
        names = ("dtype", "device_map", "revision")
        loaded = load_model(self.options["model"], **{name: self.options[name] for name in names})
        ids = [tuple(encode_prompt(loaded.tokenizer, prompt)) for prompt in prompts]
        return loaded, [TokenPair(prompt.id, one, one) for prompt, one in zip(prompts, ids, strict=True)]

    def finish(self, schema: str, loaded: "LoadedModel", result: Any, lines: list[str], *, as_json: bool) -> None:
        """Write and print a result that has to_json()."""
        finish(schema, loaded, result.to_json(), lines, self.options["out"], as_json=as_json)


@contextmanager
def forwards(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar as experiments call it: with (done, all)."""
    with progress_bar(0, "forward", label) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
