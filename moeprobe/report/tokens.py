"""The examples: a line about each generation for everyone, and token data for the script to colour when asked."""

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.report import figures
from moeprobe.report.voice import Voice
from moeprobe.visible import TOKEN_LIMIT, cleaned, shortened

Json = Mapping[str, Any]

# One character each for 64 numbers; the last one of a gap means "63 more, and go on".
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
LEVELS = len(DIGITS) - 1


@dataclass(frozen=True)
class ExampleLine:
    """What the page says about a generation without its text."""

    index: int
    title: str
    positive: bool
    side: str
    facts: str


def for_page(findings: Json, *, text: bool) -> dict[str, Any]:
    """Copy the findings without the tokens of examples, which go to the script; without `text` no token stays at all.

    Args:
        findings: one document.
        text: whether tokens and words may be shown.
    """
    questions = [
        {**asked, "examples": [{**one, "tokens": [], "spans": [], "weights": {}} for one in asked["examples"]]}
        for asked in findings["questions"]
    ]
    if text:
        return {**findings, "questions": questions}
    for asked in questions:
        if asked["confounds"] is not None:
            asked["confounds"] = {**asked["confounds"], "tokens": [], "topics": []}
    return {**findings, "questions": questions, "rows": [_row_without_text(row) for row in findings["rows"]]}


def _row_without_text(row: Json) -> dict[str, Any]:
    bare = dict(row)
    if row["evidence"] is not None:
        bare["evidence"] = {**row["evidence"], "windows": []}
    if row.get("leave_token_out") is not None:
        bare["leave_token_out"] = {**row["leave_token_out"], "token": ""}
    return bare


def example_line(example: Json, index: int, voice: Voice) -> ExampleLine:
    """Describe one example: which generation, which group, how long, how often its leading expert was chosen."""
    positive = example["group"] == "positive"
    start, total = int(example["answer_start"]), len(example["tokens"])
    side = "marked inside" if voice.inside else voice.one if positive else voice.other
    said = {
        "scores": f"{side} of {voice.theme}",
        "within generations": f"tokens marked for {voice.about} and others",
    }.get(voice.kind, f"{side} {voice.about}")
    score = "" if example["score"] is None else f", score {figures.number(example['score'], 2)}"
    facts = [f"{start:,} prompt and {max(total - start, 0):,} answer tokens"]
    for site, weights in list(example["weights"].items())[:1]:
        if total > start:
            chosen = sum(index >= start for index in weights["at"]) / (total - start)
            facts.append(f"{cleaned(site)} chosen for {figures.share(chosen)} of the answer")
    return ExampleLine(
        index=index,
        title=f"Generation {example['generation']}, prompt {cleaned(example['prompt_id'])}",
        positive=positive,
        side=side,
        facts=f"{said}{score}; {'; '.join(facts)}",
    )


def example_data(examples: Sequence[Json]) -> dict[str, Any]:
    """Give the examples of one question to the script: `sites`, `most` and `packed`.

    `sites` lists the experts, `most` is each one's largest weight over the examples, the full colour. `packed` is
    base64 of zlib of JSON: for each example `tokens` (raw text, cut at 300 characters), `start`, `spans`, and lists
    `gaps` and `weights`, for each site a list of one text per example (`pack_gaps`, `pack_weights`). So 200,000 tokens
    with twenty experts take one megabyte and are read only when a generation is opened.

    Raises:
        ValueError: a number that is not finite.
    """
    listed = sites(examples)
    most = [
        max((weight for one in examples for weight in one["weights"].get(site, _NONE)["weight"]), default=0.0)
        for site in listed
    ]
    packed = {
        "tokens": [[shortened(token, TOKEN_LIMIT) for token in one["tokens"]] for one in examples],
        "start": [int(one["answer_start"]) for one in examples],
        "spans": [[[int(first), int(last)] for first, last in one["spans"]] for one in examples],
        "gaps": [[pack_gaps(one["weights"].get(site, _NONE)["at"]) for one in examples] for site in listed],
        "weights": [
            [pack_weights(one["weights"].get(site, _NONE)["weight"], largest) for one in examples]
            for site, largest in zip(listed, most, strict=True)
        ],
    }
    text = json.dumps(packed, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return {
        "sites": listed,
        "most": [round(float(largest), 6) for largest in most],
        "packed": base64.b64encode(zlib.compress(text.encode("ascii"), 9)).decode("ascii") if examples else "",
    }


_NONE: Json = {"at": [], "weight": []}


def pack_gaps(at: Sequence[int]) -> str:
    """Increasing indices as gaps, ``[0, 3, 70]`` as ``AC_C``: each character 0 to 62, or ``_`` for 63 more."""
    made, expected = [], 0
    for index in at:
        more, rest = divmod(int(index) - expected, LEVELS)
        made.append(DIGITS[-1] * more + DIGITS[rest])
        expected = int(index) + 1
    return "".join(made)


def pack_weights(weights: Sequence[float], largest: float) -> str:
    """Gate weights in 63rds of the largest one, a character each.

    Raises:
        ValueError: a weight that is not finite.
    """
    if not all(math.isfinite(weight) for weight in weights):
        raise ValueError("Gate weights are not JSON compliant: one is not finite.")
    scale = LEVELS / largest if largest > 0 else 0.0
    return "".join(DIGITS[min(max(round(weight * scale), 0), LEVELS)] for weight in weights)


def sites(examples: Sequence[Json]) -> list[str]:
    """The experts whose weights the examples carry, in order of first appearance."""
    return list(dict.fromkeys(site for example in examples for site in example["weights"]))
