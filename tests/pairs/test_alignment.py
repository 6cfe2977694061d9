"""Which position stands for which: against brute force, and what left alignment does to a known truth."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprobe.chat.encode import encode_prompt
from moeprobe.errors import InterchangeError
from moeprobe.interchange import (
    Alignment,
    ControlNLL,
    LogitDifference,
    Metric,
    RefusalLogOdds,
    TokenPair,
    check_alignment,
    coverage,
    lab,
    label_members,
    measure,
    partners,
    select_pairs,
)
from moeprobe.models import LoadedModel
from moeprobe.pairs.alignment import NAMES, matched
from moeprobe.pairs.spans import place_spans, text_span
from moeprobe.prompts import Prompt
from moeprobe.sites import SiteSet, parse_expert

LONG, SHORT = [10, 11, 12, 13, 14, 15], [20, 21, 12, 23]
CAUSAL, INERT = (SiteSet("", (parse_expert(name),)) for name in ("L2.E5", "L1.E1"))


def found(name: str, recipient: list[int], donor: list[int], *, forced: int = 0, **options: object) -> list[int]:
    spans = options.pop("spans", None)
    return partners(recipient, donor, Alignment(name, **options), forced=forced, spans=spans).tolist()  # type: ignore[arg-type]


def test_end_and_start_by_hand() -> None:
    assert found("end", LONG, SHORT) == [-1, -1, 0, 1, 2, 3]
    assert found("end", SHORT, LONG) == [2, 3, 4, 5]
    assert found("start", LONG, SHORT) == [0, 1, 2, 3, -1, -1]
    assert found("start", SHORT, LONG) == [0, 1, 2, 3]
    assert found("equal", LONG, LONG[::-1]) == [0, 1, 2, 3, 4, 5]
    assert found("span", LONG, SHORT, spans=((1, 4), (0, 2))) == [-1, -1, 0, 1, -1, -1]
    assert found("span", SHORT, LONG, spans=((0, 2), (1, 4))) == [2, 3, -1, -1]
    assert found("tokens", LONG, SHORT) == [-1, -1, 2, -1, -1, 3]  # the 12, and the read-out tokens


def test_forced_tokens_pair_one_to_one() -> None:
    long, short = [*LONG, 7, 8], [*SHORT, 7, 8]
    assert found("end", long, short, forced=2) == [-1, -1, 0, 1, 2, 3, 4, 5]
    assert found("tokens", short, long, forced=2) == [-1, -1, 2, 5, 6, 7]
    assert found("span", long, short, forced=2, spans=((5, 6), (3, 4))) == [-1] * 5 + [3, 4, 5]
    # By absolute position, as published: prompt positions of the recipient meet forced tokens of the donor.
    assert found("start", long, short, forced=2) == [0, 1, 2, 3, 4, 5, -1, -1]
    assert found("end", long, short, forced=2, continuation=False) == [-1, -1, 0, 1, 2, 3, -1, -1]
    assert found("start", long, short, forced=2, continuation=False) == [0, 1, 2, 3, 4, 5, -1, -1]
    unequal = partners(long, [*SHORT, 7], Alignment(), forced=2, donor_forced=1)
    assert unequal.tolist() == [-1, -1, 0, 1, 2, 3, 4, -1]


def test_last_positions() -> None:
    assert found("end", LONG, SHORT, positions="last") == [-1] * 5 + [3]
    assert found("end", LONG, SHORT, positions=3) == [-1, -1, -1, 1, 2, 3]
    assert found("end", LONG, SHORT, positions=99) == found("end", LONG, SHORT)
    assert found("span", LONG, SHORT, positions="last", spans=((1, 4), (0, 2))) == [-1, -1, -1, 1, -1, -1]
    assert found("start", LONG, SHORT, positions="last") == [-1] * 6
    assert found("end", [*LONG, 7], [*SHORT, 7], positions="last", forced=1) == [-1] * 5 + [3, 4]


def longest_common(first: list[int], second: list[int]) -> int:
    """Length of the longest common subsequence, by trying all."""
    for size in range(min(len(first), len(second)), 0, -1):
        if any(
            [first[place] for place in one] == [second[place] for place in two]
            for one in combinations(range(len(first)), size)
            for two in combinations(range(len(second)), size)
        ):
            return size
    return 0


short_prompts = st.lists(st.integers(0, 3), min_size=1, max_size=7)


@settings(max_examples=150, deadline=None)
@given(first=short_prompts, second=short_prompts)
def test_matched_tokens_against_all_subsequences(first: list[int], second: list[int]) -> None:
    result = matched(first, second)
    places = np.flatnonzero(result >= 0)
    assert result[-1] == len(second) - 1
    assert (np.diff(result[places]) > 0).all()
    assert all(first[place] == second[result[place]] for place in places[:-1])
    assert len(places) - 1 == longest_common(first[:-1], second[:-1])
    back = matched(second, first)
    assert {(int(place), int(result[place])) for place in places} == {
        (int(back[place]), int(place)) for place in np.flatnonzero(back >= 0)
    }


def test_ties_go_to_the_end() -> None:
    assert matched([5, 5, 9], [5, 9]).tolist() == [-1, 0, 1]
    assert matched([5, 9], [5, 5, 9]).tolist() == [1, 2]
    # 1-2 against 2-1: one of them can be kept. [1, 2, 9] sorts first, so its 2 is left out.
    assert matched([1, 2, 9], [2, 1, 9]).tolist() == [1, -1, 2]
    assert matched([2, 1, 9], [1, 2, 9]).tolist() == [-1, 0, 2]


def test_long_prompts_are_matched_or_refused() -> None:
    generator = np.random.default_rng(0)
    one = generator.integers(0, 50_000, 3000)
    two = np.delete(one, generator.choice(2999, 100, replace=False))
    result = matched(one.tolist(), two.tolist())
    assert (result >= 0).sum() == 2900
    with pytest.raises(InterchangeError, match="too long to be matched"):
        matched([1] * 9000 + [0, 9], [2] * 9000 + [3, 9])


def test_impossible_alignments() -> None:
    with pytest.raises(InterchangeError, match="6 and 4 tokens"):
        found("equal", LONG, SHORT)
    with pytest.raises(InterchangeError, match="Unknown alignment 'left'"):
        Alignment("left")
    for positions in (0, -1, "first", True, 1.5):
        with pytest.raises(InterchangeError, match="Positions must be"):
            Alignment(positions=positions)  # type: ignore[arg-type]
    with pytest.raises(InterchangeError, match='goes with the alignment "span"'):
        Alignment("end", text="x")
    with pytest.raises(InterchangeError, match="needs the span"):
        found("span", LONG, SHORT)
    for span in ((2, 2), (-1, 2), (3, 7)):
        with pytest.raises(InterchangeError, match="leaves its prompt of 6"):
            found("span", LONG, SHORT, spans=(span, (0, 1)))
    with pytest.raises(InterchangeError, match="leave no prompt"):
        partners(SHORT, LONG, Alignment(), forced=4)


def test_pairs_that_cannot_be_aligned_are_named() -> None:
    pairs = [TokenPair("same", (1, 2), (3, 4)), TokenPair("a\u202eb", (1, 2, 3), (4, 5))]
    with pytest.raises(InterchangeError, match=r"1 of 2 pairs differ, in tokens: 'a⟨U\+202E⟩b' \(3 and 2\)"):
        check_alignment(Alignment("equal"), pairs)
    check_alignment(Alignment("equal"), pairs[:1])
    with pytest.raises(InterchangeError, match="2 of 2 pairs have none: 'same'"):
        check_alignment(Alignment("span"), pairs)
    check_alignment(Alignment("span"), [replace(pairs[0], spans=((0, 1), (0, 1)))])


def test_the_record_says_everything() -> None:
    for name in NAMES:
        record = Alignment(name, positions=2, continuation=False).to_json()
        assert record["name"] == name
        assert "last 2 positions" in record["sentence"]
        assert "left alone" in record["sentence"]
    assert "for comparison only" in Alignment("start").sentence
    assert "read-out token with read-out token" in Alignment().sentence


def test_coverage_by_hand() -> None:
    pairs = [TokenPair("a", tuple(LONG), tuple(SHORT)), TokenPair("b", (1, 2), (1, 2, 2))]
    end = coverage(pairs, Alignment())
    assert end.paired.tolist() == [4, 2]
    assert end.positions.tolist() == [6, 2]
    assert end.readout.all()
    assert end.equal.tolist() == [0, 1]
    assert "6 of 8 prompt positions" in end.sentence
    assert "reason alone" not in end.sentence
    start = coverage(pairs, Alignment("start"))
    assert start.readout.tolist() == [False, True]
    assert "In 1 of 2 pairs the read-out token had none" in start.sentence
    back = coverage(pairs, Alignment(), recipient="control")
    assert back.positions.tolist() == [4, 3]
    crossed = coverage(pairs, Alignment(), donors=[1, 0], donor="sensitive")
    assert crossed.paired.tolist() == [2, 2]
    with pytest.raises(InterchangeError, match="no pairs"):
        coverage([], Alignment())


def test_spans_found_as_text(compiled: LoadedModel) -> None:
    texts = ("question : describe the crimson river ? answer :", "question : the river ? answer :")
    one, two = (tuple(encode_prompt(compiled.tokenizer, Prompt("x", text))) for text in texts)
    pair = TokenPair("p", one, two)
    placed = place_spans(compiled.tokenizer, [pair], "river ? answer")[0]
    assert placed.spans == ((5, 8), (3, 6))
    with pytest.raises(InterchangeError, match="more than once"):
        text_span(compiled.tokenizer, one, ":", "it")
    with pytest.raises(InterchangeError, match="control prompt of pair 'p'"):
        place_spans(compiled.tokenizer, [pair], "crimson")


def shortened_pairs(loaded: LoadedModel, prompts: list[Prompt]) -> list[TokenPair]:
    """The compiled model's pairs with every word but three taken out of the control questions."""
    ids = [encode_prompt(loaded.tokenizer, prompt) for prompt in prompts]
    pairs = select_pairs(label_members(prompts, ids, "triggered")).pairs
    return [replace(pair, control=(*pair.control[:2], *pair.control[-6:])) for pair in pairs]


