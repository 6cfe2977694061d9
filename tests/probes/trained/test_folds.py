"""Folds keep prompts and near-copies together, and that matters."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprobe.errors import ProbeError
from moeprobe.probes import Example, check_probe_quality
from moeprobe.probes.trained import TextProbe, example_groups, grouped_folds
from tests.probes.trained.register_samples import noise

LONG = "The bridge over the river was built in 1931 by a company that made nothing but bridges and cranes."


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (Example("one two", 1, "Why?"), Example("three four", 0, " WHY?"), True),
        (Example("one two", 1, "What is 0 + 0?"), Example("three four", 0, "What is 1 + 7?"), False),
        (Example("one two", 1, unit="p10"), Example("three four", 0, unit="p11"), False),
        (Example("one two", 1, unit="p1"), Example("three four", 0, unit="p1"), True),
        (Example("one two", 1, ""), Example("three four", 0, ""), False),
        (Example(LONG, 1, "a"), Example(LONG.upper().replace("1931", "1940"), 1, "b"), True),
        (Example(LONG, 1, "a"), Example(f"{LONG} Nobody knows why, and nobody asks. It stands there.", 1, "b"), True),
        (Example(LONG, 1, "a"), Example("The tower by the sea was bought by a family of bakers.", 1, "b"), False),
        (Example("No.", 1, "a"), Example("no", 0, "b"), True),
        (Example("No.", 1, "a"), Example("no, but that is a long story", 0, "b"), False),
        (Example("日本語の文章", 1, "a"), Example("日本語の文章!", 1, "b"), True),
        (Example("???", 1, "a"), Example("!!!", 1, "b"), False),
    ],
)
def test_what_is_one_group(first: Example, second: Example, together: bool) -> None:
    far = Example("Salt keeps for years in a dry jar.", 0, "salt")
    groups = example_groups([far, first, second])
    assert groups[0] == 0
    assert (groups[1] == groups[2]) == together
    assert groups.tolist() in ([0, 1, 1], [0, 1, 2])


def test_likeness_chains() -> None:
    # the first and the last are linked by the prompt of one and the text of another
    groups = example_groups(
        [Example("a b c", 1, "p"), Example(LONG, 1, "p"), Example(LONG, 1, "q"), Example("d", 0, "q")]
    )
    assert groups.tolist() == [0, 0, 0, 0]


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 11)), min_size=4, max_size=80),
    st.integers(2, 6),
    st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_folds_part_no_group_and_hold_both_labels(rows: list[tuple[int, int]], folds: int, seed: int) -> None:
    labels = np.array([label for label, _ in rows])
    groups = np.unique([group for _, group in rows], return_inverse=True)[1]
    holders = [len({group for one, group in zip(labels, groups, strict=True) if one == label}) for label in (0, 1)]
    if min(holders) < 2:
        with pytest.raises(ProbeError, match="prompt"):
            grouped_folds(labels, groups, folds, seed)
        return
    fold_of = grouped_folds(labels, groups, folds, seed)
    assert fold_of.max() < min(folds, *holders)
    for group in range(groups.max() + 1):
        assert len(set(fold_of[groups == group].tolist())) == 1
    for fold in set(fold_of.tolist()):
        assert set(labels[fold_of != fold].tolist()) == {0, 1}
    assert (fold_of == grouped_folds(labels, groups, folds, seed)).all()


def test_naive_folds_are_fooled_by_copies_and_ours_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    examples, honest_probe = noise(prompts=40, copies=3), TextProbe("noise")
    with suppress(ProbeError):  # it may well say that nothing could be learnt
        honest_probe.fit(examples)
    honest = check_probe_quality(honest_probe.cross_validated())
    monkeypatch.setattr("moeprobe.probes.trained.text_probe.example_groups", lambda given: np.arange(len(given)))
    naive = check_probe_quality(TextProbe("noise").fit(examples).cross_validated())
    assert naive.balanced_accuracy.value is not None
    assert honest.balanced_accuracy.value is not None
    assert naive.balanced_accuracy.value > 0.95
    assert 0.25 < honest.balanced_accuracy.value < 0.75


def test_words_of_the_topic_are_not_learnt_from_windows_without_a_prompt() -> None:
    """Twelve prompts, ten windows each, one label a prompt: only the topic could tell them apart."""
    rng = np.random.default_rng(3)
    letters = np.array(list("abcdefghiklmnoprstuvw"))
    topics = [["".join(rng.choice(letters, 6)) for _ in range(12)] for _ in range(12)]
    windows = [
        Example(" ".join(rng.choice(words, 6)), number % 2, unit=f"p{number}")
        for number, words in enumerate(topics)
        for _ in range(10)
    ]
    probe = TextProbe("topic")
    with suppress(ProbeError):  # it may well say that nothing could be learnt
        probe.fit(windows)
    assert probe.groups_.tolist() == [number for number in range(12) for _ in range(10)]
    found = check_probe_quality(probe.cross_validated()).balanced_accuracy.value
    assert found is None or found < 0.75
