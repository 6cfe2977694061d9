"""`moeprobe labels`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.completing import complete_probe
from moeprobe.cli.options import force_option, json_option
from moeprobe.cli.terminal import printable, table
from moeprobe.files import check_output, write_text

if TYPE_CHECKING:
    from moeprobe.labelling import Outcome
    from moeprobe.probes import Probe

NO_P = "no p (that needs prompts with equally many windows)"


@click.group(short_help="Blind labelling: sheets for people or models, and what their labels say.")
def labels() -> None:
    """Have windows of text labelled blind, and read the labels back.

    A sheet holds text and a question, nothing of the routing. What each window is stands in a key file: keep it from
    whoever labels. Labels go on to `moeprobe correlate --labels` and `moeprobe probes check --labels`.
    """


@labels.command("sheet", short_help="Draw windows for labelling.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--by",
    required=True,
    metavar="EXPERT|PROBE",
    shell_complete=complete_probe,
    help="What windows are drawn by: L18.E5, or a probe's name or path.",
)
@click.option("--question", metavar="TEXT", help="What the labeller is asked [for a probe: its definition]")
@click.option(
    "-n", "number", type=click.IntRange(2), default=100, show_default=True, help="Windows, half of them negatives."
)
@click.option("--window", type=click.IntRange(1), default=40, show_default=True, help="Tokens of a window.")
@click.option(
    "--segment", type=click.Choice(["answer", "thinking"]), default="answer", show_default=True,
    help="Where windows are drawn.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything drawn.")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path),
    help="The sheet: .csv for spreadsheets, .jsonl for models, .html for people. Its key is written beside it.",
)  # fmt: skip
@json_option
@force_option
def sheet_command(run: Path, by: str, out: Path, as_json: bool, force: bool, **options: Any) -> None:
    """Draw windows of the answers of RUN for labelling: evenly over the deciles of what they are drawn by, each with a
    matched negative, in random order.
    """
    from moeprobe.labelling import check_sheet, make_sheet, write_sheet
    from moeprobe.trace import load_trace

    check_sheet(out, force=force, inputs=(run,))
    key = make_sheet(
        load_trace(run), _drawn_by(by), number=options["number"], width=options["window"],
        question=options["question"], segment=options["segment"], seed=options["seed"],
    )  # fmt: skip
    where = write_sheet(key, out)
    drawn = len(key.windows)
    if as_json:
        facts = {
            "sheet": str(out),
            "key": str(where),
            "windows": drawn,
            "asked": options["number"],
            "digest": key.digest,
        }
        click.echo(json.dumps(facts, indent=1))
        return
    fewer = drawn < options["number"] - 1
    short = f" (asked for {options['number']}: the run has no more that do not overlap)" if fewer else ""
    page = out.suffix.lower() == ".html"
    saved = "The page saves labels-by-me.jsonl; rename it after the labeller.\n" if page else ""
    click.echo(
        printable(
            f"{drawn} windows written to {out}{short}.\nThe key is {where}: keep it from whoever labels.\n{saved}"
            f"Then: moeprobe labels read {'labels-by-me.jsonl' if page else out} --key {where}"
        )
    )


@labels.command("read", short_help="Read labelled sheets: agreement, and how labels go with the expert or probe.")
@click.argument("sheets", metavar="SHEET...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--key", "key_file", required=True, type=click.Path(path_type=Path), help="The key of the sheet.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the labels as JSONL, for --labels.")
@click.option("--draws", type=click.IntRange(0), default=10_000, show_default=True, help="Relabellings for p.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the relabellings.")
@json_option
@force_option
def read_command(
    sheets: tuple[Path, ...], key_file: Path, out: Path | None, draws: int, seed: int, as_json: bool, force: bool
) -> None:
    """Read one labelled sheet for each labeller, all of one key. Labellers are called after their files."""
    from moeprobe.labelling import judge_sheet, read_answers, read_key

    if out is not None:
        check_output(out, force=force, inputs=[*sheets, key_file])
    key = read_key(key_file)
    outcome = judge_sheet(key, [read_answers(path, key) for path in sheets], draws=draws, seed=seed)
    if out is not None:
        write_text(out, "".join(json.dumps(line) + "\n" for line in outcome.lines()))
    if as_json:
        click.echo(json.dumps(outcome.to_json(), indent=1))
        return
    click.echo(outcome_text(outcome))
    if out is not None:
        click.echo(printable(f"\nLabels written to {out}."))


def outcome_text(outcome: "Outcome") -> str:
    """The outcome for the terminal."""
    body = outcome.to_json()
    parts = [
        printable(f"{body['question']}\n{body['labelled']} of {body['windows']} windows have a label; drawn by "
                  f"{body['by']['name']}."),
        table(("labeller", "labelled", "yes"),
              [(one["name"], str(one["labelled"]), str(one["positive"])) for one in body["labellers"]]),
    ]  # fmt: skip
    pairs = [*outcome.pairwise, *outcome.with_probe]
    if pairs:
        rows = [
            (one.first, one.second, _figure(one.agreement.value), _interval(one.agreement.low, one.agreement.high),
             _figure(one.agreement.observed), str(one.agreement.n))
            for one in pairs
        ]  # fmt: skip
        parts.append(table(("labeller", "and", "Cohen's kappa", "95 % CI", "same answer", "windows"), rows))
    if outcome.fleiss is not None:
        parts.append(f"Fleiss' kappa of all labellers: {outcome.fleiss:.3f} ({outcome.fleiss_windows} windows).")
    deciles = [
        ("matched negatives" if one.decile == 0 else str(one.decile), str(one.windows), str(one.positive),
         _figure(one.share.value), _interval(one.share.low, one.share.high))
        for one in outcome.deciles
    ]  # fmt: skip
    parts.append(table(("decile", "windows", "yes", "share", "95 % CI"), deciles))
    parts.append(_association_text(outcome))
    return "\n\n".join(parts)


def _association_text(outcome: "Outcome") -> str:
    found = outcome.association
    if found is None:
        return "All labels are the same: they cannot go with anything."
    auc = f"AUC {_figure(found.auc.value)} {_interval(found.auc.low, found.auc.high)}"
    p = f"p = {found.p:.2g} ({found.draws:,} relabellings)" if found.p is not None else NO_P
    return (
        f"Labels against the {'weight' if outcome.key.kind == 'expert' else 'score'} of {printable(outcome.key.name)}: "
        f"{auc}, {p}; {found.windows} windows of {found.units} prompts."
    )


def _drawn_by(by: str) -> "str | Probe":
    from moeprobe.designs.values import is_expert_name

    if is_expert_name(by):
        return by
    from moeprobe.probes import load_probe

    return load_probe(by)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
