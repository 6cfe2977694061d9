"""An example of a probe of your own: does the writer hedge?

    moeprobe probes check probes/hedging.py
    moeprobe correlate run.trace --probe probes/hedging.py

A probe is a plain class: four facts, examples with the right answer, and `read`. Copy this file and change it.
"""

import re

from moeprobe.probes import Example, Passage, Reading, Span, split_sentences

# Hedges after Hyland (1998), "Hedging in Scientific Research Articles": modal verbs, doubting verbs, adverbs of doubt.
_HEDGE = re.compile(
    r"\b(?:might|may be|may have|could be|possibly|perhaps|probably|presumably|apparently|seems?|appears? to|"
    r"tends? to|I (?:think|guess|suppose|suspect)|not (?:entirely )?(?:sure|certain)|as far as I (?:know|can tell))\b",
    re.IGNORECASE,
)


class Hedging:
    """The score is the share of sentences that hedge, doubled and cut at 1: every second sentence is a lot."""

    name = "hedging"
    version = "1"
    level = "sentence"
    definition = (
        "The writer holds back from full commitment to what is said: it might be so, it seems so, the writer is not "
        'sure. Plain statements do not count, nor do permissions ("you may leave") and the month of May.'
    )

    def examples(self) -> list[Example]:
        """Ten of each kind. The more you write, the narrower the interval that `probes check` can give."""
        hedged = [
            "Perhaps the train is late.",
            "It seems that the valve leaks.",
            "I think the second one is cheaper.",
            "The fossil might be older than the rock around it.",
            "This is probably a rounding error.",
            "As far as I know, nobody has tried it.",
            "I'm not entirely sure that the key fits.",
            "Sales appear to follow the weather.",
            "The author may have changed his mind later.",
            "Young trees tend to bend. Old ones possibly break.",
        ]
        plain = [
            "The train is late.",
            "You may leave the room now.",
            "The fair is held in May every year.",
            "Water boils at 100 °C at sea level.",
            "The second one costs four euros less.",
            "Nobody has tried it.",
            "She put the key under the mat and left.",
            "I know that the key fits.",
            "Turn off the tap before you open the valve.",
            "The result is certain: the two sums are equal.",
        ]
        return [Example(text, 1) for text in hedged] + [Example(text, 0) for text in plain]

    def read(self, passage: Passage) -> Reading:
        """Mark the hedging sentences; abstain on an empty text."""
        sentences = split_sentences(passage.text)
        if not sentences:
            return Reading(None)
        hedged = [sentence for sentence in sentences if _HEDGE.search(sentence.text)]
        spans = tuple(Span(sentence.start, sentence.end, 1.0, "hedge") for sentence in hedged)
        return Reading(min(1.0, 2 * len(hedged) / len(sentences)), spans)
