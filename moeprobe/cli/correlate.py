"""`moeprobe correlate`."""

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.options import force_option, json_option, probe_option
from moeprobe.cli.terminal import command_line, printable, table
from moeprobe.errors import MoeprobeError
from moeprobe.files import check_output

# As `moeprobe.gathering.gather`, which --help must not import.
RESPONSES = ("S", "W", "Q", "probability", "logit", "norm")

if TYPE_CHECKING:
    from moeprobe.findings import Findings
    from moeprobe.probes import CheckedProbe
    from moeprobe.trace import Trace


def _number(_: click.Context, parameter: click.Parameter, value: str) -> int | None:
    """A whole number from 0, or ``all`` (None)."""
    if value == "all":
        return None
    if re.fullmatch(r"[0-9]{1,9}", value) is None:
        raise click.BadParameter(f"{value!r} is neither a whole number nor `all`.", param=parameter)
    return int(value)


@click.command(short_help="Which experts go with a probe's register, or with a label.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@probe_option("probes", multiple=True, help="Register to ask about; may be repeated.")
@click.option("--by", metavar="FIELD", help="Compare by the prompts' label, or by metadata.KEY, instead of a probe.")
@click.option(
    "--labels", "label_file", type=click.Path(path_type=Path), metavar="FILE",
    help="Compare by labels of people, models or other tools: JSONL, or an inspect_ai log (docs/labels.md).",
)  # fmt: skip
@click.option(
    "--checked-on", "checked_on", multiple=True, metavar="[PROBE=]FILE",
    help="With --probe: measure the probe on this labelled text (as `probes check --labels`) instead of its own "
    "examples; with several probes say which; may be repeated.",
)  # fmt: skip
@click.option("--scorer", metavar="NAME", help="With an inspect_ai log: whose scores are the labels.")
@click.option("--name", metavar="NAME", help="With --labels: what the question is called [default: FILE's name]")
@click.option("--positive", metavar="VALUE", help="With --by or --labels: the value that makes the positive group.")
@click.option(
    "--negative", metavar="VALUE", help="With --by or --labels: the value of the other group (default: all others)."
)
@click.option("--only", metavar="KEY=VALUE", help="Use only prompts whose metadata (or label) has this value.")
@click.option(
    "--segment", type=click.Choice(["answer", "thinking", "prompt", "user", "system"]), default="answer",
    show_default=True, help="Which tokens to compare; prompt is all of the prompt, user and system are parts of it.",
)  # fmt: skip
@click.option(
    "--design", type=click.Choice(["auto", "groups", "pairs", "scores", "within"]), default="auto", show_default=True,
    help="Two groups; the sides of each pair; a score as a number; or tokens that a probe marks against the others of "
    "the same generation. auto chooses by the data.",
)  # fmt: skip
@click.option(
    "--strata", type=click.Choice(["token", "token,position", "previous", "token,previous"]), default="token",
    show_default=True, help="What each token is compared within: tokens that share it.",
)  # fmt: skip
@click.option(
    "--response", type=click.Choice(RESPONSES), default="S", show_default=True,
    help="What is compared: S selections, W gate weight, Q gate weight where chosen, and what `moeprobe trace` was "
    "told to record besides.",
)  # fmt: skip
@click.option(
    "--unit", metavar="pair|metadata.KEY",
    help="Count prompts with one value as one unit, for example variants of one prompt [default: the prompt].",
)  # fmt: skip
@click.option(
    "--block", "blocks", multiple=True, metavar="metadata.KEY",
    help="Compare only within prompts of one value, for example one topic; may be repeated.",
)  # fmt: skip
@click.option(
    "--covariate", "covariates", multiple=True, metavar="metadata.KEY",
    help="Hold the linear effect of a number fixed; may be repeated.",
)  # fmt: skip
@click.option(
    "--coalitions",
    is_flag=True,
    help="Also find experts of a layer that are chosen together, and test each set as one.",
)
@click.option(
    "--confirm", is_flag=True, help="Screen on one half of the prompts and confirm the 50 leaders on the other half."
)
@click.option("--alpha", type=float, default=0.05, show_default=True, help="False discovery rate of an association.")
@click.option(
    "--draws", type=click.IntRange(0), default=10_000, show_default=True,
    help="Relabellings for the family-wise p; 0 leaves it out.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the relabellings.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Findings file [default: RUN's name.findings.json]")
@click.option(
    "--examples", metavar="N|all", callback=_number, default="5", show_default=True,
    help="Generations of each group that the findings hold token by token.",
)  # fmt: skip
@click.option("--no-text", is_flag=True, help="Keep prompt and answer text out of the findings.")
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Rows to print.")
@json_option
@force_option
def correlate(run: Path, probes: tuple[str, ...], out: Path | None, as_json: bool, force: bool, **options: Any) -> None:
    """Compare how often each expert is selected between groups of generations of RUN, or between the sides of pairs.

    The generation (or the pair) is the unit, lengths are matched, each token is compared only with the same token
    elsewhere (or as --strata says), and q controls the false discovery rate over all (layer, expert). "q plain" does
    not hold the words fixed: what passes it alone is marked "perhaps only words". With several probes, "q partial"
    holds the scores of the others fixed.
    What is found is an association; `moeprobe interchange` tests whether it is a cause.
    """
    from moeprobe.probes import load_probe
    from moeprobe.trace import load_trace

    check_asked(probes, options)
    judges = [load_probe(name) for name in probes]
    options["checked_on"] = files_of(options["checked_on"], dict(zip(probes, judges, strict=True)))
    if not as_json:
        place = run.resolve()
        out = out or Path(os.path.relpath(place.with_name(place.name.removesuffix(".trace") + ".findings.json")))
    if out is not None:
        labels = [options["label_file"]] if options["label_file"] else []
        check_output(out, force=force, inputs=[run, *labels, *options["checked_on"].values()])
    trace = load_trace(run)
    findings = ask(trace, judges, out, **options)
    findings.commands.append(command_line())
    if out is not None:
        findings.write(out, force=force)
    if as_json:
        click.echo(json.dumps(findings.to_json(), indent=1))
        return
    for question in findings.questions:
        click.echo(summary(findings, question, options["top"]))
    click.echo(printable(f"Written to {out}.{following(findings, probes, str(out), trace, options['label_file'])}"))


def check_asked(probes: tuple[str, ...], options: dict[str, Any]) -> None:
    """Which options say what is asked.

    Raises:
        click.UsageError: nothing is asked, or two things at once.
    """
    if [bool(probes), bool(options["by"]), options["label_file"] is not None].count(True) != 1:
        raise click.UsageError("Give one of --probe NAME (one or more), --by label and --labels FILE.")
    if options["label_file"] is None and (options["scorer"] or options["name"]):
        raise click.UsageError("--scorer and --name go with --labels FILE.")
    if options["checked_on"] and not probes:
        raise click.UsageError("--checked-on goes with --probe: it says how good a probe is.")


def files_of(given: Sequence[str], judges: "Mapping[str, CheckedProbe]") -> dict[str, Path]:
    """Name of a probe -> the file that it is checked on.

    Args:
        given: "FILE", or "PROBE=FILE" with the probe's name or what it was asked by.
        judges: what each probe was asked by -> the probe.

    Raises:
        click.UsageError: it is not clear whose file one is, no such probe was asked, or a probe has two files.
    """
    names = {one: judge.name for one, judge in judges.items()} | {judge.name: judge.name for judge in judges.values()}
    asked = ", ".join(dict.fromkeys(judge.name for judge in judges.values()))
    found: dict[str, Path] = {}
    for one in given:
        # the longest: a probe's settings hold a "=", too
        spec = max((spec for spec in names if one.startswith(f"{spec}=")), key=len, default="")
        file = one.removeprefix(f"{spec}=") if spec else one
        if not spec and "=" in one and not os.path.exists(one):  # noqa: PTH110 - a name that is too long is no file, and no error
            raise click.UsageError(f"--checked-on {one}: there is no such file, and no such probe is asked ({asked}).")
        if not spec and len(judges) > 1:
            raise click.UsageError(f"--checked-on {one}: which probe is it for ({asked})? Write PROBE={one}.")
        name = names[spec] if spec else next(iter(names.values()))
        if name in found:
            raise click.UsageError(f"--checked-on: two files for {name}. Put their lines into one.")
        found[name] = Path(file)
    return found


def ask(trace: "Trace", judges: "Sequence[CheckedProbe]", out: Path | None, **options: Any) -> "Findings":
    """Answer every question of the command line on one trace."""
    from moeprobe.correlate import correlate as answer
    from moeprobe.correlate import correlate_probes, findings_of

    names = (
        "only", "segment", "alpha", "draws", "seed", "design", "response", "blocks", "covariates", "confirm",
        "coalitions", "unit", "examples",
    )  # fmt: skip
    common = {name: options[name] for name in names}
    common |= {"text": not options["no_text"], "strata": tuple(options["strata"].split(","))}
    if options["by"]:
        named = {name: options[name] for name in ("by", "positive", "negative")}
        return findings_of(trace, [answer(trace, **named, **common)], beside=out)
    if options["label_file"] is not None:
        from moeprobe.designs.inspect_logs import read_labels_of

        named = {name: options[name] for name in ("name", "positive", "negative")}
        labels = read_labels_of(options["label_file"], options["scorer"])
        return findings_of(trace, [answer(trace, labels=labels, **named, **common)], beside=out)
    if len({judge.name for judge in judges}) < len(judges):
        raise MoeprobeError("Two probes have the same name; ask about them in separate runs.")
    return findings_of(trace, correlate_probes(trace, judges, checked_on=options["checked_on"], **common), beside=out)


def summary(findings: "Findings", question: dict[str, Any], top: int) -> str:
    """The answer to one question as text for the terminal."""
    from moeprobe.findings.verdicts import said

    rows = findings.rows_of(question["name"])
    design = question["design"]
    test, family = _test_name(design), _has_family(rows, design)
    columns = ["site", "S+", "S-", "difference", "95 % CI", "beyond", test, "q", "q plain"]
    columns += ["FWER p"] if family else []
    columns += ["q partial"] if design["partial"] else []
    columns += ["confirmed"] if design["confirmation"] else []
    lines = [(*_cells(row, design, family), said(row["verdict"], row["interchange"])) for row in rows[:top]]
    found = f"{_found(rows, design)}{' FWER p: chance of any false one.' if family else ''}\n{_columns_words(design)}"
    if power := design["detectable"]:
        found += (
            f"\nA lone expert needs a difference of {power['d']:.2g} standard deviations between {design['unit']}s to "
            f"be found {power['power']:.0%} of the time."
        )
    rest = f"\n({len(rows) - top} more in the file)" if len(rows) > top else ""
    notes = "".join(f"\nNote: {printable(note)}" for note in _notes(findings, question["name"]))
    asked = printable(f"{question['name']}\n{design['sentence']}")
    return f"{asked}\n{found}\n\n{table((*columns, 'verdict'), lines)}{rest}{notes}\n"


def following(
    findings: "Findings", probes: tuple[str, ...], out: str, trace: "Trace", labels: Path | None = None
) -> str:
    """The commands that test what was found, one a line; "" where nothing was found."""
    from moeprobe.probes.loading import is_known

    pairs = any(one.pair is not None for one in trace.generations)
    source = "" if pairs else " --pairs FILE --positive LABEL  (no prompt of this run has a pair)"
    lines = []
    for index, question in enumerate(findings.questions):
        if not any(row["association"] == "associated" for row in findings.rows_of(question["name"])):
            continue
        # a label, or one probe that the question's name leads to, is found in the file; a file runs only when named
        words = ["moeprobe", "interchange", out]
        if probes and (len(probes) > 1 or not is_known(probes[index]) or not is_known(question["name"])):
            words += ["--probe", probes[index]]
        words += ["--labels", str(labels)] if labels is not None and pairs else []
        lines.append(f"\nNext: {shlex.join(words)}{source}")
    return "".join(lines)


def _found(rows: list[dict[str, Any]], design: dict[str, Any]) -> str:
    """How many experts are associated; where none could be tested, why."""
    associated = sum(row["association"] == "associated" for row in rows)
    by_words = sum(row["association"] == "tokens only" for row in rows)
    tested, verb = design["tested"], "differs" if by_words == 1 else "differ"
    if tested:
        return (
            f"{associated} of {tested} tested {'expert' if tested == 1 else 'experts'} "
            f"{'is' if associated == 1 else 'are'} associated (q < {design['alpha']:g}); "
            f"{by_words} more {verb} only as far as the words may explain it (q plain)."
        )
    said, reasons = "Nothing could be tested.", [row["reason"] for row in rows if row["reason"]]
    if reasons:
        kinds = Counter(reason.partition(":")[0] for reason in reasons)
        kind, number = kinds.most_common(1)[0]
        example = next(reason for reason in reasons if reason.partition(":")[0] == kind)
        said += f" The commonest reason ({number} of {len(rows)} experts): {example}."
    if by_words:
        said += f" {by_words} {verb}, but the words may explain it (q plain)."
    return said


def _columns_words(design: dict[str, Any]) -> str:
    """Which quantity stands in which column."""
    # the words of `gathering.responses`, behind the scale on which they are tested
    found = re.search("the gate weight|the router's|the length of the expert's output", design["response"])
    what = "the selection rate" if found is None else design["response"][found.start() :]
    held = "" if design["strata"] == "none" else f", with the {design['strata']} held fixed"
    test = _test_name(design)
    return (
        f"beyond (per token), {test} and q: {what}{held}; the sign of {test} is the direction. "
        "S+, S- and difference: the selection rate as it is."
    )


def _notes(findings: "Findings", name: str) -> list[str]:
    """The notes of one question ("name: ..."), with those of no question under the first."""
    names: list[str] = [question["name"] for question in findings.questions]

    def owner(note: str) -> str:
        return max((one for one in names if note.startswith(f"{one}: ")), key=len, default=names[0])

    return [note for note in findings.notes if owner(note) == name]


def _test_name(design: dict[str, Any]) -> str:
    return "z" if "from all shifts" in design["prior"] else "t"


def _has_family(rows: list[dict[str, Any]], design: dict[str, Any]) -> bool:
    return bool(design["draws"]) and any(row["fwer"] is not None for row in rows)


def _cells(row: dict[str, Any], design: dict[str, Any], family: bool) -> list[str]:
    cells = [
        row["site"], _digits(row["S1"]), _digits(row["S0"]), _digits(row["rate_difference"]),
        _interval(row["rate_difference_ci"]), _digits(row["beyond_difference"]), _digits(row["t"]),
        _digits(row["q"]), _digits(row["marginal"]["q"]), *([_digits(row["fwer"])] if family else []),
    ]  # fmt: skip
    if design["partial"]:
        cells.append(_digits((row["partial"] or {}).get("q")))
    if design["confirmation"]:
        halves = row["confirmed"]
        cells.append("-" if halves is None else "yes" if halves["confirmed"] else "no")
    return cells


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1e-3 else f"{value:.3f}"


def _interval(interval: list[float] | None) -> str:
    return "-" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"
