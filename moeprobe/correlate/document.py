"""From a trace and answered questions to a findings document."""

import os
from pathlib import Path
from typing import Any

from moeprobe.errors import TraceError
from moeprobe.findings import Findings
from moeprobe.trace import Trace

_PROVENANCE = ("model", "tokenizer", "decoding", "engine", "versions", "prompts")
Answer = tuple[dict[str, Any], list[dict[str, Any]], list[str]]


def findings_of(trace: Trace, answers: list[Answer], *, beside: Path | None = None) -> Findings:
    """Put answers of `correlate` into one findings document.

    Args:
        trace: the run the answers are about.
        answers: what `correlate` returned, one per question.
        beside: the file the document will be written to; the trace's path is kept relative to its folder.

    Raises:
        TraceError: the trace does not say what model it is of.
    """
    manifest = trace.manifest
    folder = Path.cwd() if beside is None else beside.resolve().parent
    findings = Findings(
        model={
            **_model(trace),
            "layers": [
                {"layer": i.layer, "experts": i.experts, "k": i.k, "weight_sum": i.weight_sum, "shared": i.shared}
                for i in manifest.main_layers
            ],
        },
        trace={
            "path": os.path.relpath(trace.path.resolve(), folder),
            "digest": trace.digest,
            "generations": manifest.generations,
            "rows": manifest.rows,
            "provenance": {name: getattr(manifest, name) for name in _PROVENANCE},
        },
    )
    for question, rows, notes in answers:
        findings.questions.append(question)
        findings.rows.extend(rows)
        findings.notes.extend(notes)
    return findings


def _model(trace: Trace) -> dict[str, str | int]:
    """What findings say of the model; a manifest may be written by hand or by another program."""
    facts: dict[str, str | int] = {}
    for key, kind in (("id", str), ("family", str), ("num_hidden_layers", int)):
        value = trace.manifest.model.get(key)
        if type(value) is not kind:
            said = "does not have it" if value is None else f"has {repr(value)[:60]}"
            raise TraceError(
                f"{trace.path / 'run.json'}: the section 'model' must have {key!r} "
                f"({'a text' if kind is str else 'a whole number'}), but {said}. Record the run again."
            )
        facts[key] = value
    return facts
