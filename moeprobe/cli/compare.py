"""`moeprobe compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.options import force_option, json_option, probe_option
from moeprobe.cli.terminal import command_line, printable, table
from moeprobe.files import check_output

if TYPE_CHECKING:
    from moeprobe.compare import Comparison

Json = dict[str, Any]
_CHANGES = ("changed", "tokens only", "not changed", "untestable")
# Fields of the settings that a person reads; --json has all.
_SHOWN = 8


@click.command(short_help="Which experts two runs of the same prompts use otherwise.")
@click.argument("first", metavar="RUN_A", type=click.Path(path_type=Path))
@click.argument("second", metavar="RUN_B", type=click.Path(path_type=Path))
@probe_option("probes", multiple=True, help="Ask which experts keep, lose or gain this register.")
@click.option("--by", metavar="FIELD", help="The same for the prompts' label, or metadata.KEY, instead of a probe.")
@click.option(
    "--labels-a", type=click.Path(path_type=Path), metavar="FILE",
    help="The same for labels of people, models or other tools: those of RUN_A's answers (docs/labels.md).",
)  # fmt: skip
@click.option(
    "--labels-b", type=click.Path(path_type=Path), metavar="FILE", help="With --labels-a: those of RUN_B's answers."
)
@click.option("--scorer", metavar="NAME", help="With inspect_ai logs as labels: whose scores they are.")
@click.option("--name", metavar="NAME", help="With --labels-a: what the register is called [default: FILE's name]")
@click.option("--positive", metavar="VALUE", help="With --by or labels: the value that makes the positive group.")
@click.option(
    "--negative", metavar="VALUE", help="With --by or labels: the value of the other group (default: all others)."
)
@click.option("--only", metavar="KEY=VALUE", help="Ask about the register only where metadata (or label) is this.")
@click.option(
    "--segment", type=click.Choice(["answer", "thinking", "prompt", "user", "system"]), default="answer",
    show_default=True, help="Which tokens to compare; prompt is all of the prompt, user and system are parts of it.",
)  # fmt: skip
@click.option("--alpha", type=float, default=0.05, show_default=True, help="False discovery rate.")
@click.option(
    "--draws", type=click.IntRange(0), default=10_000, show_default=True,
    help="Sign flips and relabellings for the family-wise p; 0 leaves it out.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the comparison as JSON.")
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Rows to print.")
@json_option
@force_option
def compare(
    first: Path, second: Path, probes: tuple[str, ...], out: Path | None, as_json: bool, force: bool, **options: Any
) -> None:
    """Compare two runs, RUN_A and RUN_B, of the same prompts: two checkpoints of one architecture, or two settings.

    Without a register: which experts does B choose more or less often? Prompts are paired, lengths cut to the shorter
    run, and each token is compared only with the same token elsewhere.

    With --probe, --by or labels: which experts keep, lose or gain the register. "Significant in A and not in B" is no
    difference: lost and gained need a test of the difference itself, and what does not pass it is "unclear".
    Differences are B - A. Nothing here says what a change causes.
    """
    from moeprobe.trace import load_trace

    if len(probes) > 1:
        raise click.UsageError("A comparison asks about one register: give --probe once, and compare again for others.")
    options["probe"] = probes[0] if probes else None
    files = [one for one in (options["labels_a"], options["labels_b"]) if one is not None]
    if len(files) == 1:
        raise click.UsageError("Give labels of both runs: --labels-a FILE and --labels-b FILE.")
    if [bool(options["probe"]), bool(options["by"]), bool(files)].count(True) > 1:
        raise click.UsageError("Give one of --probe NAME, --by label and --labels-a with --labels-b, or none.")
    if not files and (options["scorer"] or options["name"]):
        raise click.UsageError("--scorer and --name go with --labels-a and --labels-b.")
    if out is not None:
        check_output(out, force=force, inputs=[first, second, *files])
    comparison = ask(load_trace(first), load_trace(second), **options)
    comparison.commands.append(command_line())
    if out is not None:
        comparison.write(out, force=force)
    click.echo(comparison.dumps() if as_json else page(comparison, options["top"]))
    if out is not None and not as_json:
        click.echo(printable(f"Written to {out}."))


def ask(first: Any, second: Any, **options: Any) -> "Comparison":
    """Make the comparison that the options ask for."""
    from moeprobe.compare import compare as answer
    from moeprobe.probes import load_probe

    probe, labels = load_probe(options["probe"]) if options["probe"] else None, None
    if options["labels_a"] is not None:
        from moeprobe.designs.inspect_logs import read_labels_of

        labels = (
            read_labels_of(options["labels_a"], options["scorer"]),
            read_labels_of(options["labels_b"], options["scorer"]),
        )
    names = ("by", "name", "positive", "negative", "only", "segment", "alpha", "draws", "seed")
    comparison = answer(first, second, probe=probe, labels=labels, **{name: options[name] for name in names})
    comparison.describe(first, second)
    return comparison


def page(comparison: "Comparison", top: int) -> str:
    """The comparison as text for the terminal."""
    parts = [_runs(comparison), _layers(comparison), _usage(comparison, top)]
    if comparison.register is not None:
        parts.append(_register(comparison.register, top))
    if comparison.notes:
        parts.append("\n".join(f"Note: {printable(note)}" for note in comparison.notes))
    return "\n\n".join(parts) + "\n"


def _runs(comparison: "Comparison") -> str:
    head = "\n".join(f"{run['name']}: {run['path']} ({run['model']})" for run in comparison.runs)
    differing = comparison.setting
    if not differing:
        return printable(f"{head}\nSettings: nothing that was written down differs.")
    rows = [(one["field"], _short(one["a"]), _short(one["b"])) for one in differing[:_SHOWN]]
    more = f"\n({len(differing) - _SHOWN} more in --json)" if len(differing) > _SHOWN else ""
    return f"{printable(head)}\n\n{table(('differs in', 'A', 'B'), rows)}{more}"


def _layers(comparison: "Comparison") -> str:
    rows = [
        (
            f"L{one['layer']}", _digits(one["saturation"]), _digits(one["chance"]), *_sizes(one["committee"]),
            _digits(one["committee"]["p_more"]), *_sizes(one["top"]), _digits(one["top"]["p_more"]),
        )
        for one in comparison.layers
    ]  # fmt: skip
    head = ("layer", "same choice", "by chance", "committee", "in both", "p", "busiest", "in both", "p")
    same, total = comparison.design["same_tokens"], comparison.design["identical_generations"]
    said = (
        f"On the {same:,} tokens with the same text before them in both runs ({total} generations are the same from "
        "end to end), how many of B's choices A made too; and whether the same experts are always busy:"
    )
    return f"{said}\n\n{table(head, rows)}"


def _sizes(found: Json) -> tuple[str, str]:
    return f"{found['first']}/{found['second']}", f"{found['shared']} ({found['expected']:.1f} by chance)"


def _usage(comparison: "Comparison", top: int) -> str:
    rows = sorted(comparison.usage, key=_significance)
    words = [row["change"] for row in rows]
    counts = ", ".join(f"{words.count(word)} {_in_words(word)}" for word in _CHANGES if word in words)
    family = bool(comparison.design["draws"])
    fwer = ("FWER p",) if family else ()
    head = ("site", "S in A", "S in B", "difference", "95 % CI", "q", "q plain", *fwer, "verdict")
    lines = [
        (
            row["site"], _digits(row["S_a"]), _digits(row["S_b"]), _digits(row["rate_difference"]),
            _interval(row["rate_difference_ci"]), _digits(row["q"]), _digits(row["marginal"]["q"]),
            *([_digits(row["fwer"])] if family else []), _in_words(row["change"]),
        )
        for row in rows[:top]
    ]  # fmt: skip
    rest = f"\n({len(rows) - top} more)" if len(rows) > top else ""
    return f"{printable(comparison.design['sentence'])}\nExperts: {counts}.\n\n{table(head, lines)}{rest}"


def _in_words(change: str) -> str:
    """A change as people read it: where words may explain it, it is called as in a report."""
    from moeprobe.findings.verdicts import NAMES, in_words

    return in_words(change) if change in NAMES else change


def _register(register: Json, top: int) -> str:
    from moeprobe.compare.register import WORDS

    order = {word: place for place, word in enumerate(WORDS)}
    rows = sorted(register["rows"], key=lambda row: (order[row["verdict"]], *_clearest(row)))
    head = ("site", "in A", "q in A", "in B", "q in B", "B - A", "q of B - A", "verdict")
    lines = []
    for row in rows[:top]:
        between = row["interaction"] or {"change": None, "q": None}
        lines.append(
            (
                row["site"], _digits(row["beyond_difference_a"]), _digits(row["q_a"]),
                _digits(row["beyond_difference_b"]), _digits(row["q_b"]), _digits(between["change"]),
                _digits(between["q"]), row["verdict"] + (" (turned round)" if row["flipped"] else ""),
            )
        )  # fmt: skip
    counts = ", ".join(f"{number} {word}" for word, number in register["counts"].items() if number)
    rest = f"\n({len(rows) - top} more)" if len(rows) > top else ""
    asked = f"{register['name']}: {register['positive']} against {register['negative']}"
    return f"{printable(asked)}\nExperts: {counts}.{_lists(register['overlap'])}\n\n{table(head, lines)}{rest}"


def _lists(found: Json | None) -> str:
    if found is None:
        return ""
    return (
        f"\nAssociated in A {found['first']}, in B {found['second']}, in both {found['shared']} (by chance "
        f"{found['expected']:.1f}; p of so many {_digits(found['p_more'])}). Two lists that each miss some of the same "
        "truth share less than the truth does: a small overlap alone shows no change."
    )


def _significance(row: Json) -> tuple[bool, float, int, int]:
    p = row.get("p")
    return (p is None, 1.0 if p is None else p, row.get("layer", 0), row.get("expert", 0))


def _clearest(row: Json) -> tuple[float, float, int, int]:
    """Sort key: what differs by how clearly it does, the rest by its clearest association."""
    p = (row["interaction"] or {"p": None})["p"]
    between = p if p is not None and row["verdict"] in ("lost", "gained", "changed") else 1.0
    strongest = max(abs(row["t_a"] or 0.0), abs(row["t_b"] or 0.0))
    return (between, -strongest, row["layer"], row["expert"])


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1e-3 else f"{value:.3f}"


def _interval(interval: list[float] | None) -> str:
    return "-" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _short(value: str | None) -> str:
    return "-" if value is None else value if len(value) <= 40 else value[:37] + "..."
