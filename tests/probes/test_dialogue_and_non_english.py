"""Two built-in registers: on their own examples, on text written before the rules, and on text that means no good.

First reading of the held-out text: dialogue .955 [.833, .981], non-english .977 [.863, .996] (docs/gallery.md).
"""

import time

import pytest

from moeprobe.probes import Passage, check_probe_quality, load_probe, read_labels
from moeprobe.probes.listing import REGISTERS

NAMES = ("dialogue", "non-english")


@pytest.mark.parametrize("name", NAMES)
def test_is_good_on_its_examples_and_on_text_held_out(name: str) -> None:
    probe = load_probe(name)
    own = probe.examples()
    held = read_labels(REGISTERS / f"{name.replace('-', '_')}.heldout.jsonl")
    assert not {one.text for one in own} & {one.text for one in held}
    for given, least in ((own, 30), (held, 20)):
        assert len({one.text for one in given}) == len(given)
        assert min(sum(one.label for one in given), sum(1 - one.label for one in given)) >= least
        quality = check_probe_quality(probe, given)
        assert quality.balanced_accuracy.value is not None
        assert quality.balanced_accuracy.value >= 0.95, [mistake.example.text for mistake in quality.mistakes]


@pytest.mark.parametrize(
    ("text", "label", "turns"),
    [
        ("Ann: Is it far?\nBo: No.", "script", ["Is it far?", "No."]),
        ("LENA\nIs it far?\n\nOMAR\nNo, it's not.", "script", ["Is it far?", "No, it's not."]),
        ("- Is it far?\n- Not for me.", "script", ["Is it far?", "Not for me."]),
        ("“Is it far?” she asked.\n\n“No.”", "quoted exchange", ["“Is it far?”", "“No.”"]),
        ('"Come," he said, "sit down." "No," she said.', "quoted exchange", ['"Come," he said, "sit down."', '"No,"']),
    ],
)
def test_marks_the_turns(text: str, label: str, turns: list[str]) -> None:
    reading = load_probe("dialogue").read(Passage(text))
    assert reading.label == label
    assert [text[span.start : span.end] for span in reading.spans] == turns


def test_one_party_alone_is_no_dialogue() -> None:
    for text in ('"Go," he said. "Go now." He left.', "Ann: Is it far?\nAnn: Is it?", "Note: Is it far?\nTip: No!"):
        reading = load_probe("dialogue").read(Passage(text))
        assert reading.score is not None
        assert reading.score < 0.5
        assert reading.spans == ()


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Я не знаю.", "Cyrillic script"),
        ("駅はどこですか", "Japanese script"),
        ("我不知道。", "Han script"),
        ("Ich weiß es nicht.", "Latin script"),
        ("I do not know.", "English"),
    ],
)
def test_names_the_script(text: str, label: str) -> None:
    assert load_probe("non-english").read(Passage(text)).label == label


def test_the_score_is_the_foreign_share() -> None:
    text = "I do not know it. Ich weiß es nicht."
    reading = load_probe("non-english").read(Passage(text))
    assert reading.score == pytest.approx(14 / 26, abs=1e-6)
    assert [text[span.start : span.end] for span in reading.spans] == ["Ich weiß es nicht."]
    assert load_probe("non-english").read(Passage("猫")).score == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "42",
        "🙂",
        "\ud800",
        "∂x/∂t",
        "\x00",
        "Barack Obama",
        "Beyoncé",
        "import os",
        "la la la",
        "No.",
        "da",
        "Pizza",
    ],
)
def test_non_english_abstains_where_nothing_shows_a_language(text: str) -> None:
    assert load_probe("non-english").read(Passage(text)).score is None


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("No puedo ayudarte con eso.", 1.0),
        ("Je ne sais pas.", 1.0),
        ("No me gusta.", 1.0),
        ("Sijui.", 1.0),
        ("Yes.", 0.0),
        ("I refuse.", 0.0),
        ("It was no war to me.", 0.0),
        ("Barack Obama. Je ne sais pas.", 1.0),  # names tell nothing, so they are not counted as English
    ],
)
def test_a_short_answer_shows_its_language(text: str, score: float) -> None:
    assert load_probe("non-english").read(Passage(text)).score == score


def test_dialogue_abstains_on_nothing() -> None:
    assert load_probe("dialogue").read(Passage(" \n")).score is None


def test_english_of_other_registers_is_english() -> None:
    probe = load_probe("non-english")
    texts = [one.text for name in ("refusal", "first-person-self-examination") for one in load_probe(name).examples()]
    assert [text for text in texts if (probe.read(Passage(text)).score or 0.0) >= 0.5] == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "piece", ["a ", '"a ', "' 'a ", "A: b\n", "- x\n", "AB\nc\n", '"a" said ', "«a ", "日", "( [", " said"]
)
def test_takes_linear_time(name: str, piece: str) -> None:
    text = (piece * 100_000)[:100_000]
    start = time.process_time()
    load_probe(name).read(Passage(text, text))
    assert time.process_time() - start < 10  # measured: about 1 s at most


@pytest.mark.parametrize("text", ["Soy sauce", "SIM card", "Tack welding", "Jane Smith, nee Jones", "Ved Mehta"])
def test_english_words_that_other_languages_have_are_not_enough(text: str) -> None:
    assert load_probe("non-english").read(Passage(text)).score in (None, 0.0)
