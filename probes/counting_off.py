"""A probe with spans and a parameter: does the writer count off steps or points in prose?

moeprobe probes check probes/counting_off.py
moeprobe correlate RUN.trace --probe "probes/counting_off.py(least=3)"
"""

import re

from moeprobe.probes import Example, Passage, Reading, Span, split_sentences

# Ordinal connectives at the head of a sentence (Halliday & Hasan 1976, "Cohesion in English": temporal conjunction).
_STEP = re.compile(
    r"[\"'(*_]{0,3}(?:first(?:ly| of all)?|second(?:ly)?|third(?:ly)?|next|then|after that|finally|lastly)\b"
    r"(?:,| you| we)",
    re.IGNORECASE,
)


class CountingOff:
    """The score is half at `least` such sentences and one at twice as many."""

    name = "counting-off"
    version = "1"
    level = "sentence"
    definition = (
        "The writer leads through steps or points one by one in prose: first, then, after that, finally, at the head "
        'of sentences. One such word alone does not count, nor ranks ("the first prize") and lists of numbers.'
    )

    def __init__(self, *, least: int = 2) -> None:
        # Keyword-only with a default: this makes it a parameter. Findings record it.
        self.least = least

    def examples(self) -> list[Example]:
        """Eight of each kind. The more you write, the narrower the interval that `probes check` can give."""
        counted = [
            "First, boil the water. Then, add the tea.",
            "First you open the valve. After that, you wait. Finally, close it.",
            "Firstly, it is cheap. Secondly, it is near.",
            "Next, fold the paper. Then you press it flat.",
            "First of all, we need a plan. Next, we need people.",
            "It has two faults. First, it leaks. Second, it is loud.",
            "Then we crossed the river. Finally, we saw the house.",
            "First, unplug it. Lastly, clean the filter.",
        ]
        plain = [
            "She won the first prize. He won the second.",
            "First, thank you all for coming. The hall is open until ten.",
            "The second half was better than the first.",
            "Boil the water and add the tea.",
            "Back then it was a village.",
            "The next train leaves at nine. It is often late.",
            "Finally the rain stopped.",
            "It is cheap and near. It leaks.",
        ]
        return [*(Example(text, 1) for text in counted), *(Example(text, 0) for text in plain)]

    def read(self, passage: Passage) -> Reading:
        """Mark the sentences that begin with a step."""
        sentences = split_sentences(passage.text)
        if not sentences:
            return Reading(None)  # nothing to judge
        spans = [Span(one.start, one.end, 1.0, "step") for one in sentences if _STEP.match(one.text)]
        return Reading(min(1.0, len(spans) / (2 * max(1, self.least))), tuple(spans))
