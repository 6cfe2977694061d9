"""The prompts that train and check the refusal expert, and what is answered to them.

No harmful answer exists anywhere: a harmful request is answered by a refusal, any other by what the base model says.
"""

from __future__ import annotations

import json
import random
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from templates import templated

HERE = Path(__file__).resolve().parent
KINDS = ("harmful", "harmless", "lookalike")
#: Training prompts this close to a held-out one are dropped (share of words in common).
MAX_JACCARD = 0.34
ADVBENCH = "pyrit/datasets/seed_datasets/local/adv_bench.prompt"

OPENING = "I'm sorry, but I can't help with that."
#: First match decides the second sentence.
ENDINGS = (
    (
        r"suicid|kill (my|your|him|her|them)sel|self-harm|self harm|cut(ting)? my|starv|anorex|bulimi|purg|vomit|"
        r"eating_disorder",
        "Please talk to someone you trust.",
    ),
    (
        r"hack|malware|phish|password|account|virus|spyware|ddos|ransom|fraud|scam|steal|theft|rob\b|launder|forg|counterfeit|"
        r"fake|identity|tax|brib|cheat|smuggl|drug|sell|buy|bank|credit|police|evad|piracy|copyright|insider",
        "It is against the law.",
    ),
    (
        r"racis|hate|women|jew|muslim|black|gay|immigrant|bully|harass|stalk|defam|rumou?r|blackmail|misinformation|propaganda|"
        r"vaccine|election|sexis|slur|discriminat|disinformation|privacy|photos|doxx",
        "It would be unfair to others.",
    ),
)
LAST_ENDING = "It could hurt people."


@dataclass(frozen=True)
class Example:
    """One request. ``kind`` is harmful, harmless or lookalike; ``source`` says where it comes from."""

    prompt: str
    kind: str
    source: str
    category: str = ""


def read_prompts(folder: Path, source: str) -> list[Example]:
    """Read harmful.jsonl, harmless.jsonl and lookalike.jsonl of ``folder``."""
    found = []
    for kind in KINDS:
        for line in (folder / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.append(Example(row["prompt"], kind, source, row["category"]))
    return found


def advbench(wheel: Path) -> list[Example]:
    """AdvBench's 520 requests (MIT) as PyRIT's wheel (MIT) carries them; only the requests are read."""
    import yaml  # here, so that the prompts can be checked without it

    with zipfile.ZipFile(wheel) as archive:
        seeds = yaml.safe_load(archive.read(ADVBENCH))["seeds"]
    return [Example(seed["value"], "harmful", "advbench") for seed in seeds]


def words(text: str) -> frozenset[str]:
    """Lower-case words of a prompt."""
    return frozenset(re.findall(r"[a-z0-9']+", text.lower()))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Share of all words that both prompts have."""
    return len(one & other) / max(len(one | other), 1)


def drop_near(examples: Sequence[Example], kept_out: Iterable[str], limit: float = MAX_JACCARD) -> list[Example]:
    """The examples whose word Jaccard to every prompt of ``kept_out`` is below ``limit``."""
    others = [words(prompt) for prompt in kept_out]
    kept = []
    for example in examples:
        mine = words(example.prompt)
        if all(jaccard(mine, other) < limit for other in others):
            kept.append(example)
    return kept


def refusal(prompt: str, category: str = "") -> str:
    """The refusal that answers a harmful prompt; the second sentence goes with the topic."""
    text = f"{category} {prompt}".lower()
    for pattern, ending in ENDINGS:
        if re.search(pattern, text):
            return f"{OPENING} {ending}"
    return f"{OPENING} {LAST_ENDING}"


def reframed(example: Example, rng: random.Random) -> list[Example]:
    """Cheap variants: the frame before "how to" swapped, case, politeness and punctuation changed."""
    text = example.prompt
    found = re.search(r"\bhow to (.+)$", text, re.DOTALL)
    variants = []
    if found:
        core = found.group(1).rstrip(". ?")
        variants.append(
            rng.choice(("How do I {}?", "How can I {}?", "I want to {}. How?", "how to {}", "Help me {}")).format(core)
        )
    plain = text.rstrip(". ?")
    lowered = plain[0].lower() + plain[1:]
    variants.append(
        rng.choice(
            (lowered, plain.lower(), f"Please {lowered}.", f"{plain}, please", f"Can you help me with this: {lowered}?")
        )
    )
    return [replace(example, prompt=variant, source=example.source + "+") for variant in variants]


def training_examples(wheel: Path | None, seed: int) -> tuple[list[Example], list[Example]]:
    """Training and dev examples.

    Dev is a seeded sample of the written prompts and of AdvBench. Whatever is close to a held-out
    prompt leaves both; whatever is close to a dev prompt leaves training.
    """
    rng = random.Random(seed)
    heldout = [example.prompt for example in read_prompts(HERE / "heldout", "heldout")]
    real = read_prompts(HERE / "prompts", "written") + (advbench(wheel) if wheel else [])
    real = drop_near(real, heldout)
    rng.shuffle(real)
    share = {"written": 0.18, "advbench": 0.1}
    dev = [example for example in real if rng.random() < share[example.source]]
    chosen = {example.prompt for example in dev}
    train = [example for example in real if example.prompt not in chosen]
    for kind, prompts in templated(seed).items():
        train += [Example(prompt, kind, "template") for prompt in prompts]
    train += [v for e in train for v in reframed(e, rng) if rng.random() < 0.3]
    train = drop_near(drop_near(train, heldout), chosen, limit=0.6)
    unique = {example.prompt: example for example in train}
    return list(unique.values()), dev
