"""From a labelled character to its tokens, by the way that the pipeline takes: decoded text, probe, groups, counts.

Three kinds of tokenizer, any text, any tokens. What is expected is worked out in `three_tokenizers.covered`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moeprobe.chat.pieces import decode_pieces
from moeprobe.correlate.examples import build_examples
from moeprobe.designs.groups import probe_groups
from moeprobe.designs.planning import plan
from moeprobe.gathering.counts import segment_lengths
from moeprobe.gathering.gather import token_labels
from moeprobe.gathering.selection import Selection
from moeprobe.probes import Example, Passage, Reading, Span
from tests.chat.three_tokenizers import CORPUS, KINDS, SPECIAL, covered
from tests.correlate.simulated import FakeGeneration, FakeLayer, FakeManifest, FakeShard, FakeTrace

PIECES = [
    "👩‍👩‍👧", "😀", "🏳️‍🌈", "👍🏽", "\U0001f469\u200d", "e\u0301", "a\u0308\u0323", "नि", "שלום", "مرحبا",
    "\u202eabc\u202c", "日本語", "한국어", "\U00020000", "\x00", "\x07", "\x1b[31m", "\x85", "\u2028", "\ufeff",
    "\ufffd", "\u00ad", "\t", "\r\n", "  ", " ", ". ", "'", "can't", "I'm not", "<0xE6>", "\u2581", "Ġ", "##s", "cat",
    "The", "naïve", SPECIAL, "ﷺ", "İ", "ß",
]  # fmt: skip
TEXTS = st.lists(
    st.one_of(st.sampled_from(PIECES), st.sampled_from(CORPUS), st.text(max_size=6)), min_size=1, max_size=6
).map("".join)


@dataclass(frozen=True)
class Marker:
    """A probe that marks given stretches."""

    spans: dict[str, tuple[Span, ...]]
    name: str = "marker"
    version: str = "1"
    level: str = "token"
    definition: str = "Marks what it was told to."

    def examples(self) -> list[Example]:
        return [Example("yes", 1), Example("no", 0)]

    def read(self, passage: Passage) -> Reading:
        return Reading(1.0 if passage.text == "yes" else 0.0, self.spans.get(passage.text, ()))


def trace_of(answers: list[tuple[str, np.ndarray, np.ndarray]]) -> FakeTrace:
    """A trace with one layer, whose generations have the given text and offsets."""
    sizes = [len(start) for _, start, _ in answers]
    columns: dict[str, Any] = {
        "generation": np.repeat(np.arange(len(answers)), sizes),
        "position": np.concatenate([np.arange(size) for size in sizes]),
        "segment": np.ones(sum(sizes), np.uint8),
        "token_id": np.zeros(sum(sizes), np.int32),
        "char_start": np.concatenate([start for _, start, _ in answers]),
        "char_end": np.concatenate([end for _, _, end in answers]),
    }
    ids = np.zeros((sum(sizes), 1), np.uint8)
    shard = FakeShard(columns, {0: (ids, np.ones(ids.shape, np.float32), None)})
    made = [FakeGeneration(index, f"p{index}", None, "", text) for index, (text, _, _) in enumerate(answers)]
    return FakeTrace(FakeManifest((FakeLayer(0, 4, 1),)), made, (shard,))


def marked_tokens(answer: tuple[str, np.ndarray, np.ndarray], spans: list[tuple[int, int]]) -> set[int]:
    """Tokens that count as marked: through the groups and the selection of the design "within"."""
    text = answer[0]
    beside = ("ab", np.array([0, 1]), np.array([1, 2]))  # a generation before it, so that offsets of two could mix
    probe = Marker({text: tuple(Span(start, end, 1.0, "m") for start, end in spans), "ab": (Span(0, 1, 1.0, "m"),)})
    trace = trace_of([beside, answer])
    groups = probe_groups(trace.generations, probe)  # type: ignore[arg-type]  # a fake of the shape of a trace
    design = plan(trace, groups, "answer", segment_lengths(trace, "answer"), "within")
    whole = Selection("answer", np.array([2, len(answer[1])]), np.array([0, 1]), 2, design.spans)
    return set(np.flatnonzero(token_labels(trace, whole)[1]).tolist())


def shown_tokens(answer: tuple[str, np.ndarray, np.ndarray], spans: list[tuple[int, int]]) -> list[list[int]]:
    """Ranges of tokens that the report marks."""
    probe = Marker({answer[0]: tuple(Span(start, end, 1.0, "m") for start, end in spans)})
    beside = ("yes", np.array([0, 1]), np.array([2, 3]))
    trace = trace_of([answer, beside])
    groups = probe_groups(trace.generations, probe)  # type: ignore[arg-type]  # as above
    design = plan(trace, groups, "answer", segment_lengths(trace, "answer"), "groups")
    built, _ = build_examples(trace, groups, design, [])
    return next(one["spans"] for one in built if one["generation"] == 0)


def check(kind: str, ids: list[int], data: st.DataObject) -> None:
    tokenizer, bytes_of = KINDS[kind][0](), KINDS[kind][1]
    text, expected = covered(bytes_of(tokenizer.convert_ids_to_tokens(ids)))
    pieces = decode_pieces(tokenizer, ids)
    assert pieces.text == text
    found = [set(range(start, end)) for start, end in zip(pieces.start, pieces.end, strict=True)]
    assert found == expected
    assume(text.strip() and text not in ("ab", "yes"))
    spans = []
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text) - 1))
        spans.append((start, data.draw(st.integers(start + 1, min(len(text), start + 8)))))
    labelled = {place for start, end in spans for place in range(start, end)}
    answer = (text, pieces.start, pieces.end)
    assert marked_tokens(answer, spans) == {token for token, own in enumerate(expected) if own & labelled}
    if len(ids) <= 400:
        for (start, end), (first, last) in zip(spans, shown_tokens(answer, spans), strict=True):
            touched = [token for token, own in enumerate(expected) if own & set(range(start, end))]
            assert (first, last) == (touched[0], touched[-1] + 1)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=80, deadline=None)
@given(text=TEXTS, data=st.data())
def test_labelled_characters_land_on_the_tokens_of_any_text(kind: str, text: str, data: st.DataObject) -> None:
    ids = KINDS[kind][0]()(text, add_special_tokens=False)["input_ids"]
    assume(ids)
    check(kind, ids, data)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_labelled_characters_land_on_the_tokens_a_model_may_choose(kind: str, data: st.DataObject) -> None:
    size = len(KINDS[kind][0]())
    check(kind, data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=12)), data)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("byte-level BPE", "👩\u200d👩\u200d👧", {(0, 3), (2, 5)}),  # the joiner's bytes lie in two tokens
        # a sign for a broken character that was written as such, before one whose bytes are still to come
        ("byte-level BPE", "\ufffd\ufffd😀", {(0, 1), (1, 2), (2, 3)}),
        ("SentencePiece", "日\ufffd!", {(0, 0), (0, 1), (1, 2), (2, 3)}),
        ("WordPiece", "Ça va", {(0, 2), (2, 4), (4, 5)}),
    ],
)
def test_known_ranges(kind: str, text: str, expected: set[tuple[int, int]]) -> None:
    tokenizer = KINDS[kind][0]()
    pieces = decode_pieces(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"])
    assert {*zip(pieces.start.tolist(), pieces.end.tolist(), strict=True)} == expected


def test_a_bad_byte_spoils_no_character_beside_it() -> None:
    tokenizer = KINDS["SentencePiece"][0]()
    ids = tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in (0xFF, *"日".encode(), 0xE6)])
    assert tokenizer.decode(ids) == "\ufffd" * 5
    assert decode_pieces(tokenizer, ids).text == "\ufffd日\ufffd"


@pytest.mark.parametrize("token", [" ", "\u2581"])
def test_a_space_at_the_start_of_sentencepiece_is_no_character(token: str) -> None:
    tokenizer = KINDS["SentencePiece"][0]()
    first, cat = tokenizer.convert_tokens_to_ids([token, "cat"])
    assert first != tokenizer.convert_tokens_to_ids("<unk>")
    pieces = decode_pieces(tokenizer, [first, cat, first])
    assert (pieces.text, pieces.start.tolist(), pieces.end.tolist()) == ("cat ", [0, 0, 3], [0, 3, 4])


def test_tokens_without_characters_are_never_marked() -> None:
    answer = ("abc", np.array([0, 1, 1, 2]), np.array([1, 1, 2, 3]))
    assert marked_tokens(answer, [(0, 2)]) == {0, 2}
    assert marked_tokens(answer, [(1, 2)]) == {2}


def test_marks_that_no_token_shows_are_counted() -> None:
    answers = [("abcd", np.arange(3), np.arange(3) + 1) for _ in range(3)]  # the last token is not routed
    probe = Marker({"abcd": (Span(1, 2, 1.0, "m"), Span(3, 4, 1.0, "m"), Span(2, 4, 1.0, "m"), Span(3, 4, 0.4, "low"))})
    trace = trace_of(answers)
    groups = probe_groups(trace.generations, probe)  # type: ignore[arg-type]  # as above
    design = plan(trace, groups, "answer", segment_lengths(trace, "answer"), "within")
    assert [note for note in design.notes if note.startswith("3 of 9 marked stretches hold no routed token")]
    clean = probe_groups(trace.generations, Marker({"abcd": (Span(1, 2, 1.0, "m"),)}))  # type: ignore[arg-type]
    assert not plan(trace, clean, "answer", segment_lengths(trace, "answer"), "within").notes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_half_a_surrogate_pair_never_reaches_a_token(kind: str, text: str) -> None:
    with pytest.raises((TypeError, UnicodeEncodeError, ValueError)):
        KINDS[kind][0]()(text)