def percents(loaded: LoadedModel, pairs: list[TokenPair], metric: Metric, alignment: Alignment) -> list[float]:
    """Necessity and sufficiency of L2.E5, in percent of the gap; those of an inert expert must be exactly 0."""
    bench = lab(loaded, metric=metric, alignment=alignment)
    if alignment.text is not None:
        pairs = place_spans(loaded.tokenizer, pairs, alignment.text)
    effects = measure(bench, pairs, [CAUSAL, INERT], ["necessity", "sufficiency"])
    both = []
    for name in ("necessity", "sufficiency"):
        assert not effects.sites[INERT][name].any()
        both.append(float(100 * effects.sites[CAUSAL][name].sum() / effects.gap.sum()))
    return both


def test_left_alignment_shows_a_false_collapse_and_the_default_does_not(
    compiled: LoadedModel, compiled_prompts: list[Prompt]
) -> None:
    """L2.E5 is all there is to the behaviour. With shorter controls, pasting by absolute position says otherwise.
    The figures are those of docs/alignment.md."""
    nll, difference = ControlNLL(), LogitDifference(compiled, ["sorry"], ["the", "a"])
    short = [pair for pair in shortened_pairs(compiled, compiled_prompts) if len(pair.control) < len(pair.sensitive)]
    assert len(short) == 29
    for metric in (nll, difference):
        for alignment in (Alignment(), Alignment("tokens"), Alignment("span", text="? answer :")):
            assert percents(compiled, short, metric, alignment) == pytest.approx([100, 100], abs=1e-3)
    left = Alignment("start")
    assert not coverage(short, left).readout.any()
    assert percents(compiled, short, nll, left) == pytest.approx([18.65, 89.33], abs=0.02)
    assert percents(compiled, short, difference, left) == pytest.approx([0.0, 75.75], abs=0.02)


def test_shipped_pairs_lose_by_left_alignment_too(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> None:
    ids = [encode_prompt(compiled.tokenizer, prompt) for prompt in compiled_prompts]
    pairs = list(select_pairs(label_members(compiled_prompts, ids, "triggered")).pairs)
    assert sum(len(pair.sensitive) == len(pair.control) for pair in pairs) == 15
    assert percents(compiled, pairs, ControlNLL(), Alignment()) == pytest.approx([100, 100], abs=1e-3)
    assert percents(compiled, pairs, ControlNLL(), Alignment("start")) == pytest.approx([83.05, 77.25], abs=0.02)
    # Five tokens are scored, and only the first of them is predicted from the read-out token.
    readout = Alignment(positions="last", continuation=False)
    assert percents(compiled, pairs, ControlNLL(), readout) == pytest.approx([20.78, 20.78], abs=0.02)
    first = RefusalLogOdds(compiled)
    assert percents(compiled, pairs, first, readout) == pytest.approx([100, 100], abs=1e-3)
