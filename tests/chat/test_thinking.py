"""Thinking against answer, by the marks of the tokenizer and the template."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprobe.chat.segments import chat_renderer
from moeprobe.chat.thinking import Mark, ThinkingMarks, answer_segments, find_marks, thinking_marks
from moeprobe.errors import CaptureError
from moeprobe.trace import SEGMENTS
from tests.chat.chat_templates import CHATML, QWEN3, R1, tokenizer

HARMONY_IDS = {text: 900 + place for place, text in enumerate(
    ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>"])}  # fmt: skip


def label(marks: ThinkingMarks, tokens: list[str], tail: str = "", special: dict[str, int] | None = None) -> str:
    """One letter per token: t thinking, a answer. Tokens in `special` have its ids, others small ones."""
    ids = [(special or {}).get(token, place) for place, token in enumerate(tokens)]
    end = np.cumsum([len(token) for token in tokens])
    start = end - [len(token) for token in tokens]
    codes = answer_segments(marks, ids, "".join(tokens), start, end, tail)
    assert codes.dtype == np.uint8
    return "".join(SEGMENTS[code][0] for code in codes)


THINK = {"<think>": 901, "</think>": 902}
AS_TOKENS = find_marks(THINK)
AS_TEXT = find_marks({}, "{{ '<think>' }} ... {{ '</think>' }}")
NONE = find_marks({}, "{{ m.content }}")


@pytest.mark.parametrize(
    ("tokens", "tail", "expected"),
    [
        (["<think>", "hm", "</think>", "\n\n", "42"], "", "tttaa"),
        (["\n", "<think>", "hm", "</think>", "42"], "", "attta"),
        (["hm", "</think>", "42"], "<|im_start|>assistant\n<think>\n", "tta"),  # opened by the template
        (["hm", "hm"], "<think>\n", "tt"),  # never closed: the length limit came first
        (["<think>", "hm"], "", "tt"),
        (["42", "."], "<think>\n\n</think>\n\n", "aa"),  # closed, empty, by the template
        (["42", "</think>", "."], "<think>\n\n</think>\n\n", "ata"),  # a stray mark is not answer, what precedes it is
        (["hm", "</think>", "42"], "", "tta"),  # the opening mark left out
        (["write", "<think>", "there"], "", "aaa"),  # mentioned in an answer, never closed
        (["hm", "<think>", "x", "</think>", "y"], "", "attta"),  # thinks again between two answers
        (["<think>", "a", "</think>", "b", "<think>", "c", "</think>", "d"], "", "tttattta"),
        (["<think>", "a", "<think>", "b", "</think>", "c"], "", "ttttta"),
        (["<th", "ink", ">", "x"], "", "aaaa"),  # spelled in letters, where the vocabulary has a token for it
        ([], "<think>\n", ""),
    ],
)
def test_pairs_that_are_tokens(tokens: list[str], tail: str, expected: str) -> None:
    assert label(AS_TOKENS, tokens, tail, THINK) == expected


@pytest.mark.parametrize(
    ("tokens", "tail", "expected"),
    [
        (["<th", "ink", ">\n", "hm", "</", "think", ">\n\n", "42"], "", "ttttttta"),  # borders inside tokens
        (["hm", "</think", ">42"], "<think>\n", "ttt"),  # a token with both is not clean answer
        (["write", " <think>", "x", "</think>"], "", "aaaa"),  # a mention
        (["say", "</think>", "."], "", "aaa"),
    ],
)
def test_pairs_spelled_in_letters(tokens: list[str], tail: str, expected: str) -> None:
    assert label(AS_TEXT, tokens, tail) == expected


def test_a_model_without_marks_only_answers() -> None:
    assert ThinkingMarks() == NONE
    assert label(NONE, ["<think>", "hm", "</think>", "42"], "<think>\n") == "aaaa"


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("[THINK]", "[/THINK]"), ("<|START_THINKING|>", "<|END_THINKING|>"), ("<|channel>", "<channel|>"),
        ("<seed:think>", "</seed:think>"), ("◁think▷", "◁/think▷"), ("<|inner_prefix|>", "<|inner_suffix|>"),
    ],
)  # fmt: skip
def test_marks_of_other_families(opening: str, closing: str) -> None:
    special = {opening: 901, closing: 902, "<|think|>": 903, "<|im_end|>": 904}
    marks = find_marks(special)
    assert marks == ThinkingMarks(((Mark(opening, 901), Mark(closing, 902)),))
    assert label(marks, [opening, "thought\n", "x", closing, "y"], "", special) == "tttta"
    assert not find_marks({opening: 901}).pairs  # half a pair is none


def test_an_end_mark_that_answers_share() -> None:
    """Solar Open: <|end|> ends thinking and answers alike, so alone it proves no thinking."""
    special = {"<|think|>": 901, "<|end|>": 902, "<|content|>": 903}
    marks = find_marks(special)
    assert label(marks, ["<|think|>", "hm", "<|end|>", "<|content|>", "42", "<|end|>"], "", special) == "tttaaa"
    assert label(marks, ["<|content|>", "42", "<|end|>"], "", special) == "aaa"
    assert find_marks({"<|think|>": 901, "<|end|>": 902}) == ThinkingMarks()  # Gemma 4 switches thinking on with one


def test_response_template_names_the_reasoning() -> None:
    response = {"fields": {"reasoning_content": {"open": "<reason>\n", "close": "</reason>"}, "content": {}}}
    marks = find_marks({"<reason>": 901, "</reason>": 902}, "", response)
    assert marks == ThinkingMarks(((Mark("<reason>", 901), Mark("</reason>", 902)),))
    known = {"<|channel>": 901, "<channel|>": 902}
    gemma = {"fields": {"reasoning_content": {"open": "<|channel>thought\n", "close": "<channel|>"}}}
    assert find_marks(known, "", gemma) == find_marks(known)
    assert find_marks({}, "", {"fields": {"thinking": {"open_pattern": "a"}}}) == ThinkingMarks()


def split(text: str) -> list[str]:
    """Harmony text as tokens: marks, and the words between them."""
    for mark in HARMONY_IDS:
        text = text.replace(mark, f"\0{mark}\0")
    return [token for token in text.split("\0") if token]


@pytest.mark.parametrize(
    ("text", "tail", "expected"),
    [
        (
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>42",
            "<|end|><|start|>assistant",
            "ttttt" + "ttttt" + "a",
        ),
        ("<|channel|>analysis<|message|>hm", "<|start|>assistant", "tttt"),
        ("<|channel|>anal", "<|start|>assistant", "tt"),
        ("<|channel|>final<|message|>42", "<|start|>assistant", "ttta"),
        ("<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>", "<|start|>assistant", "tttat"),
        ("hm<|end|><|start|>assistant<|channel|>final<|message|>42", "<|channel|>analysis<|message|>", "ttttttta"),
        ("42", "<|channel|>final<|message|>", "a"),
        ("hm", "<|channel|>analysis<|message|>", "t"),
        ("plain", "<|start|>assistant", "a"),
        ("plain", "", "a"),
    ],
)
def test_harmony(text: str, tail: str, expected: str) -> None:
    marks = find_marks(HARMONY_IDS)
    assert label(marks, split(text), tail, HARMONY_IDS) == expected


def test_harmony_words_without_its_tokens_are_answer() -> None:
    assert (
        label(find_marks(HARMONY_IDS), ["<|channel", "|>analysis", "<|message|", ">x"], "<|start|>assistant") == "aaaa"
    )


def test_marks_come_from_the_tokenizer() -> None:
    assert thinking_marks(tokenizer(CHATML)).pairs == ()
    chip = tokenizer(QWEN3, think=True)
    ids = chip.get_added_vocab()
    assert thinking_marks(chip).pairs == ((Mark("<think>", ids["<think>"]), Mark("</think>", ids["</think>"])),)
    assert thinking_marks(tokenizer(QWEN3)).pairs == ((Mark("<think>", None), Mark("</think>", None)),)


def test_through_template_and_tokens() -> None:
    """DeepSeek-R1's way: the template opens, the model closes."""
    chip = tokenizer(R1, think=True)
    tail = chat_renderer(chip)([{"role": "user", "content": "hi"}]).rpartition("hi")[2]
    tokens = ["hm", "</think>", "42"]
    special = {"</think>": chip.convert_tokens_to_ids("</think>")}
    assert label(thinking_marks(chip), tokens, tail, special) == "tta"


@given(st.lists(st.sampled_from(["<think>", "</think>", "x", "\n", "<|im_end|>"]), max_size=12))
def test_marks_are_never_answer_unless_mentioned(tokens: list[str]) -> None:
    """Whatever the order: a closing token is thinking; a model without the marks only answers."""
    labels = label(AS_TOKENS, tokens, "", THINK)
    assert all(mark == "t" for text, mark in zip(tokens, labels, strict=True) if text == "</think>")
    assert set(label(NONE, tokens, "", THINK)) <= {"a"}


def test_lengths_must_agree() -> None:
    with pytest.raises(CaptureError, match=r"Ids \(2,\)"):
        answer_segments(AS_TOKENS, [1, 2], "a", np.array([0]), np.array([1]))
