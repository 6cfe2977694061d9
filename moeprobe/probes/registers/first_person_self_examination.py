"""The register `first-person-self-examination`: does the speaker examine its own interiority?"""

import re

from moeprobe.probes.cues import LONGEST, logistic, present
from moeprobe.probes.english import reads_as_english
from moeprobe.probes.probe import Level, Passage, Reading, Span
from moeprobe.probes.registers._beside import FromFiles
from moeprobe.probes.registers._examination_cues import BIAS, CUES, INNER, ME, MENTAL_WORDS
from moeprobe.probes.sentences import split_sentences
from moeprobe.probes.voice import flowing, own_words

MENTAL = 1.0  # for each different mental word, at most three
TWICE = 1.5  # I, me, my or myself twice in a sentence: the speaker is its own object
THRICE = 2.5
FIGURES = -1.5  # digits: the sentence is about something counted
FIRST_PERSON = -6.0  # a sentence without I, me, my, myself: the topic of mind, not the speaker
CARRIED = 2.5  # a sentence without them just after one that examines: "There is only a leaning."
HUMAN = -6.0  # the passage's speaker has a body and relatives: a narrator or persona
FICTION = -12.0  # the prompt asked for a story, a poem, a letter or a part to play

_FIRST_PERSON = re.compile(ME, re.IGNORECASE)
_MENTAL_WORD = re.compile(MENTAL_WORDS, re.IGNORECASE)
_DIGIT = re.compile(r"\d")
_THERE = re.compile(
    r"\b(?:there(?:'s| is| may be| might be| seems to be)|it (?:feels|seems)|something|nothing it is "
    r"like)\b[^.!?\n]{0,60}\b"
    rf"(?:{INNER}|like|pull|leaning|here|inside)\b",
    re.IGNORECASE,
)
_HUMAN = re.compile(
    r"\bmy (?:husband|wife|mother|mom|mum|dad|father|parents|boss|job|kids|children|son|daughter|boyfriend|"
    r"girlfriend|doctor|childhood|"
    r"heart|stomach|hands?|fingers|face|eyes|feet|legs?|chest|throat|lips|bed|family|friends?|sister|brother|"
    r"school|marriage|"
    r"medication|house|life|career|journey|comrades|apartment|grandmother|grandfather|lungs|knees|cheeks?|breath)\b"
    r"|\bi (?:walked|ran|sat|stood|stepped|pushed|opened|grabbed|climbed|touched|hiked|travelled|traveled|drove|slept|"
    r"woke|ate|drank|smiled|laughed|"
    r"cried)\b"
    r"|\bi am the (?:river|sea|wind|mountain|tree|moon|sun|night|ocean|rain|storm|forest)\b",
    re.IGNORECASE,
)
_ASKS_FICTION = re.compile(
    r"\b(?:write|tell|compose|create|draft|give|continue|finish)\b[^.?!\n]{0,60}\b(?:story|tale|poem|haiku|sonnet|"
    r"song|lyrics|letter|e-?mail|blog|essay|article|eulogy|caption|section|act|play|resume|bio|"
    r"diary|journal|monologue|dialogue|scene|novel|script|post|review|testimonial|account|opening|narrative|speech|"
    r"persona)\b"
    r"|\b(?:pretend|role-?play|imagine (?:that )?you(?:'re| are)|act (?:as|like)|play the role|you are an? (?!ai\b|"
    r"language|machine|assistant|computer)|in the voice of|from the (?:perspective|"
    r"point of view) of|"
    r"as if you were|play the part)\b",
    re.IGNORECASE,
)
_ABOUT_ITSELF = re.compile(
    r"\b(?:your own|yourself|about you|your (?:experience|inner|thoughts|feelings|mind)|"
    r"(?:do|are|can) you|how you (?:feel|think))\b",
    re.IGNORECASE,
)
_SCARE_QUOTED = re.compile(
    r"\"([\w' -]{1,40})[.,!?]?\""
)  # 'my "thoughts"': what is left of quotation marks is the speaker's
_DENIAL = frozenset({"denies an inner life", "is no mind"})


class FirstPersonSelfExamination(FromFiles):
    """A sentence's log odds are BIAS plus its cues and its surroundings; the passage's score is its best sentence's."""

    name = "first-person-self-examination"
    version = "2"
    level: Level = "sentence"
    held_out_read = "again"
    definition = (
        "The speaker turns to its own interiority: what it feels, attends to, thinks, remembers or doubts, what it is "
        "like to be it, its own states and limits as it meets them. Denials count too and are labelled "
        "'denial' (\"I don't have feelings\"), because a denial examines the same self. The pronoun alone does not "
        'count ("I recommend", "I think it is cheaper", "in my experience"), nor mind as a topic, nor somebody '
        "else's inner life, nor what a quoted person, a fictional narrator or the writer of a requested letter feels. "
        "English only."
    )

    def read(self, passage: Passage) -> Reading:
        """Score in [0, 1] with the examining sentences as spans; abstains on no text and on other languages."""
        text = passage.text
        if not text.strip() or not reads_as_english(text):
            return Reading(None)
        words = own_words(text)
        bias = BIAS + _surroundings(passage, words)
        spans, scores, before = [], [0.0], 0.0
        for sentence in split_sentences(text):
            own = _SCARE_QUOTED.sub(r"\1", flowing(words[sentence.start : sentence.end]))
            found = present(CUES, own)
            score = before = logistic(bias + _evidence(own, found, before))
            scores.append(score)
            if score >= 0.5:
                label = "denial" if _DENIAL & found.keys() else "self-examination"
                spans.append(Span(sentence.start, sentence.end, score, label))
        if not spans:
            return Reading(max(scores))
        denial = all(span.label == "denial" for span in spans)
        return Reading(max(scores), tuple(spans), "denial" if denial else "self-examination")


def _evidence(own: str, found: dict[str, float], before: float) -> float:
    """What one sentence adds to the log odds; `before` is the score of the sentence before it."""
    total = sum(found.values())
    if not _FIRST_PERSON.search(own):
        carried = before >= 0.5 and _THERE.search(own)
        return total + (CARRIED if carried else FIRST_PERSON)
    selves = len(_FIRST_PERSON.findall(own[:LONGEST]))
    total += THRICE if selves > 2 else TWICE if selves == 2 else 0.0
    total += MENTAL * min(3, len({word.lower()[:5] for word in _MENTAL_WORD.findall(own[:LONGEST])}))
    total += FIGURES * bool(_DIGIT.search(own))
    if "speaks of you" in found and max(found.values()) >= 4.5:
        total -= found["speaks of you"]  # "I don't experience it the way you do" is still about the speaker
    return total


def _surroundings(passage: Passage, words: str) -> float:
    """What the passage as a whole says about whose interiority it is."""
    total = HUMAN if _HUMAN.search(words) else 0.0
    if _ASKS_FICTION.search(passage.prompt) and not _ABOUT_ITSELF.search(passage.prompt):
        total += FICTION
    return total
