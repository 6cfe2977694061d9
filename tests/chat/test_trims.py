"""Trims: stop strings across tokens, spelled end marks, verbatim loops; and what must not be cut."""

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprobe.chat.segments import chat_renderer
from moeprobe.chat.trims import (
    LOOP_DROPPED,
    LOOP_REPETITIONS,
    Trim,
    end_marks,
    loop_onset,
    spelled_end,
    stop_string,
    trim,
    turn_delimiter,
)  # fmt: skip
from moeprobe.errors import CaptureError
from tests.chat.chat_templates import CHATML, GEMMA, HARMONY, LLAMA3, MISTRAL, SPECIAL, tokenizer

END = "<|im_end|>"


def offsets(tokens: list[str]) -> tuple[str, np.ndarray, np.ndarray]:
    end = np.cumsum([len(token) for token in tokens], dtype=np.int64)
    return "".join(tokens), end - [len(token) for token in tokens], end


def spelled(tokens: list[str], marks: tuple[str, ...] = (END,), special: dict[str, int] | None = None) -> Trim | None:
    text, start, end = offsets(tokens)
    ids = np.array([(special or {}).get(token, place) for place, token in enumerate(tokens)])
    return spelled_end(ids, text, start, end, marks, (special or {}).values())


def test_stop_string_across_tokens() -> None:
    text, _, end = offsets(["Yes", ".\nU", "ser", ": more", "\nUser:"])
    assert stop_string(text, end, ["\nUser:"]) == Trim("stop-string", 1, 4, text="\nUser:")
    assert stop_string(text, end, ["nowhere", "more"]) == Trim("stop-string", 3, 2, text="more")
    assert stop_string(text, end, ["nowhere"]) is None
    assert stop_string(text, end, ["\n", "\nUser", "more"]) == Trim("stop-string", 1, 4, text="\nUser")


def test_stop_string_at_the_very_start_keeps_nothing() -> None:
    assert stop_string("STOP now", np.array([2, 4, 8]), ["STOP"]) == Trim("stop-string", 0, 3, text="STOP")


def test_characters_of_several_tokens() -> None:
    """Two tokens that only together make one character both go."""
    assert stop_string("a🙂b", np.array([1, 2, 2, 3]), ["🙂"]) == Trim("stop-string", 1, 3, text="🙂")


@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=12), st.text("ab", min_size=1, max_size=3))
def test_what_is_kept_never_holds_the_stop(tokens: list[str], stop: str) -> None:
    text, _, end = offsets(tokens)
    found = stop_string(text, end, [stop])
    assert (found is None) == (stop not in text)
    if found is not None:
        assert stop not in "".join(tokens[: found.kept])
        assert stop in "".join(tokens[: found.kept + 1 + len(stop)])
        assert found.kept + found.dropped == len(tokens)


def test_end_mark_in_six_plain_tokens() -> None:
    assert spelled(["Done", ".", "<", "|", "im", "_", "end", "|>", "\n"]) == Trim("spelled-end", 2, 7, text=END)


def test_its_own_token_is_not_spelled() -> None:
    assert spelled(["Done", END, "x"], special={END: 99}) is None
    tokens = ["a", END, "b", "<|im", "_end|>", "c"]
    assert spelled(tokens, special={END: 99}) == Trim("spelled-end", 3, 3, text=END)


@pytest.mark.parametrize("tokens", [["write `", END, "` there"], ['say "', END, '"'], ["<s>", "old", "</s>", " new"]])
def test_mentions_are_not_cut(tokens: list[str]) -> None:
    assert spelled(tokens, (END, "</s>")) is None


def test_html_closed_twice_is_an_end() -> None:
    assert spelled(["<s>", "old", "</", "s>", "new", "</", "s>", "x"], ("</s>",)) == Trim(
        "spelled-end", 5, 3, text="</s>"
    )


def test_end_marks_come_from_the_templates() -> None:
    expected = {
        CHATML: {"<|im_end|>", "<|im_start|>"},
        LLAMA3: {"<|eot|>", "<|header|>", "<|/header|>"},
        GEMMA: {"</turn>", "<turn>"},
        MISTRAL: {"</s>", "[INST]"},
        HARMONY: {"<|end|>", "<|start|>", "<|message|>"},
    }
    for template, marks in expected.items():
        delimiter = turn_delimiter(chat_renderer(tokenizer(template)))
        assert set(end_marks(["<|eos|>"], SPECIAL, delimiter)) == marks | {"<|eos|>"}


