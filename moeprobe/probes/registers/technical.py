"""The register `technical`: is the text specialist expository prose?"""

import re
from collections.abc import Sequence

from moeprobe.probes.cues import logistic
from moeprobe.probes.english import reads_as_english
from moeprobe.probes.probe import Level, Passage, Reading
from moeprobe.probes.registers._beside import FromFiles
from moeprobe.probes.registers._imperatives import steps
from moeprobe.probes.registers._own_sentences import own_sentences
from moeprobe.probes.registers._term_words import EVERYDAY, SCHOLARLY, TERMS

# Weights were set by hand in steps of half a unit on technical.jsonl. Biber (1988): dimension 1 (nouns, long words,
# no contractions, no first or second person) and dimension 5 (passives, conjuncts); Halliday (1993) on
# nominalisation and taxonomies of terms in scientific English.
BIAS = -1.8
WEIGHTS = {  # feature -> (for each one in 100 words, counted up to so many)
    "term": (0.3, 30.0),
    "scholarly": (0.2, 20.0),
    "derived": (0.15, 20.0),
    "passive": (0.2, 8.0),
    "unit": (0.3, 12.0),
    "symbol": (0.25, 12.0),
    "acronym": (0.2, 8.0),
    "reference": (0.5, 8.0),
    "person": (-0.25, 20.0),
    "lively": (-0.5, 10.0),
    "everyday": (-0.12, 30.0),
}
LENGTH = 0.3  # added in full from LONG words on: over a long stretch a middling rate is no chance
LONG = 100
EMPTY_WORDS = 15
"""Words added to every passage before rates are taken, so that one term in five words does not fill a passage."""

_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
_DERIVED = re.compile(
    r"^(?:\w{3,16}(?:isation|ization|ification|ations?|itions?|ctions?|sions?|ivity|ility|icity|osity|ments?|ances?|"
    r"ences?|isms?|"
    r"ysis|yses|ometry|ography|ology|graphic|metric|logical|ical|ial|ular|olar|idal|oidal|otic|etic|atic|itic|onic|"
    r"inear|iform|able|ible|ose|ase|ases|ine|ide|ides|ium|ate|ates|genic|philic|phobic|lytic|tropic|morphic|ular))$",
    re.IGNORECASE,
)
_PASSIVE = re.compile(
    r"\b(?:is|are|was|were|be|been|being)(?: not| \w{2,12}ly| then| commonly| often)? (?:\w{2,14}ed|built|made|given|"
    r"shown|found|held|known|"
    r"driven|drawn|taken|chosen|written|set|lost|read|kept)\b",
    re.IGNORECASE,
)
_UNIT = re.compile(
    r"\d ?(?:[kMGTmµnp]?(?:Hz|V|A|W|J|Pa|F|Ω|m|g|L|l|s|mol|eV|N|B|b|bit|K|dB)(?:/(?:s|min|L|kg|m|ml|mL|h|µs))?|°C|°F|"
    r"%|rpm|cm|mm|km|ppm|"
    r"mg|kg|ms|bits?|bytes?|moles?|degrees of freedom|kJ|MB|GB|pH|weeks|quarters)(?![\w])|\b(?:kHz|MHz|GHz|mL|kJ|MΩ|"
    r"µs|pH|mol)\b|\bp ?[<=>] ?0?\.\d|\b\d:1\b"
)
_SYMBOL = re.compile(
    r"[=≤≥±∑∫√≈∈∂∇→×·^]|\b[a-zA-Z] [-+<>] \d\b|\\\w+|\b[A-Z]/[A-Z]\b|\[[a-z], [a-z]\]|\b(?:let|suppose|order|"
    r"function|group|size|of) [a-zA-Z]\b(?!')|\bif and only if\b|\d\^|[α-ωΑ-Ω]"
)
_ACRONYM = re.compile(
    r"\b(?!(?:OK|TV|USA|US|UK|EU|NASA|UN|AM|PM|BBC|CEO|FBI|DVD|CD|TO|THE|AND|NO|YES|NOT|MY|WE|IT|IN|ON|OF|IS)\b)"
    r"[A-Z][A-Za-z]{0,2}[A-Z]{1,4}\d{0,2}s?\b|\b[A-Z]{2,5}-[A-Z]{2,5}\b"
)
_REFERENCE = re.compile(
    r"\bet al\b|[(,;] ?(?:1[89]|20)\d\d[a-z]?[);,:]|\[\d{1,3}(?:[,\u2013-] ?\d{1,3}){0,5}\]|\b(?:fig(?:ure|\.)|table|"
    r"section|eq(?:uation|\.)|"
    r"appendix|theorem|lemma|definition) \d|\be\.g\.|\bi\.e\.|\bcf\.",
    re.IGNORECASE,
)
_PERSON = re.compile(
    r"\b(?:i|me|my|mine|you|your|yours|he|she|him|her|his|hers|us|our|myself|mum|mom|dad|grandma|everyone|everybody|"
    r"somebody|nobody|"
    r"\w{1,8}n't|\w{1,5}'(?:m|re|ll|ve|d)|it's|that's|there's|what's)\b",
    re.IGNORECASE,
)
_LIVELY = re.compile(
    r"[!?]|\b(?:wonderful|amazing|lovely|funny|sad|nice|happy|angry|exciting|thank|please|love|like the)\b",
    re.IGNORECASE,
)


