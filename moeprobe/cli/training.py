"""`moeprobe probes train`."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.options import force_option, json_option
from moeprobe.cli.terminal import printable, table

if TYPE_CHECKING:
    from moeprobe.probes import Example, Quality
    from moeprobe.probes.trained import Telling, TextProbe

FEW = 30
"""Fewer examples of a label than this are warned about."""

_SHOWN = 8


@click.command("train")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="JSONL: text, label 0 or 1, and the prompt, which keeps answers to it in one fold.",
)
@click.option("--name", required=True, help="Name of the probe: lower-case words and hyphens.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="Where the probe is saved."
)
@click.option(
    "--level",
    type=click.Choice(["sentence", "generation"]),
    default="generation",
    show_default=True,
    help="Score each sentence and mark it, or the passage as a whole.",
)
@click.option("--definition", default="", metavar="TEXT", help="What counts, in a sentence or two.")
@click.option("--folds", type=click.IntRange(2, 100), default=5, show_default=True, help="Of cross-validation.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Deals prompts to folds.")
@force_option
@json_option
def train_command(
    labels: Path,
    name: str,
    output: Path,
    level: Any,
    definition: str,
    folds: int,
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Learn a probe from labelled text.

    How good it is comes from folds that part no prompt and no near-copies. Look at the words it goes by: where they
    name the topic and not the register, give negative examples on the same topic.
    """
    from moeprobe.files import check_output
    from moeprobe.probes import check_probe_quality, read_labels
    from moeprobe.probes.trained import TextProbe, telling_ngrams

    check_output(output, force=force, inputs=[labels])
    given = read_labels(labels)
    probe = TextProbe(name, level=level, definition=definition, folds=folds, seed=seed)
    probe.fit(given)
    quality = check_probe_quality(probe.cross_validated())
    telling, warnings = telling_ngrams(probe, _SHOWN), _warnings(probe, given, quality)
    probe.save(output, force=force)
    for warning in warnings:
        click.echo(printable(f"warning: {warning}"), err=True)
    if as_json:
        click.echo(json.dumps(_document(probe, quality, telling, warnings), indent=1))
        return
    click.echo(printable(_text(probe, quality, telling)))
    click.echo(printable(f"\nWritten to {output}. Use it as --probe {_spec(output)}"))


def _warnings(probe: "TextProbe", given: "list[Example]", quality: "Quality") -> list[str]:
    used = probe.examples_
    positives = sum(one.label for one in used)
    found = []
    if len(given) > len(used):
        found.append(f"{len(given) - len(used)} examples without text were left out.")
    if min(positives, len(used) - positives) < FEW:
        found.append(
            f"only {positives} positive and {len(used) - positives} negative examples. Below {FEW} of each, a probe "
            "learns the phrases of its examples; give more."
        )
    group, size = Counter(probe.groups_.tolist()).most_common(1)[0]
    if 2 * size > len(used):
        found.append(
            f"{size} of {len(used)} examples belong to one prompt or are near-copies of each other (the first is "
            f"example {probe.groups_.tolist().index(group) + 1}). Label answers to more prompts."
        )
    made = int(probe.folds_.max()) + 1
    if made < probe.folds:
        found.append(f"{made} folds instead of {probe.folds}: so few prompts hold one of the labels.")
    low = quality.balanced_accuracy.low
    if low is not None and low <= 0.5:
        found.append(
            "on prompts that it had not seen it may do no better than a coin (the interval of the balanced accuracy "
            "reaches to .5 or below). Do not use it."
        )
    if probe.level == "sentence" and _long(probe):
        found.append(
            "half of the examples have more than three sentences. At level sentence, label single sentences, or use "
            "--level generation."
        )
    return found


def _long(probe: "TextProbe") -> bool:
    from moeprobe.probes import split_sentences

    return 2 * sum(len(split_sentences(one.text)) > 3 for one in probe.examples_) > len(probe.examples_)


def _document(probe: "TextProbe", quality: "Quality", telling: "list[Telling]", warnings: list[str]) -> dict[str, Any]:
    measured = asdict(quality)
    return {
        "name": probe.name, "version": probe.version, "level": probe.level, "definition": probe.definition,
        "examples": len(probe.examples_), "groups": int(probe.groups_.max()) + 1, "folds": int(probe.folds_.max()) + 1,
        "penalty": probe.model_.penalty, "on": "cross-validation", "quality": measured,
        "telling": [asdict(one) for one in telling], "warnings": warnings,
    }  # fmt: skip


def _text(probe: "TextProbe", quality: "Quality", telling: "list[Telling]") -> str:
    positives = sum(one.label for one in probe.examples_)
    lines = [
        f"{probe.name} {probe.version} ({probe.level} level)",
        f"{positives} positive and {len(probe.examples_) - positives} negative examples, "
        f"{int(probe.groups_.max()) + 1} prompts or sets of near-copies, {int(probe.folds_.max()) + 1} folds",
        "",
    ]
    rates = {"balanced accuracy": quality.balanced_accuracy, "AUC": getattr(quality, "auc", None)}
    rows = [
        (name, f"{rate.value:.3f}", f"[{rate.low:.3f}, {rate.high:.3f}]")
        for name, rate in rates.items()
        if rate is not None and rate.value is not None
    ]
    lines += [table(("cross-validated", "value", "95 % CI"), rows), ""]
    for side in (1, 0):
        rows = [
            (one.ngram if one.kind == "word" else f"[{one.ngram}]", str(one.positive_texts), str(one.negative_texts))
            for one in telling
            if one.side == side
        ]
        head = f"speaks for label {side}"
        lines += [table((head, "in texts with 1", "with 0"), rows), ""]
    return "\n".join([*lines, "In brackets: parts of words."]).rstrip()


def _spec(output: Path) -> str:
    """How `--probe` must be written: a bare word would be taken for a name."""
    return str(output) if len(output.parts) > 1 else f"./{output}"
