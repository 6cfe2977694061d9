"""From a trace and answered questions to a findings document."""

import os
from pathlib import Path
from typing import Any

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
    """
    manifest = trace.manifest
    folder = Path.cwd() if beside is None else beside.resolve().parent
    findings = Findings(
        model={
            "id": manifest.model["id"],
            "family": manifest.model["family"],
            "num_hidden_layers": manifest.model["num_hidden_layers"],
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
