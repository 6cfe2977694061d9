"""The examples: a line about each generation for everyone, and token data for the script to colour when asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprobe.report import figures
from moeprobe.report.voice import Voice
from moeprobe.visible import TOKEN_LIMIT, shortened, visible

Json = Mapping[str, Any]


@dataclass(frozen=True)
class ExampleLine:
    """What the page says about a generation without its text."""

    index: int
    title: str
    positive: bool
    side: str
    facts: str


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
            facts.append(f"{visible(site)} chosen for {figures.share(chosen)} of the answer")
    return ExampleLine(
        index=index,
        title=f"Generation {example['generation']}, prompt {example['prompt_id']}",
        positive=positive,
        side=side,
        facts=f"{said}{score}; {'; '.join(facts)}",
    )


def example_data(examples: Sequence[Json]) -> dict[str, Any]:
    """Give the examples of one question to the script.

    `sites` lists the experts; each example has `tokens` (raw text, cut at 300 characters), `start`, `spans`, and for
    each site a pair of lists, token indices and gate weights, where that expert was selected. `most` is each site's
    largest weight over the examples, the full colour.
    """
    listed = sites(examples)
    data: list[dict[str, Any]] = [
        {
            "tokens": [shortened(token, TOKEN_LIMIT) for token in example["tokens"]],
            "start": int(example["answer_start"]),
            "spans": [[int(first), int(last)] for first, last in example["spans"]],
            "weights": [_sparse(example["weights"].get(site)) for site in listed],
        }
        for example in examples
    ]
    most = [max((w for one in data for w in one["weights"][i][1]), default=0.0) for i in range(len(listed))]
    return {"sites": listed, "most": most, "examples": data}


def sites(examples: Sequence[Json]) -> list[str]:
    """The experts whose weights the examples carry, in order of first appearance."""
    return list(dict.fromkeys(site for example in examples for site in example["weights"]))


def _sparse(weights: Json | None) -> tuple[list[int], list[float]]:
    if weights is None:
        return [], []
    return list(weights["at"]), [round(weight, 4) for weight in weights["weight"]]