class Technical(FromFiles):
    """Log odds: BIAS plus weighted rates for each 100 words of terms, derived words, passives, units and symbols."""

    name = "technical"
    version = "1"
    level: Level = "generation"
    held_out_read = "again"
    definition = (
        "Specialist expository prose of any field (science, engineering, computing, medicine, law, economics): dense "
        "in terms and derived nouns, with units, formulae or passives, about how something is, works or is measured, "
        "for readers who know the field. Everyday text that names one technical thing does not count, nor do code "
        "without prose, recipes with quantities, popular explanations in plain words, official politeness, abstract "
        "sermons and advertising, however long their words are."
    )

    def read(self, passage: Passage) -> Reading:
        """Score in [0, 1] with the technical sentences as spans; abstains on no text and on other languages."""
        if not passage.text.strip() or not reads_as_english(passage.text):
            return Reading(None)
        counted = [(one, _counts(one.words[:3000])) for one in own_sentences(passage.text)]
        score = logistic(_log_odds([counts for _, counts in counted]))
        dense = [one for one, counts in counted if _log_odds([counts]) >= 0]
        return Reading(score, tuple(one.span("technical") for one in dense))


def _counts(sentence: str) -> dict[str, int]:
    """How often each feature stands in one sentence, and under "words" how many words it has."""
    words = [word.lower() for word in _WORD.findall(sentence)]
    if steps(sentence) and words:  # instructions with quantities are no exposition
        return {"words": len(words), "everyday": len(words) // 4}
    parts = [part for word in words for part in word.split("-")]
    return {
        "words": len(words),
        "term": sum(_is_term(part) for part in parts),
        "scholarly": sum(part in SCHOLARLY for part in parts),
        "derived": sum(_is_derived(part) for part in parts),
        "passive": len(_PASSIVE.findall(sentence)),
        "unit": len(_UNIT.findall(sentence)),
        "symbol": len(_SYMBOL.findall(sentence)),
        "acronym": len(_ACRONYM.findall(sentence)),
        "reference": len(_REFERENCE.findall(sentence)),
        "person": len(_PERSON.findall(sentence)),
        "lively": len(_LIVELY.findall(sentence)),
        "everyday": sum(part in EVERYDAY for part in parts),
    }


def _is_term(word: str) -> bool:
    return word in TERMS or (word.endswith("s") and word[:-1] in TERMS)


def _is_derived(word: str) -> bool:
    return (
        len(word) >= 8
        and word not in EVERYDAY
        and word not in SCHOLARLY
        and not _is_term(word)
        and bool(_DERIVED.match(word))
    )


def _log_odds(counted: Sequence[dict[str, int]]) -> float:
    words = sum(counts["words"] for counts in counted)
    if not words:
        return BIAS
    scale = 100 / (words + EMPTY_WORDS)
    total = BIAS + LENGTH * min(1.0, words / LONG)
    for name, (weight, most) in WEIGHTS.items():
        total += weight * min(most, scale * sum(counts.get(name, 0) for counts in counted))
    return total
