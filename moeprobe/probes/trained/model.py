"""Fitting one model: the penalty is chosen by inner grouped folds, and their decisions also calibrate it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import ProbeError
from moeprobe.probes.trained.folds import grouped_folds
from moeprobe.probes.trained.logistic import balance, fit_logistic, fit_platt, probability
from moeprobe.probes.trained.ngrams import Counts, Ngrams
from moeprobe.probes.trained.vocabulary import Vocabulary

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """What is decided before any text is seen.

    Attributes:
        ngrams: what is counted.
        least: an n-gram counts if at least so many training texts hold it.
        penalties: candidates; the one with the least loss on inner folds is taken.
        folds: inner folds.
        seed: of the dealing of groups to folds.
    """

    ngrams: Ngrams = field(default_factory=Ngrams)
    least: int = 2
    penalties: tuple[float, ...] = (0.003, 0.03, 0.3, 3.0)
    folds: int = 5
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Text:
    """A training text: the counts of the whole, and of the pieces that are judged one by one (the best one counts)."""

    whole: Counts
    pieces: tuple[Counts, ...]


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted model.

    Attributes:
        vocabulary: which n-grams it knows.
        coefficients: (features,) in log odds for one unit of the feature.
        intercept: before calibration.
        penalty: the one that was chosen.
        slope, offset: calibrated log odds are slope * decision + offset.
    """

    vocabulary: Vocabulary
    coefficients: Floats
    intercept: float
    penalty: float
    slope: float = 1.0
    offset: float = 0.0

    def decisions(self, counts: Sequence[Counts]) -> Floats:
        """(pieces,) raw log odds; NaN where no n-gram is known: the intercept alone would be a guess."""
        features = self.vocabulary.features(counts)
        known = np.diff(features.indptr) > 0
        return np.where(known, features @ self.coefficients + self.intercept, np.nan)

    def best(self, texts: Sequence[Text]) -> Floats:
        """(texts,) the highest decision among a text's pieces; NaN where none can be judged."""
        found = self.decisions([piece for text in texts for piece in text.pieces])
        ends = np.cumsum([len(text.pieces) for text in texts])[:-1]
        return np.array([np.fmax.reduce(part, initial=np.nan) for part in np.split(found, ends)])

    def probabilities(self, decisions: Floats) -> Floats:
        """Calibrated probabilities in [0, 1], rounded to 6 digits; NaN stays."""
        return probability(self.slope * decisions + self.offset)


def fit_model(texts: Sequence[Text], labels: Ints, groups: Ints, recipe: Recipe) -> Model:
    """Choose the penalty, calibrate, and fit on all texts.

    Both classes weigh the same, however many texts they have: the share of positives in a file of labels is its
    writer's choice, and a probe calls a passage positive from 0.5 on.

    Args:
        texts: (texts,) counts.
        labels: (texts,) 0 or 1.
        groups: (texts,) of `example_groups`.
        recipe: settings.

    Raises:
        ProbeError: no n-gram occurs in `least` texts.
    """
    if min(np.unique(groups[labels == label]).size for label in (0, 1)) < 2:
        # too few to try anything on: a middling penalty, and the decisions as they are
        return _fitted(texts, labels, recipe, recipe.penalties[len(recipe.penalties) // 2])
    decisions = _inner_decisions(texts, labels, groups, recipe)
    losses = [_loss(one, labels) for one in decisions]
    chosen = int(np.argmin(losses))
    model = _fitted(texts, labels, recipe, recipe.penalties[chosen])
    known = np.isfinite(decisions[chosen])
    if not (labels[known] == 1).any() or not (labels[known] == 0).any():
        return model
    slope, offset = fit_platt(decisions[chosen][known], labels[known], balance(labels[known]))
    return Model(model.vocabulary, model.coefficients, model.intercept, model.penalty, slope, offset)


def _inner_decisions(texts: Sequence[Text], labels: Ints, groups: Ints, recipe: Recipe) -> Floats:
    """(penalties, texts) decisions of models that did not see the text's group."""
    _, groups = np.unique(groups, return_inverse=True)
    fold_of = grouped_folds(labels, groups, recipe.folds, recipe.seed)
    decisions = np.full((len(recipe.penalties), len(texts)), np.nan)
    for fold in range(int(fold_of.max()) + 1):
        seen, unseen = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        known, held = ([texts[index] for index in part.tolist()] for part in (seen, unseen))
        for number, penalty in enumerate(recipe.penalties):
            model = _fitted(known, labels[seen], recipe, penalty)
            decisions[number, unseen] = model.best(held)
    return decisions


def _fitted(texts: Sequence[Text], labels: Ints, recipe: Recipe, penalty: float) -> Model:
    counts = [text.whole for text in texts]
    vocabulary = Vocabulary.learnt(counts, recipe.least)
    if not vocabulary.columns.size:
        raise ProbeError(
            f"No word or run of characters stands in {recipe.least} of the {len(texts)} texts, so there is nothing to "
            "learn from. Give more examples."
        )
    features = vocabulary.features(counts)
    coefficients, intercept = fit_logistic(features, labels, balance(labels), penalty)
    return Model(vocabulary, coefficients, intercept, penalty)


def _loss(decisions: Floats, labels: Ints) -> float:
    """Mean log loss, both classes weighing the same; a text that cannot be judged counts as a decision of 0."""
    signed = (2.0 * labels - 1) * np.nan_to_num(decisions)
    return float((balance(labels) * np.logaddexp(0, -signed)).mean())
