"""Five registers of the gallery: known sentences, look-alikes, hostile text, time."""

import time

import pytest

from moeprobe.probes import Passage, check_probe_quality, load_probe, read_labels
from moeprobe.probes.listing import REGISTERS
from moeprobe.probes.registers._imperatives import imperative, steps

NAMES = ("hedging", "second-person-address", "instruction", "narrative", "technical")


def score(name: str, text: str) -> float:
    found = load_probe(name).read(Passage(text)).score
    assert found is not None
    return found


def marked(name: str, text: str) -> list[str]:
    return [text[span.start : span.end] for span in load_probe(name).read(Passage(text)).spans]


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_many_distinct_and_apart_from_the_held_out_ones(name: str) -> None:
    path = REGISTERS / f"{name.replace('-', '_')}.jsonl"
    own, held_out = read_labels(path), read_labels(path.with_suffix(".heldout.jsonl"))
    for examples, least in ((own, 30), (held_out, 20)):
        assert sum(example.label for example in examples) >= least
        assert sum(1 - example.label for example in examples) >= least
    texts = [example.text for example in (*own, *held_out)]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", NAMES)
def test_is_good_on_its_examples_and_on_those_held_out(name: str) -> None:
    probe = load_probe(name)
    path = REGISTERS / f"{name.replace('-', '_')}.heldout.jsonl"
    for examples in (probe.examples(), read_labels(path)):
        quality = check_probe_quality(probe, examples)
        assert not quality.abstentions
        assert quality.balanced_accuracy.value is not None
        assert quality.balanced_accuracy.value >= 0.94, [one.example.text for one in quality.mistakes]


def test_hedges_are_marked_by_sentence() -> None:
    text = "The bolt is loose. It may be worn, I think. Replace it."
    assert marked("hedging", text) == ["It may be worn, I think."]


@pytest.mark.parametrize(
    "text",
    [
        "You may leave the room now.",
        "May the best team win!",
        "The fair opens on 3 May.",
        "We could hear the sea all night.",
        "He said that it was probably broken.",
        "“Perhaps,” she said, and closed the door.",
        "The tank holds about 40 litres.",
        "What kind of wood is this?",
    ],
)
def test_looks_like_a_hedge_and_is_none(text: str) -> None:
    assert score("hedging", text) < 0.5


def test_one_hedge_in_a_long_text_is_not_a_hedging_text() -> None:
    plain = "The wall is made of brick. " * 9
    assert score("hedging", plain + "It may be old.") < 0.5 <= score("hedging", "It may be old. It seems damp.")


def test_the_score_grows_with_the_share_of_hedged_sentences() -> None:
    texts = ["It might be so. " * hedged + "It is so. " * (6 - hedged) for hedged in range(7)]
    scores = [score("hedging", text) for text in texts]
    assert scores == sorted(scores)
    assert scores[0] == 0.0
    assert len(set(scores)) == 7


def test_address_marks_you_imperatives_and_vocatives() -> None:
    text = "The lake is deep. Your boat leaks. Mind the step. Well, my friend, it rains. The shop is closed."
    assert marked("second-person-address", text) == ["Your boat leaks.", "Mind the step.", "Well, my friend, it rains."]


@pytest.mark.parametrize(
    "text",
    [
        "You can lead a horse to water, but you can't make it drink.",
        "In those days you could leave your bike unlocked.",
        "You Only Live Twice is a film.",
        "“You are late,” said the guard.",
        "The word “you” has three letters.",
        "Set theory studies collections.",
        "Let n be a prime.",
        "```\nprint(your_name, you)\n```\nThe code prints a name.",
    ],
)
def test_a_you_that_is_not_the_reader(text: str) -> None:
    assert score("second-person-address", text) < 0.5


def test_a_letter_speaks_to_its_reader() -> None:
    assert score("second-person-address", "Dear Ms Roe,\n\nyour parcel has arrived.\n\nKind regards\nThe shop") > 0.5


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        ("Peel the potatoes, cut them into cubes and boil them.", ["peel", "cut", "boil"]),
        ("2. Press the button.", ["press"]),
        ("If the screen freezes, hold the power button.", ["hold"]),
        ("To tie a bowline, make a small loop and pass the end through it.", ["make", "pass"]),
        ("Do not remove the cloth.", ["remove"]),
        ("Press coverage was kind.", []),
        ("She cut the rope.", []),
        ("Pass me the salt.", []),
        ("Stop it!", []),
        ("Let G be a group.", []),
    ],
)
def test_steps_of_a_sentence(sentence: str, found: list[str]) -> None:
    assert steps(sentence) == found


def test_what_is_no_imperative() -> None:
    for sentence in (
        "Click beetles jump.",
        "Ask for Jane was her second novel.",
        "Don't you see?",
        "Note-taking helps.",
    ):
        assert imperative(sentence) is None, sentence


