"""The two fits against scikit-learn, and the hash against itself in another process."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse import random_array
from sklearn.linear_model import LogisticRegression

from moeprobe.probes.trained.logistic import balance, fit_logistic, fit_platt, probability
from moeprobe.probes.trained.ngrams import ROOM, Ngrams, count_ngrams, ngram_runs
from moeprobe.probes.trained.vocabulary import Vocabulary

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("penalty", [0.003, 0.3, 3.0])
@pytest.mark.parametrize("balanced", [True, False])
def test_coefficients_are_those_of_scikit_learn(penalty: float, balanced: bool) -> None:
    features = random_array((120, 300), density=0.1, rng=RNG, format="csr")
    labels = (RNG.random(120) < 0.3).astype(np.int64)
    weights = balance(labels) if balanced else np.ones(120)
    coefficients, intercept = fit_logistic(features, labels, weights, penalty)
    oracle = LogisticRegression(
        C=1 / penalty,
        class_weight="balanced" if balanced else None,
        tol=1e-10,
        max_iter=10_000,
        solver="newton-cholesky",
    ).fit(features.toarray(), labels)
    np.testing.assert_allclose(coefficients, oracle.coef_[0], atol=1e-5)
    assert intercept == pytest.approx(oracle.intercept_[0], abs=1e-5)


def test_platt_is_a_logistic_fit_to_his_targets() -> None:
    labels = (RNG.random(80) < 0.5).astype(np.int64)
    decisions = RNG.normal(size=80) * 7 + 5 * labels
    slope, offset = fit_platt(decisions, labels, np.ones(80))
    # a text with target t is t of a positive and 1 - t of a negative one
    ones, zeros = labels.sum(), 80 - labels.sum()
    target = np.where(labels == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    oracle = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(
        np.tile(decisions, 2)[:, None], np.repeat([1, 0], 80), sample_weight=np.concatenate([target, 1 - target])
    )
    assert slope == pytest.approx(oracle.coef_[0, 0], rel=1e-4)
    assert offset == pytest.approx(oracle.intercept_[0], rel=1e-3, abs=1e-4)


def test_platt_never_turns_the_scores_round() -> None:
    labels = np.repeat([0, 1], 20)
    assert fit_platt(-1.0 * labels + RNG.normal(size=40) * 0.1, labels, np.ones(40))[0] == 0
    assert fit_platt(np.zeros(40), labels, np.ones(40)) == pytest.approx((1.0, 0.0), abs=1e-6)


def test_platt_stays_finite_where_the_decisions_part_the_classes() -> None:
    labels = np.repeat([0, 1], 30)
    decisions = np.where(labels == 1, 2.0, -2.0)
    slope, offset = fit_platt(decisions, labels, np.ones(60))
    np.testing.assert_allclose(
        probability(slope * decisions + offset), np.where(labels == 1, 31 / 32, 1 / 32), atol=1e-5
    )


def test_counts_every_ngram() -> None:
    text = "The  cat’s hat, the cat's mat"
    runs = {(run.kind, run.length): run for run in ngram_runs(text, Ngrams())}
    assert [runs["word", 2].shown(place) for place in range(5)] == [
        "the cat's", "cat's hat", "hat the", "the cat's", "cat's mat",
    ]  # fmt: skip
    assert runs["character", 3].shown(0) == " th"
    assert runs["word", 1].columns[0] == runs["word", 1].columns[3]
    counts = count_ngrams(text, Ngrams())
    flat = " the cat's hat, the cat's mat "
    assert counts.counts.sum() == 6 + 5 + sum(len(flat) - length + 1 for length in (3, 4, 5))
    assert (np.diff(counts.columns) > 0).all()
    assert counts.counts[counts.columns < ROOM].tolist().count(2) == 3  # the, cat's, the cat's


@pytest.mark.parametrize("text", ["", " \n", "\ud800", "a\udfff b", "\x00\x1b[31m", "👩‍👩‍👧", "é", "ﷺ", "x"])
def test_counts_any_text(text: str) -> None:
    counts = count_ngrams(text, Ngrams())
    assert (counts.columns.size == 0) == (not text.strip())


def test_the_hash_is_the_same_in_every_process() -> None:
    code = (
        "from moeprobe.probes.trained.ngrams import *\n"
        "print(count_ngrams('Gr\\u00fc\\u00dfe an \\ud83d\\ude00 alle', Ngrams()).columns.tolist())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1
    # and in every version: a saved probe would read other columns than it learnt
    assert count_ngrams("abc", Ngrams()).columns.tolist() == [
        3897282, 4294521, 4478389, 4489571, 5100509, 7400055, 8326256,
    ]  # fmt: skip


def test_features_are_weighted_like_scikit_learns() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = ["a cat sat", "the cat ran", "a dog ran and ran", "no"]
    only_words = Ngrams(words=(1, 2), characters=(1, 0))
    counts = [count_ngrams(text, only_words) for text in texts]
    word = r"\w+"
    own = Vocabulary.learnt(counts, 1).features(counts).toarray()
    oracle = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=word).fit_transform(texts).toarray()
    # columns are hashed, so in another order
    np.testing.assert_allclose(np.sort(own, axis=1), np.sort(oracle, axis=1), atol=1e-12)
    np.testing.assert_allclose(own @ own.T, oracle @ oracle.T, atol=1e-12)
