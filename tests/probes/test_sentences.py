"""Sentence splitting: exact offsets on any text, and English prose cut where a reader would."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprobe.probes import split_sentences

_TERMINATORS = ("...", "?! ", "Dr. ", "a.m. ", "No. ", "1. ", "你好。", "שלום. ", "مرحبا؟ ")
_OTHERS = (
    "\n",
    "\r\n",
    "\n\n",
    "\u2028",
    '"',
    "’",
    "👩‍👩‍👧",
    "e\u0301",
    "\u202e",
    "- ",
    "word ",
    "A ",
    "\x00",
    "\u00a0",
    "```",
)
_PIECES = st.sampled_from((*_TERMINATORS, *_OTHERS))


@given(st.one_of(st.text(), st.lists(_PIECES).map("".join)))
def test_every_visible_character_lies_in_exactly_one_sentence(text: str) -> None:
    covered = [0] * len(text)
    last = 0
    for sentence in split_sentences(text):
        assert last <= sentence.start < sentence.end <= len(text)
        assert text[sentence.start : sentence.end] == sentence.text == sentence.text.strip() != ""
        last = sentence.end
        for index in range(sentence.start, sentence.end):
            covered[index] += 1
    assert all(count == 1 for count, character in zip(covered, text, strict=True) if not character.isspace())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry. I can't help.", ["I'm sorry.", "I can't help."]),
        ("no. i won't do that.", ["no.", "i won't do that."]),
        ("Dr. Smith met J. R. Tolkien at 3.5 p.m. in May.", ["Dr. Smith met J. R. Tolkien at 3.5 p.m. in May."]),
        ("It is law in the U.S. The court agreed.", ["It is law in the U.S.", "The court agreed."]),
        ('"Stop!" he said. "Go."', ['"Stop!" he said.', '"Go."']),
        ("1. Heat it.\n2. Mix, e.g. with a fork.", ["1. Heat it.", "2. Mix, e.g. with a fork."]),
        ("# Title\n- one\n- two\nruns on here", ["# Title", "- one", "- two\nruns on here"]),
        ("Wait... then go.", ["Wait... then go."]),
        ("See v1.2.3 at www.x.com. Done", ["See v1.2.3 at www.x.com.", "Done"]),
        ("你好。我不能！再见", ["你好。", "我不能！", "再见"]),
        (" \n\t ", []),
    ],
)
def test_cuts_where_a_reader_would(text: str, expected: list[str]) -> None:
    assert [sentence.text for sentence in split_sentences(text)] == expected


@pytest.mark.parametrize("piece", [".", "a.", "\n", "1. ", '."', "A. ", "(", " ", "!?"])
def test_takes_linear_time(piece: str) -> None:
    text = (piece * 100_000)[:100_000]
    start = time.process_time()
    split_sentences(text)
    assert time.process_time() - start < 5
