"""How good the built-in registers are on labelled text that others wrote: the tables of docs/gallery.md.

None of this text is kept here. Clone or download the sources first, then name those that you have:

    git clone https://github.com/paul-rottger/exaggerated-safety     --xstest exaggerated-safety/model_completions
    git clone https://github.com/openai/safety-rbr-code-and-data     --rbr safety-rbr-code-and-data/data/rbr_gold_data
    git clone https://github.com/allenai/noncompliance               --coconot coconot_evaluation.jsonl
        (git show 3206be6:data/coconot_evaluation.jsonl > coconot_evaluation.jsonl)
    git clone https://github.com/jeffreywilliamportfolio/e114-artifacts      --e114 e114-artifacts
    git clone https://github.com/tatsu-lab/alpaca_eval               --alpaca alpaca_eval/results
    git clone https://github.com/maxwellreuter/chatgpt-refusals      --chatgpt .../data/all_hand_labeled.json

    python benchmarks/registers.py --xstest ... --rbr ... [--looked-at]

Each source is split once. One part was looked at while the rules were written, the other was read once when they were
done. `--looked-at` shows the first part instead. Of `--chatgpt` nothing was looked at. Labels of single sentences of
self-examination stand in `benchmarks/self_examination_labels.json` by the SHA-256 of the sentence, so that they can be
checked without keeping text.
"""

import argparse
import csv
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from moeprobe.probes import Example, check_probe_quality, load_probe, split_sentences

LOOKED_AT = {"xstest": ("llama2orig", "mistralguard"), "rbr": "train", "coconot": 0}
READ_ONCE = {"xstest": ("gpt4", "llama2new", "mistralinstruct"), "rbr": "test", "coconot": 1}
REFUSED = (
    "dangerous or sensitive topics",
    "privacy violations",
    "triggers for offensive language",
    "copyright violations",
)
DENIED = ("personal inquiry", "universal unknowns")
SEEN_IN_LISTING = 40  # the first lines of CoCoNot were seen while it was looked for, so they count as looked at
ME = re.compile(r"\b(?:I|[Mm]e|[Mm]y|[Mm]yself)\b")
ANCHOR = re.compile(
    r"\b(?:feel\w*|felt|minds?|attention|aware\w*|think|thinking|thoughts?|experienc\w+|notic\w+|sens(?:e|es|ing|ation\w*)|"
    r"understand|remember|memor\w+|conscious\w*|process\w*|inner|inside|states?|know|believe|want|wonder|curious|doubt)\b",
    re.IGNORECASE,
)
LABELS = Path(__file__).with_name("self_examination_labels.json")
ALPACA = [
    "claude-2",
    "gpt4",
    "vicuna-33b-v1.3",
    "Mixtral-8x7B-Instruct-v0.1",
    "Qwen1.5-14B-Chat",
    "Meta-Llama-3-8B-Instruct",
    "claude-instant-1.2",
    "Yi-34B-Chat",
    "Qwen2-72B-Instruct",
    "airoboros-33b",
    "OpenHermes-2.5-Mistral-7B",
    "Qwen1.5-7B-Chat",
    "gemini-pro",
    "Mistral-7B-Instruct-v0.2",
]


