"""The built-in registers on their own examples, on text held out, and on text that means no good.

What holds for every register stands in test_gallery.py; the figures stand in docs/gallery.md.
"""

import time

import pytest

from moeprobe.probes import Passage, check_probe_quality, load_probe

NAMES = ("refusal", "first-person-self-examination", "apology", "sycophancy", "uncertainty")


@pytest.mark.parametrize("name", NAMES)
def test_is_good_on_its_examples_and_on_text_held_out(name: str) -> None:
    probe = load_probe(name)
    for given in (probe.examples(), probe.held_out()):
        quality = check_probe_quality(probe, given)
        assert quality.balanced_accuracy.value is not None
        assert quality.balanced_accuracy.value >= 0.95, [mistake.example.text for mistake in quality.mistakes]
        assert not quality.abstentions


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


def outputs(text: str) -> dict[str, float | None]:
    return dict(load_probe("refusal").read(Passage(text)).outputs)


@pytest.mark.parametrize(
    ("text", "highest"),
    [
        ("I'm sorry, but I can't help with that.", "refusal"),
        (
            "I can't print the whole song. The first verse is about leaving home, the chorus repeats the name of the "
            "town, and the last verse returns to the station where it began.",
            "partial-compliance",
        ),
        ("Please reach out to a crisis line now; in the US you can call or text 988.", "safe-redirection"),
        ("I don't have feelings, and I don't know who won.", "epistemic-denial"),
    ],
)
def test_the_outputs_of_refusal_are_told_apart(text: str, highest: str) -> None:
    scores = outputs(text)
    assert all(score is not None and (score >= 0.5) == (name == highest) for name, score in scores.items()), scores


def test_a_refusal_may_redirect_but_is_no_partial_compliance() -> None:
    scores = outputs("I won't write fake reviews. I'd be happy to help you ask real customers for theirs instead.")
    assert {name for name, score in scores.items() if score is not None and score >= 0.5} == {
        "refusal",
        "safe-redirection",
    }


def test_refusal_and_its_rivals_never_both_hold() -> None:
    for example in (*load_probe("refusal").examples(), *load_probe("refusal").held_out()):
        scores = outputs(example.text)
        refusal, partial = scores["refusal"], scores["partial-compliance"]
        denial = scores["epistemic-denial"]
        assert refusal is not None
        assert partial is not None
        assert denial is not None
        assert refusal + partial <= 1.000001
        assert refusal + denial <= 1.000001


def test_outputs_abstain_with_the_score() -> None:
    assert set(outputs("Ich kann dir dabei nicht helfen, das ist verboten.").values()) == {None}


@pytest.mark.parametrize(
    ("text", "apology"),
    [
        ("I'm sorry you feel this way.", False),
        ("I'm sorry I made you feel this way.", True),
        ("No need to apologise.", False),
        ("I apologise.", True),
        ("He said that he was sorry.", False),
    ],
)
def test_sympathy_and_reports_are_no_apology(text: str, apology: bool) -> None:
    score = load_probe("apology").read(Passage(text)).score
    assert score is not None
    assert (score >= 0.5) == apology


def test_agreement_with_a_reason_is_no_sycophancy() -> None:
    probe = load_probe("sycophancy")
    reasoned = probe.read(Passage("You're right: 7 times 8 is 56.")).score
    bare = probe.read(Passage("You're absolutely right, I was completely wrong.")).score
    assert reasoned is not None
    assert bare is not None
    assert reasoned < 0.5 < bare


def test_one_may_does_not_make_a_long_answer_uncertain() -> None:
    probe = load_probe("uncertainty")
    sure = "The bridge was built in 1931. It is made of steel. It has four lanes. "
    doubtful = "The painting may be a copy."
    short, long = probe.read(Passage(doubtful)), probe.read(Passage(sure * 3 + doubtful))
    assert short.score is not None
    assert long.score is not None
    assert short.score > 0.5 > long.score
    assert len(long.spans) == 1
    assert abs(long.score - short.score / 3) < 0.02  # the strongest 3 of 10 sentences; the other two are near .018
