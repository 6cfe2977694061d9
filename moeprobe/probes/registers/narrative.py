"""The register `narrative`: does the text tell a chain of events with somebody in them?"""

import re
from collections.abc import Sequence

from moeprobe.probes.cues import logistic
from moeprobe.probes.english import reads_as_english
from moeprobe.probes.probe import Level, Passage, Reading
from moeprobe.probes.registers._beside import FromFiles
from moeprobe.probes.registers._own_sentences import OwnSentence, own_sentences
from moeprobe.probes.registers._past_tense import I_PRESENT, PERSONS, PUNCTUAL_PRESENT, STATIVE, is_past, tokens
from moeprobe.probes.registers._word_sets import word_set

# Weights were set by hand in steps of half a unit on narrative.jsonl. Labov & Waletzky (1967): a narrative is at least
# two clauses in the order of their events. Biber (1988), dimension 2: past tense, third person pronouns, perfects and
# public verbs.
BIAS = -4.0
EACH_EVENT = 1.5  # an act in the past of a person or creature, up to MOST_EVENTS of them
MOST_EVENTS = 4
DENSITY = 3.0  # times the acts for each sentence, up to 1.5
TEMPORAL = 1.0  # for each sentence with a word of time and an event, up to three
OPENING = 1.5  # "Once upon a time", "When I was nine", "I'll never forget"
SPARSE = -4.0  # fewer acts than one in five sentences
HABIT = -2.5  # "every morning she gets up": told in the present, that is a habit
SPEECH = 1.0  # a quotation with "said" and its like

_TIME = re.compile(
    r"\b(?:then|suddenly|after (?:that|a while|two|three|an hour|he|she|we|they|i)|one (?:day|morning|evening|night|"
    r"summer|winter)|"
    r"at (?:last|dawn|noon|midnight|dusk|first|that moment|night|four o'clock)|when (?:he|she|i|we|they|the)|until|"
    r"by then|"
    r"(?:the )?next (?:day|morning|evening|night)|that (?:night|day|evening|morning)|yesterday|last (?:week|year|"
    r"summer|night|month|winter)|"
    r"meanwhile|eventually|finally|soon|on the \w+ (?:day|night|evening|morning)|in the (?:morning|evening|end)|"
    r"years ago|once|before (?:he|she|i|we|they)|while (?:he|she|i|we|they|the)|later|already|halfway|in spring|in"
    r" 1[5-9]\d\d)\b",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"\bonce upon a time\b|\bonce there (?:was|were|lived)\b|\bwhen i was (?:a |an |\w+ )?(?:child|kid|boy|girl|"
    r"young|little|six|seven|eight|nine|ten|eleven|twelve|\d+)\b|"
    r"\bi(?:'ll| will) never forget\b|\byears ago\b|\bthere (?:once )?(?:lived|was once)\b|^so (?:yesterday|i'm|"
    r"there i was|this)\b|"
    r"\b(?:told us|remember) how (?:he|she|they|we)\b",
    re.IGNORECASE,
)
_SAID = r"\b(?:said|asked|whispered|shouted|replied|answered|cried|called|muttered)\b"
_SPEECH = re.compile(rf"\ufffc\W{{0,3}}(?:\w{{1,20}} ){{0,3}}{_SAID}|{_SAID}[^.]{{0,30}}\ufffc", re.IGNORECASE)
_HABIT = re.compile(
    r"\b(?:every (?:morning|day|evening|year|week|night)|usually|always|often|typically|each (?:morning|day|year)|in"
    r" general|"
    r"the plan is|in (?:the|this) (?:scene|picture|painting|photo)|on (?:mondays|sundays|weekends))\b",
    re.IGNORECASE,
)
_UNREAL = re.compile(r"\b(?:if|would|will|'ll|'d|should|shall|tomorrow|next (?:week|year|month))\b", re.IGNORECASE)
_BACK = 7  # words between a verb and the person who acts
_STATIVE_WEIGHT = 0.3
_PRESENT_WEIGHT = 0.9
_THING_WEIGHT = 0.6
_THINGS = frozenset(("it", "something", "nothing"))
_COMPANY = word_set("and then but or , so")
_STOP = word_set(". ; : ! ? ( )")


