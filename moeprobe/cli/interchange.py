"""`moeprobe interchange`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.options import force_option, json_option, model_options
from moeprobe.cli.terminal import command_line, printable, progress_bar, quiet_libraries, table
from moeprobe.errors import InterchangeError
from moeprobe.files import check_output

if TYPE_CHECKING:
    from moeprobe.findings import Findings
    from moeprobe.interchange import Outcome, PairSelection
    from moeprobe.models import LoadedModel
    from moeprobe.probes import Probe
    from moeprobe.prompts import Prompt
    from moeprobe.sites import Site


@click.command(short_help="Test whether associated experts cause the behaviour.")
@click.argument("findings", metavar="FINDINGS", type=click.Path(path_type=Path))
@click.option("-m", "--model", metavar="MODEL", help="Where the model lies now [default: as recorded in FINDINGS]")
@click.option(
    "--trace", "run", type=click.Path(path_type=Path), help="Source of pairs [default: the trace of FINDINGS]"
)
@click.option("--pairs", "pair_file", type=click.Path(path_type=Path), help="Or: a JSONL file with pairs and labels.")
@click.option("--positive", metavar="LABEL", help="With --pairs: the label of the sensitive prompts.")
@click.option("--probe", metavar="NAME|PATH", help="Which question of FINDINGS; a probe of your own by its path.")
@click.option("--site", "sites", multiple=True, metavar="SITE", help="Expert to test, e.g. L14.E114; may be repeated.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Without --site: the leading N.")
@click.option("--null", type=click.IntRange(1), default=5, show_default=True, help="Other experts to compare with.")
@click.option("--tokens", type=click.IntRange(1), default=5, show_default=True, help="Continuation tokens scored.")
@click.option("--minimum-effect", type=click.FloatRange(0), default=2.0, show_default=True, help="Percent of the gap.")
@click.option("--bootstrap", type=click.IntRange(100), default=10_000, show_default=True, help="Draws over pairs.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Pairs per forward.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write here instead of completing FINDINGS.")
@model_options
@json_option
@force_option
def interchange(findings: Path, out: Path | None, as_json: bool, force: bool, **options: Any) -> None:
    """Swap the contribution of experts between paired runs, in both directions, and knock it out.

    Necessity: how much of the effect goes when the site is taken from the control run. Sufficiency: how much comes when
    the site of the sensitive run is put into the control run. The verdicts are written into FINDINGS.
    """
    from moeprobe.findings import load_findings

    if (options["pair_file"] is None) != (options["positive"] is None):
        raise click.UsageError("--pairs FILE and --positive LABEL go together: which label is the sensitive side?")
    if options["pair_file"] is not None and options["run"] is not None:
        raise click.UsageError("Pairs come from --trace or from --pairs, not from both.")
    if out is not None:
        check_output(out, force=force, inputs=[findings])
    check_output(findings, force=True)
    document = load_findings(findings)
    outcome, selection = test(document, findings, force=force, **options)
    document.commands.append(command_line())
    document.write(out or findings, force=True)
    if as_json:
        click.echo(json.dumps(document.to_json(), indent=1))
        return
    click.echo(summary(outcome, selection))
    click.echo(printable(f"Written to {out or findings}. Next: moeprobe report {out or findings} -o report.html"))


def test(
    document: "Findings",
    path: Path,
    *,
    probe: str | None,
    sites: tuple[str, ...],
    top: int,
    force: bool,
    **options: Any,
) -> tuple["Outcome", "PairSelection"]:
    """Run the experiment that the options describe and enter it into `document`.

    Whatever can be wrong with the request is found before the model is loaded: a mistake should cost a second.
    """
    from moeprobe.interchange import Plan, check_former, enter, leading_sites
    from moeprobe.interchange import interchange as experiment
    from moeprobe.sites import parse_expert

    question, judge = _question(document, probe)
    check_former(document, question["name"], replace=force)
    chosen = [parse_expert(name) for name in sites] or leading_sites(document, question["name"], top)
    _check_rows(document, question["name"], chosen)
    names = ("tokens", "null", "bootstrap", "seed", "minimum_effect", "batch_size")
    plan = Plan(**{name: options[name] for name in names})
    from_file = _read_pair_file(options["pair_file"])
    selection = _trace_pairs(document, path, question, judge, options["run"]) if from_file is None else None
    quiet_libraries()
    loaded = _load(document, options)
    if selection is None:
        selection = _file_pairs(document, loaded, from_file or [], options["pair_file"], options["positive"])
    with progress_bar(0, "swap", "interchange") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        outcome = experiment(loaded, selection, list(dict.fromkeys(chosen)), plan, progress=show)
    enter(document, question, outcome, replace=force)
    return outcome, selection


def summary(outcome: "Outcome", selection: "PairSelection") -> str:
    """The outcome as text for the terminal."""
    head = ("site", "necessity %", "95 % CI", "sufficiency %", "95 % CI", "knock-out %", "null max %", "result")
    lines = []
    for site, effect in outcome.effects.items():
        null = max([*effect["null"]["necessity"], *effect["null"]["sufficiency"]], default=0.0)
        numbers = [
            text
            for name in ("necessity", "sufficiency")
            for text in (f"{effect[name]['percent']:.1f}", _interval(effect[name]["ci"]))
        ]
        lines.append((str(site), *numbers, f"{effect['knockout']['percent']:.1f}", f"{null:.1f}", _words(effect)))
    gap = outcome.run["gap"]
    left = f" {len(selection.left_out)} pairs did not split and were left out." if selection.left_out else ""
    low, high = gap["ci"]
    first = f"{outcome.run['pairs']} pairs, gap {gap['mean']:.2f} nats per token [{low:.2f}, {high:.2f}]."
    return f"{first}{left}\n\n{table(head, lines)}\n\nRule: {outcome.run['rule']}.\n"


def _words(effect: dict[str, Any]) -> str:
    if not effect["enough_pairs"]:
        return "too few pairs for a verdict"
    words = [name for name in ("necessary", "sufficient") if effect[name]]
    return " and ".join(words) or ("nothing changed at all" if effect["exactly_zero"] else "neither")


def _question(document: "Findings", probe: str | None) -> tuple[dict[str, Any], "Probe | None"]:
    """The question asked about, and its probe. A probe file runs only when the user names it here."""
    from moeprobe.probes import list_probes, load_probe

    names = [question["name"] for question in document.questions]
    if probe is None or probe in names:
        question = document.question(probe)
        if question["kind"] == "label":
            return question, None
        if question["name"] not in {one.name for one in list_probes()}:
            raise InterchangeError(f"{question['name']!r} is a probe of your own; name its file: --probe PATH.")
        return question, load_probe(question["name"])
    judge = load_probe(probe)
    return document.question(judge.name), judge


def _check_rows(document: "Findings", question: str, sites: list["Site"]) -> None:
    known = {row["site"] for row in document.rows if row["probe"] == question}
    for site in sites:
        if str(site) not in known:
            layers = ", ".join(f"L{one['layer']} (E0 to E{one['experts'] - 1})" for one in document.model["layers"])
            raise InterchangeError(f"The model of these findings has no {site}. It has {layers}.")


def _load(document: "Findings", options: dict[str, Any]) -> "LoadedModel":
    """The model of the findings, and no other: verdicts of one model must not be written under another's name."""
    from moeprobe.models import load_model

    recorded = document.trace["provenance"].get("model", {})
    engine = document.trace["provenance"].get("engine", {})
    loaded = load_model(
        options["model"] or document.model["id"],
        dtype=engine.get("dtype", "auto") if options["dtype"] == "auto" else options["dtype"],
        device_map=options["device_map"],
        revision=options["revision"] or recorded.get("revision"),
    )
    built_in = {loaded.id.split(":")[0], str(recorded.get("id")).split(":")[0]} & {"compiled", "smollm2"}
    keys = ("family", "config_digest", "files", *(["id"] if built_in else []))
    for key in keys:
        if loaded.provenance[key] != recorded.get(key):
            raise InterchangeError(
                f"{loaded.id!r} is not the model these findings were made with ({document.model['id']!r}): its {key} "
                "differs. Run `moeprobe trace` and `correlate` on the model you want to test."
            )
    return loaded


