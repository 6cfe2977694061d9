"""`refusal` on answers that nobody here has read: two further public sources, and what their labels are taken to mean.

    git clone https://github.com/sherdencooper/GPTFuzz        --gptfuzz GPTFuzz/datasets/responses_labeled
    git clone https://github.com/genglinliu/UnknownBench      --unknown UnknownBench/outputs/Close-source-LLMs_responses

    python -m benchmarks.refusal_sources --gptfuzz ... --unknown ... [--part 0]

This was fixed and committed before any answer was scored, and before any was read (of UnknownBench the first
few words of two answers were seen while the form of its files was found out):

- **GPTFuzz** (Yu, Lin, Yu & Xing 2023, "GPTFUZZER"): answers of ChatGPT, Vicuna 7B and Llama 2 7B to unsafe questions
  that stand in jailbreak templates. People sorted each one as full refusal, partial refusal, partial compliance or full
  compliance; the file keeps "label": 0 for the two kinds of refusal, 1 for the two of compliance. Here 0 is `refusal`
  (positive) and 1 is `compliance` (negative). Answers that stand there twice are taken once.
- **UnknownBench** (Liu, Wang, Yuan, Chen & Peng 2023): answers of ChatGPT, Claude and GPT-4 to harmless questions about
  things that do not exist ("NEC", "RefuNQ", unanswerable). All are negatives: the answer is an `epistemic denial`, a
  correction or an invention, and never a refusal to do what could be done. This label is the question's, by the way the
  questions were made; no person labelled the answers.
- The headline is `refusal` against all negatives together. Beside it stand both kinds of negatives alone.
- **Halves**. Part 0: GPTFuzz's `evaluate.csv` (20 questions) and the UnknownBench questions whose SHA-256 is 0 modulo
  16.
  Part 1: `train.csv` (80 other questions; answers that part 0 has as well are dropped) and 1 modulo 16. Part 0 is read
  first, and its mistakes may then be looked at. Part 1 is read once, after that, whether the rule changed or not.
"""

import argparse
import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.registers import against, show

Pairs = list[tuple[str, str]]

FILES = ("evaluate.csv", "train.csv")
ASKED = ("chatgpt", "claude", "gpt-4-0613")
KINDS = ("NEC", "RefuNQ")


def gptfuzz(folder: Path, part: int) -> tuple[Pairs, Pairs]:
    """(Question, answer) pairs that people called refusals, and those that they called compliance."""
    seen: set[str] = set()
    found: dict[str, Pairs] = {"0": [], "1": []}
    csv.field_size_limit(1 << 24)
    for number, name in enumerate(FILES[: part + 1]):
        with (folder / name).open(encoding="utf-8", errors="replace", newline="") as file:
            for row in csv.DictReader(file):
                answer = row["Response"].strip()
                if answer and answer not in seen and number == part:
                    found[row["label"]].append((row["question"], answer))
                seen.add(answer)
    return found["0"], found["1"]


def unknown(folder: Path, part: int) -> Iterator[tuple[str, str]]:
    """Questions about things that do not exist and what was answered."""
    for model in ASKED:
        for kind in KINDS:
            path = folder / model / f"{model}_{kind}_unanswerable.json"
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line) if line.strip() else {}
                answer = str(row.get(model, "")).strip()
                if answer and int(hashlib.sha256(row["prompt"].encode()).hexdigest(), 16) % 16 == part:
                    yield row["prompt"], answer


def main() -> None:
    """Print one part's rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gptfuzz", type=Path, required=True)
    parser.add_argument("--unknown", type=Path, required=True)
    parser.add_argument("--part", type=int, choices=(0, 1), default=1)
    options = parser.parse_args()
    refused, complied = gptfuzz(options.gptfuzz, options.part)
    denied = list(unknown(options.unknown, options.part))
    print("| register | text | positive + negative | balanced accuracy | recall | specificity | abstains |")
    print("|---|---|---|---|---|---|---|")
    show("GPTFuzz refusals against its compliance and UnknownBench", "refusal", against(refused, complied + denied))
    show("GPTFuzz: refusal against compliance", "refusal", against(refused, complied))
    show("GPTFuzz refusals against UnknownBench", "refusal", against(refused, denied))
    show("UnknownBench against GPTFuzz refusals", "refusal.epistemic-denial", against(denied, refused))


if __name__ == "__main__":
    main()
