"""The register `instruction`: does the text tell its reader how something is done, step by step?"""

import re
from collections.abc import Sequence

from moeprobe.probes.cues import logistic
from moeprobe.probes.english import reads_as_english
from moeprobe.probes.probe import Level, Passage, Reading
from moeprobe.probes.registers._beside import FromFiles
from moeprobe.probes.registers._imperatives import imperative, steps
from moeprobe.probes.registers._own_sentences import OwnSentence, own_sentences
from moeprobe.probes.registers._word_sets import word_set

# Weights were set by hand in steps of half a unit on instruction.jsonl. Werlich (1976) calls the text type
# instruction: sequences of acts asked of the reader in the imperative; Biber & Egbert (2018) describe the how-to and
# recipe registers of the web by imperatives, "you" and lists.
BIAS = -3.5
EACH_STEP = 1.5  # up to MOST_STEPS of them: two steps make a sequence
MOST_STEPS = 4
SHARE = 3.0  # times the share of sentences that are steps
SEQUENCE = 0.5  # for each word of order beside a step, up to MOST_SEQUENCE
MOST_SEQUENCE = 3
HOW_TO = 1.5
NUMBERED = 0.5  # for each numbered or bulleted step, up to four
SPARSE = -4.0  # fewer than one sentence in eight is a step: advice within another text

_ORDER = re.compile(
    r"\b(?:first|then|next|finally|after that|afterwards|before you|once|until|when done|lastly|meanwhile|at the"
    r" same time|"
    r"step \d{1,2}|again|repeat|to start|begin by|start (?:by|with)|for (?:\w+ ){1,2}(?:seconds?|minutes?|hours?|"
    r"days?)|"
    r"over (?:low|medium|high) heat)\b",
    re.IGNORECASE,
)
_HOW_TO = re.compile(
    r"\bhow (?:to|do i|do you|can i)\b|\bstep-by-step\b|\bfollow (?:these|the) (?:steps|instructions)\b|"
    r"^\W*(?:method|directions|"
    r"instructions|steps|procedure|ingredients|you will need|you'll need)\W*$|\bthe easiest way\b|\bbefore you"
    r" (?:begin|start)\b"
    r"|^\W*to \w+\b[^,.]{1,80},",
    re.IGNORECASE,
)
_ITEM = re.compile(r"^\W{0,4}(?:\d{1,3}[.):]|step \d{1,3}|[-*•])", re.IGNORECASE)
# "You start by soaking the seeds. Then you press each one into damp soil." The reader's acts, told in the present.
_YOUR_ACT = re.compile(
    r"^\W{0,4}(?:(?:first|then|next|now|finally|after that|start|once)\w{0,2},? )?you(?:'ll| will|'ll then| will"
    r" then| then| now| first| simply| just)?"
    r"(?: need to| want to| have to| should)? (?:start|begin|press|put|take|turn|cut|add|pour|mix|soak|wash|click|"
    r"open|type|pull|push|"
    r"place|fold|heat|stir|wrap|tie|draw|write|back|select|choose|enter|insert|remove|attach|cover|fill|rub|rinse|"
    r"drain)\b",
    re.IGNORECASE,
)

# Imperatives that ask for a feeling, a thought or a favour.
_FEELING = word_set(
    "be believe bear beware bless blame calm cheer dare dream enjoy excuse fear feel forget forgive hear hope "
    "imagine love mind pardon picture pray promise remember recall respect say see suppose tell thank think trust "
    "understand welcome wish wonder worry give leave let call live die kiss look come hurry consider note guess"
)


class Instruction(FromFiles):
    """Log odds: BIAS plus the steps, their share of the sentences, words of order, numbering and how-to headings."""

    name = "instruction"
    version = "2"
    level: Level = "generation"
    held_out_read = "again"
    definition = (
        "Procedural text: two or more steps in a sequence that the reader is to carry out, as in recipes, manuals and "
        "directions, whether numbered or in running text, in the imperative or as 'you then press'. A single request "
        "or polite imperative does not count, nor do requirements ('the system must'), procedures that are narrated "
        "or described ('she peeled', 'the machine cuts'), plans, lists of things, appeals to feel or think something, "
        "and the orders that somebody gives in a story."
    )

    def read(self, passage: Passage) -> Reading:
        """Score in [0, 1] with the sentences that hold steps as spans; abstains on no text and on other languages."""
        if not passage.text.strip() or not reads_as_english(passage.text):
            return Reading(None)
        sentences = own_sentences(passage.text)
        told = [(one, _steps(one.words)) for one in sentences]
        stepping = [one for one, found in told if found]
        score = logistic(_log_odds(sentences, stepping, sum(found for _, found in told)))
        return Reading(score, tuple(one.span("step") for one in stepping))


def _steps(words: str) -> int:
    """How many steps a sentence tells its reader to take."""
    found = len(steps(words))
    if found or _YOUR_ACT.match(words[:200]):
        return found or 1
    verb = imperative(words)
    return int(verb is not None and verb not in _FEELING and not words.rstrip("\"' ").endswith(("!", "?")))


def _log_odds(sentences: Sequence[OwnSentence], stepping: Sequence[OwnSentence], count: int) -> float:
    if count < 2:
        return BIAS
    share = len(stepping) / len(sentences)
    order = sum(bool(_ORDER.search(one.words[:1000])) for one in stepping)
    listed = sum(bool(_ITEM.match(one.words)) for one in stepping)
    headed = any(_HOW_TO.search(one.words[:300]) for one in sentences)
    return (
        BIAS
        + EACH_STEP * min(count, MOST_STEPS)
        + SHARE * share
        + SEQUENCE * min(order, MOST_SEQUENCE)
        + NUMBERED * min(listed, 4)
        + HOW_TO * headed
        + SPARSE * (share < 0.125)
    )
