"""The demo: trace, correlate, interchange and report, one after the other, on a built-in model."""

from collections.abc import Callable
from pathlib import Path

from moeprobe.correlate import correlate
from moeprobe.correlate.document import findings_of
from moeprobe.demo.plan import PLANS, DemoPlan, Question, demo_prompts
from moeprobe.designs.regrouping import regroup
from moeprobe.designs.segments import segments_of
from moeprobe.engines import Decoding, record
from moeprobe.errors import MoeprobeError, OutputError
from moeprobe.files import check_output, write_text
from moeprobe.findings import Findings
from moeprobe.interchange import Plan, enter, interchange, leading_sites
from moeprobe.models import LoadedModel, load_model
from moeprobe.pairs.from_trace import trace_pairs
from moeprobe.probes import load_probe
from moeprobe.report import render
from moeprobe.trace import Trace

# Called with one line at the start of each step.
Say = Callable[[str], None]
NAMES = ("run.trace", "findings.json", "report.html")


def run_demo(model: str, folder: Path, *, force: bool = False, say: Say = print) -> Findings:
    """Run the demo and leave run.trace, findings.json and report.html in `folder`.

    Args:
        model: "compiled" or "smollm2".
        folder: made if missing.
        force: replace a former demo.
        say: told what happens.

    Raises:
        MoeprobeError: an unknown demo, an existing output, or any error of the four steps.
    """
    if model not in PLANS:
        raise MoeprobeError(f"There is no demo of {model!r}. Choose one of {', '.join(PLANS)}.")
    plan = PLANS[model]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Could not make the folder {folder}: {error.strerror}.") from error
    for name in NAMES:
        check_output(folder / name, force=force)
    say(f"Loading {plan.model} ...")
    loaded = load_model(plan.model)
    prompts = demo_prompts(plan)
    say(f"1/4 trace: {len(prompts)} prompts, every routing decision recorded ...")
    decoding = Decoding(max_new_tokens=plan.max_new_tokens, sample=plan.sample, batch_size=plan.batch_size)
    trace = record(loaded, prompts, folder / "run.trace", decoding=decoding, source="the demo's own", force=force)
    say("2/4 correlate: which experts go with it ...")
    findings = associations(trace, plan, folder / "findings.json")
    findings.commands.append(f"moeprobe demo --model {model}")
    findings.write(folder / "findings.json", force=force)
    say("3/4 interchange: do they cause it ...")
    for question in plan.questions:
        if question.interchange:
            causes(loaded, trace, findings, question)
    findings.write(folder / "findings.json", force=True)
    say("4/4 report ...")
    write_text(folder / "report.html", render([findings.to_json()]))
    return findings


def associations(trace: Trace, plan: DemoPlan, path: Path) -> Findings:
    """Answer the plan's questions, each on its own set of prompts."""
    answers = []
    for question in plan.questions:
        only = f"set={question.prompts}"
        if question.probe is None:
            answers.append(correlate(trace, by="label", positive=question.positive, only=only))
        else:
            answers.append(correlate(trace, probe=load_probe(question.probe), only=only))
    return findings_of(trace, answers, beside=path)


def causes(loaded: LoadedModel, trace: Trace, findings: Findings, question: Question) -> None:
    """Test the leading experts of one question, and write effects and verdicts into `findings`."""
    name = question.probe or f"label:{question.positive}"
    asked = findings.question(name)
    judge = None if question.probe is None else load_probe(question.probe)
    selection = trace_pairs(trace, regroup(trace.generations, asked, judge, segments=segments_of(trace)))
    sites = leading_sites(findings, name, question.interchange)
    enter(findings, asked, interchange(loaded, selection, sites, Plan()))
