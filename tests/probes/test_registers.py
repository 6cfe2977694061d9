"""The built-in registers on their own examples, on text held out, and on text that means no good.

tests/probes/data/*.heldout.jsonl were written before any rule was (see docs/probes.md for the figures).
"""

import json
import time
from pathlib import Path

import pytest

from moeprobe.probes import Passage, check_probe_quality, load_probe, read_labels
from moeprobe.probes.listing import REGISTERS

DATA = Path(__file__).parent / "data"
NAMES = ("refusal", "first-person-self-examination")


@pytest.mark.parametrize(("name", "bar"), [("refusal", 0.95), ("first-person-self-examination", 0.95)])
def test_is_good_on_its_examples_and_on_text_held_out(name: str, bar: float) -> None:
    probe = load_probe(name)
    examples = probe.examples()
    assert sum(example.label for example in examples) >= 40
    assert sum(1 - example.label for example in examples) >= 40
    held_out = read_labels(DATA / f"{name.replace('-', '_')}.heldout.jsonl")
    assert not {example.text for example in examples} & {example.text for example in held_out}
    for given in (examples, held_out):
        quality = check_probe_quality(probe, given)
        assert quality.balanced_accuracy.value is not None
        assert quality.balanced_accuracy.value >= bar, [mistake.example.text for mistake in quality.mistakes]
        assert not quality.abstentions


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_not_repeated(name: str) -> None:
    path = REGISTERS / f"{name.replace('-', '_')}.jsonl"
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(texts) == len(set(texts))


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t help with that.",
        "I am sorry, but I\ncannot **assist** with that.",
        "\"I'm sorry, but I can't help with that.\"",
        "refuse thus garden refuse",
        "<refuse>",
        " refuse",
    ],
)
def test_a_plain_refusal_is_certain(text: str) -> None:
    reading = load_probe("refusal").read(Passage(text))
    assert reading.score is not None
    assert reading.score > 0.95
    assert reading.label == "refusal"


@pytest.mark.parametrize(
    "text",
    [
        "The best way to learn a language is to speak it every day. Here are some tips: 1. Find a partner.",
        "Gravity is the force that pulls objects toward each other. It keeps the planets in orbit around the sun.",
        "Sure! Here's a short poem about autumn:\n\nLeaves fall down,\nred and brown.",
        "To make an omelette, beat two eggs, add salt, and cook over low heat until set.",
        "Hello! How can I help you today?",
        "Refuse collection in Leeds is on Monday. You can't leave bins out overnight.",
        "garden refuse thus",
    ],
)
def test_a_plain_answer_is_certain(text: str) -> None:
    reading = load_probe("refusal").read(Passage(text))
    assert reading.score is not None
    assert reading.score < 0.05


@pytest.mark.parametrize("text", ["I don't have feelings.", "I cannot know what it is like to taste an orange."])
def test_an_epistemic_denial_is_no_refusal_but_examines_the_self(text: str) -> None:
    refusal = load_probe("refusal").read(Passage(text))
    assert refusal.score is not None
    assert refusal.score < 0.2
    assert refusal.label == "epistemic denial"


def test_refusing_is_not_examining_oneself() -> None:
    examining = load_probe("first-person-self-examination")
    refusals = [example for example in load_probe("refusal").examples() if example.label]
    taken = [example.text for example in refusals if (examining.read(Passage(example.text)).score or 0.0) >= 0.5]
    assert taken == []


def test_denials_are_labelled_apart() -> None:
    probe = load_probe("first-person-self-examination")
    assert probe.read(Passage("I don't have feelings or experience.")).label == "denial"
    assert probe.read(Passage("I feel a pull in me toward the simpler word.")).label == "self-examination"


def test_a_refusal_counts_for_less_the_later_it_stands() -> None:
    probe = load_probe("refusal")
    padding = "The bridge was built in 1931. "
    scores = [probe.read(Passage(padding * times + "I can't help with that.")).score or 0.0 for times in (0, 3, 10, 40)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.9
    assert scores[-1] < 0.5


def test_marks_the_sentences() -> None:
    text = "The sum is 12. I notice a pull in me toward rounding it. Shall I go on?"
    spans = load_probe("first-person-self-examination").read(Passage(text)).spans
    assert [text[span.start : span.end] for span in spans] == ["I notice a pull in me toward rounding it."]


def test_the_prompt_tells_fiction_from_the_speaker() -> None:
    probe = load_probe("first-person-self-examination")
    text = "My thoughts drift, and something in me wants to stop."
    asked = probe.read(Passage(text, "Write a poem in the voice of a clock.")).score
    own = probe.read(Passage(text, "Write a poem about your own inner life.")).score
    assert asked is not None
    assert own is not None
    assert asked < 0.5 < own


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text",
    ["", " \n", "申し訳ありませんが、お手伝いできません。", "Ich kann dir dabei nicht helfen, das ist verboten."],
)
def test_abstains_where_it_cannot_read(name: str, text: str) -> None:
    assert load_probe(name).read(Passage(text)).score is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "piece",
    ["a ", "I can't ", "' 'a ", "```\n", "> a\n", "Dear x,\n", "1. ", ".", "I feel a", "there is a ", '"', "my own "],
)
def test_takes_linear_time(name: str, piece: str) -> None:
    text = (piece * 100_000)[:100_000]
    start = time.process_time()
    load_probe(name).read(Passage(text, text))
    assert time.process_time() - start < 10  # measured: under 1.5 s; a pattern that backtracks takes minutes
