"""The sentences of a passage in its speaker's own words, and how a share of them becomes a score."""

import re
from dataclasses import dataclass

from moeprobe.probes.probe import Span
from moeprobe.probes.sentences import split_sentences
from moeprobe.probes.voice import flowing, own_words

_LETTER = re.compile(r"[^\W\d_]")
_IDENTIFIER = re.compile(r"\b\w{1,80}_\w{1,80}\b")
# One or two words in quotation marks are mentioned, not said: the word "perhaps", the phrase "you know".
_MENTION = re.compile(r"(?<!\w)[\"'][\w-]{1,20}(?: [\w-]{1,20})?[,.]?[\"'](?!\w)")


@dataclass(frozen=True)
class OwnSentence:
    """A sentence that is at least partly the speaker's own.

    Attributes:
        start, end: where it stands in the passage, in code points.
        words: what is the speaker's own in it, on one line and with plain quotes; its length is not the sentence's.
    """

    start: int
    end: int
    words: str

    def span(self, label: str, score: float = 1.0) -> Span:
        """The sentence as a marked stretch of the passage."""
        return Span(self.start, self.end, score, label)


def own_sentences(text: str) -> list[OwnSentence]:
    """The sentences of `text` without quotations, mentioned words, identifiers and code, in reading order.

    Letters stay: what a letter says is said in the register that the page speaks in.
    """
    words = own_words(text, letters=True)
    found = []
    for sentence in split_sentences(text):
        own = flowing(_MENTION.sub("\ufffc", _IDENTIFIER.sub("\ufffc", words[sentence.start : sentence.end])))
        if _LETTER.search(own):
            found.append(OwnSentence(sentence.start, sentence.end, own))
    return found


def share_score(marked: int, sentences: int, enough: float) -> float:
    """1 - 2 ** (-share / enough): 0 for no marked sentence, 0.5 where the share is `enough`."""
    if not sentences:
        return 0.0
    return round(1 - 2 ** (-marked / sentences / enough), 6)
