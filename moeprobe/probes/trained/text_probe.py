"""A probe that learns a register from labelled text."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import ProbeError
from moeprobe.fields import LONE_SURROGATE
from moeprobe.probes.contract import checked
from moeprobe.probes.probe import Example, Level, Passage, Reading, Span
from moeprobe.probes.sentences import split_sentences
from moeprobe.probes.trained.folds import example_groups, grouped_folds
from moeprobe.probes.trained.model import Model, Recipe, Text, fit_model
from moeprobe.probes.trained.ngrams import count_ngrams

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LEVELS = ("sentence", "generation")


class TextProbe:
    """Logistic regression over hashed word and character n-grams, as a probe.

    It reads the text only; the prompt keeps examples together while it is tried. It learns from whole labelled texts.
    At level "generation" the whole passage gets one score. At level "sentence" each sentence is scored, those from 0.5
    on are marked, and the passage has the score of its best sentence; labelled texts should then be a sentence or two
    long. It abstains where the text holds no n-gram that it knows.

    After `fit`: `model_`, `examples_`, `groups_` (examples,), `folds_` (examples,) and `out_of_fold_` (examples,), the
    score of each example by a model that saw neither it nor its group, NaN where that model abstained.

    Args:
        name: lower-case words and hyphens.
        level: "generation" or "sentence".
        definition: what counts; one paragraph.
        folds: outer and inner folds of cross-validation, from 2.
        seed: of the dealing of groups to folds.
        recipe: n-grams, penalties; its `folds` and `seed` are those given here.

    Raises:
        ProbeError: a level or a number of folds that it cannot work with, or a definition that no file can hold.
    """

    def __init__(
        self, name: str, *, level: Level = "generation", definition: str = "", folds: int = 5, seed: int = 0,
        recipe: Recipe | None = None,
    ) -> None:  # fmt: skip
        if level not in LEVELS:
            raise ProbeError(f"A trained probe judges a sentence or a generation, not a {level!r}.")
        if not 2 <= folds <= 100 or not 0 <= seed < 2**32:
            raise ProbeError(f"{folds} folds with seed {seed}: give 2 to 100 folds, and a seed from 0 to 2^32 - 1.")
        if LONE_SURROGATE.search(definition):
            raise ProbeError("The definition holds half of a surrogate pair, which is no character.")
        self.name, self.level, self.definition = name, level, definition or f"Learnt from texts labelled {name}."
        self.folds, self.seed = folds, seed
        self.recipe = replace(recipe or Recipe(), folds=folds, seed=seed)

    @property
    def version(self) -> str:
        """The first 12 hex digits of a SHA-256 of everything that can move a score; "untrained" before `fit`."""
        if not hasattr(self, "model_"):
            return "untrained"
        numbers = [self.model_.slope, self.model_.offset, self.model_.intercept]
        settings = {"recipe": asdict(self.recipe), "level": self.level, "numbers": [one.hex() for one in numbers]}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for array in (self.model_.vocabulary.columns, self.model_.vocabulary.idf, self.model_.coefficients):
            digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()[:12]

    def examples(self) -> Sequence[Example]:
        """What it was trained on. Its own scores of them flatter it; `cross_validated` gives the honest ones."""
        return self.examples_

    def held_out(self) -> Sequence[Example]:
        """None: every labelled text is trained on, and tried in a fold that did not see it."""
        return ()

    def fit(self, examples: Sequence[Example]) -> Self:
        """Learn, and try what is learnt on folds that keep prompts and near-copies together.

        Raises:
            ProbeError: one label only, a text with both labels or half of a surrogate pair, too few prompts, or nothing
                that can be learnt.
        """
        checked(self)
        self.examples_ = _usable(examples)
        labels = np.array([one.label for one in self.examples_], dtype=np.int64)
        texts = [self._text(one.text) for one in self.examples_]
        self.groups_ = example_groups(self.examples_)
        self.folds_ = grouped_folds(labels, self.groups_, self.folds, self.seed)
        self.out_of_fold_ = np.full(len(texts), np.nan)
        for fold in range(int(self.folds_.max()) + 1):
            seen, unseen = np.flatnonzero(self.folds_ != fold), np.flatnonzero(self.folds_ == fold)
            model = self._model([texts[index] for index in seen], labels[seen], self.groups_[seen])
            self.out_of_fold_[unseen] = model.probabilities(model.best([texts[index] for index in unseen]))
        self.model_ = self._model(texts, labels, self.groups_)
        if self.model_.slope == 0:
            raise ProbeError(
                "Nothing could be learnt: texts that a fold had not seen got no higher scores with label 1 than with "
                "label 0. Check the labels, or give more examples."
            )
        return self

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """(texts, 2) probability of label 0 and of label 1; NaN in both where it abstains."""
        positive = self.model_.probabilities(self.model_.best([self._text(text) for text in texts]))
        return np.column_stack([1 - positive, positive])

    def predict(self, texts: Sequence[str]) -> Ints:
        """(texts,) 1 from probability 0.5 on, 0 below, -1 where it abstains."""
        positive = self.predict_proba(texts)[:, 1]
        return np.where(np.isnan(positive), -1, positive >= 0.5).astype(np.int64)

    def read(self, passage: Passage) -> Reading:
        """Judge one passage; the score is that of `predict_proba`, to the last bit."""
        if not passage.text.strip():
            return Reading(None)
        if self.level == "generation":
            score = float(self.predict_proba([passage.text])[0, 1])
            return Reading(None if np.isnan(score) else score)
        sentences = split_sentences(passage.text)
        counts = [count_ngrams(one.text, self.recipe.ngrams) for one in sentences]
        scores = self.model_.probabilities(self.model_.decisions(counts))
        spans = tuple(
            Span(one.start, one.end, float(score), self.name)
            for one, score in zip(sentences, scores, strict=True)
            if score >= 0.5
        )
        known = scores[~np.isnan(scores)]
        return Reading(float(known.max()) if known.size else None, spans)

    def cross_validated(self) -> "OutOfFold":
        """A probe that gives each training text the score of the model that had not seen it."""
        return OutOfFold(self)

    def save(self, folder: Path, *, force: bool = False) -> None:
        """Write the state into a new folder; see `store.save`."""
        from moeprobe.probes.trained import store

        store.save(self, folder, force=force)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder that `save` wrote; see `store.load`."""
        from moeprobe.probes.trained import store

        return store.load(folder, cls)

    def _text(self, text: str) -> Text:
        whole = count_ngrams(text, self.recipe.ngrams)
        if self.level == "generation":
            return Text(whole, (whole,))
        return Text(whole, tuple(count_ngrams(one.text, self.recipe.ngrams) for one in split_sentences(text)))

    def _model(self, texts: Sequence[Text], labels: Ints, groups: Ints) -> Model:
        return fit_model(texts, labels, groups, self.recipe)