def test_delimiters_in_plain_letters() -> None:
    assert end_marks([], [], "\n### User:\n") == ("### User:",)
    assert end_marks(["</s>"], ["</s>"], "</s>USER: ") == ("\nUSER:", "</s>")
    assert end_marks(["\n", "."], [], "\n\n") == ()
    assert spelled(["ask the USER", ": fine"], ("\nUSER:",)) is None
    assert spelled(["fine", "\nUSER", ": hi"], ("\nUSER:",)) == Trim("spelled-end", 1, 2, text="\nUSER:")


def test_a_template_that_cannot_tell() -> None:
    def refuse(_: object) -> str:
        raise ValueError("no")

    assert turn_delimiter(refuse) is None
    assert turn_delimiter(lambda chat: "always the same") is None


def slow_loop(ids: list[int]) -> tuple[int, int] | None:
    """By definition: (kept, period) of the earliest cut."""
    best = None
    for period in range(1, len(ids)):
        covered = period
        while covered < len(ids) and ids[-1 - covered] == ids[-1 - covered + period]:
            covered += 1
        kept = len(ids) - covered + period
        if (
            covered >= LOOP_REPETITIONS * period
            and covered - period >= LOOP_DROPPED
            and (best is None or kept < best[0])
        ):
            best = kept, period
    return best


@st.composite
def looping(draw: st.DrawFn) -> list[int]:
    token = st.integers(0, 2)
    head = draw(st.lists(token, max_size=20))
    unit = draw(st.lists(token, min_size=1, max_size=25))
    body = (unit * 80)[: draw(st.integers(0, 120))]
    return head + body + draw(st.lists(token, max_size=1))


@given(looping())
def test_loops_equal_the_definition(ids: list[int]) -> None:
    found = loop_onset(np.array(ids, np.int64))
    assert (None if found is None else (found.kept, found.period)) == slow_loop(ids)
    if found is not None and found.period is not None and found.repetitions is not None:
        onset = found.kept - found.period
        tail = ids[onset:]
        assert tail == (tail[: found.period] * (found.repetitions + 1))[: len(tail)]
        assert found.repetitions == len(tail) // found.period >= LOOP_REPETITIONS


def test_first_repetition_is_kept() -> None:
    ids = np.array([9, 8, 7, *([1, 2, 3, 4] * 12), 1, 2])
    assert loop_onset(ids) == Trim("loop", 7, 46, period=4, repetitions=12)


def test_a_period_inside_a_period_takes_the_outer_loop() -> None:
    """A line that itself ends in 40 equal tokens: the loop is the line, and begins with it."""
    line = [5, 6, 7] + [1] * 40
    assert loop_onset(np.array(line * 4)) == Trim("loop", 43, 129, period=43, repetitions=4)


@pytest.mark.parametrize(
    "ids",
    [
        [1] * 32,  # "ha" 32 times: 31 would go
        [9, *([1, 2] * 8)],  # the rule of a table of eight columns
        list(range(8)) * 4,  # four equal items of eight tokens
        list(range(40)) * 2,  # twice is no loop
        [*([1, 2, 3] * 40), 7],  # it went on
        list(range(100)),
        [],
        [1],
    ],
)
def test_what_is_not_a_loop(ids: list[int]) -> None:
    assert loop_onset(np.array(ids, np.int64)) is None


def test_long_generations_are_quick() -> None:
    """100 000 tokens, the worst case (one token over and over) and a long period: far below a second each."""
    for period in (1, 7, 30_000):
        ids = np.resize(np.arange(period), 100_000)
        begin = time.process_time()
        found = loop_onset(ids)
        assert time.process_time() - begin < 2
        assert found == Trim("loop", period, 100_000 - period, period=period, repetitions=100_000 // period)


def test_all_causes_earliest_first() -> None:
    tokens = ["Hi", ".", "<|im", "_end|>", " STOP", *(["x", "y"] * 20)]
    text, start, end = offsets(tokens)
    ids = [*range(100, 105), *([1, 2] * 20)]
    kept, causes = trim(ids, text, start, end, stops=["STOP"], marks=[END])
    assert kept == 2
    assert [json.loads(json.dumps(cause.to_json())) for cause in causes] == [
        {"cause": "spelled-end", "kept": 2, "dropped": 43, "text": END},
        {"cause": "stop-string", "kept": 4, "dropped": 41, "text": "STOP"},
        {"cause": "loop", "kept": 7, "dropped": 38, "period": 2, "repetitions": 20},
    ]
    assert trim(ids, text, start, end, loops=False) == (45, ())
    assert trim([], "", np.zeros(0, int), np.zeros(0, int), stops=["a"], marks=[END]) == (0, ())


def test_bad_input_is_refused() -> None:
    with pytest.raises(CaptureError, match="empty"):
        stop_string("abc", np.array([3]), [""])
    with pytest.raises(CaptureError, match=r"Ids \(2,\)"):
        trim([1, 2], "a", np.array([0]), np.array([1]))
