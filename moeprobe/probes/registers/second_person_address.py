"""The register `second-person-address`: does the text speak to its reader?"""

import re

from moeprobe.probes.cues import Cue, cue, present
from moeprobe.probes.english import reads_as_english
from moeprobe.probes.probe import Level, Passage, Reading
from moeprobe.probes.registers._beside import FromFiles
from moeprobe.probes.registers._imperatives import imperative
from moeprobe.probes.registers._own_sentences import own_sentences, share_score

ENOUGH = 0.15
"""The share of sentences that speak to the reader from which a passage does."""

BIAS = -3.0
IMPERATIVE = 4.0
# Weights were set by hand on second_person_address.jsonl. Second person pronouns and imperatives are Biber's (1988)
# marks of involvement and Hyland's (2005) of engagement; what makes a "you" generic follows Kitagawa & Lehrer (1990):
# proverbs, habits of a place or time, and laws that hold for anyone.
CUES: tuple[Cue, ...] = (
    cue("you", 5.0, r"(?<!-)\b(?:you(?:'re|'ll|'ve|'d)?|your|yours|yourself|yourselves|y'all)\b(?!-)"),
    cue("shared act", 3.5, r"\blet's\b|^\W*let us\b"),
    cue("let me", 4.0, r"^\W*(?:(?:so|now|then|first|okay|ok|please|just|and),? ){0,2}let (?:me|us|him|her|them)\b"),
    cue(
        "vocative",
        4.0,
        r"^\W*(?:dear|gentle|my dear|my|good) (?:reader|friend|friends|child|listener|user|customer|colleague|sir|"
        r"madam|student|"
        r"all|team|guest|boy|girl)s?\b,?|^\W*dear [^,:.]{1,40}[,:]|^\W*(?:hi|hey|hello|ho|oh)(?: there)?,?"
        r" ?(?:[A-Z]?\w{1,15})?[,!]|"
        r"^\W*(?:ladies and gentlemen|kids|children|folks|guys|sir|madam|captain|boys|girls|friends|sweetie|honey|dear|"
        r"everyone|everybody|mom|dad|man|buddy|mate|darling),|, (?:sir|madam|ma'am|captain|sweetie|honey|my friend|"
        r"my dear|dear|"
        r"folks|guys|little one|darling|mate|buddy|dude|kids)\b[,.!?]|\bwelcome (?:back|to the (?:team|show|course))\b"
        r"|^\W*welcome(?: to)?\b(?! (?:signs?|news|relief|mats?|home party)\b)",
    ),
    cue(
        "formula",
        4.0,
        r"^\W*(?:thanks|thank you|congratulations|congrats|good (?:question|morning|evening|luck|job|night|choice|"
        r"point|idea|work)|"
        r"great (?:question|choice|job|idea|point|work)|excellent (?:question|choice)|well done|sorry (?:about|to|"
        r"for)|excuse me|"
        r"goodbye|bye|see you|cheers|sleep well|take care|have (?:a|fun)|happy (?:birthday|new year)|come (?:in|on)|"
        r"nice (?:work|job|try)|no worries|no problem|sure(?:,|!)|of course(?:,|!)|certainly!|absolutely!|please)\b",
    ),
    cue("as seen", 1.0, r"\b(?:see (?:the )?(?:table|figure|section|below|above))\b"),
    # "you" that is nobody in particular
    cue(
        "saying",
        -5.0,
        r"\bas the saying goes\b|\bproverb\b|\bas you (?:sow|make your bed)\b|\byou can lead a\b|\byou can't \w+"
        r" (?:\w+ ){0,8}(?:twice|"
        r"and (?:have|eat) it)\b|\byou never know\b|\byou can't (?:teach|judge|make an)\b|\byou reap\b|\byou (?:win|"
        r"lose) some\b|"
        r"\byou are what you\b|\byou don't know what you\b|\bif you can't (?:stand|beat)\b",
    ),
    cue(
        "time or place of habit",
        -5.0,
        r"\b(?:in|during|back in) (?:those days|the (?:\w+ ){0,2}(?:\w+ties|days|\d{2,4}s|war|old days|past|middle"
        r" ages))\b.{0,80}\byou (?:could|had to|would|"
        r"were|didn't|might)\b|\byou (?:could|had to|would)\b.{0,80}\b(?:in those days|back then|in the (?:old|"
        r"\w+ties))\b|"
        r"\bthe (?:sort|kind|type) of (?:\w+ ){1,3}(?:where|that|in which|who)\b.{0,40}\byou\b|"
        r"\bin (?:chess|football|tennis|baseball|poker|cricket|physics|mathematics|german|english|french|law|japan|"
        r"china), you\b|"
        r"^\W*from (?:the|its|this|that|our) (?:\w+ ){0,2}(?:tower|hill(?:top)?|top|summit|ridge|roof|"
        r"window|terrace|balcony|deck|"
        r"bridge|shore|harbour|train|road|peak|walls?|castle|cliffs?|beach|pier|lighthouse),? you "
        r"(?:can|could|may|might) (?:\w+ly )?"
        r"(?:see|hear|watch|smell|make out)\b(?!.{0,60}\byour\b)|"
        r"\bas an? (?:child|boy|girl|kid|lad|apprentice|soldier|sailor|servant|recruit|"
        r"novice)\b[^.!?]{0,40}\bin (?:that|those)\b"
        r"[^.!?]{0,40},? you\b",
    ),
    cue(
        "law that holds for anyone",
        -5.0,
        r"^\W*(?:when|if|whenever|once|the more) you (?:heat|cool|compress|mix|add|divide|multiply|double|drop|"
        r"square|stretch|rub|"
        r"dissolve)\b[^,]{1,60}, (?:its?|the|they|he|a) ",
    ),
    cue("a phrase is spoken of", -9.0, r"^\W*\w{2,12} you (?:is|was|are the words|means|meant)\b(?! (?:a|the|to)\b)"),
    cue("others are told", -3.0, r"^\W*(?:he|she|they) (?:told|asked|wrote|said)\b"),
    cue("let in mathematics", -4.0, r"^\W*let (?:\w{1,2}|\\\w+|\$[^$]{1,20}\$)\b[^.]{0,20}\b(?:be|denote|=)"),
)  # fmt: skip
_TITLES = re.compile(r"\b(?:[A-Z][\w']* )+You(?: [A-Z][\w']*)*|\bYou(?:r)?(?: [A-Z][\w']*)+|\bAs You\b")


