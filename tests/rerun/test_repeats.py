"""The comparison of two recordings against sets and lists of Python."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprobe.rerun.repeats import Answer, LayerMatch, LayerRows, first_difference
from moeprobe.rerun.verdict import percent


def layer(rows: list[list[int]], weights: np.ndarray) -> LayerRows:
    return LayerRows(np.array(rows, dtype=np.int64), weights.astype(np.float32))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], int]:
    """Two routings of the same rows; choices of a row are different experts, or absent (-1) at its end."""
    k, count = draw(st.integers(1, 4)), draw(st.integers(1, 12))

    def row() -> list[int]:
        chosen = draw(st.lists(st.integers(0, 5), min_size=0, max_size=k, unique=True))
        return chosen + [-1] * (k - len(chosen))

    then = [row() for _ in range(count)]
    now = [old if draw(st.booleans()) else row() for old in then]
    return then, now, draw(st.integers(0, 1000))


@given(pairs())
def test_counts_equal_those_of_sets(case: tuple[list[list[int]], list[list[int]], int]) -> None:
    then, now, seed = case
    rng = np.random.default_rng(seed)
    weights = [rng.random(np.shape(then)).astype(np.float32) for _ in range(2)]
    flags = rng.random(len(then)) < 0.5
    match = LayerMatch("L0")
    for part in (slice(0, 3), slice(3, None)):  # in pieces, as batches come
        if then[part]:
            match.add(layer(then[part], weights[0][part]), layer(now[part], weights[1][part]), flags[part])
    sets = [({x for x in a if x >= 0}, {x for x in b if x >= 0}) for a, b in zip(then, now, strict=True)]
    assert match.tokens == sum(bool(a | b) for a, b in sets)
    assert match.selections == sum(max(len(a), len(b)) for a, b in sets)
    assert match.agree == sum(len(a & b) for a, b in sets)
    assert match.flips == sum(a != b for a, b in sets)
    both = list(zip(then, now, sets, strict=True))
    assert match.reordered == sum(a != b and one == other for a, b, (one, other) in both)
    assert match.sensitive == sum(bool(a | b) and bool(flag) for (a, b), flag in zip(sets, flags, strict=True))
    assert match.sensitive_flips == sum(a != b and bool(flag) for (a, b), flag in zip(sets, flags, strict=True))
    gaps = [
        abs(weights[0][row][a.index(expert)] - weights[1][row][b.index(expert)])
        for row, (a, b, (one, other)) in enumerate(both)
        for expert in one & other
    ]
    assert match.weight_difference == pytest.approx(max(gaps, default=0.0))
    assert match.exact == (then == now)


def answer(tokens: list[int], generated: int | None = None, last: int | None = None) -> Answer:
    """All tokens of an answer, or, with `generated`, those that a trim left."""
    if generated is None:
        return Answer(np.array(tokens[:-1], dtype=np.int64), len(tokens), tokens[-1])
    return Answer(np.array(tokens, dtype=np.int64), generated, -5 if last is None else last)


@pytest.mark.parametrize(
    ("then", "now", "place"),
    [
        (answer([1, 2, 3]), answer([1, 2, 3]), None),
        (answer([1, 2, 3]), answer([1, 9, 3]), 1),
        (answer([1, 2, 3]), answer([1, 2, 4]), 2),
        (answer([1, 2, 3]), answer([1, 2]), 2),  # ended earlier: its last token is the same, then there is none
        (answer([1, 2, 3]), answer([1, 7]), 1),
        (answer([5]), answer([6]), 0),
        (answer([1, 2], 9), answer([1, 2], 9), None),  # trimmed alike
        (answer([1, 2], 9), answer([1, 2], 8), 2),
        (answer([1, 2], 9, last=3), answer([1, 2], 9, last=4), 2),
        (answer([1, 2], 9), answer([1, 2, 7], 9), 2),  # trimmed at another place
        (answer([1, 2], 9), answer([1, 3], 9), 1),
    ],
)
def test_first_difference(then: Answer, now: Answer, place: int | None) -> None:
    assert first_difference(then, now) == place
    assert first_difference(now, then) == place


@given(st.integers(0, 10**7), st.integers(1, 10**7))
def test_shares_are_never_rounded_to_all_or_nothing(part: int, whole: int) -> None:
    part = min(part, whole)
    text = percent(part, whole)
    assert (text == "0 %") == (part == 0)
    assert (text == "100 %") == (part == whole)
    if text[0].isdigit():
        assert math.isclose(float(text.removesuffix(" %")), 100 * part / whole, rel_tol=0.051)


def test_a_share_of_nothing() -> None:
    assert percent(0, 0) == "-"
