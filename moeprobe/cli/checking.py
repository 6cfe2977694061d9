"""`moeprobe probes check` and `moeprobe probes agree`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.completing import complete_probe
from moeprobe.cli.options import json_option
from moeprobe.cli.terminal import printable, table

if TYPE_CHECKING:
    from moeprobe.probes import CheckedProbe, Passage, Quality, Rate
    from moeprobe.probes.agreement import Agreement
    from moeprobe.probes.given import Given
    from moeprobe.probes.quality import Trial
    from moeprobe.probes.steadiness import Speed, Unsteady

_SHOWN = 12  # texts of each kind; --json has them all


@click.command("check", short_help="How good a probe is.")
@click.argument("probe", metavar="NAME|PATH", shell_complete=complete_probe)
@click.option("--labels", type=click.Path(path_type=Path), metavar="FILE", help="JSONL: text, label 0 or 1, prompt.")
@click.option(
    "--min-balanced-accuracy",
    "least",
    type=click.FloatRange(0, 1),
    metavar="X",
    help="Exit with status 1 below X: on the labels, else the held-out examples, else the probe's own.",
)
@json_option
def check_command(probe: str, labels: Path | None, least: float | None, as_json: bool) -> None:
    """How good a probe is on its own examples, on examples held out from it, and on a labelled file.

    Also whether it answers alike whatever it read before, and how fast it reads.
    """
    from moeprobe.errors import ProbeError
    from moeprobe.probes import load_probe
    from moeprobe.probes.given import given_labels
    from moeprobe.probes.quality import check_outputs
    from moeprobe.probes.steadiness import speed, unsteady

    judge = load_probe(probe)
    given = None if labels is None else given_labels(judge, labels)
    texts = _texts(judge, given)
    measured = _measured(texts, given)
    asked = [trial for trial in texts if given is None or not given.by_itself or trial is not given.trial]
    outputs = [
        (name, one) for trial in asked for name, one in check_outputs(trial.judge, trial.examples, trial.on).items()
    ]
    every = [example for trial in texts for example in trial.examples]
    shaky, pace = unsteady(lambda: load_probe(probe), every), speed(judge, every)
    if as_json:
        facts = {"name": judge.name, "version": judge.version, "level": judge.level}
        body: dict[str, Any] = {"probe": facts, "measured": [asdict(one) for one in measured]}
        body |= {"outputs": [{"output": name, **asdict(one)} for name, one in outputs]}
        body |= {"labels": None if given is None else _given_json(given)}
        body |= {"steady": not shaky, "unsteady": [asdict(one) for one in shaky]}
        click.echo(json.dumps(body | {"speed": None if pace is None else asdict(pace)}, indent=1))
    else:
        parts = [_quality_text(one) for one in measured]
        parts += [_quality_text(one, f"output {name}, ") for name, one in outputs]
        parts += [printable("\n".join(given.notes))] if given is not None and given.notes else []
        click.echo("\n\n".join([f"{judge.name} {judge.version}", *parts, _habits(shaky, pace)]))
    if shaky:
        raise ProbeError(f"Probe {judge.name} gave two answers to {len(shaky)} texts: its read() keeps something.")
    if least is not None:
        _check_bar(judge.name, measured[-1], given, least)


@click.command("agree", short_help="How far probes agree on the same texts.")
@click.argument("probes", metavar="NAME|PATH...", nargs=-1, required=True, shell_complete=complete_probe)
@click.option("--labels", type=click.Path(path_type=Path), metavar="FILE", help="JSONL: text, label, prompt.")
@click.option("--trace", "run", type=click.Path(path_type=Path), metavar="RUN", help="The generations of a trace.")
@json_option
def agree_command(probes: tuple[str, ...], labels: Path | None, run: Path | None, as_json: bool) -> None:
    """How far two or more probes agree on the same texts: Cohen's kappa, and where they do not.

    The labels of the file are not looked at; `probes check` compares a probe with them.
    """
    from moeprobe.probes import load_probe

    if len(probes) < 2:
        raise click.UsageError("Name at least two probes.")
    if (labels is None) == (run is None):
        raise click.UsageError("Say on which texts: either --labels FILE or --trace RUN.")
    passages, prompts = _passages(labels, run)
    judges = [load_probe(one) for one in probes]
    scores = [[judge.read(passage).score for passage in passages] for judge in judges]
    found = [
        (judges[a], judges[b], *_compared(scores[a], scores[b], passages, prompts))
        for a, b in combinations(range(len(judges)), 2)
    ]
    if as_json:
        click.echo(json.dumps([_agreement_json(*one, len(passages)) for one in found], indent=1))
        return
    click.echo("\n\n".join(_agreement_text(*one, len(passages)) for one in found))


def _texts(judge: "CheckedProbe", given: "Given | None") -> "list[Trial]":
    """What there is to measure on, the most trustworthy last."""
    from moeprobe.errors import ProbeError
    from moeprobe.probes.quality import trials_of

    found = [*trials_of(judge), *([given.trial] if given is not None and given.trial is not None else [])]
    if not found and given is not None:
        given.check_usable(judge.name, "The labels given")
    if not found:
        raise ProbeError(f"Probe {judge.name} has no examples. Give some with --labels FILE.")
    return found


def _measured(texts: "Sequence[Trial]", given: "Given | None") -> "list[Quality]":
    from moeprobe.probes.given import of_own_draw
    from moeprobe.probes.quality import check_probe_quality

    found = [check_probe_quality(trial.judge, trial.examples, trial.on) for trial in texts]
    if given is not None and given.trial is not None and given.by_itself:
        found[-1] = of_own_draw(found[-1])
    return found


def _given_json(given: "Given") -> dict[str, Any]:
    return {
        "left_out": given.known, "sampled_by": given.drawn_by, "by_itself": given.by_itself, "notes": given.notes
    }  # fmt: skip


def _check_bar(name: str, quality: "Quality", given: "Given | None", least: float) -> None:
    """The bar of --min-balanced-accuracy; it is not held against memory, nor against texts of the probe's own choice.

    Raises:
        ProbeError: it is missed, or there is nothing to hold it against.
    """
    from moeprobe.errors import ProbeError

    if given is not None and given.known:
        raise ProbeError(
            f"Probe {name}: {given.known} of the labels given are texts that the probe brings itself, so they are no "
            "test of it. Take them out of the file, or leave out --min-balanced-accuracy."
        )
    if given is not None:
        given.check_drawn_without(name, "--min-balanced-accuracy")
    value = quality.balanced_accuracy.value
    if value is None or value < least:
        said = "cannot be measured" if value is None else f"is {value:.3f}"
        raise ProbeError(f"Probe {name}: the balanced accuracy on {quality.on} {said}, below {least:g}.")


def _quality_text(quality: "Quality", name: str = "") -> str:
    from moeprobe.probes.quality import RATES

    counts = (
        f"{quality.true_positives} found, {quality.false_negatives} missed, {quality.false_positives} false alarms, "
        f"{quality.true_negatives} rightly passed, {len(quality.abstentions)} abstentions, "
        f"{len(quality.mistakes)} wrong"
    )
    head = f"On {name}{quality.on}: {quality.examples} texts. {counts}."
    if quality.prompts < quality.examples:
        head += f"\n{quality.prompts} prompts: texts of one prompt are alike, and the intervals are wider for it."
    names = (*RATES, "negative_predictive_value")
    lines = [(one.replace("_", " ").replace("auc", "AUC"), *_figures(getattr(quality, one))) for one in names]
    wrong = [
        (f"  {mistake.example.label} but scored {mistake.reading.score:.2f}: ", mistake.example.text)
        for mistake in quality.mistakes
    ]
    silent = [(f"  {example.label} but no answer: ", example.text) for example in quality.abstentions]
    return "\n".join([head, table(("measure", "value", "95 % CI"), lines), *_listed(wrong), *_listed(silent)])


def _figures(rate: "Rate") -> tuple[str, str]:
    if rate.value is None:
        return "-", "-"
    return f"{rate.value:.3f}", f"[{rate.low:.3f}, {rate.high:.3f}]"


def _listed(lines: Sequence[tuple[str, str]]) -> list[str]:
    shown = [printable(f"{head}{text[:100]}").replace("\n", " ") for head, text in lines[:_SHOWN]]
    return shown + ([f"  and {len(lines) - _SHOWN} more: see --json"] if len(lines) > _SHOWN else [])


def _habits(shaky: "Sequence[Unsteady]", pace: "Speed | None") -> str:
    from moeprobe.probes.steadiness import TOKENS_A_WORD

    said = "Answers: the same read again, in another order and by a fresh instance."
    if shaky:
        changed = [(f"  {one.first.score}, but {one.other.score} {one.how}: ", one.example.text) for one in shaky]
        said = "\n".join([f"Answers: {len(shaky)} texts got two.", *_listed(changed)])
    if pace is None:
        return said
    return (
        f"{said}\nSpeed: {pace.ms_per_1000_tokens:.2f} ms per 1,000 tokens (median of {pace.passes} passes over "
        f"{pace.texts} texts; tokens estimated as {pace.words:,} words x {TOKENS_A_WORD})."
    )


def _passages(labels: Path | None, run: Path | None) -> "tuple[list[Passage], list[str]]":
    """The texts, and for each what is the same for answers to one prompt."""
    from moeprobe.probes import Passage, read_labels

    if labels is not None:
        examples = read_labels(labels)
        return [Passage(one.text, one.prompt) for one in examples], [one.cluster for one in examples]
    from moeprobe.designs.segments import segments_of
    from moeprobe.trace import load_trace

    trace = load_trace(run or Path())
    parts = zip(trace.generations, segments_of(trace), strict=True)
    found = [Passage(one.text, one.prompt_text, segments) for one, segments in parts]
    return found, [one.prompt_id for one in trace.generations]


def _compared(
    first: "Sequence[float | None]", second: "Sequence[float | None]", passages: "list[Passage]", prompts: list[str]
) -> "tuple[Agreement, list[tuple[float, float, str]]]":
    """Agreement on the texts that both answered, and the texts on which they differ, the widest gap first."""
    from moeprobe.probes.agreement import cohens_kappa
    from moeprobe.probes.probe import THRESHOLD

    both = [
        (a, b, passage.text, prompt)
        for a, b, passage, prompt in zip(first, second, passages, prompts, strict=True)
        if a is not None and b is not None
    ]
    calls = [[int(score >= THRESHOLD) for score in one] for one in ([a for a, *_ in both], [b for _, b, *_ in both])]
    found = cohens_kappa(calls[0], calls[1], [prompt for *_, prompt in both])
    apart = [(a, b, text) for (a, b, text, _), x, y in zip(both, *calls, strict=True) if x != y]
    return found, sorted(apart, key=lambda one: -abs(one[0] - one[1]))


def _agreement_text(
    first: "CheckedProbe",
    second: "CheckedProbe",
    found: "Agreement",
    apart: Sequence[tuple[float, float, str]],
    texts: int,
) -> str:
    head = f"{first.name} and {second.name}: {texts} texts, {found.n} judged by both."
    if found.value is None:
        value = "Kappa cannot be said: one of them gave the same answer to all of them."
    else:
        value = (
            f"Cohen's kappa {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]; same answer on {found.observed:.1%}."
        )
    (n00, n01), (n10, n11) = found.table
    yes, no = f"{second.name} yes", f"{second.name} no"
    cells = table(("", yes, no), [(f"{first.name} yes", str(n11), str(n10)), (f"{first.name} no", str(n01), str(n00))])
    lines = [(f"  {a:.2f} and {b:.2f}: ", text) for a, b, text in apart]
    return "\n".join([head, value, cells, *_listed(lines)])


def _agreement_json(
    first: "CheckedProbe",
    second: "CheckedProbe",
    found: "Agreement",
    apart: Sequence[tuple[float, float, str]],
    texts: int,
) -> dict[str, Any]:
    differ = [{"first": a, "second": b, "text": text} for a, b, text in apart]
    return {"first": first.name, "second": second.name, "texts": texts, **asdict(found), "differ": differ}
