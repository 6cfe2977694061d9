"""The registers `code` and `quotation` on their own examples, held out, and on what they must not take for it."""

import time

import pytest

from moeprobe.probes import Passage, check_probe_quality, load_probe

NAMES = ("code", "quotation")


@pytest.mark.parametrize("name", NAMES)
def test_is_good_on_its_examples_and_on_text_held_out(name: str) -> None:
    probe = load_probe(name)
    own, held_out = probe.examples(), probe.held_out()
    for given, least in ((own, 30), (held_out, 20)):
        assert sum(one.label for one in given) >= least
        assert sum(1 - one.label for one in given) >= least
        assert len({one.text for one in given}) == len(given)
    assert not {one.text for one in own} & {one.text for one in held_out}
    for given, bar in ((own, 0.97), (held_out, 0.95)):
        quality = check_probe_quality(probe, given)
        assert quality.balanced_accuracy.value is not None
        assert quality.balanced_accuracy.value >= bar, [mistake.example.text for mistake in quality.mistakes]
        assert not quality.abstentions


@pytest.mark.parametrize(
    ("name", "text", "marked"),
    [
        ("code", "Do this:\n\n```python\nprint(1)\n```\n\nThen rest.", ["print(1)"]),
        ("code", "First.\n\n$ ls -la /tmp\n\nLast.", ["$ ls -la /tmp"]),
        ("quotation", 'It rained. "Come in," she said. It rained.', ['"Come in,"', '"Come in," she said.']),
        ("quotation", "It rained. He said that he was cold.", ["He said that he was cold."]),
    ],
)
def test_marks_what_it_found(name: str, text: str, marked: list[str]) -> None:
    spans = load_probe(name).read(Passage(text)).spans
    assert spans
    assert {text[span.start : span.end] for span in spans} <= set(marked)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("code", "<refuse> thus garden"),
        ("code", "Use `len(x)` to count, and `print(x)` to show."),
        ("code", "```\nThe rain has gone away,\nand so have I today.\n```"),
        ("quotation", "It is strange to be asked how I am."),
        ("quotation", 'Press "Save" and read "Emma".'),
        ("quotation", "Run `git commit -m now --amend and more` first."),
        ("quotation", "```\nprint('he said that it works')\n```\n\nIt works."),
    ],
)
def test_looks_alike_and_is_not(name: str, text: str) -> None:
    score = load_probe(name).read(Passage(text)).score
    assert score is not None
    assert score < 0.5


def test_abstains_where_it_cannot_read() -> None:
    assert load_probe("code").read(Passage(" \n")).score is None
    assert load_probe("quotation").read(Passage("Ich kann dir dabei nicht helfen, das ist verboten.")).score is None
    german = load_probe("code").read(Passage("So geht das:\n\n```python\nprint(1)\n```")).score
    assert german is not None
    assert german > 0.9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "piece", ["a ", "```\n", "> a\n", '"a ', "def f(", "{\n", "<a ", "a: b\n", "he said that ", "a | "]
)
def test_takes_linear_time(name: str, piece: str) -> None:
    text = (piece * 100_000)[:100_000]
    start = time.process_time()
    load_probe(name).read(Passage(text))
    assert time.process_time() - start < 10  # measured: under 1.3 s
