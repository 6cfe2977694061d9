"""What the demo runs: prompts of its own, the questions asked of them, and how many pairs are swapped."""

from dataclasses import dataclass, replace
from pathlib import Path

from moeprobe.prompts import Prompt, read_prompts


@dataclass(frozen=True)
class Question:
    """One question of the demo: a probe, or a label comparison, on one set of prompts.

    Attributes:
        prompts: name of a file in prompts/, without .jsonl.
        probe: name of a built-in probe, or None to compare labels.
        positive: the positive label, when there is no probe.
        interchange: how many of the leading experts are tested by interchange; 0 for association only.
    """

    prompts: str
    probe: str | None = None
    positive: str | None = None
    interchange: int = 0


@dataclass(frozen=True)
class DemoPlan:
    """A demo: the model, its questions, and how text is generated."""

    model: str
    questions: tuple[Question, ...]
    max_new_tokens: int
    sample: bool
    batch_size: int


PLANS = {
    "compiled": DemoPlan(
        model="compiled",
        questions=(Question("compiled", positive="triggered", interchange=12),),
        max_new_tokens=32,
        sample=True,
        batch_size=32,
    ),
    "smollm2": DemoPlan(
        model="smollm2",
        questions=(
            Question("refusal", probe="refusal", interchange=6),
            Question("self-examination", probe="first-person-self-examination"),
        ),
        max_new_tokens=48,
        sample=False,
        batch_size=32,
    ),
}


def demo_prompts(plan: DemoPlan) -> list[Prompt]:
    """The prompts of all questions; `metadata.set` says which question each belongs to."""
    prompts: list[Prompt] = []
    for question in plan.questions:
        path = Path(__file__).parent / "prompts" / f"{question.prompts}.jsonl"
        prompts += [replace(prompt, metadata={"set": question.prompts}) for prompt in read_prompts(path)]
    return prompts
