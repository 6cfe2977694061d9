"""Where an interchange command gets its model and its pairs from: findings, or a model and a pair file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.errors import InterchangeError

if TYPE_CHECKING:
    from moeprobe.findings import Findings
    from moeprobe.interchange import PairSelection
    from moeprobe.models import LoadedModel
    from moeprobe.probes import Probe

BUILT_IN = ("compiled", "smollm2")


@dataclass
class Source:
    """A model and pairs.

    Attributes:
        loaded, selection: the model and the pairs.
        document: the findings, where there are some.
        question: which of their questions.
        raw: whether prompts were encoded without the chat template.
    """

    loaded: "LoadedModel"
    selection: "PairSelection"
    document: "Findings | None" = None
    question: dict[str, Any] | None = None
    raw: bool = False


def check_source(findings: Path | None, options: dict[str, Any]) -> None:
    """Which options go together, before anything is read.

    Raises:
        click.UsageError: neither findings nor model and pairs, or pairs from two places.
    """
    if findings is None and (options["model"] is None or options["pair_file"] is None):
        raise click.UsageError("Name a findings file, or --model MODEL with --pairs FILE.")
    if findings is None and (options["run"] is not None or options["probe"] is not None):
        raise click.UsageError("--trace and --probe go with a findings file.")
    if options.get("labels") is not None and (findings is None or options["pair_file"] is not None):
        raise click.UsageError("--labels FILE goes with a findings file whose pairs come from its trace.")
    if options["pair_file"] is None and options["positive"] is not None:
        raise click.UsageError("--positive LABEL goes with --pairs FILE.")
    if options["pair_file"] is not None and options["run"] is not None:
        raise click.UsageError("Pairs come from --trace or from --pairs, not from both.")


def open_source(
    findings: Path | None, document: "Findings | None", question: dict[str, Any] | None, options: dict[str, Any]
) -> Source:
    """Load the model and form the pairs. Everything that can be wrong with files is found before the model is loaded.

    Raises:
        MoeprobeError: a file that cannot be read, a model that is not that of the findings, or no pair that splits.
    """
    from moeprobe.cli.terminal import quiet_libraries

    texts = _read_pair_file(options["pair_file"], options["positive"])
    selection = None
    if texts is None and findings is not None and document is not None and question is not None:
        judge = judge_of(question, options["probe"])
        selection = _trace_pairs(document, findings, question, judge, options)
    quiet_libraries()
    loaded = _load(document, options)
    raw = document is not None and not document.trace["provenance"].get("tokenizer", {}).get("chat_template", True)
    if selection is None:
        selection = _file_pairs(loaded, texts, options["pair_file"], options["positive"], raw=raw)
    if options.get("align") == "span" and options.get("span") is not None:
        from moeprobe.interchange import place_spans
        from moeprobe.pairs.pairs import PairSelection

        placed = place_spans(loaded.tokenizer, list(selection.pairs), options["span"])
        selection = PairSelection(tuple(placed), selection.left_out, selection.source)
    return Source(loaded, selection, document, question, raw)


def opened(findings: Path | None, options: dict[str, Any]) -> Source:
    """Model and pairs, of findings where they are named.

    Raises:
        MoeprobeError: as `open_source`.
    """
    if findings is None:
        return open_source(None, None, None, options)
    from moeprobe.findings import load_findings

    document = load_findings(findings)
    return open_source(findings, document, asked_question(document, options["probe"]), options)


def asked_question(document: "Findings", probe: str | None) -> dict[str, Any]:
    """The question asked about. A probe file runs only when the user names it here."""
    names = [question["name"] for question in document.questions]
    if probe is None or probe in names:
        return document.question(probe)
    from moeprobe.probes import load_probe

    return document.question(load_probe(probe).name)


def judge_of(question: dict[str, Any], probe: str | None) -> "Probe | None":
    """The probe of a question, with the parameters it was asked with; None for a label.

    A probe is found again by the question's name: that of a built-in probe, of a package's, of one of their outputs,
    or the expression that combines them. What stands in a file runs only when the user names it.

    Raises:
        InterchangeError: a probe of the user's own whose file is not named.
        ProbeError: a parameter that the probe no longer has, or as `load_probe`.
    """
    from moeprobe.probes import load_probe
    from moeprobe.probes.loading import is_known

    if question["kind"] == "label":
        return None
    named = probe is not None and probe != question["name"]
    spec = probe if named and probe is not None else question["name"]
    if not named and not is_known(spec):
        raise InterchangeError(f"{spec!r} is a probe of your own; name its file as you did before: --probe PATH.")
    judge = load_probe(spec)
    recorded = question.get("parameters") or {}
    if judge.parameters != recorded and judge.settable and "(" not in spec:
        return load_probe(spec, {key: value for key, value in recorded.items() if key in judge.settable})
    return judge


def _load(document: "Findings | None", options: dict[str, Any]) -> "LoadedModel":
    """The model; with findings that of the findings, and no other: verdicts of one model must not be written under
    another's name."""
    from moeprobe.models import load_model

    provenance = {} if document is None else document.trace["provenance"]
    recorded, engine = provenance.get("model", {}), provenance.get("engine", {})
    loaded = load_model(
        options["model"] or (document.model["id"] if document is not None else ""),
        dtype=engine.get("dtype", "auto") if options["dtype"] == "auto" else options["dtype"],
        device_map=options["device_map"],
        revision=options["revision"] or recorded.get("revision"),
    )
    if document is None:
        return loaded
    built_in = {loaded.id.split(":")[0], str(recorded.get("id")).split(":")[0]} & set(BUILT_IN)
    keys = ("family", "config_digest", "files", *(["id"] if built_in else []))
    for key in keys:
        if loaded.provenance[key] != recorded.get(key):
            raise InterchangeError(
                f"{loaded.id!r} is not the model these findings were made with ({document.model['id']!r}): its {key} "
                "differs. Run `moeprobe trace` and `correlate` on the model you want to test."
            )
    return loaded