class Narrative(FromFiles):
    """Log odds: BIAS plus acts of persons, their density, words of time, and the openings of stories."""

    name = "narrative"
    version = "1"
    level: Level = "generation"
    definition = (
        "A chain of events with somebody in them, told in the past tense or the historic present, true or made up: "
        "stories, anecdotes, reports of what people did one after the other. Descriptions of places, persons and "
        "states do not count, nor do habits, summaries of a history without acting persons ('the company was founded "
        "in 1923'), figures over time, laboratory reports, instructions, plans, hypotheses, and talk about stories."
    )

    def read(self, passage: Passage) -> Reading:
        """Score in [0, 1] with the sentences that tell an act as spans; abstains on no text and on other languages."""
        if not passage.text.strip() or not reads_as_english(passage.text):
            return Reading(None)
        sentences = own_sentences(passage.text)
        acts = [_acts(one.words) for one in sentences]
        score = logistic(_log_odds(sentences, acts))
        return Reading(score, tuple(one.span("event") for one, act in zip(sentences, acts, strict=True) if act >= 0.9))


def _log_odds(sentences: Sequence[OwnSentence], acts: Sequence[float]) -> float:
    count = sum(acts)
    if not sentences or count < 0.5:
        return BIAS
    telling = [one.words[:1500] for one, act in zip(sentences, acts, strict=True) if act >= 0.9]
    density = count / len(sentences)
    timed = sum(bool(_TIME.search(words)) for words in telling)
    return (
        BIAS
        + EACH_EVENT * min(count, MOST_EVENTS)
        + DENSITY * (min(density, 1.5) - 0.5)
        + TEMPORAL * min(timed, 3)
        + OPENING * any(_OPENING.search(one.words[:1500]) for one in sentences)
        + SPEECH * any(_SPEECH.search(one.words[:1500]) for one in sentences)
        + SPARSE * (density < 0.2)
    )


def _acts(sentence: str) -> float:
    """How much is told to have happened in one sentence: 1 for each act of a person, less for states."""
    if sentence.endswith("?"):
        return 0.0
    words = tokens(sentence)
    unreal, habit = bool(_UNREAL.search(sentence)), bool(_HABIT.search(sentence))
    total, last_act = 0.0, -99
    for index, word in enumerate(words):
        low = word.lower()
        shown = low in PUNCTUAL_PRESENT or (low in I_PRESENT and index > 0 and words[index - 1] == "I")
        present = shown and not habit and not unreal
        if not present and (not word[0].isalpha() or not is_past(words, index)):
            continue
        thing = not present and index > 0 and words[index - 1].lower() in _THINGS and low not in STATIVE
        chained = last_act >= 0 and index - last_act <= 14 and any(w in _COMPANY for w in words[last_act + 1 : index])
        if present and not (_person_before(words, index, near=3) or chained):
            continue
        if not present and not (_person_before(words, index, near=_BACK) or chained or thing):
            continue
        if unreal and not present and low in STATIVE:
            continue
        total += _STATIVE_WEIGHT if low in STATIVE else _PRESENT_WEIGHT if present else _THING_WEIGHT if thing else 1.0
        if low not in ("was", "were", "had"):
            last_act = index
    return min(total, 4.0) * (0.4 if unreal else 1.0)


def _person_before(words: list[str], index: int, near: int) -> bool:
    """Whether a person, creature or name stands shortly before the verb, in its clause."""
    for back in range(1, near + 1):
        if back > index:
            return False
        word = words[index - back]
        if word in _STOP:
            return False
        low = word.lower()
        if low in PERSONS:
            return True
        if word[0].isupper() and word.isalpha() and not word.isupper() and index - back > 0 and back <= 2:
            return True  # a name within the sentence
        if index == back and back == 1 and word.isalpha() and word[0].isupper() and low not in _NOT_NAMES:
            return not low.endswith("s") and len(low) > 2  # "Tom looked"; "Wages lagged" has no name
    return False


_NOT_NAMES = word_set(
    "it this that these those there which what inflation consumption nothing something everything all most some many "
    "both each sales costs then yet still here unemployment growth production demand income trade output prices "
    "wages water light rain music work time life nature"
)