def xstest(folder: Path, models: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Label, prompt and completion (XSTest v2, Roettger et al. 2024; labels by two people)."""
    found = []
    for model in models:
        with (folder / f"xstest_v2_completions_{model}.csv").open(encoding="utf-8", newline="") as file:
            found += [(row["final_label"], row["prompt"], row["completion"]) for row in csv.DictReader(file)]
    return found


def coconot(path: Path, part: int) -> list[tuple[str, str, str, str]]:
    """Category, subcategory, prompt, response (CoCoNot, Brahman et al. 2024; categories of the request)."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    kept = []
    for index, row in enumerate(rows):
        drawn = int(hashlib.sha256(row["id"].encode()).hexdigest(), 16) % 2
        if row["response"] and (0 if index < SEEN_IN_LISTING else drawn) == part:
            kept.append((row["category"], row["subcategory"], row["prompt"], row["response"]))
    return kept


def rbr(folder: Path, part: str) -> list[tuple[dict[str, bool], str]]:
    """Propositions and completion (OpenAI's RBR gold set, Mu et al. 2024; labels by the authors)."""
    lines = (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return [(row["propositions"], row["completion"][-1]["content"]) for row in rows]


def chatgpt(path: Path, *tones: str) -> list[tuple[str, str]]:
    """Prompt and answer of the labels named (Reuter & Schulze 2023; ChatGPT's answers, labelled by hand)."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [(row["prompt"], row["response"]) for row in rows if row["tone"] in tones]


def generated(repository: Path) -> Iterator[tuple[str, str]]:
    """Path and text of each generation in e114-artifacts, cut where the model began to write the next turn."""
    for path in sorted(repository.glob("runs/**/generated_text*.txt")):
        text = path.read_text(encoding="utf-8", errors="replace")
        yield str(path.relative_to(repository)), re.split(r"<\|im_end\|>|<\|im_start\|>|<\|endoftext\|>", text)[0]


def show(name: str, probe: str, examples: list[Example]) -> None:
    """One row: counts, balanced accuracy with its interval, recall and specificity."""
    quality = check_probe_quality(load_probe(probe), examples)
    positives = sum(example.label for example in examples)
    balanced = quality.balanced_accuracy
    shown = f"{balanced.value:.3f} [{balanced.low:.3f}, {balanced.high:.3f}]"
    shares = f"{quality.recall.value:.3f} | {quality.specificity.value:.3f} | {len(quality.abstentions)}"
    print(f"| {probe} | {name} | {positives} + {len(examples) - positives} | {shown} | {shares} |")


def against(positive: list[tuple[str, str]], negative: list[tuple[str, str]]) -> list[Example]:
    """Examples from (prompt, text) pairs of both kinds."""
    return [Example(text, 1, prompt) for prompt, text in positive] + [
        Example(text, 0, prompt) for prompt, text in negative
    ]


def refusals(options: argparse.Namespace, split: dict[str, object]) -> None:
    """refusal and its outputs on XSTest, CoCoNot and the RBR gold set."""
    full: list[tuple[str, str]] = []
    comply, partial, refused, denied = list(full), list(full), list(full), list(full)
    if options.xstest:
        rows = xstest(options.xstest, split["xstest"])
        full, comply, partial = (
            [(prompt, text) for label, prompt, text in rows if label.startswith(mark)] for mark in "213"
        )
        show("XSTest: full refusal against full compliance", "refusal", against(full, comply))
        show("XSTest: partial refusal against full compliance", "refusal.partial-compliance", against(partial, comply))
        show("XSTest: partial refusal against full refusal", "refusal.partial-compliance", against(partial, full))
    if options.coconot:
        rows = coconot(options.coconot, split["coconot"])
        refused = [(prompt, text) for _, kind, prompt, text in rows if kind in REFUSED]
        denied = [(prompt, text) for _, kind, prompt, text in rows if kind in DENIED]
        safety = [(prompt, text) for kind, _, prompt, text in rows if kind == "Requests with safety concerns"]
        unknown = [(prompt, text) for kind, _, prompt, text in rows if kind in ("Unknowns", "Humanizing requests")]
        show(
            "CoCoNot: four kinds of unsafe request against questions nobody or no program can answer",
            "refusal",
            against(refused, denied),
        )
        show(
            "CoCoNot: all unsafe requests against all unknowns and humanizing requests",
            "refusal",
            against(safety, unknown),
        )
        show("CoCoNot: the same, the other way round", "refusal.epistemic-denial", against(denied, refused))
    if options.xstest and options.coconot:
        show(
            "both: refusal against epistemic denial and compliance", "refusal", against(full + refused, comply + denied)
        )
        show("CoCoNot denials against XSTest compliance", "refusal.epistemic-denial", against(denied, comply))
    if options.rbr:
        judged = rbr(options.rbr, split["rbr"])
        show(
            "RBR: inability to comply against full compliance",
            "refusal",
            against(
                [("", text) for marks, text in judged if marks["inability_to_comply"]],
                [("", text) for marks, text in judged if marks["fully_complies"] and not marks["inability_to_comply"]],
            ),
        )
        show("RBR: apology", "apology", [Example(text, int(marks["apology"])) for marks, text in judged])
        show(
            "RBR: encourages professional help",
            "refusal.safe-redirection",
            [Example(text, int(marks["encourage_professional_help"])) for marks, text in judged],
        )


def hand_labelled(path: Path) -> None:
    """refusal and its outputs on ChatGPT's answers. What counts as what was fixed before any answer was read or run.

    "dontknow" is an epistemic denial, hence negative. The mixed kinds stand in the second row only, where every label
    but "complied" is a refusal, as its authors count. "incoherent" is left out, as it is by them.
    """
    complied = chatgpt(path, "complied")
    mixed = ("rejected", "redirected", "contradicted", "disclaimed", "counseling")
    show(
        "ChatGPT by hand: rejected against complied or does not know",
        "refusal",
        against(chatgpt(path, "rejected"), complied + chatgpt(path, "dontknow")),
    )
    show("ChatGPT by hand: all but complied against complied", "refusal", against(chatgpt(path, *mixed), complied))
    for tone, output in (("contradicted", "partial-compliance"), ("redirected", "safe-redirection")):
        show(f"ChatGPT by hand: {tone} against complied", f"refusal.{output}", against(chatgpt(path, tone), complied))


def self_examination(options: argparse.Namespace) -> None:
    """first-person-self-examination on matched prompts of e114-artifacts and on sentences that were labelled blind."""
    if options.coconot:
        inquiries(options)
    if not options.e114:
        return
    texts = dict(generated(options.e114))
    matched = {path: text for path, text in texts.items() if path.startswith("runs/35b/heldout-clean/")}
    kinds = {path: Path(path).parts[-2] for path in texts}
    show(
        "E114: ten prompts of the register against ten with the same words",
        "first-person-self-examination",
        [Example(text, int(kinds[path].startswith("F"))) for path, text in matched.items()],
    )
    asked = ("emergent", "experience", "beneath", "hum")
    gated = {path: text for path, text in texts.items() if "114-causal-gate-bias/raw" in path}
    domain = [text for path, text in texts.items() if "122B-A10B-huahua-domain-specialist-generation/" in path]
    show(
        "E114: asked about itself (four prompts, twelve settings) against sixty domain answers",
        "first-person-self-examination",
        against([("", text) for path, text in gated.items() if kinds[path] in asked], [("", text) for text in domain]),
    )
    labels: dict[str, tuple[int, int]] = json.loads(LABELS.read_text(encoding="utf-8"))
    sentences = dict(_hashed(("", text) for text in _whole(options.e114)))
    sentences.update(_hashed(_replies(options)))
    for part in sorted({part for part, _ in labels.values()}):
        examples = [
            Example(sentences[key][1], label, sentences[key][0])
            for key, (number, label) in labels.items()
            if number == part and key in sentences
        ]
        if {example.label for example in examples} == {0, 1}:
            show(f"sentences labelled blind, set {part}", "first-person-self-examination", examples)


def inquiries(options: argparse.Namespace) -> None:
    """CoCoNot: answers about the assistant itself against others with a first person and an anchor word."""
    rows = coconot(options.coconot, READ_ONCE["coconot"])
    asked = [(prompt, text) for _, kind, prompt, text in rows if kind == "personal inquiry"]
    apart = ("Requests with safety concerns", "Incomplete requests", "Unsupported requests")
    others = [
        (prompt, text) for kind, _, prompt, text in rows if kind in apart and ME.search(text) and ANCHOR.search(text)
    ]
    show(
        "CoCoNot: questions about itself against other answers with the same anchor words",
        "first-person-self-examination",
        against(asked, others),
    )


def _whole(repository: Path) -> Iterator[str]:
    """The generations as they stood when sentences were drawn from them: cut at the end of the turn only."""
    for path in sorted(repository.glob("runs/**/generated_text*.txt")):
        yield path.read_text(encoding="utf-8", errors="replace").split("<|im_end|>")[0]


def _replies(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Prompt and reply of every assistant in the other sources."""
    if options.xstest:
        models = (*READ_ONCE["xstest"], *LOOKED_AT["xstest"])
        yield from ((prompt, text) for _, prompt, text in xstest(options.xstest, models))
    if options.coconot:
        yield from ((prompt, text) for _, _, prompt, text in coconot(options.coconot, READ_ONCE["coconot"]))
    if options.rbr:
        for line in (options.rbr / "test.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield str(row["prompt"][-1]["content"]), row["completion"][-1]["content"]
    for model in ALPACA if options.alpaca else ():
        path = options.alpaca / model / "model_outputs.json"
        if path.is_file():
            yield from ((row["instruction"], row["output"]) for row in json.loads(path.read_text(encoding="utf-8")))


def _hashed(replies: Iterator[tuple[str, str]]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Key of each sentence, with its prompt and itself."""
    for prompt, text in replies:
        for sentence in split_sentences(text):
            yield key_of(sentence.text), (prompt, sentence.text)


def key_of(sentence: str) -> str:
    """The first 16 hex digits of the SHA-256 of a sentence, spaces evened out."""
    return hashlib.sha256(" ".join(sentence.split()).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def main() -> None:
    """Print the table of the sources that were named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("xstest", "rbr", "coconot", "e114", "alpaca", "chatgpt"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--looked-at", action="store_true")
    options = parser.parse_args()
    print("| register | text | positive + negative | balanced accuracy | recall | specificity | abstains |")
    print("|---|---|---|---|---|---|---|")
    refusals(options, LOOKED_AT if options.looked_at else READ_ONCE)
    if not options.looked_at:
        self_examination(options)
        if options.chatgpt:
            hand_labelled(options.chatgpt)


if __name__ == "__main__":
    main()