def _trace_pairs(
    document: "Findings", path: Path, question: dict[str, Any], judge: "Probe | None", options: dict[str, Any]
) -> "PairSelection":
    from moeprobe.designs.inspect_logs import read_labels_of
    from moeprobe.designs.regrouping import regroup
    from moeprobe.designs.segments import segments_of
    from moeprobe.interchange import trace_pairs
    from moeprobe.trace import load_trace

    trace = load_trace(options["run"] or path.resolve().parent / document.trace["path"])
    if trace.digest != document.trace["digest"]:
        raise InterchangeError(f"{trace.path} is not the trace these findings were made from. Name it with --trace.")
    trace.verify()
    file = options.get("labels")
    labels = None if file is None else read_labels_of(file, (question.get("grouping") or {}).get("scorer"))
    return trace_pairs(trace, regroup(trace.generations, question, judge, labels=labels, segments=segments_of(trace)))


def _read_pair_file(path: Path | None, positive: str | None) -> Any:
    """Pairs or prompts of a file, None without one.

    Raises:
        click.UsageError: labelled prompts without --positive, or pairs with it.
    """
    if path is None:
        return None
    from moeprobe.interchange import is_pair_file, read_pairs
    from moeprobe.prompts import read_prompts

    if is_pair_file(path):
        if positive is not None:
            raise click.UsageError(f"{path} says itself which side is sensitive; leave --positive out.")
        return read_pairs(path)
    if positive is None:
        raise click.UsageError(
            "--pairs FILE holds labelled prompts: which are the sensitive ones? Add --positive LABEL."
        )
    return read_prompts(path)


def _file_pairs(loaded: "LoadedModel", texts: Any, path: Path, positive: str | None, *, raw: bool) -> "PairSelection":
    from moeprobe.chat.encode import encode_prompt
    from moeprobe.interchange import encode_pairs, label_members, select_pairs, sourced
    from moeprobe.prompts import digest

    if positive is None:
        return encode_pairs(loaded, texts, name=path.name, raw=raw)
    ids = [encode_prompt(loaded.tokenizer, prompt, raw=raw) for prompt in texts]
    selection = select_pairs(label_members(texts, ids, positive), what=str(path))
    words = {"positive": f"label = {positive}", "negative": "any other label"}
    return sourced(selection, kind="file", name=path.name, digest=digest(texts), **words)
