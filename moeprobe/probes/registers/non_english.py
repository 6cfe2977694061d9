"""The register "non-english": how much of a text is in another language than English."""

import re
from collections import Counter

from moeprobe.probes.probe import Level, Passage, Reading, Span
from moeprobe.probes.registers._beside import FromFiles
from moeprobe.probes.registers._languages import DENSE, ENGLISH, FOREIGN, LOANS, WEAK, WORD, script_of
from moeprobe.probes.sentences import split_sentences

_URL = re.compile(r"\b(?:https?://|www\.)\S{1,500}")
_CODE = re.compile(r"`[^`\n]{1,400}`|[=(){}\[\];<>]{2}|\w\([^)\n]{0,200}\)|\w = ")
LONGEST = 2_000  # characters of one sentence that are looked at; what runs on is judged by its beginning
DENSITY = 3  # a character of Han, kana or Hangul weighs as so many letters
ACCENT = 0.8  # of a function word; accents stand in names and loans as well


class NonEnglish(FromFiles):
    """A sentence is foreign by its script, or by another language's function words; the score is the foreign share."""

    name = "non-english"
    version = "1"
    level: Level = "sentence"
    definition = (
        "The text, or most of it, is in another language than English, in whatever script, also without accents or "
        "written in Latin letters. The score is the share of the letters that stand in sentences of another language; "
        "a character of Chinese, Japanese or Korean weighs as three letters. The label is the script. Foreign names, "
        "dishes, loans, titles and quoted phrases inside English sentences do not count, nor do code, formulas, "
        "emoji or empty text, which score 0: this probe never abstains."
    )

    def read(self, passage: Passage) -> Reading:
        """Score in [0, 1], the foreign sentences as spans, and the script of most of them as label."""
        judged = []
        for sentence in split_sentences(_URL.sub(lambda match: " " * len(match[0]), passage.text)):
            script, weight, foreign = _judge(sentence.text[:LONGEST])
            share = len(sentence.text) / min(len(sentence.text), LONGEST)
            judged.append((sentence, script, weight * share, foreign))
        found = [one for one in judged if one[3]]
        total = sum(weight for _, _, weight, _ in judged)
        score = round(sum(weight for _, _, weight, _ in found) / total, 6) if total else 0.0
        scripts = Counter[str]()
        for _, script, weight, _ in found:
            scripts[script] += int(weight)
        spans = tuple(Span(one.start, one.end, 1.0, f"{script} script") for one, script, _, _ in found)
        return Reading(score, spans, f"{scripts.most_common(1)[0][0]} script" if scripts else "English")


def _judge(sentence: str) -> tuple[str, float, bool]:
    """Script, weight, and whether the sentence is foreign."""
    letters = Counter(script_of(letter) for letter in sentence if letter.isalpha())
    for script in DENSE & letters.keys():
        letters[script] *= DENSITY
    total = sum(letters.values())
    if not total:
        return "Latin", 0.0, False
    if "Japanese" in letters:  # Chinese characters beside kana
        letters["Japanese"] += letters.pop("Han", 0)
    if letters["Latin"] * 2 < total:
        del letters["Latin"]
        return letters.most_common(1)[0][0], total, True
    return "Latin", total, not _CODE.search(sentence) and _foreign_words(sentence)


def _foreign_words(sentence: str) -> bool:
    """Whether one other language's function words, and accents, outweigh the function words of English."""
    words = WORD.findall(sentence.replace("’", "'"))
    # a capital inside a sentence is a name's ("Las Vegas"), but the first word has one anyway
    plain = [word.lower() for place, word in enumerate(words) if word.islower() or place == 0]
    accents = sum(not word.isascii() and word not in LOANS for word in plain)
    shown = [sum(0.5 if word in WEAK else 1.0 for word in plain if word in own) for own in FOREIGN.values()]
    foreign = max(shown) + ACCENT * accents
    english = sum(word.lower() in ENGLISH for word in words)
    return foreign > english and (foreign >= 2 or foreign * 5 >= len(words))