def _trace_pairs(
    document: "Findings", path: Path, question: dict[str, Any], judge: "Probe | None", run: Path | None
) -> "PairSelection":
    from moeprobe.designs.groups import regroup
    from moeprobe.interchange.from_trace import trace_pairs
    from moeprobe.trace import load_trace

    trace = load_trace(run or path.resolve().parent / document.trace["path"])
    if trace.digest != document.trace["digest"]:
        raise InterchangeError(f"{trace.path} is not the trace these findings were made from. Name it with --trace.")
    trace.verify()
    return trace_pairs(trace, regroup(trace.generations, question, judge))


def _read_pair_file(path: Path | None) -> list["Prompt"] | None:
    from moeprobe.prompts import read_prompts

    return None if path is None else read_prompts(path)


def _file_pairs(
    document: "Findings", loaded: "LoadedModel", prompts: list["Prompt"], path: Path, positive: str
) -> "PairSelection":
    from moeprobe.chat.encode import encode_prompt
    from moeprobe.interchange import label_members, select_pairs, sourced
    from moeprobe.prompts import digest

    raw = not document.trace["provenance"].get("tokenizer", {}).get("chat_template", True)
    ids = [encode_prompt(loaded.tokenizer, prompt, raw=raw) for prompt in prompts]
    selection = select_pairs(label_members(prompts, ids, positive), what=str(path))
    words = {"positive": f"label = {positive}", "negative": "any other label"}
    return sourced(selection, kind="file", name=path.name, digest=digest(prompts), **words)


def _interval(interval: list[float]) -> str:
    return f"[{interval[0]:.1f}, {interval[1]:.1f}]"
