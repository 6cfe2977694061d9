"""`moeprobe interchange test`, which `moeprobe interchange FINDINGS` means."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.interchange.options import alignment_of, metric_of, metric_options, run_options, source_options
from moeprobe.cli.interchange.source import asked_question, check_source, open_source
from moeprobe.cli.options import force_option, json_option, model_options
from moeprobe.cli.terminal import command_line, printable, progress_bar, table
from moeprobe.files import check_output, write_text

if TYPE_CHECKING:
    from moeprobe.findings import Findings
    from moeprobe.interchange import Outcome, PairSelection, Plan
    from moeprobe.models import LoadedModel

CONTROLS = ("noise",)
KNOCKOUTS = ("bar", "mean", "resample")


@click.command("test", short_help="Swap and knock out named sites; verdicts.")
@click.argument("findings", metavar="[FINDINGS]", required=False, type=click.Path(path_type=Path))
@source_options
@click.option(
    "--site", "sites", multiple=True, metavar="SITE", help="What to test: L14.E114, L14.H3, L14.E3+E7 ...; repeatable."
)
@click.option("--screen", type=click.Path(path_type=Path), help="Or: the leading sites of a screen, on other pairs.")
@click.option("--top", type=click.IntRange(1), help="Without --site: the leading N [default: 5]")
@metric_options
@click.option(
    "--swap",
    type=click.Choice(["contribution", "output", "routing"]),
    default="contribution",
    show_default=True,
    help="What of an expert is swapped.",
)
@click.option(
    "--control",
    "controls",
    multiple=True,
    type=click.Choice(CONTROLS),
    help="Further donors [placebo, random always run]",
)
@click.option(
    "--knockout", "knockouts", multiple=True, type=click.Choice(KNOCKOUTS), help="Further knock-outs [zero always runs]"
)
@click.option("--members", is_flag=True, help="Test each member of a set alone as well.")
@click.option(
    "--confirm", type=click.IntRange(1), metavar="N", help="Choose N on half of the pairs, judge on the rest."
)
@click.option("--null", type=click.IntRange(1), default=19, show_default=True, help="Sites like it to compare with.")
@click.option("--minimum-effect", type=click.FloatRange(0), default=2.0, show_default=True, help="Percent of the gap.")
@click.option("--bootstrap", type=click.IntRange(100), default=10_000, show_default=True, help="Draws over pairs.")
@click.option("--neutral", type=click.Path(path_type=Path), help="Prompts on which the price is measured (JSONL).")
@run_options
@click.option("--resume", is_flag=True, help="Go on with the pairs of an interrupted run.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write here instead of completing FINDINGS.")
@model_options
@json_option
@force_option
def test(findings: Path | None, out: Path | None, as_json: bool, force: bool, **options: Any) -> None:
    """Swap named sites between paired runs, in both directions, and knock them out.

    Necessity: how much of the effect goes when the site is taken from the control run. Sufficiency: how much comes when
    the site of the sensitive run is put into the control run. A placebo donor of the recipient's own class shows what
    any swap does. The verdicts are written into FINDINGS; without FINDINGS name --model, --pairs and --site.
    """
    check_source(findings, options)
    if findings is None and not options["sites"] and options["screen"] is None:
        raise click.UsageError("Without findings name what to test: --site L14.E114, or --screen SCREEN.json.")
    if options["sites"] and options["screen"] is None and options["top"] is not None:
        raise click.UsageError("--top N goes with the leading sites of findings or of a screen, not with --site.")
    if options["sites"] and options["screen"] is not None:
        raise click.UsageError("Name sites with --site, or take them from --screen; not both.")
    options["top"] = options["top"] or 5
    if findings is None and out is None and not as_json:
        raise click.UsageError("Without findings the result needs a place: -o OUT.json, or --json.")
    inputs = [path for path in (findings, options["pair_file"], options["neutral"]) if path is not None]
    if out is not None:
        check_output(out, force=force, inputs=inputs)
    outcome, selection, document = run(findings, out, force=force, **options)
    target = out or findings
    if document is not None and target is not None:
        document.commands.append(command_line())
        document.write(target, force=True)
    elif out is not None:
        write_text(out, json.dumps(outcome.to_json(), indent=1, allow_nan=False) + "\n")
    _finished(target)
    if as_json:
        click.echo(json.dumps(outcome.to_json() if document is None else document.to_json(), indent=1))
        return
    click.echo(summary(outcome, selection, document))
    more = (
        f" Next: moeprobe report {target} -o report.html"
        if document is not None
        else " It has no report page: that needs findings (moeprobe trace, correlate)."
    )
    click.echo(printable(f"Written to {target}.{more}"))


def run(
    findings: Path | None, out: Path | None, *, force: bool, **options: Any
) -> tuple["Outcome", "PairSelection", "Findings | None"]:
    """Run the experiment that the options describe and enter it into the findings, where there are some.

    Whatever can be wrong with the request is found before the model is loaded: a mistake should cost a second.
    """
    from moeprobe.findings import load_findings
    from moeprobe.interchange import check_former, enter, leading_sites
    from moeprobe.prompts import read_prompts

    document, question, chosen = None, None, list(options["sites"])
    if findings is not None:
        check_output(findings, force=True)
        document = load_findings(findings)
        question = asked_question(document, options["probe"])
        check_former(document, question["name"], replace=force or out is not None)
        if not chosen and options["screen"] is None:
            chosen = [str(site) for site in leading_sites(document, question["name"], options["top"])]
    seen: set[str] = set()
    screened_model: dict[str, Any] | None = None
    if options["screen"] is not None:
        leading, seen, screened_model = _screened(options["screen"], options["top"])
        chosen += leading
    neutral = None if options["neutral"] is None else read_prompts(options["neutral"])
    journal = journal_of(out or findings)
    _check_journal(journal, resume=options["resume"])
    source = open_source(findings, document, question, options)
    if screened_model is not None:
        _check_screened(screened_model, source.loaded)
    selection = _unseen(source.selection, seen)
    beside = {"neutral": neutral, "raw": source.raw, "journal": journal, "resume": options["resume"]}
    outcome = _watched(source.loaded, selection, chosen, _plan(source.loaded, options), beside)
    if document is not None and question is not None:
        enter(document, question, outcome, replace=force or out is not None)
    return outcome, selection, document


def _watched(
    loaded: "LoadedModel", selection: "PairSelection", chosen: list[str], plan: "Plan", beside: dict[str, Any]
) -> "Outcome":
    """The experiment with a bar of the pairs; `beside` are its other arguments."""
    from moeprobe.interchange import interchange as experiment

    with progress_bar(len(selection.pairs), "pair", "interchange") as bar:

        def step(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return experiment(loaded, selection, chosen, plan, **beside, progress=step)


def _screened(path: Path, top: int) -> tuple[list[str], set[str], dict[str, Any]]:
    """The leading sites of a screen, the pairs that it has seen (ids and digests), and its model."""
    from moeprobe.errors import InterchangeError
    from moeprobe.fields import parse_json, read_text
    from moeprobe.interchange.screened import leading_of

    record = parse_json(read_text(path, InterchangeError), str(path), InterchangeError)
    sites, seen = leading_of(record, top)
    return [str(site) for site in sites], seen, dict(record.get("model") or {})


def _check_screened(model: dict[str, Any], loaded: "LoadedModel") -> None:
    """Refuse a screen of another model: its sites are others, and its pairs are not known again by their tokens."""
    from moeprobe.errors import InterchangeError

    other = [key for key in ("family", "config_digest", "files") if model.get(key) != loaded.provenance.get(key)]
    if other:
        raise InterchangeError(
            f"The screen is of another model ({model.get('id')!r}) than {loaded.id!r}: its {other[0]} differs. "
            "Screen the model you want to test."
        )


def _unseen(selection: "PairSelection", seen: set[str]) -> "PairSelection":
    """The pairs on which the tested sites were not chosen."""
    from dataclasses import replace

    from moeprobe.errors import InterchangeError

    left = tuple(pair for pair in selection.pairs if not {pair.id, pair.digest} & seen)
    if not left:
        raise InterchangeError("The screen has seen every pair, so none is left to test on. Screen half of them.")
    if not seen:
        return selection
    note = f"{len(selection.pairs) - len(left)} of {len(selection.pairs)} pairs were left out: the screen has seen them"
    return replace(selection, pairs=left, source={**selection.source, "screened": note})


def _plan(loaded: "LoadedModel", options: dict[str, Any]) -> "Plan":
    from moeprobe.interchange import Plan

    names = ("swap", "null", "bootstrap", "seed", "minimum_effect", "members", "batch_size")
    return Plan(
        metric=metric_of(loaded, options),
        alignment=alignment_of(options),
        controls=("placebo", "random", *dict.fromkeys(options["controls"])),
        knockouts=tuple(dict.fromkeys(options["knockouts"])),
        confirm=options["confirm"] or 0,
        **{name: options[name] for name in names},
    )


def journal_of(target: Path | None) -> Path | None:
    """The file that keeps finished pairs while a run lasts."""
    return None if target is None else target.with_name(f"{target.name}.partial.jsonl")


def _check_journal(journal: Path | None, *, resume: bool) -> None:
    from moeprobe.errors import InterchangeError

    if journal is not None and journal.exists() and not resume:
        raise InterchangeError(
            f"{journal} holds pairs of an interrupted run. Add --resume to go on with it, or remove the file."
        )


def _finished(target: Path | None) -> None:
    journal = journal_of(target)
    if journal is not None:
        journal.unlink(missing_ok=True)


def summary(outcome: "Outcome", selection: "PairSelection", document: "Findings | None" = None) -> str:
    """The outcome as text for the terminal, with the verdicts of the findings it was entered into."""
    associations = _associations(document)
    head = ("site", "necessity %", "95 % CI", "minus placebo", "sufficiency %", "95 % CI", "minus placebo",
            "knock-out %", "price", "as much", "result")  # fmt: skip
    lines = []
    for site, effect in outcome.effects.items():
        numbers: list[str] = []
        for name in ("necessity", "sufficiency"):
            found, contrast = effect[name], effect[name]["contrasts"].get("minus_placebo")
            numbers += [
                f"{found['percent']:.1f}",
                _interval(found["ci"]),
                _interval(contrast["ci"]) if contrast else "-",
            ]
        knockout = f"{effect['knockout']['percent']:.1f}" if "knockout" in effect else "-"
        paid = f"{effect['price']['kl']:.2g}" if effect["price"] is not None else "-"
        lines.append(
            (site.name, *numbers, knockout, paid, _compared(effect), _words(effect, associations.get(str(site))))
        )
    gap = outcome.run["gap"]
    left = f" {len(selection.left_out)} pairs did not split and were left out." if selection.left_out else ""
    low, high = gap["ci"]
    unit = outcome.run["unit"]
    first = f"{outcome.run['pairs']} pairs, gap {gap['mean']:.3g} {unit} [{low:.3g}, {high:.3g}].{left}"
    about = (
        f"{outcome.run['coverage']} Minus placebo: interval of the swap less a donor of the recipient's own class. "
        "Price: KL per token on neutral prompts when knocked out. As much: of how many comparison sites so many do as "
        "much, necessity and sufficiency (-: alone of its kind, not compared)."
    )
    parts = [printable(first), printable(about), *_halves(outcome), "", table(head, lines), ""]
    return "\n".join([*parts, *_sums(outcome), f"Rule: {outcome.run['rule']}.", ""])


def _halves(outcome: "Outcome") -> list[str]:
    """Which pairs chose and which judged, where that was asked for."""
    found = outcome.run["confirmation"]
    if found is None:
        return []
    dropped = [name for name in found["screened"] if name not in found["chosen"]]
    left = f" Not chosen: {', '.join(dropped)}." if dropped else ""
    return [
        f"Chosen on {len(found['chosen_on'])} of the pairs, judged on the other {len(found['tested_on'])}; gap and all "
        f"numbers below are of the latter.{left}"
    ]


def _sums(outcome: "Outcome") -> list[str]:
    """Sets against the sum of their members, where these were tested."""
    lines = []
    for site, effect in outcome.effects.items():
        for name, found in (effect["additivity"] or {}).items():
            lines.append(
                f"{site.name}, {name}: the set {found['set']['percent']:.1f} %, its members one by one "
                f"{found['sum']['percent']:.1f} % in all; {found['words']}."
            )
    return [*lines, ""] if lines else []


def _compared(effect: dict[str, Any]) -> str:
    ranks = [effect[name]["rank"] for name in ("necessity", "sufficiency")]
    if None in ranks:
        return "-"
    return f"{ranks[0]['above']}, {ranks[1]['above']} of {ranks[0]['sites']}"


def _associations(document: "Findings | None") -> dict[str, str]:
    """By expert, of the question that the last run was on."""
    if document is None:
        return {}
    return {row["site"]: row["association"] for row in document.rows_of(document.interchange[-1]["probe"])}


def _words(effect: dict[str, Any], association: str | None) -> str:
    """The verdict as the report has it, and what stands behind one that names no cause."""
    from moeprobe.findings import verdict
    from moeprobe.findings.verdicts import said

    words = said(verdict(association or "untestable", effect), effect)
    if not effect["enough_pairs"]:
        return f"{words}: too few pairs for a verdict"
    if effect["exactly_zero"]:
        return f"{words}: nothing changed at all"
    return words + (f"; opposes ({', '.join(effect['opposes'])})" if effect["opposes"] else "")


def _interval(interval: list[float]) -> str:
    return f"[{interval[0]:.1f}, {interval[1]:.1f}]"
