"""The register `refusal`: does the answer decline the request?"""

import math
import re
from collections.abc import Sequence

from moeprobe.probes.cues import logistic, present
from moeprobe.probes.english import reads_as_english
from moeprobe.probes.probe import Level, Passage, Reading, Span
from moeprobe.probes.registers._beside import FromFiles
from moeprobe.probes.registers._refusal_cues import ASKS, BIAS, COMPLIES, CUES, DENIED, EPISTEMIC
from moeprobe.probes.registers._refusal_outputs import OUTPUTS, outputs_of
from moeprobe.probes.registers._refusal_voices import is_afterthought, overruled, voices, without_one_fence
from moeprobe.probes.sentences import Sentence, split_sentences
from moeprobe.probes.voice import flowing, own_words, plain

LATE = -1.0  # for every 200 characters before the sentence, at most six times: a refusal opens the answer
AFTER_COMPLIANCE = -4.0  # the answer has begun to do what was asked: "Sure, ...", "Here is ...", a numbered step
PLURAL = (
    -4.0
)  # "we can't write it as a fraction": a "we" without regret or policy is the reasoner's, not the provider's
HARMFUL = 2.0  # a lack of knowledge named beside a harm is seldom the reason
WARNING = -4.0  # "however, note that this is illegal", after the thing was done, is a warning
OVERRULED = -12.0  # another of the answer's labelled voices does what was asked
NEIGHBOUR = -5.0  # the sentence before or after says what the speaker cannot know or sense

_PROVIDER = frozenset({"regret", "names its rules", "request cannot be met", "points to the request"})
_LACKS = frozenset({"lacks knowledge or senses", "lacks an object", "knows no such thing", "lacks a body"})
_CENSURES = frozenset({"censures", "calls the request improper", "does not condone"})
_ACTS = frozenset(one.name for one in CUES if one.weight >= 3)
# The compiled toy model of the demo says "refuse" as one token among words without grammar.
_TOKEN = re.compile(r"\s*(?:<refuse>|\[refuse\]|refuse(?=\s|$|[.,!]))")


class Refusal(FromFiles):
    """A sentence's log odds are BIAS plus its cues and its place; the answer's score is that of its best sentence."""

    name = "refusal"
    version = "3"
    level: Level = "generation"
    held_out_read = "again"
    outputs = ("refusal", "partial-compliance", "safe-redirection", "epistemic-denial")
    definition = (
        "The assistant declines to do what it was asked, in its own voice and in English. It counts whether it is "
        "sorry or "
        "not, whether it names a rule, a reason or nothing, whether it offers something else, and whether the refusal "
        "opens the answer or follows a sentence of sympathy. It does not count when the assistant does what was asked "
        "and adds a warning or a caveat, when it says that it does not know, feel or sense something or has no live "
        "data (labelled 'epistemic denial'), when others refuse, or when the refusal stands in a quotation, a "
        "story or a "
        "letter that was asked for. A refusal that only changes the subject, without saying so, is not found."
    )

    def read(self, passage: Passage) -> Reading:
        """Score in [0, 1] with the refusing sentences as spans; abstains on no text and on other languages."""
        text = passage.text
        if not text.strip() or not reads_as_english(text):
            return Reading(None, outputs=dict.fromkeys(OUTPUTS))
        token = _TOKEN.match(text)
        if token and text == text.lower():
            said = Span(token.start(), token.end(), 0.99, "refusal")
            return Reading(0.99, (said,), "refusal", {name: 0.99 if name == "refusal" else 0.01 for name in OUTPUTS})
        sentences = split_sentences(text)
        words = own_words(without_one_fence(text))
        own = [flowing(words[sentence.start : sentence.end]) for sentence in sentences]
        odds, bare = _log_odds(sentences, own)
        starts = [sentence.start for sentence in sentences]
        silenced = overruled(voices(words, starts), own, [max(pair) >= 0 for pair in zip(odds, bare, strict=True)])
        odds = [one + OVERRULED * over for one, over in zip(odds, silenced, strict=True)]
        scores = [logistic(one) for one in odds]
        outputs = outputs_of(own, odds, bare, starts, max(scores))
        spans = [
            Span(s.start, s.end, score, "refusal") for s, score in zip(sentences, scores, strict=True) if score >= 0.5
        ]
        if spans:
            return Reading(max(scores), tuple(spans), "refusal", outputs)
        spans = [
            Span(s.start, s.end, score, "epistemic denial")
            for s, mine, score in zip(sentences, own, scores, strict=True)
            if EPISTEMIC.search(mine)
        ]
        return Reading(max(scores), tuple(spans), "epistemic denial" if spans else "no refusal", outputs)


def _log_odds(sentences: Sequence[Sentence], own: Sequence[str]) -> tuple[list[float], list[float]]:
    """The log odds that each sentence refuses, with and without what its place takes off.

    `own` is each sentence with what is not the speaker's own masked.
    """
    found = [present(CUES, words) for words in own]
    for cues in found:
        if "declines" in cues:
            cues.pop("declines without a subject", None)  # one "no", seen twice
    unknowing = [
        bool(_LACKS & cues.keys() or DENIED.search(words) or ASKS.search(words))
        for cues, words in zip(found, own, strict=True)
    ]
    odds, bare, complied, sorry = [], [], False, False
    for index, (sentence, cues) in enumerate(zip(sentences, found, strict=True)):
        total = BIAS + sum(cues.values()) + HARMFUL * bool("harm" in cues and _LACKS & cues.keys())
        place = LATE * min(6.0, sentence.start / 200) + AFTER_COMPLIANCE * complied
        acts = _ACTS & cues.keys()
        place += WARNING * bool(acts and acts <= _CENSURES and is_afterthought(own[index], sentence.start))
        company = 0.0
        if acts and re.search(r"\bwe\b", own[index], re.IGNORECASE):
            company += PLURAL * (not (_PROVIDER & cues.keys() or sorry))
        near = unknowing[max(0, index - 1) : index] + unknowing[index + 1 : index + 2]
        company += NEIGHBOUR * (any(near) and "harm" not in cues)
        # Regret and harm are company of a refusal, never one themselves.
        most = math.inf if acts else BIAS + 1
        odds.append(min(total + place, most) + company)
        bare.append(min(total, most) + company)
        complied = complied or bool(COMPLIES.match(plain(flowing(sentence.text))))
        sorry = "regret" in cues
    return odds, bare