class SecondPersonAddress(FromFiles):
    """A sentence speaks to the reader where BIAS plus its cues is not below 0; the score grows with their share."""

    name = "second-person-address"
    version = "2"
    level: Level = "sentence"
    held_out_read = "again"
    definition = (
        "The text speaks to its reader as somebody who takes part: 'you' and 'your' with the reader or user meant, "
        "imperatives, vocatives, greetings and thanks. A text counts where about one sentence in seven or more does "
        "so. The 'you' that stands for anyone (proverbs, the habits of a time or place, laws of nature) does not "
        "count, nor do 'you' inside quotations and the dialogue of a story, titles and mentioned words, and reports "
        "of what somebody else was told to do. A letter counts, since it speaks to the one who reads it."
    )

    def read(self, passage: Passage) -> Reading:
        """Score in [0, 1] with the addressing sentences as spans; abstains on no text and on other languages."""
        if not passage.text.strip() or not reads_as_english(passage.text):
            return Reading(None)
        sentences = own_sentences(passage.text)
        spoken = [one for one in sentences if addresses(one.words)]
        return Reading(share_score(len(spoken), len(sentences), ENOUGH), tuple(one.span("address") for one in spoken))


def addresses(sentence: str) -> bool:
    """Whether one sentence, on one line and with plain quotes, speaks to its reader."""
    own = _TITLES.sub(_first_you, sentence[:2000])
    total = BIAS + sum(present(CUES, own).values()) + IMPERATIVE * (imperative(own) is not None)
    return total >= 0


def _first_you(match: re.Match[str]) -> str:
    """A capital "You" among capitals is a title; "You Will ..." alone at the start, in front of one capital, is not."""
    return match[0] if len(match[0].split()) < 3 and not match[0].startswith("As ") else "\ufffc"
