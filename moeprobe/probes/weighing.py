"""Weighing a text sentence by sentence: the frame that most registers share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moeprobe.probes.cues import Cue, logistic, present
from moeprobe.probes.english import reads_as_english
from moeprobe.probes.probe import Reading, Span
from moeprobe.probes.sentences import split_sentences
from moeprobe.probes.voice import flowing, own_words


@dataclass(frozen=True)
class Weighed:
    """One sentence with what was found in it.

    Attributes:
        start, end: where it stands in the text, in code points.
        own: its words for pattern matching, with quotations, code and letters masked.
        found: name -> weight of the cues that it holds.
        score: the logistic of the bias plus these weights, in [0, 1].
    """

    start: int
    end: int
    own: str
    found: Mapping[str, float]
    score: float


def weigh_sentences(text: str, cues: Iterable[Cue], bias: float) -> tuple[Weighed, ...]:
    """Each sentence of `text`, in reading order, with its cues and its score."""
    table = tuple(cues)
    words = own_words(text)
    weighed = []
    for sentence in split_sentences(text):
        own = flowing(words[sentence.start : sentence.end])
        found = present(table, own)
        weighed.append(Weighed(sentence.start, sentence.end, own, found, logistic(bias + sum(found.values()))))
    return tuple(weighed)


def marked(weighed: Iterable[Weighed], label: str) -> tuple[Span, ...]:
    """The sentences with a score of 0.5 or more, as spans with this label."""
    return tuple(Span(one.start, one.end, one.score, label) for one in weighed if one.score >= 0.5)


def read_strongest(text: str, cues: Iterable[Cue], bias: float, label: str) -> Reading:
    """A text judged by its strongest sentence; abstains on no text and on other languages than English."""
    if not text.strip() or not reads_as_english(text):
        return Reading(None)
    weighed = weigh_sentences(text, cues, bias)
    spans = marked(weighed, label)
    return Reading(max(one.score for one in weighed), spans, label if spans else None)