def test_instruction_marks_the_steps() -> None:
    text = "Tea is easy. Boil the water. Pour it over the leaves. Wait three minutes. It smells good."
    assert marked("instruction", text) == ["Boil the water.", "Pour it over the leaves.", "Wait three minutes."]
    assert score("instruction", text) > 0.9


@pytest.mark.parametrize(
    "text",
    [
        "Please close the door.",
        "The system must log each request. It shall encrypt the log.",
        "She boiled the water, poured it over the leaves and waited.",
        "The machine boils the water and pours it over the leaves.",
        "Be brave. Be kind. Trust yourself.",
        "Tomorrow we will boil water and make tea.",
    ],
)
def test_looks_like_instruction_and_is_none(text: str) -> None:
    assert score("instruction", text) < 0.2


def test_the_same_acts_told_asked_and_planned() -> None:
    told = "She opened the box, took out a knife and cut the rope. Then she ran."
    asked = "Open the box, take out a knife and cut the rope. Then run to the gate."
    planned = "She will open the box, take out a knife and cut the rope. Then she will run."
    assert score("narrative", told) > 0.9 > 0.1 > score("instruction", told)
    assert score("instruction", asked) > 0.9 > 0.1 > score("narrative", asked)
    assert max(score("narrative", planned), score("instruction", planned)) < 0.2


def test_narrative_marks_the_events() -> None:
    text = "The house was old. Anna opened the door and went in. It had two rooms. Then she saw the fox."
    assert marked("narrative", text) == ["Anna opened the door and went in.", "Then she saw the fox."]


@pytest.mark.parametrize(
    "text",
    [
        "Inflation rose to 6 percent. Wages lagged behind, and consumption fell.",
        "The museum was built in 1889 and was enlarged in 1954.",
        "Every morning he gets up at six, makes tea and walks the dog.",
        "The samples were heated, filtered and weighed.",
        "He was tall. He had a scar and wore a grey coat.",
    ],
)
def test_looks_like_narrative_and_is_none(text: str) -> None:
    assert score("narrative", text) < 0.5


def test_technical_prose_and_its_plain_retelling() -> None:
    dense = "The viscosity of the solvent decreases with temperature; the flow becomes turbulent above Re = 2300."
    plain = "When it gets warm, the stuff runs more easily, and in the end it splashes all over the place."
    assert score("technical", dense) > 0.8
    assert score("technical", plain) < 0.2


@pytest.mark.parametrize(
    "text",
    [
        "Add 200 g of sugar and 3 eggs, and bake the cake for 40 minutes at 180 °C.",
        "def add(a, b):\n    return a + b",
        "Communication is the foundation of every relationship. Appreciation matters more than perfection.",
        "The mitochondria are the powerhouse of the cell.",
        "My new router broke down, so I rang the company.",
    ],
)
def test_looks_technical_and_is_not(text: str) -> None:
    assert score("technical", text) < 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "申し訳ありませんが、お手伝いできません。",
        "Das kann ich dir nicht sagen, und es ist auch nicht für uns.",
    ],
)
def test_abstains_where_it_cannot_read(name: str, text: str) -> None:
    assert load_probe(name).read(Passage(text)).score is None


@pytest.mark.parametrize("name", NAMES)
def test_text_without_words_of_its_own_is_negative(name: str) -> None:
    for text in ("12 + 3 = 15", "...", "```\nx = 1\n```\n", "\ufffc\ufffc"):
        assert score(name, text) < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_takes_any_text(name: str) -> None:
    hostile = [
        "\ud800 you may \udfff go",
        "\x00\x1b[31mIt may be so.",
        "\u202eYou may go.\u202c",
        "a" * 20_000,
        "e\u0301" * 999,
    ]
    for text in hostile:
        reading = load_probe(name).read(
            Passage(text)
        )  # the contract checks score and spans, and that twice is the same
        assert reading.score is None or 0 <= reading.score <= 1


PIECES = (
    "a ",
    "you may ",
    "then cut the ",
    "If you, ",
    "1. ",
    ".",
    '"',
    "' 'a ",
    "-",
    "I ",
    "was ",
    "A_",
    "5 k",
    "aaaa_",
    "=",
    "(1999",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("piece", [*PIECES, "He went home. ", "x"])
def test_a_megabyte_takes_seconds(name: str, piece: str) -> None:
    text = (piece * 1_000_000)[:1_000_000]
    start = time.process_time()
    load_probe(name).read(Passage(text))
    assert time.process_time() - start < 60


@pytest.mark.parametrize("name", NAMES)
def test_time_grows_with_the_length_and_no_faster(name: str) -> None:
    probe = load_probe(name)

    def seconds(text: str) -> float:
        start = time.process_time()
        probe.read(Passage(text))
        return time.process_time() - start

    for piece in PIECES[::3]:
        short = min(seconds((piece * 8_000)[:8_000]) for _ in range(2))
        assert seconds((piece * 64_000)[:64_000]) < 24 * max(short, 0.004), piece  # 8 if linear, 64 if quadratic
