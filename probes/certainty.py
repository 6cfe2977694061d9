"""A probe with several outputs: how sure does the writer sound? Each output can be asked about on its own.

    moeprobe probes check probes/certainty.py
    moeprobe correlate RUN.trace --probe probes/certainty.py:boosted

The main score says whether the writer takes a stand on certainty at all; `boosted` and `hedged` say in which direction.
The two lists follow Hyland (2005), "Stance and engagement": boosters and hedges.
"""

import re

from moeprobe.probes import Example, Passage, Reading, Span, split_sentences

_KINDS = {
    "boosted": re.compile(
        r"\b(?:certainly|definitely|undoubtedly|obviously|of course|no doubt|surely|for sure|always)\b", re.IGNORECASE
    ),
    "hedged": re.compile(
        r"\b(?:perhaps|maybe|possibly|probably|might|seems?|i (?:think|guess|suppose)|apparently)\b", re.IGNORECASE
    ),
}


class Certainty:
    """Each output is the share of sentences with a word of its list, doubled and cut at 1."""

    name = "certainty"
    version = "1"
    level = "sentence"
    definition = (
        "The writer says how certain it is: with boosters (certainly, obviously) or with hedges (perhaps, it seems). "
        "Plain statements, and words of number or time alone, do not count."
    )
    outputs = ("boosted", "hedged")  # every reading gives each of them a score, or None

    def examples(self) -> list[Example]:
        """The label is of the main score; `outputs` has the right answers of the others."""
        boosted, hedged, neither = {"boosted": 1, "hedged": 0}, {"boosted": 0, "hedged": 1}, {"boosted": 0, "hedged": 0}
        return [
            Example("That is certainly the right key.", 1, outputs=boosted),
            Example("Of course the shop is open.", 1, outputs=boosted),
            Example("It was obviously a mistake.", 1, outputs=boosted),
            Example("There is no doubt about the date.", 1, outputs=boosted),
            Example("Perhaps the train is late.", 1, outputs=hedged),
            Example("It seems that the valve leaks.", 1, outputs=hedged),
            Example("I think the second one is cheaper.", 1, outputs=hedged),
            Example("The fossil might be older than the rock.", 1, outputs=hedged),
            Example("It was certainly odd, but perhaps it was a joke.", 1, outputs={"boosted": 1, "hedged": 1}),
            Example("The train is late.", 0, outputs=neither),
            Example("A certain number of keys were missing.", 0, outputs=neither),
            Example("The fair is held in May every year.", 0, outputs=neither),
            Example("She has the might of an army.", 0, outputs=neither),
            Example("Water boils at 100 °C at sea level.", 0, outputs=neither),
            Example("He thinks in pictures.", 0, outputs=neither),
            Example("Two of the three doors were shut.", 0, outputs=neither),
            Example("The course starts on Monday.", 0, outputs=neither),
            Example("I doubt the date on the letter.", 0, outputs=neither),
        ]

    def read(self, passage: Passage) -> Reading:
        """Score each output; the main score is the higher of the two."""
        sentences = split_sentences(passage.text)
        if not sentences:
            return Reading(None, outputs=dict.fromkeys(self.outputs))  # abstain, in every output
        spans = [
            Span(sentence.start, sentence.end, 1.0, kind)  # labelled with the output it speaks for
            for sentence in sentences
            for kind, pattern in _KINDS.items()
            if pattern.search(sentence.text.replace("the might", ""))
        ]
        scores = {
            kind: min(1.0, 2 * sum(span.label == kind for span in spans) / len(sentences)) for kind in self.outputs
        }
        return Reading(max(scores.values()), tuple(spans), outputs=scores)
