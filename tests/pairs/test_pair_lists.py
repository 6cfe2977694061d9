"""Pair files in the direct form, and donors from other pairs."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprobe.errors import InterchangeError, MoeprobeError, PromptError
from moeprobe.interchange import Alignment, TokenPair, donors, encode_pairs, is_pair_file, partners, read_pairs
from moeprobe.models import LoadedModel
from moeprobe.pairs.pair_file import MOST_CHARACTERS

A, B = "question : the crimson river ? answer :", "question : the quiet river ? answer :"
GOOD = {"id": "p", "sensitive": A, "control": B}


def written(folder: Path, *lines: object) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_pairs_as_written(tmp_path: Path, compiled: LoadedModel) -> None:
    more = {"id": 7, "sensitive": B, "control": "the crimson river", "continuation": "sorry thus", "span": "river"}
    offsets = {"sensitive": [A.index("crimson"), A.index(" ?")], "control": [A.index("crimson"), B.index(" ?")]}
    path = written(
        tmp_path, "", GOOD, more, {**GOOD, "id": "q", "sensitive": A + " the", "span": offsets, "metadata": {"x": 1}}
    )
    assert is_pair_file(path)
    texts = read_pairs(path)
    assert [pair.id for pair in texts] == ["p", "7", "q"]
    selection = encode_pairs(compiled, texts, name=path.name)
    words = compiled.tokenizer.get_vocab()
    first, second, third = selection.pairs
    assert first.sensitive == tuple(words[word] for word in A.split())
    assert first.continuation is None
    assert second.continuation == (words["sorry"], words["thus"])
    assert second.spans == ((4, 5), (2, 3))
    assert third.spans == ((3, 5), (3, 5))
    found = partners(third.sensitive, third.control, Alignment("span"), spans=third.spans)
    assert found.tolist() == [-1, -1, -1, 3, 4, -1, -1, -1, -1]
    assert selection.source["kind"] == "file"
    assert selection.source["digest"] != encode_pairs(compiled, texts[:2]).source["digest"]


def test_prompt_files_are_no_pair_files(tmp_path: Path) -> None:
    assert not is_pair_file(written(tmp_path, {"id": "a", "prompt": "x", "pair": "p", "label": 1}))
    assert not is_pair_file(written(tmp_path, "plain text"))
    assert not is_pair_file(written(tmp_path, ""))


CHAT = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sensitive": " "}, "line 1: the sensitive prompt is empty"),
        ({"control": None}, "'control' must be a text, found null"),
        ({"control": A}, "the two prompts are the same"),
        ({"sensitive": CHAT, "control": CHAT}, "the two prompts are the same"),
        ({"sensitive": []}, '"sensitive" is empty'),
        ({"sensitive": [{"role": "user", "content": " "}]}, "the sensitive prompt is empty"),
        ({"sensitive": [{"role": "wizard", "content": "x"}]}, "unknown role"),
        ({"id": ""}, "id is empty"),
        ({"id": " \n"}, "id must hold"),
        ({"id": "x" * 201}, "at most 200"),
        ({"contol\u202e": 1}, r"unknown field 'contol⟨U\+202E⟩'"),
        ({"continuation": ""}, "continuation is empty"),
        ({"continuation": 5}, "'continuation' must be a text"),
        ({"control": "x" * (MOST_CHARACTERS + 1)}, "1,000,001 characters"),
        ({"span": ""}, "span is empty"),
        ({"span": 5}, "expected a JSON object"),
        ({"span": {"sensitive": "river"}}, '"sensitive" and "control"'),
        ({"span": {"sensitive": "river", "control": [0, 999]}}, "control span must be .start, end."),
        ({"span": {"sensitive": "river", "control": [3, 3]}}, "control span must be"),
        ({"span": {"sensitive": "river", "control": [True, 3]}}, "control span must be"),
        ({"span": {"sensitive": [0, 1], "control": "x"}, "sensitive": CHAT}, "is a chat; name its span by its text"),
        ({"sensitive": "\ud800"}, "surrogate"),
    ],
)
def test_malformed_pairs(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    with pytest.raises(PromptError, match=match) as caught:
        read_pairs(written(tmp_path, {**GOOD, **change}))
    assert len(str(caught.value)) < 500
    assert "\u202e" not in str(caught.value)


def test_repeated_pairs(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="line 2: the id 'p' stands in line 1 already"):
        read_pairs(written(tmp_path, GOOD, {**GOOD, "control": "x"}))
    with pytest.raises(PromptError, match="line 3: the same pair of prompts stands in line 1"):
        read_pairs(written(tmp_path, GOOD, {**GOOD, "id": "b", "control": "x"}, {**GOOD, "id": "c"}))
    with pytest.raises(PromptError, match="holds no pairs"):
        read_pairs(written(tmp_path, " ", ""))
    with pytest.raises(PromptError, match="line 1: not valid JSON"):
        read_pairs(written(tmp_path, "{"))
    with pytest.raises(PromptError, match="NaN is no JSON number"):
        read_pairs(written(tmp_path, '{"id": NaN}'))


def test_pairs_the_tokenizer_cannot_keep_apart(tmp_path: Path, compiled: LoadedModel) -> None:
    for change, match in (
        ({"sensitive": "the xylophone", "control": "the zebra"}, "the same 2 tokens"),
        ({"span": "harbour"}, "does not stand in the sensitive prompt of pair 'p'"),
        ({"span": "r"}, "more than once"),
        ({"continuation": "zebra"}, "continuation of pair 'p', 'zebra', holds a token outside the vocabulary"),
        ({"sensitive": CHAT}, "no chat template"),
        ({"id": "\x1b[31m\n", "span": "harbour"}, r"pair '⟨U\+001B⟩\[31m\\n'"),
    ):
        texts = read_pairs(written(tmp_path, {**GOOD, **change}))
        with pytest.raises(MoeprobeError, match=match):
            encode_pairs(compiled, texts)


def simple(pairs: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[TokenPair]:
    return [TokenPair(str(number), *both) for number, both in enumerate(pairs)]


prompts = st.tuples(st.integers(0, 3), st.integers(4, 7))


@settings(max_examples=200, deadline=None)
@given(
    drawn=st.lists(prompts, min_size=1, max_size=12),
    kind=st.sampled_from(["placebo", "random"]),
    recipient=st.sampled_from(["sensitive", "control"]),
    seed=st.integers(0, 5),
)
def test_donors_are_never_the_pair_itself(drawn: list[tuple[int, int]], kind: str, recipient: str, seed: int) -> None:
    pairs = simple([((one,), (two,)) for one, two in drawn])
    other = "control" if recipient == "sensitive" else "sensitive"
    given_side = recipient if kind == "placebo" else other
    possible = [
        [
            place
            for place in range(len(pairs))
            if place != mine and pairs[place].side(given_side) not in (pairs[mine].sensitive, pairs[mine].control)
        ]
        for mine in range(len(pairs))
    ]
    if not all(possible):
        with pytest.raises(InterchangeError, match="are missing for"):
            donors(pairs, kind, seed, recipient=recipient)
        return
    chosen = donors(pairs, kind, seed, recipient=recipient)
    assert all(int(donor) in allowed for donor, allowed in zip(chosen, possible, strict=True))
    assert (chosen == donors(pairs, kind, seed, recipient=recipient)).all()


@pytest.mark.parametrize("kind", ["placebo", "random"])
def test_donors_of_different_prompts_are_a_derangement(kind: str) -> None:
    pairs = simple([((number, 1), (number, 2)) for number in range(40)])
    drawn = [donors(pairs, kind, seed) for seed in range(200)]
    for chosen in drawn:
        assert sorted(chosen) == list(range(40))
        assert (chosen != np.arange(40)).all()
    # Each of the 39 others gives about equally often: 200 draws, expected 5.1 each.
    counts = Counter(int(chosen[0]) for chosen in drawn)
    assert len(counts) > 30
    assert max(counts.values()) < 20
    assert not all((one == drawn[0]).all() for one in drawn)
    assert (donors(pairs, "placebo", 0) != donors(pairs, "random", 0)).any()


def test_equal_prompts_exchange_donors() -> None:
    """20 pairs, of which 10 share one sensitive prompt: still a permutation, and never the same prompt."""
    pairs = simple([((1,) if number < 10 else (number,), (100 + number,)) for number in range(20)])
    for seed in range(30):
        chosen = donors(pairs, "placebo", seed)
        assert sorted(chosen) == list(range(20))
        assert all(pairs[donor].sensitive != pairs[place].sensitive for place, donor in enumerate(chosen))
    most = simple([((1,) if number < 15 else (number,), (100 + number,)) for number in range(20)])
    chosen = donors(most, "placebo", 0)  # no permutation exists: five prompts give to fifteen
    assert all(most[donor].sensitive != most[place].sensitive for place, donor in enumerate(chosen))


def test_donors_of_the_same_length() -> None:
    pairs = simple([((number,) * (1 + number % 3), (50 + number,) * (1 + number % 2)) for number in range(18)])
    chosen = donors(pairs, "placebo", 0, same_length=True)
    assert all(len(pairs[donor].sensitive) == len(pairs[place].sensitive) for place, donor in enumerate(chosen))
    for place, donor in enumerate(donors(pairs[:17], "random", 0, recipient="control", same_length=True)):
        assert len(pairs[donor].sensitive) == len(pairs[place].control)
    with pytest.raises(InterchangeError, match="missing for 6 of 18 pairs .'2', '5'.*and as many tokens"):
        donors(pairs, "random", 0, same_length=True)


def test_no_donors() -> None:
    alone = simple([((1,), (2,))])
    with pytest.raises(InterchangeError, match="own class are missing for 1 of 1 pairs"):
        donors(alone, "placebo", 0)
    shared = simple([((1,), (9,)), ((2,), (9,)), ((3,), (9,))])
    with pytest.raises(InterchangeError, match="Donors of the other class are missing for 3 of 3 pairs"):
        donors(shared, "random", 0)  # every pair has the same control
    with pytest.raises(InterchangeError, match="Unknown kind of donor 'other'"):
        donors(shared, "other", 0)
    with pytest.raises(InterchangeError, match="sides sensitive and control"):
        donors(shared, "placebo", 0, recipient="both")