class OutOfFold:
    """A trained probe as it did in cross-validation: to be measured, not to be used on other text."""

    def __init__(self, probe: TextProbe) -> None:
        self.name, self.version, self.level, self.definition = probe.name, probe.version, probe.level, probe.definition
        self._examples = [
            # the group in place of the prompt, so that near-copies count as one in every interval
            replace(one, prompt=f"group {group}")
            for one, group in zip(probe.examples_, probe.groups_.tolist(), strict=True)
        ]
        # Copies of a text are of one group, so in one fold, and have one score.
        texts = (one.text for one in probe.examples_)
        self._scores = dict(zip(texts, probe.out_of_fold_.tolist(), strict=True))

    def examples(self) -> Sequence[Example]:
        """The training texts; `prompt` names the group that was kept together."""
        return self._examples

    def read(self, passage: Passage) -> Reading:
        """The score of a training text.

        Raises:
            ProbeError: it is none.
        """
        if passage.text not in self._scores:
            raise ProbeError(f"{self.name} was not trained on this text, so no fold has a score for it.")
        score = self._scores[passage.text]
        return Reading(None if np.isnan(score) else score)


def _usable(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Those with text, both labels among them, no text with both, none that could be saved and then not read."""
    for number, one in enumerate(examples, 1):
        if any(LONE_SURROGATE.search(said) for said in (one.text, one.prompt, one.note, one.unit)):
            raise ProbeError(
                f"Example {number} holds half of a surrogate pair (like \\ud800), which is no character. "
                "Mend its text, or take it out."
            )
    used = tuple(one for one in examples if one.text.strip())
    positives = sum(one.label for one in used)
    if not 0 < positives < len(used):
        raise ProbeError(
            f"{positives} positive and {len(used) - positives} negative texts (empty ones aside). A probe learns from "
            "both kinds."
        )
    seen: dict[str, int] = {}
    torn = [
        number
        for number, one in enumerate(used, 1)
        if seen.setdefault(" ".join(one.text.split()), one.label) != one.label
    ]
    if torn:
        raise ProbeError(
            f"{len(torn)} texts occur with label 0 and with label 1 (the first is example {torn[0]}). A trained probe "
            "sees the text only, so it cannot tell them apart. Settle their labels, or take them out."
        )
    return used
